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

# The first day of the window of a day. Weeks by arithmetic: date_trunc takes a third longer.
BUCKETS = {
    PeriodType.DAILY: "collected_date",
    PeriodType.WEEKLY: "collected_date - (collected_date - DATE '2000-01-03') % 7",
    PeriodType.MONTHLY: "collected_date - (extract(day FROM collected_date)::integer - 1)",
    PeriodType.QUARTERLY: "date_trunc('quarter', collected_date::timestamp)::date",
}
ONE_BUCKET = "CAST(:first AS date)"

SCOPE = """
collected_date BETWEEN :first AND :last AND instance_id BETWEEN :low AND :high
"""

# A day is its own window: nothing to group.
DATABASE_DAYS = """
CREATE TEMPORARY TABLE source ON COMMIT DROP AS
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
# the others are looked up one by one. Ordering the values within the aggregate would take 2.6 times as long. The bounds
# of all windows stand in each look-up so that the planner leaves out the table partitions of other months.
DATABASE_PERIODS = """
CREATE TEMPORARY TABLE source ON COMMIT DROP AS
SELECT instance_id, database_name, period_start,
       data_count, sum_size_bytes, max_size_bytes, min_size_bytes,
       coalesce(closing_size_bytes, (
           SELECT s.size_bytes FROM database_size_stats AS s
           WHERE s.instance_id = g.instance_id AND s.database_name = g.database_name
             AND s.collected_date BETWEEN :first AND :last
             AND s.collected_date = g.last_day)) AS closing_size_bytes,
       nullif(data_size_count, 0) AS data_size_count, sum_data_size_bytes, max_data_size_bytes, min_data_size_bytes,
       CASE WHEN data_size_count > 0 THEN coalesce(closing_data_size_bytes, (
           SELECT s.data_size_bytes FROM database_size_stats AS s
           WHERE s.instance_id = g.instance_id AND s.database_name = g.database_name
             AND s.collected_date BETWEEN :first AND :last
             AND s.collected_date BETWEEN g.period_start AND g.last_day AND s.data_size_bytes IS NOT NULL
           ORDER BY s.collected_date DESC LIMIT 1)) END AS closing_data_size_bytes,
       nullif(log_size_count, 0) AS log_size_count, sum_log_size_bytes, max_log_size_bytes, min_log_size_bytes,
       CASE WHEN log_size_count > 0 THEN coalesce(closing_log_size_bytes, (
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
# A day with missing databases counts only where the window has no complete day. An instance has one row a day: this
# level is small, and an ordered aggregate may find the closing values.
INSTANCE_PERIODS = """
CREATE TEMPORARY TABLE source ON COMMIT DROP AS
SELECT instance_id, period_start,
       count(*) FILTER (WHERE counts)::integer AS data_count,
       sum(total_size_bytes) FILTER (WHERE counts) AS sum_size_bytes,
       max(total_size_bytes) FILTER (WHERE counts) AS max_size_bytes,
       min(total_size_bytes) FILTER (WHERE counts) AS min_size_bytes,
       (array_agg(total_size_bytes ORDER BY collected_date DESC) FILTER (WHERE counts))[1] AS closing_size_bytes,
       count(*) FILTER (WHERE missing_count > 0)::integer AS partial_days,
       sum(database_count) FILTER (WHERE counts) AS sum_database_count,
       max(database_count) FILTER (WHERE counts) AS max_database_count,
       min(database_count) FILTER (WHERE counts) AS min_database_count,
       nullif(count(log_size_bytes) FILTER (WHERE counts), 0)::integer AS log_size_count,
       sum(log_size_bytes) FILTER (WHERE counts) AS sum_log_size_bytes,
       max(log_size_bytes) FILTER (WHERE counts) AS max_log_size_bytes,
       min(log_size_bytes) FILTER (WHERE counts) AS min_log_size_bytes,
       (array_agg(log_size_bytes ORDER BY collected_date DESC)
           FILTER (WHERE counts AND log_size_bytes IS NOT NULL))[1] AS closing_log_size_bytes,
       count(*) AS source_rows, sum(total_size_bytes) AS source_sum_bytes, max(updated_at) AS source_max_updated_at
FROM (
    SELECT *, missing_count = 0
              OR NOT bool_or(missing_count = 0) OVER (PARTITION BY instance_id, period_start) AS counts
    FROM (SELECT *, {bucket} AS period_start FROM instance_size_stats WHERE {scope}) AS days
) AS days
GROUP BY instance_id, period_start
"""
REMOVE = """
WITH removed AS (
    DELETE FROM {aggregations} AS stored
    WHERE period_type = :period_type AND period_start = ANY (:starts) AND instance_id BETWEEN :low AND :high
      AND NOT EXISTS (SELECT FROM source WHERE {same_key} AND source.period_start = stored.period_start)
    RETURNING period_start
)
SELECT period_start, count(*) FROM removed GROUP BY period_start
"""
# Rows that would not change are sorted out by one join: to try each against the index takes three times as long. The
# lock keeps everybody else from the rows of this chunk.
UPSERT = """
WITH written AS (
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
)
SELECT period_start, count(*) FROM written GROUP BY period_start
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


def source_statement(level: Level, period_type: PeriodType) -> str:
    """Return the statement that groups the stats of windows into the temporary table `source`."""
    if level is Level.INSTANCE:
        return INSTANCE_PERIODS
    return DATABASE_DAYS if period_type is PeriodType.DAILY else DATABASE_PERIODS


def composed(statement: str, level: Level, windows: Sequence[Window]) -> TextClause:
    """Return *statement* for adjacent *windows* of one level."""
    tables = TABLES[level]
    return text(
        statement.format(
            # With one window there is one bucket, and nothing to compute per row.
            bucket=ONE_BUCKET if len(windows) == 1 else BUCKETS[windows[0].period_type],
            scope=SCOPE,
            aggregations=tables.aggregations,
            key=", ".join(tables.key),
            measures=", ".join(tables.measures),
            source_key=columns_of("source", tables.key),
            source_measures=columns_of("source", tables.measures),
            stored_measures=columns_of("stored", tables.measures),
            excluded_measures=columns_of("excluded", tables.measures),
            same_key=same_key("source", "stored", tables.key),
        )
    )


def columns_of(table: str, columns: Sequence[str]) -> str:
    """Return *columns* as those of *table*."""
    return ", ".join(f"{table}.{column}" for column in columns)


def same_key(left: str, right: str, key: Sequence[str]) -> str:
    """Return the condition that rows of *left* and *right* have the same *key*."""
    return " AND ".join(f"{left}.{column} = {right}.{column}" for column in key)
