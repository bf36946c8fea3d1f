"""The statements of an aggregation, for every level and period type: read, remove, write, sum up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Table, TextClause, text

from whalefall_capacity.periods import PeriodType, Window
from whalefall_capacity.store.postgres.tables import (
    database_size_aggregations,
    database_size_stats,
    instance_size_aggregations,
    instance_size_stats,
)


class Level(StrEnum):
    """The level of an aggregation: every database, or every instance as a whole."""

    DATABASE = "database"
    INSTANCE = "instance"


@dataclass(frozen=True)
class Tables:
    """The tables of a level, and the column of the stats that holds the size."""

    stats: Table
    aggregations: Table
    size: str

    @property
    def key(self) -> list[str]:
        """The columns that tell the rows of one day apart."""
        return [column.name for column in self.stats.primary_key if column.name != "collected_date"]

    @property
    def measures(self) -> list[str]:
        """The columns of the aggregations that are calculated from the stats."""
        return [column.name for column in self.aggregations.columns if column.name not in {*self.key, *NO_MEASURES}]


NO_MEASURES = ("period_type", "period_start", "period_end", "calculated_at", "created_at", "updated_at")
TABLES = {
    Level.DATABASE: Tables(database_size_stats, database_size_aggregations, "size_bytes"),
    Level.INSTANCE: Tables(instance_size_stats, instance_size_aggregations, "total_size_bytes"),
}

# The first day of the window of a day. Weeks by arithmetic: date_trunc takes a third longer. They are counted from a
# Monday before all days: the remainder of a negative number is negative.
BUCKETS = {
    PeriodType.DAILY: "collected_date",
    PeriodType.WEEKLY: "collected_date - (collected_date - DATE '0001-01-01') % 7",
    PeriodType.MONTHLY: "collected_date - (extract(day FROM collected_date)::integer - 1)",
    PeriodType.QUARTERLY: "date_trunc('quarter', collected_date::timestamp)::date",
}
ONE_BUCKET = "CAST(:first AS date)"

SCOPE = """
collected_date BETWEEN :first AND :last AND instance_id BETWEEN :low AND :high
"""

# A day is its own window: nothing to group.
DATABASE_DAYS = """
SELECT instance_id, database_name, collected_date AS period_start,
       1 AS data_count, size_bytes::numeric AS sum_size_bytes, size_bytes AS max_size_bytes,
       size_bytes AS min_size_bytes, size_bytes AS closing_size_bytes,
       CASE WHEN data_size_bytes IS NOT NULL THEN 1 END AS data_size_count,
       data_size_bytes::numeric AS sum_data_size_bytes, data_size_bytes AS max_data_size_bytes,
       data_size_bytes AS min_data_size_bytes, data_size_bytes AS closing_data_size_bytes,
       CASE WHEN log_size_bytes IS NOT NULL THEN 1 END AS log_size_count,
       log_size_bytes::numeric AS sum_log_size_bytes, log_size_bytes AS max_log_size_bytes,
       log_size_bytes AS min_log_size_bytes, log_size_bytes AS closing_log_size_bytes,
       1 AS source_rows, size_bytes::numeric AS source_sum_bytes, updated_at AS source_max_updated_at
