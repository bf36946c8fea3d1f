"""Growth of aggregation rows: averages, baseline, change and trend, derived on read as the two views derive them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema
from sqlalchemy import Connection, Engine, Row, text

from whalefall_capacity.periods import PeriodType, Window, look_back, window_before
from whalefall_capacity.store.aggregations.statements import TABLES, Level, columns_of, same_key
from whalefall_capacity.store.postgres.engine import again_if_connection_lost

# Descriptions and schemas are those of the API, which answers with these rows. Sizes are bytes; None means not known.
Number = Annotated[Decimal, WithJsonSchema({"type": "number"})]
Trend = Literal["growing", "shrinking", "stable"]
PeriodEnd = Annotated[date, Field(description="The last day, also of the window in progress.")]
DaysWithData = Annotated[int, Field(description="Days with data.")]
ClosingSize = Annotated[int, Field(description="Of the last day with data.")]
CalculatedAt = Annotated[
    datetime, Field(description="When the row was written; a calculation that finds it right leaves it.")
]
BaselineStart = Annotated[date | None, Field(description="The window that the change is measured from.")]


@dataclass(frozen=True)
class DatabaseGrowth:
    """One window of one database."""

    instance_id: int
    instance: str
    db_type: str
    database_name: str
    period_start: date
    period_end: PeriodEnd
    data_count: DaysWithData
    avg_size_bytes: int
    max_size_bytes: int
    min_size_bytes: int
    closing_size_bytes: ClosingSize
    avg_data_size_bytes: int | None
    max_data_size_bytes: int | None
    min_data_size_bytes: int | None
    avg_log_size_bytes: int | None
    baseline_start: BaselineStart
    size_change_bytes: int | None
    size_change_percent: Number | None
    data_size_change_bytes: int | None
    data_size_change_percent: Number | None
    log_size_change_bytes: int | None
    log_size_change_percent: Number | None
    calculated_at: CalculatedAt
    trend_direction: Trend | None


@dataclass(frozen=True)
class InstanceGrowth:
    """One window of one instance."""

    instance_id: int
    instance: str
    db_type: str
    period_start: date
    period_end: PeriodEnd
    data_count: DaysWithData
    partial_days: Annotated[int, Field(description="Days on which some databases could not be measured.")]
    total_size_bytes: Annotated[int, Field(description="Mean of the daily totals.")]
    max_size_bytes: int
    min_size_bytes: int
    closing_size_bytes: ClosingSize
    avg_database_size_bytes: int
    database_count: int
    avg_database_count: Number
    max_database_count: int
    min_database_count: int
    avg_log_size_bytes: int | None
    baseline_start: BaselineStart
    total_size_change_bytes: int | None
    total_size_change_percent: Number | None
    database_count_change: int | None
    database_count_change_percent: Number | None
    log_size_change_bytes: int | None
    log_size_change_percent: Number | None
    calculated_at: CalculatedAt
    trend_direction: Trend | None


# The columns are in the order of the fields above: rows are made from them by position, which takes half the time.
# The baseline of a row is the last row of its key within the reach: a window frame says just that. The views look each
# baseline up by itself, and cost the planner more than a query of a few rows takes.
DATABASE_GROWTH = """
SELECT growth.instance_id, i.name AS instance, i.db_type, growth.database_name, period_start, period_end, data_count,
       rounded_ratio(sum_size_bytes, data_count, 0)::bigint AS avg_size_bytes,
       max_size_bytes, min_size_bytes, closing_size_bytes,
       rounded_ratio(sum_data_size_bytes, data_size_count, 0)::bigint AS avg_data_size_bytes,
       max_data_size_bytes, min_data_size_bytes,
       rounded_ratio(sum_log_size_bytes, log_size_count, 0)::bigint AS avg_log_size_bytes,
       baseline_start, size_change_bytes, size_change_percent,
       mean_change(sum_data_size_bytes, data_size_count, base_sum_data, base_data_count) AS data_size_change_bytes,
       mean_change_percent(sum_data_size_bytes, data_size_count, base_sum_data, base_data_count)
           AS data_size_change_percent,
       mean_change(sum_log_size_bytes, log_size_count, base_sum_log, base_log_count) AS log_size_change_bytes,
       mean_change_percent(sum_log_size_bytes, log_size_count, base_sum_log, base_log_count) AS log_size_change_percent,
       calculated_at, trend_direction(size_change_percent) AS trend_direction
