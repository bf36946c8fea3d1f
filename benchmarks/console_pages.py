"""Content of the console's pages, asked for by hand: several statements a page, sent at once; the last one is fetched.

They give what a page gives where every server was measured every day, as it was in the store of the benchmark: what
the pages ask beside that, of servers and databases that are missing, is at the expense of the pages.
"""

from __future__ import annotations

RANKING = """
WITH changes AS (
    SELECT {key}, max(abs(size - before)) AS change, max(abs(size - before) / nullif(before, 0)) AS percent
    FROM (SELECT {key}, period_start, closing_size_bytes::float8 AS size,
                 lag(closing_size_bytes::float8) OVER (PARTITION BY {key} ORDER BY period_start) AS before
          FROM {level}_size_aggregations
          WHERE period_type = 'daily' AND period_start BETWEEN %(earliest)s AND %(last)s) AS days
    WHERE period_start >= %(first)s GROUP BY {key}
)
(SELECT {key} FROM changes ORDER BY change DESC LIMIT 5)
UNION ALL (SELECT {key} FROM changes ORDER BY percent DESC LIMIT 5)
UNION ALL (SELECT {key} FROM {level}_size_aggregations
           WHERE period_type = 'daily' AND period_start = %(last)s ORDER BY closing_size_bytes DESC LIMIT 5);
"""
DATABASE_RANKING = RANKING.format(level="database", key="instance_id, database_name")
INSTANCE_RANKING = RANKING.format(level="instance", key="instance_id")
# The total of each day, where a day without a size is bridged, and what is largest and grew most.
OVERVIEW = """
SELECT count(*), count(s.instance_id) FROM instances AS i
LEFT JOIN instance_size_stats AS s ON s.instance_id = i.id AND s.collected_date = %(last)s;
SELECT day, sum(sum(change)) OVER (ORDER BY day), count(*)
FROM (SELECT collected_date AS day, total_size_bytes - lag(total_size_bytes, 1, 0::bigint)
                 OVER (PARTITION BY instance_id ORDER BY collected_date) AS change
      FROM instance_size_stats WHERE collected_date BETWEEN CAST(%(last)s AS date) - 128 AND %(last)s) AS changes
GROUP BY day;
SELECT instance_id, total_size_bytes FROM instance_size_stats WHERE collected_date = %(last)s ORDER BY 2 DESC LIMIT 5;
SELECT instance_id, database_name, size_bytes FROM database_size_stats
WHERE collected_date = %(last)s ORDER BY 3 DESC LIMIT 5;
SELECT s.instance_id, s.total_size_bytes - b.total_size_bytes FROM instance_size_stats AS s
JOIN instance_size_stats AS b ON b.instance_id = s.instance_id AND b.collected_date = CAST(%(last)s AS date) - 30
WHERE s.collected_date = %(last)s ORDER BY 2 DESC LIMIT 5;
SELECT s.instance_id, s.database_name, s.size_bytes - b.size_bytes FROM database_size_stats AS s
JOIN database_size_stats AS b ON b.instance_id = s.instance_id AND b.database_name = s.database_name
                             AND b.collected_date = CAST(%(last)s AS date) - 30
WHERE s.collected_date = %(last)s ORDER BY 3 DESC LIMIT 5;
SELECT d.instance_id, d.database_name FROM instance_databases AS d
LEFT JOIN database_size_stats AS s ON s.instance_id = d.instance_id AND s.database_name = d.database_name
                                  AND s.collected_date = %(last)s
WHERE d.is_active AND s.instance_id IS NULL;
SELECT s.instance_id, s.database_name FROM database_size_stats AS s
JOIN database_size_stats AS b ON b.instance_id = s.instance_id AND b.database_name = s.database_name
                             AND b.collected_date = CAST(%(last)s AS date) - 1
WHERE s.collected_date = %(last)s AND abs(s.size_bytes - b.size_bytes) > 10737418240;
SELECT s.instance_id FROM instance_size_stats AS s
JOIN instance_size_stats AS b ON b.instance_id = s.instance_id AND b.collected_date = CAST(%(last)s AS date) - 1
WHERE s.collected_date = %(last)s AND s.database_count < b.database_count;
SELECT run_id FROM task_runs WHERE closed_at IS NULL ORDER BY created_at LIMIT 10;
SELECT run_id FROM task_runs WHERE status IN ('failed', 'completed_with_errors') ORDER BY closed_at DESC LIMIT 10;
SELECT c.relname, pg_total_relation_size(c.oid), pg_get_expr(c.relpartbound, c.oid)
FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid WHERE c.relkind = 'r';
"""
# A page of a list: which rows first, then what each shows beside its size, and its small line of thirty days.
LISTED = """
SELECT page.instance_id, page.database_name, page.size_bytes, page.name,
       page.size_bytes - week.size_bytes, page.size_bytes - month.size_bytes,
       (SELECT array_agg(size_bytes ORDER BY collected_date) FROM database_size_stats AS trend
        WHERE trend.instance_id = page.instance_id AND trend.database_name = page.database_name
          AND trend.collected_date BETWEEN %(first)s AND %(last)s),
       (SELECT count(*) FROM instance_databases)
FROM (<page>) AS page
LEFT JOIN database_size_stats AS week
    ON week.instance_id = page.instance_id AND week.database_name = page.database_name
   AND week.collected_date = CAST(%(last)s AS date) - 7
LEFT JOIN database_size_stats AS month
    ON month.instance_id = page.instance_id AND month.database_name = page.database_name
   AND month.collected_date = CAST(%(last)s AS date) - 30
ORDER BY <order>
"""
LISTED_BY_NAME = LISTED.replace(
    "<page>",
    """
    SELECT named.*, s.size_bytes
    FROM (SELECT i.name, d.* FROM instances AS i JOIN instance_databases AS d ON d.instance_id = i.id
          ORDER BY i.name, d.database_name LIMIT 50) AS named
    JOIN database_size_stats AS s ON s.instance_id = named.instance_id AND s.database_name = named.database_name
                                 AND s.collected_date = %(last)s
    """,
).replace("<order>", "page.name, page.database_name")
OF_THE_DAY = """
    SELECT i.name, d.instance_id, d.database_name, s.size_bytes{change}
    FROM instance_databases AS d
    JOIN instances AS i ON i.id = d.instance_id
    JOIN database_size_stats AS s ON s.instance_id = d.instance_id AND s.database_name = d.database_name
                                 AND s.collected_date = %(last)s
"""
LARGEST_FIRST = "size_bytes DESC, name, database_name"
EVERY_BY_SIZE = OF_THE_DAY.format(change="") + f" ORDER BY {LARGEST_FIRST}"
LISTED_BY_SIZE = LISTED.replace("<page>", f"{EVERY_BY_SIZE} LIMIT 50 OFFSET {{offset}}").replace(
    "<order>", "page.size_bytes DESC, page.name, page.database_name"
)
LISTED_BY_CHANGE = LISTED.replace(
    "<page>",
    OF_THE_DAY.format(change=", s.size_bytes - b.size_bytes AS change")
    + """
    LEFT JOIN database_size_stats AS b ON b.instance_id = d.instance_id AND b.database_name = d.database_name
                                      AND b.collected_date = CAST(%(last)s AS date) - 30
    ORDER BY change DESC, name, database_name LIMIT 50
    """,
).replace("<order>", "page.change DESC, page.name, page.database_name")
LISTED_INSTANCES = """
SELECT i.id, i.name, s.total_size_bytes, s.database_count, s.total_size_bytes - week.total_size_bytes,
       s.total_size_bytes - month.total_size_bytes,
       (SELECT array_agg(total_size_bytes ORDER BY collected_date) FROM instance_size_stats AS trend
        WHERE trend.instance_id = i.id AND trend.collected_date BETWEEN %(first)s AND %(last)s),
       count(*) OVER ()
FROM instances AS i
JOIN instance_size_stats AS s ON s.instance_id = i.id AND s.collected_date = %(last)s
LEFT JOIN instance_size_stats AS week ON week.instance_id = i.id AND week.collected_date = CAST(%(last)s AS date) - 7
LEFT JOIN instance_size_stats AS month
    ON month.instance_id = i.id AND month.collected_date = CAST(%(last)s AS date) - 30
ORDER BY s.total_size_bytes DESC, i.name LIMIT 50
"""