FROM database_size_stats
WHERE {scope}
"""
# The closing value of nearly every key is that of the window's last day with stats, which a filter finds in passing;
# the others are looked up one by one, and so are those of a day that landed since that day was read. Ordering the
# values within the aggregate would take 2.6 times as long. The bounds of all windows stand in each look-up so that the
# planner leaves out the table partitions of other months.
DATABASE_PERIODS = """
SELECT instance_id, database_name, period_start,
       data_count, sum_size_bytes, max_size_bytes, min_size_bytes,
       coalesce(CASE WHEN last_day = ANY (:closing_days) THEN closing_size_bytes END, (
           SELECT s.size_bytes FROM database_size_stats AS s
           WHERE s.instance_id = g.instance_id AND s.database_name = g.database_name
             AND s.collected_date BETWEEN :first AND :last
             AND s.collected_date = g.last_day)) AS closing_size_bytes,
       nullif(data_size_count, 0) AS data_size_count, sum_data_size_bytes, max_data_size_bytes, min_data_size_bytes,
       CASE WHEN data_size_count > 0 THEN coalesce(
           CASE WHEN last_day = ANY (:closing_days) THEN closing_data_size_bytes END, (
           SELECT s.data_size_bytes FROM database_size_stats AS s
           WHERE s.instance_id = g.instance_id AND s.database_name = g.database_name
             AND s.collected_date BETWEEN :first AND :last
             AND s.collected_date BETWEEN g.period_start AND g.last_day AND s.data_size_bytes IS NOT NULL
           ORDER BY s.collected_date DESC LIMIT 1)) END AS closing_data_size_bytes,
       nullif(log_size_count, 0) AS log_size_count, sum_log_size_bytes, max_log_size_bytes, min_log_size_bytes,
       CASE WHEN log_size_count > 0 THEN coalesce(
           CASE WHEN last_day = ANY (:closing_days) THEN closing_log_size_bytes END, (
           SELECT s.log_size_bytes FROM database_size_stats AS s
           WHERE s.instance_id = g.instance_id AND s.database_name = g.database_name
             AND s.collected_date BETWEEN :first AND :last
             AND s.collected_date BETWEEN g.period_start AND g.last_day AND s.log_size_bytes IS NOT NULL
           ORDER BY s.collected_date DESC LIMIT 1)) END AS closing_log_size_bytes,
       data_count AS source_rows, sum_size_bytes AS source_sum_bytes, source_max_updated_at
FROM (
    SELECT instance_id, database_name, {bucket} AS period_start,
           count(*)::integer AS data_count, sum(size_bytes) AS sum_size_bytes, max(size_bytes) AS max_size_bytes,
           min(size_bytes) AS min_size_bytes,
           max(size_bytes) FILTER (WHERE collected_date = ANY (:closing_days)) AS closing_size_bytes,
           count(data_size_bytes)::integer AS data_size_count, sum(data_size_bytes) AS sum_data_size_bytes,
           max(data_size_bytes) AS max_data_size_bytes, min(data_size_bytes) AS min_data_size_bytes,
           max(data_size_bytes) FILTER (WHERE collected_date = ANY (:closing_days)) AS closing_data_size_bytes,
           count(log_size_bytes)::integer AS log_size_count, sum(log_size_bytes) AS sum_log_size_bytes,
           max(log_size_bytes) AS max_log_size_bytes, min(log_size_bytes) AS min_log_size_bytes,
           max(log_size_bytes) FILTER (WHERE collected_date = ANY (:closing_days)) AS closing_log_size_bytes,
           max(collected_date) AS last_day, max(updated_at) AS source_max_updated_at
    FROM database_size_stats
    WHERE {scope}
    GROUP BY instance_id, database_name, period_start
) AS g
"""
INSTANCE_DAYS = """
SELECT instance_id, collected_date AS period_start,
       1 AS data_count, total_size_bytes::numeric AS sum_size_bytes, total_size_bytes AS max_size_bytes,
       total_size_bytes AS min_size_bytes, total_size_bytes AS closing_size_bytes,
       CASE WHEN missing_count > 0 THEN 1 ELSE 0 END AS partial_days,
       database_count::bigint AS sum_database_count, database_count AS max_database_count,
       database_count AS min_database_count,
       CASE WHEN log_size_bytes IS NOT NULL THEN 1 END AS log_size_count,
       log_size_bytes::numeric AS sum_log_size_bytes, log_size_bytes AS max_log_size_bytes,
       log_size_bytes AS min_log_size_bytes, log_size_bytes AS closing_log_size_bytes,
       1 AS source_rows, total_size_bytes::numeric AS source_sum_bytes, updated_at AS source_max_updated_at