FROM (
    SELECT *, mean_change(sum_size_bytes, data_count, base_sum, base_count) AS size_change_bytes,
           mean_change_percent(sum_size_bytes, data_count, base_sum, base_count) AS size_change_percent
    FROM (
        SELECT *, last_value(period_start) OVER earlier AS baseline_start,
               last_value(data_count) OVER earlier AS base_count, last_value(sum_size_bytes) OVER earlier AS base_sum,
               last_value(data_size_count) OVER earlier AS base_data_count,
               last_value(sum_data_size_bytes) OVER earlier AS base_sum_data,
               last_value(log_size_count) OVER earlier AS base_log_count,
               last_value(sum_log_size_bytes) OVER earlier AS base_sum_log
        FROM database_size_aggregations
        WHERE period_type = :period_type AND period_start BETWEEN :earliest AND :last AND {scope}
        WINDOW earlier AS (PARTITION BY instance_id, database_name ORDER BY period_start
                           RANGE BETWEEN CAST(:reach AS interval) PRECEDING AND '1 day' PRECEDING)
    ) AS windows
    WHERE period_start >= :first
) AS growth
JOIN instances AS i ON i.id = growth.instance_id
"""
INSTANCE_GROWTH = """
SELECT growth.instance_id, i.name AS instance, i.db_type, period_start, period_end, data_count, partial_days,
       rounded_ratio(sum_size_bytes, data_count, 0)::bigint AS total_size_bytes,
       max_size_bytes, min_size_bytes, closing_size_bytes,
       CASE WHEN sum_database_count = 0 THEN 0
            ELSE rounded_ratio(sum_size_bytes, sum_database_count, 0)::bigint END AS avg_database_size_bytes,
       rounded_ratio(sum_database_count, data_count, 0)::integer AS database_count,
       rounded_ratio(sum_database_count, data_count, 2) AS avg_database_count, max_database_count, min_database_count,
       rounded_ratio(sum_log_size_bytes, log_size_count, 0)::bigint AS avg_log_size_bytes,
       baseline_start, total_size_change_bytes, total_size_change_percent,
       mean_change(sum_database_count, data_count, base_databases, base_count)::integer AS database_count_change,
       mean_change_percent(sum_database_count, data_count, base_databases, base_count) AS database_count_change_percent,
       mean_change(sum_log_size_bytes, log_size_count, base_sum_log, base_log_count) AS log_size_change_bytes,
       mean_change_percent(sum_log_size_bytes, log_size_count, base_sum_log, base_log_count) AS log_size_change_percent,
       calculated_at, trend_direction(total_size_change_percent) AS trend_direction
