"""The latest size of every database or instance in a range, which a server that did not answer does not lower.

A key without a row in the newest window counts with its own latest row of the range, as long as it is still there: its
instance belongs to the fleet, or answered again later, and the last visit to it still listed the database. An instance
whose row lacks databases that could not be measured counts with their latest sizes too.
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
# An import lists nothing: it counts only where there was no visit at all.
LAST_VISIT = "coalesce({}, {})".format(
    LAST_TOTAL.format(of_source="AND total.source = 'measured'"), LAST_TOTAL.format(of_source="")
)
# The rows of the newest window by its BRIN index. A full join is always hashed or merged: rows written a moment ago,
# of which the planner has no statistics, cannot turn it into a loop. Only for databases without a row is anything
# looked up, by the primary key.
DATABASE_SIZES = """
WITH known AS MATERIALIZED (
    SELECT instance_id, database_name, newest.data_count, newest.sum_size_bytes
    FROM (SELECT instance_id, database_name, last_seen_date FROM instance_databases
          WHERE last_seen_date >= :first AND {scope}) AS listed
    FULL JOIN (SELECT instance_id, database_name, data_count, sum_size_bytes FROM database_size_aggregations
               WHERE period_type = :period_type AND period_start = :newest AND {scope}) AS newest
         USING (instance_id, database_name)
), places AS MATERIALIZED (
    SELECT i.id AS instance_id, <last_visit> AS visited_on FROM instances AS i
    WHERE i.id IN (SELECT instance_id FROM known WHERE data_count IS NULL) AND <still_there>
), sizes AS MATERIALIZED (
    SELECT instance_id, database_name, data_count, sum_size_bytes FROM known WHERE data_count IS NOT NULL
    UNION ALL
    SELECT known.instance_id, known.database_name, earlier.data_count, earlier.sum_size_bytes
    FROM known
    JOIN places USING (instance_id)
    JOIN instance_databases AS listed
      ON listed.instance_id = known.instance_id AND listed.database_name = known.database_name
     AND listed.last_seen_date >= places.visited_on
    CROSS JOIN LATERAL (
        SELECT data_count, sum_size_bytes FROM database_size_aggregations AS a
        WHERE a.instance_id = known.instance_id AND a.database_name = known.database_name
          AND a.period_type = :period_type AND a.period_start >= :first AND a.period_start < :newest
        ORDER BY a.period_start DESC LIMIT 1) AS earlier
    WHERE known.data_count IS NULL
)
""".replace("<last_visit>", LAST_VISIT).replace("<still_there>", STILL_THERE)
# As many days without a complete one as days that count: then a look at the days tells which they were.
LACKS_DATABASES = """
(latest.partial_days > 0 AND latest.partial_days = latest.data_count
 AND NOT EXISTS (SELECT FROM instance_size_stats AS day
                 WHERE day.instance_id = latest.instance_id AND day.missing_count = 0
                   AND day.collected_date BETWEEN :first AND :newest_end
                   AND day.collected_date BETWEEN latest.period_start AND latest.period_end))
"""
INSTANCE_SIZES = (
    """
WITH newest AS MATERIALIZED (
    SELECT instance_id, period_start, period_end, data_count, partial_days, sum_size_bytes, sum_database_count
    FROM instance_size_aggregations
    WHERE period_type = :period_type AND period_start = :newest AND {scope}
), latest AS MATERIALIZED (
    SELECT * FROM newest
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
""".replace("<last_visit>", LAST_VISIT)
    .replace("<still_there>", STILL_THERE)
    .replace("<lacks_databases>", LACKS_DATABASES)
)
# A statement that begins with these has `sizes`: of databases sum and days, of instances the size.
LATEST_SIZES = {Level.DATABASE: DATABASE_SIZES, Level.INSTANCE: INSTANCE_SIZES}