FROM instance_size_stats
WHERE {scope}
"""
# A day with missing databases counts only where the window has no complete day. Complete and other days are grouped
# apart, which one pass without a sort does; of the two groups of a key the one that counts is then kept. The closing
# days are only likely ones here: a value of such a day counts where it is the last of its key.
INSTANCE_PERIODS = """
SELECT instance_id, period_start, data_count, sum_size_bytes, max_size_bytes, min_size_bytes,
       coalesce(CASE WHEN last_day = ANY (:closing_days) THEN closing_size_bytes END, (
           SELECT s.total_size_bytes FROM instance_size_stats AS s
           WHERE s.instance_id = g.instance_id AND s.collected_date BETWEEN :first AND :last
             AND s.collected_date = g.last_day)) AS closing_size_bytes,
       partial_days, sum_database_count, max_database_count, min_database_count,
       nullif(log_size_count, 0) AS log_size_count, sum_log_size_bytes, max_log_size_bytes, min_log_size_bytes,
       CASE WHEN log_size_count > 0 THEN coalesce(
           CASE WHEN last_day = ANY (:closing_days) THEN closing_log_size_bytes END, (
           SELECT s.log_size_bytes FROM instance_size_stats AS s
           WHERE s.instance_id = g.instance_id AND s.collected_date BETWEEN :first AND :last
             AND s.collected_date BETWEEN g.period_start AND g.last_day AND s.log_size_bytes IS NOT NULL
             AND (s.missing_count = 0) = g.is_complete
           ORDER BY s.collected_date DESC LIMIT 1)) END AS closing_log_size_bytes,
       source_rows, source_sum_bytes, source_max_updated_at
FROM (
    SELECT *, bool_or(is_complete) OVER key AS has_complete_days,
           coalesce(sum(data_count) FILTER (WHERE NOT is_complete) OVER key, 0)::integer AS partial_days,
           sum(data_count) OVER key AS source_rows, sum(sum_size_bytes) OVER key AS source_sum_bytes,
           max(newest) OVER key AS source_max_updated_at
    FROM (
        SELECT instance_id, {bucket} AS period_start, missing_count = 0 AS is_complete,
               count(*)::integer AS data_count, sum(total_size_bytes) AS sum_size_bytes,
               max(total_size_bytes) AS max_size_bytes, min(total_size_bytes) AS min_size_bytes,
               max(total_size_bytes) FILTER (WHERE collected_date = ANY (:closing_days)) AS closing_size_bytes,
               sum(database_count) AS sum_database_count, max(database_count) AS max_database_count,
               min(database_count) AS min_database_count,
               count(log_size_bytes)::integer AS log_size_count, sum(log_size_bytes) AS sum_log_size_bytes,
               max(log_size_bytes) AS max_log_size_bytes, min(log_size_bytes) AS min_log_size_bytes,
               max(log_size_bytes) FILTER (WHERE collected_date = ANY (:closing_days)) AS closing_log_size_bytes,
               max(collected_date) AS last_day, max(updated_at) AS newest
        FROM instance_size_stats
        WHERE {scope}
        GROUP BY instance_id, period_start, is_complete
    ) AS days
    WINDOW key AS (PARTITION BY instance_id, period_start)
) AS g
WHERE is_complete = has_complete_days
"""
SOURCES = {
    Level.DATABASE: (DATABASE_DAYS, DATABASE_PERIODS),
    Level.INSTANCE: (INSTANCE_DAYS, INSTANCE_PERIODS),
}
DELETE = """
DELETE FROM {aggregations} AS stored
WHERE period_type = :period_type AND period_start = ANY (:starts) AND instance_id BETWEEN :low AND :high
  AND NOT EXISTS (SELECT FROM source WHERE {same_key} AND source.period_start = stored.period_start)
RETURNING period_start
"""
# Rows that would not change are sorted out by one join: to try each against the index takes three times as long. The
# lock keeps everybody else from the rows of this chunk.
INSERT = """
INSERT INTO {aggregations} ({key}, period_type, period_start, period_end, {measures}, calculated_at)
SELECT {source_key}, :period_type, source.period_start, period_end, {source_measures}, now()
FROM source
JOIN unnest(:starts, :ends) AS windows (period_start, period_end)
  ON windows.period_start = source.period_start
