"""The latest size of every database or instance in a range, which a server that did not answer does not lower.

A key counts with its own latest row of the range, as long as it is still there: its instance belongs to the fleet, or
answered again later, and the last visit to it still listed the database. An instance that left counts in the newest
window if nobody was visited after it. One whose row lacks databases that could not be measured counts with their latest
sizes too.
"""

from __future__ import annotations

from whalefall_capacity.store.aggregations.statements import Level

# The fleet, and for a range of the past whoever was measured after it.
STILL_THERE = """
(i.is_active AND i.deleted_at IS NULL
 OR EXISTS (SELECT FROM instance_size_stats AS later
            WHERE later.instance_id = i.id AND later.collected_date > :newest_end))
"""
# Down the primary key (instance_id, collected_date), to its first row.
LAST_TOTAL = """
(SELECT total.collected_date FROM instance_size_stats AS total
 WHERE total.instance_id = i.id AND total.collected_date BETWEEN :first AND :newest_end {of_source}
 ORDER BY total.collected_date DESC LIMIT 1)
"""
LAST_DAY = LAST_TOTAL.format(of_source="")
# An import lists nothing: it counts only where there was no visit at all.
LAST_VISIT = "coalesce({}, {})".format(LAST_TOTAL.format(of_source="AND total.source = 'measured'"), LAST_DAY)
# The rows of the newest window by its BRIN index. A full join is always hashed or merged: rows written a moment ago,
# of which the planner has no statistics, cannot turn it into a loop. A database that was listed on the last day of all
# counts; only of the others, and of their servers, is anything looked up, by the primary key.
DATABASE_SIZES = (
    """
WITH known AS MATERIALIZED (
    SELECT instance_id, database_name, last_seen_date, newest.data_count, newest.sum_size_bytes
    FROM (SELECT instance_id, database_name, last_seen_date FROM instance_databases
          WHERE last_seen_date >= :first AND {scope}) AS listed
    FULL JOIN (SELECT instance_id, database_name, data_count, sum_size_bytes FROM database_size_aggregations
               WHERE period_type = :period_type AND period_start = :newest AND {scope}) AS newest
         USING (instance_id, database_name)
), newest_listing AS MATERIALIZED (
    SELECT least(:newest_end, max(last_seen_date)) AS day FROM known
), doubtful AS MATERIALIZED (
    SELECT * FROM known
    WHERE data_count IS NULL OR (last_seen_date >= (SELECT day FROM newest_listing)) IS NOT TRUE
), places AS MATERIALIZED (
    SELECT i.id AS instance_id, <last_visit> AS visited_on, CASE WHEN NOT <still_there> THEN <last_day> END AS left_on
    FROM instances AS i WHERE i.id IN (SELECT instance_id FROM doubtful)
), sizes AS MATERIALIZED (
    SELECT instance_id, database_name, data_count, sum_size_bytes FROM known
    WHERE data_count IS NOT NULL AND last_seen_date >= (SELECT day FROM newest_listing)
    UNION ALL
    SELECT instance_id, database_name, data_count, sum_size_bytes
    FROM doubtful
    JOIN places USING (instance_id)
    WHERE data_count IS NOT NULL AND (last_seen_date < visited_on) IS NOT TRUE
      AND (left_on IS NULL
           OR left_on >= (SELECT max(<last_visit>) FROM instances AS i WHERE i.id IN (SELECT instance_id FROM known)))
    UNION ALL
    SELECT doubtful.instance_id, doubtful.database_name, earlier.data_count, earlier.sum_size_bytes
    FROM doubtful
    JOIN places USING (instance_id)
    CROSS JOIN LATERAL (
        SELECT data_count, sum_size_bytes FROM database_size_aggregations AS a
        WHERE a.instance_id = doubtful.instance_id AND a.database_name = doubtful.database_name
          AND a.period_type = :period_type AND a.period_start >= :first AND a.period_start < :newest
        ORDER BY a.period_start DESC LIMIT 1) AS earlier
    WHERE doubtful.data_count IS NULL AND last_seen_date >= visited_on AND left_on IS NULL
)
""".replace("<last_visit>", LAST_VISIT)
    .replace("<still_there>", STILL_THERE)
    .replace("<last_day>", LAST_DAY)
)
# As many days without a complete one as days that count: then a look at the days tells which they were.
LACKS_DATABASES = """
(latest.partial_days > 0 AND latest.partial_days = latest.data_count
 AND NOT EXISTS (SELECT FROM instance_size_stats AS day
                 WHERE day.instance_id = latest.instance_id AND day.missing_count = 0
                   AND day.collected_date BETWEEN :first AND :newest_end
                   AND day.collected_date BETWEEN latest.period_start AND latest.period_end))
"""
# Whoever left before others were visited is left out by a set, which is hashed: a join of rows without statistics could
# become a loop.
INSTANCE_SIZES = (
    """
WITH newest AS MATERIALIZED (
    SELECT instance_id, period_start, period_end, data_count, partial_days, sum_size_bytes, sum_database_count
    FROM instance_size_aggregations
    WHERE period_type = :period_type AND period_start = :newest AND {scope}
), latest AS MATERIALIZED (
    SELECT * FROM newest
    WHERE instance_id NOT IN (
        SELECT i.id FROM instances AS i
        WHERE NOT <still_there> AND i.id IN (SELECT instance_id FROM newest)
          AND <last_day> < (SELECT max(<last_visit>) FROM newest JOIN instances AS i ON i.id = newest.instance_id))
    UNION ALL
    SELECT earlier.*
    FROM (SELECT * FROM (SELECT *, id AS instance_id FROM instances) AS every WHERE {scope}) AS i
    CROSS JOIN LATERAL (
        SELECT instance_id, period_start, period_end, data_count, partial_days, sum_size_bytes, sum_database_count
        FROM instance_size_aggregations AS a
        WHERE a.instance_id = i.id AND a.period_type = :period_type
          AND a.period_start >= :first AND a.period_start < :newest
        ORDER BY a.period_start DESC LIMIT 1) AS earlier
    WHERE i.id NOT IN (SELECT instance_id FROM newest) AND <still_there>
), lacking AS MATERIALIZED (
    SELECT latest.instance_id, count(*) AS databases, sum(earlier.sum_size_bytes / earlier.data_count) AS size
    FROM latest
    JOIN instances AS i ON i.id = latest.instance_id
    JOIN instance_databases AS listed
      ON listed.instance_id = latest.instance_id AND listed.last_seen_date >= <last_visit>
    CROSS JOIN LATERAL (
        SELECT period_start, data_count, sum_size_bytes FROM database_size_aggregations AS a
        WHERE a.instance_id = listed.instance_id AND a.database_name = listed.database_name
          AND a.period_type = :period_type AND a.period_start BETWEEN :first AND :newest
          AND a.period_start <= latest.period_start
        ORDER BY a.period_start DESC LIMIT 1) AS earlier
    WHERE earlier.period_start < latest.period_start AND <lacks_databases>
    GROUP BY latest.instance_id
), sizes AS MATERIALIZED (
    SELECT instance_id, sum_size_bytes / data_count + coalesce(lacking.size, 0) AS size,
           CAST(sum_database_count AS numeric) / data_count + coalesce(lacking.databases, 0) AS databases
    FROM latest LEFT JOIN lacking USING (instance_id)
)
""".replace("<last_day>", LAST_DAY)
    .replace("<last_visit>", LAST_VISIT)
    .replace("<still_there>", STILL_THERE)
    .replace("<lacks_databases>", LACKS_DATABASES)
)
# A statement that begins with these has `sizes`: of databases sum and days, of instances the size.
LATEST_SIZES = {Level.DATABASE: DATABASE_SIZES, Level.INSTANCE: INSTANCE_SIZES}