FROM (
    SELECT *, mean_change(sum_size_bytes, data_count, base_sum, base_count) AS total_size_change_bytes,
           mean_change_percent(sum_size_bytes, data_count, base_sum, base_count) AS total_size_change_percent
    FROM (
        SELECT *, last_value(period_start) OVER earlier AS baseline_start,
               last_value(data_count) OVER earlier AS base_count, last_value(sum_size_bytes) OVER earlier AS base_sum,
               last_value(sum_database_count) OVER earlier AS base_databases,
               last_value(log_size_count) OVER earlier AS base_log_count,
               last_value(sum_log_size_bytes) OVER earlier AS base_sum_log
        FROM instance_size_aggregations
        WHERE period_type = :period_type AND period_start BETWEEN :earliest AND :last AND {scope}
        WINDOW earlier AS (PARTITION BY instance_id ORDER BY period_start
                           RANGE BETWEEN CAST(:reach AS interval) PRECEDING AND '1 day' PRECEDING)
    ) AS windows
    WHERE period_start >= :first
) AS growth
JOIN instances AS i ON i.id = growth.instance_id
"""
EVERYTHING = "true"
OF_INSTANCE = "instance_id = :instance_id"
OF_DATABASE = "instance_id = :instance_id AND database_name = :database_name"
OF_INSTANCES = "instance_id = ANY (CAST(:instance_ids AS integer[]))"
OF_KEYS = """(instance_id, database_name) IN (
    SELECT * FROM unnest(CAST(:instance_ids AS integer[]), CAST(:database_names AS text[])))"""
IN_ORDER = " ORDER BY i.name, period_start"
DATABASES_IN_ORDER = " ORDER BY i.name, growth.database_name, period_start"
DATABASES_BY_GROWTH = " ORDER BY size_change_bytes DESC NULLS LAST, i.name, growth.database_name"
INSTANCES_BY_GROWTH = " ORDER BY total_size_change_bytes DESC NULLS LAST, i.name"
# Nearly every key has its baseline in the window just before, which one join finds; only for the others is the
# look-back searched. The view would search it for each.
TOP_GROWERS = """
WITH pairs AS (
    SELECT {key}, a.mean, before.mean AS base
    FROM (SELECT {key}, sum_size_bytes / data_count AS mean FROM {aggregations}
          WHERE period_type = :period_type AND period_start = :start) AS a
    LEFT JOIN (SELECT {key}, sum_size_bytes / data_count AS mean FROM {aggregations}
               WHERE period_type = :period_type AND period_start = :before) AS before
         USING ({key})
), changes AS (
    SELECT {key}, mean - base AS change FROM pairs WHERE base IS NOT NULL
    UNION ALL
    SELECT {pairs_key}, pairs.mean - older.mean
    FROM pairs
    LEFT JOIN LATERAL (
        SELECT sum_size_bytes / data_count AS mean FROM {aggregations} AS earlier
        WHERE {same_key} AND earlier.period_type = :period_type
          AND earlier.period_start >= :earliest AND earlier.period_start < :before
        ORDER BY period_start DESC LIMIT 1
    ) AS older ON true
    WHERE base IS NULL
)
SELECT {key} FROM changes {named} ORDER BY change DESC NULLS LAST, {tie} LIMIT :count
"""
# Which of those that grew alike come first.
TIES = {
    Level.DATABASE: {"named": "", "tie": "instance_id, database_name"},
    Level.INSTANCE: {"named": "JOIN instances ON id = instance_id", "tie": "name"},
}
# The windows were written a moment ago: the planner has no statistics of them, takes them for empty, and would look
# each database up in the window before by itself. Nothing is looked up twice, so nothing needs to be remembered.
TOP_SETTINGS = """
SET LOCAL jit = off; SET LOCAL enable_nestloop = off; SET LOCAL enable_memoize = off; SET LOCAL work_mem = '64MB'
"""


def database_growth(
    engine: Engine, period_type: PeriodType, first: date, last: date, instance_id: int, database_name: str | None = None
) -> list[DatabaseGrowth]:
    """Return the windows that start in first..last of one database, or of every database of an instance."""
    statement = DATABASE_GROWTH.format(scope=OF_INSTANCE if database_name is None else OF_DATABASE)
    values = {"instance_id": instance_id, "database_name": database_name} | growth_range(period_type, first, last)
    with engine.connect() as connection:
        rows = connection.execute(text(statement + DATABASES_IN_ORDER), values).all()
        return [DatabaseGrowth(*row) for row in rows]


def instance_growth(
    engine: Engine, period_type: PeriodType, first: date, last: date, instance_id: int
) -> list[InstanceGrowth]:
    """Return the windows of one instance that start in first..last, oldest first."""
    statement = INSTANCE_GROWTH.format(scope=OF_INSTANCE)
    values = {"instance_id": instance_id} | growth_range(period_type, first, last)
    with engine.connect() as connection:
        rows = connection.execute(text(statement + IN_ORDER), values).all()
        return [InstanceGrowth(*row) for row in rows]


@again_if_connection_lost
def top_growing_databases(engine: Engine, window: Window, count: int = 10) -> list[DatabaseGrowth]:
    """Return the databases that grew most, in bytes, in *window*."""
    statement = DATABASE_GROWTH.format(scope=OF_KEYS) + DATABASES_BY_GROWTH
    with engine.begin() as connection:
        keys = _top_growers(connection, Level.DATABASE, window, count)
        chosen = {
            "instance_ids": [key.instance_id for key in keys],
            "database_names": [key.database_name for key in keys],
        }
        values = chosen | growth_range(window.period_type, window.start, window.start)
        return [DatabaseGrowth(*row) for row in connection.execute(text(statement), values)]


@again_if_connection_lost
def top_growing_instances(engine: Engine, window: Window, count: int = 10) -> list[InstanceGrowth]:
    """Return the instances that grew most, in bytes, in *window*."""
    statement = INSTANCE_GROWTH.format(scope=OF_INSTANCES) + INSTANCES_BY_GROWTH
    with engine.begin() as connection:
        keys = _top_growers(connection, Level.INSTANCE, window, count)
        chosen = {"instance_ids": [key.instance_id for key in keys]}
        values = chosen | growth_range(window.period_type, window.start, window.start)
        return [InstanceGrowth(*row) for row in connection.execute(text(statement), values)]


def growth_range(period_type: PeriodType, first: date, last: date) -> dict[str, Any]:
    """Return the values that the growth statements take of a range of windows."""
    reach = period_type.calendar.length * period_type.calendar.reach
    return {
        "period_type": period_type.value,
        "first": first,
        "last": last,
        "earliest": look_back(first, period_type),
        "reach": f"{reach.years} years {reach.months} months {reach.days} days",
    }


def _top_growers(connection: Connection, level: Level, window: Window, count: int) -> Sequence[Row[Any]]:
    """Return the keys of what grew most in *window*."""
    tables = TABLES[level]
    statement = TOP_GROWERS.format(
        aggregations=tables.aggregations,
        key=", ".join(tables.key),
        pairs_key=columns_of("pairs", tables.key),
        same_key=same_key("earlier", "pairs", tables.key),
        **TIES[level],
    )
    values = {
        "period_type": window.period_type.value,
        "start": window.start,
        "before": window_before(window).start,
        "earliest": look_back(window.start, window.period_type),
        "count": count,
    }
    connection.execute(text(TOP_SETTINGS))
    keys = connection.execute(text(statement), values).all()
    connection.execute(text("SET LOCAL enable_nestloop = on"))
    return keys