LEFT JOIN (
    SELECT {key}, period_start, {measures} FROM {aggregations}
    WHERE period_type = :period_type AND period_start = ANY (:starts)
      AND instance_id BETWEEN :low AND :high
) AS stored ON {same_key} AND stored.period_start = source.period_start
WHERE stored.period_start IS NULL OR ({stored_measures}) IS DISTINCT FROM ({source_measures})
ORDER BY {source_key}, source.period_start
ON CONFLICT ({key}, period_type, period_start) DO UPDATE
SET ({measures}, calculated_at, updated_at) = ROW ({excluded_measures}, excluded.calculated_at, now())
RETURNING period_start
"""
# Grouped twice, which needs no sort; counting distinct instances would.
SOURCE_TOTALS = """
SELECT period_start, sum(source_rows) AS source_rows, sum(source_sum_bytes) AS source_sum_bytes,
       max(source_max_updated_at) AS source_max_updated_at, sum(result_rows) AS result_rows, count(*) AS instances,
       sum(closing_size_bytes) AS closing_size_bytes
FROM (SELECT period_start, sum(source_rows) AS source_rows, sum(source_sum_bytes) AS source_sum_bytes,
             max(source_max_updated_at) AS source_max_updated_at, count(*) AS result_rows,
             sum(closing_size_bytes) AS closing_size_bytes
      FROM source
      GROUP BY period_start, instance_id) AS instances
GROUP BY period_start
"""
STORED = """
SELECT count(*) FROM {aggregations}
WHERE period_type = :period_type AND period_start = ANY (:starts) AND instance_id BETWEEN :low AND :high
"""
CREATE_SOURCE = "CREATE TEMPORARY TABLE source ON COMMIT DROP AS {source}"
UPSERT = "WITH written AS ({insert}) SELECT period_start, count(*) FROM written GROUP BY period_start"
REMOVE = "WITH removed AS ({delete}) SELECT period_start, count(*) FROM removed GROUP BY period_start"
# All of it at once: nothing is removed that is also written, so that both may look at what was stored before.
AT_ONCE = """
WITH source AS MATERIALIZED ({source}), totals AS ({totals}), written AS ({insert}), removed AS ({delete})
SELECT period_start, source_rows, source_sum_bytes, source_max_updated_at, result_rows, instances, closing_size_bytes,
       coalesce(rows_written, 0) AS rows_written, coalesce(rows_removed, 0) AS rows_removed
FROM unnest(:starts) AS windows (period_start)
LEFT JOIN totals USING (period_start)
LEFT JOIN (SELECT period_start, count(*) AS rows_written FROM written GROUP BY period_start) AS written
     USING (period_start)
LEFT JOIN (SELECT period_start, count(*) AS rows_removed FROM removed GROUP BY period_start) AS removed
     USING (period_start)
"""


def composed(statement: str, level: Level, windows: Sequence[Window]) -> TextClause:
    """Return *statement* for adjacent *windows* of one level."""
    tables, period_type = TABLES[level], windows[0].period_type
    days, periods = SOURCES[level]
    names = {
        # With one window there is one bucket, and nothing to compute per row.
        "bucket": ONE_BUCKET if len(windows) == 1 else BUCKETS[period_type],
        "scope": SCOPE,
        "aggregations": tables.aggregations,
        "key": ", ".join(tables.key),
        "measures": ", ".join(tables.measures),
        "source_key": columns_of("source", tables.key),
        "source_measures": columns_of("source", tables.measures),
        "stored_measures": columns_of("stored", tables.measures),
        "excluded_measures": columns_of("excluded", tables.measures),
        "same_key": same_key("source", "stored", tables.key),
    }
    source = days if period_type is PeriodType.DAILY else periods
    parts = {"source": source, "totals": SOURCE_TOTALS, "insert": INSERT, "delete": DELETE}
    return text(statement.format(**names, **{name: part.format(**names) for name, part in parts.items()}))


def columns_of(table: str, columns: Sequence[str]) -> str:
    """Return *columns* as those of *table*."""
    return ", ".join(f"{table}.{column}" for column in columns)


def same_key(left: str, right: str, key: Sequence[str]) -> str:
    """Return the condition that rows of *left* and *right* have the same *key*."""
    return " AND ".join(f"{left}.{column} = {right}.{column}" for column in key)
