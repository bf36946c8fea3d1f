"""Growth queries, by the store's statements and straight through the views, beside SQL written by hand.

What is written by hand gives the same columns and, as is looked at before anything is measured, the same figures: means
are not rounded before they are compared, and a baseline lies no further back than it may. It divides plainly, which is
exact for sizes as they are here, but not for any size as the functions of the store are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import date
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.harness import in_turns, print_result
from whalefall_capacity.periods import PeriodType, window_of
from whalefall_capacity.store.aggregations.growth import (
    DATABASE_GROWTH,
    DATABASES_IN_ORDER,
    IN_ORDER,
    INSTANCE_GROWTH,
    DatabaseGrowth,
    InstanceGrowth,
    growth_range,
    top_growing_databases,
)

ROUNDS = 25
# Columns that come from the instance.
OF_INSTANCE = {"instance": "i.name", "db_type": "i.db_type"}
TREND = """
CASE WHEN percent > 5 THEN 'growing' WHEN percent < -5 THEN 'shrinking' WHEN percent IS NOT NULL THEN 'stable' END
"""
DATABASES = """
SELECT figures.*, {trend} FROM (
    SELECT w.instance_id, i.name, i.db_type, w.database_name, period_start, period_end, data_count,
           round(sum_size_bytes / data_count), max_size_bytes, min_size_bytes, closing_size_bytes,
           round(sum_data_size_bytes / data_size_count), max_data_size_bytes, min_data_size_bytes,
           round(sum_log_size_bytes / log_size_count), b_start,
           round((sum_size_bytes * b_count - b_sum * data_count) / (data_count * b_count)),
           round(100 * (sum_size_bytes * b_count - b_sum * data_count) / nullif(b_sum * data_count, 0), 2) AS percent,
           round((sum_data_size_bytes * b_data_count - b_data_sum * data_size_count)
                 / (data_size_count * b_data_count)),
           round(100 * (sum_data_size_bytes * b_data_count - b_data_sum * data_size_count)
                 / nullif(b_data_sum * data_size_count, 0), 2),
           round((sum_log_size_bytes * b_log_count - b_log_sum * log_size_count) / (log_size_count * b_log_count)),
           round(100 * (sum_log_size_bytes * b_log_count - b_log_sum * log_size_count)
                 / nullif(b_log_sum * log_size_count, 0), 2),
           calculated_at
    FROM ({windows}) AS w
    JOIN instances AS i ON i.id = w.instance_id
    WHERE period_start >= :first
) AS figures
ORDER BY name, database_name, period_start
"""
ONE_DATABASE = """
SELECT *, CASE WHEN lag(period_start) OVER w >= period_start - 28 THEN lag(period_start) OVER w END AS b_start,
       CASE WHEN lag(period_start) OVER w >= period_start - 28 THEN lag(data_count) OVER w END AS b_count,
       CASE WHEN lag(period_start) OVER w >= period_start - 28 THEN lag(data_size_count) OVER w END AS b_data_count,
       CASE WHEN lag(period_start) OVER w >= period_start - 28 THEN lag(log_size_count) OVER w END AS b_log_count,
       lag(sum_size_bytes) OVER w AS b_sum, lag(sum_data_size_bytes) OVER w AS b_data_sum,
       lag(sum_log_size_bytes) OVER w AS b_log_sum
FROM database_size_aggregations
WHERE instance_id = :instance_id AND database_name = :database_name AND period_type = 'weekly'
  AND period_start BETWEEN CAST(:first AS date) - 28 AND :last
WINDOW w AS (ORDER BY period_start)
"""
ONE_INSTANCE = """
SELECT a.*, b.period_start AS b_start, b.data_count AS b_count, b.sum_size_bytes AS b_sum,
       b.data_size_count AS b_data_count, b.sum_data_size_bytes AS b_data_sum,
       b.log_size_count AS b_log_count, b.sum_log_size_bytes AS b_log_sum
FROM database_size_aggregations AS a
LEFT JOIN LATERAL (
    SELECT * FROM database_size_aggregations AS e
    WHERE e.instance_id = a.instance_id AND e.database_name = a.database_name AND e.period_type = 'monthly'
      AND e.period_start < a.period_start AND e.period_start >= CAST(:first AS date) - interval '3 months'
    ORDER BY e.period_start DESC LIMIT 1
) AS b ON true
WHERE a.instance_id = :instance_id AND a.period_type = 'monthly' AND a.period_start = :first
"""
TOTALS = """
SELECT figures.*, {trend} FROM (
    SELECT w.instance_id, i.name, i.db_type, period_start, period_end, data_count, partial_days,
           round(sum_size_bytes / data_count), max_size_bytes, min_size_bytes, closing_size_bytes,
           CASE WHEN sum_database_count = 0 THEN 0 ELSE round(sum_size_bytes / sum_database_count) END,
           round(sum_database_count::numeric / data_count), round(sum_database_count::numeric / data_count, 2),
           max_database_count, min_database_count, round(sum_log_size_bytes / log_size_count), b_start,
           round((sum_size_bytes * b_count - b_sum * data_count) / (data_count * b_count)),
           round(100 * (sum_size_bytes * b_count - b_sum * data_count) / nullif(b_sum * data_count, 0), 2) AS percent,
           round((sum_database_count * b_count - b_databases * data_count)::numeric / (data_count * b_count)),
           round(100.0 * (sum_database_count * b_count - b_databases * data_count)
                 / nullif(b_databases * data_count, 0), 2),
           round((sum_log_size_bytes * b_log_count - b_log_sum * log_size_count) / (log_size_count * b_log_count)),
           round(100 * (sum_log_size_bytes * b_log_count - b_log_sum * log_size_count)
                 / nullif(b_log_sum * log_size_count, 0), 2),
           calculated_at
    FROM ({windows}) AS w
    JOIN instances AS i ON i.id = w.instance_id
    WHERE period_start >= :first
) AS figures
ORDER BY name, period_start
"""
ONE_TOTAL = """
SELECT *, CASE WHEN lag(period_start) OVER w >= period_start - 28 THEN lag(period_start) OVER w END AS b_start,
       CASE WHEN lag(period_start) OVER w >= period_start - 28 THEN lag(data_count) OVER w END AS b_count,
       CASE WHEN lag(period_start) OVER w >= period_start - 28 THEN lag(log_size_count) OVER w END AS b_log_count,
       lag(sum_size_bytes) OVER w AS b_sum, lag(sum_database_count) OVER w AS b_databases,
       lag(sum_log_size_bytes) OVER w AS b_log_sum
FROM instance_size_aggregations
WHERE instance_id = :instance_id AND period_type = 'weekly'
  AND period_start BETWEEN CAST(:first AS date) - 28 AND :last
WINDOW w AS (ORDER BY period_start)
"""
# Only the columns that are looked at: this one has to compare every database, and 50 rows are nothing beside that.
TOP = """
SELECT i.name, a.database_name, a.sum_size_bytes / a.data_count AS average, b.period_start AS baseline,
       a.sum_size_bytes / a.data_count - b.sum_size_bytes / b.data_count AS change
FROM database_size_aggregations AS a
JOIN instances AS i ON i.id = a.instance_id
LEFT JOIN LATERAL (
    SELECT * FROM database_size_aggregations AS e
    WHERE e.instance_id = a.instance_id AND e.database_name = a.database_name AND e.period_type = 'monthly'
      AND e.period_start < a.period_start AND e.period_start >= CAST(:first AS date) - interval '3 months'
    ORDER BY e.period_start DESC LIMIT 1
) AS b ON true
WHERE a.period_type = 'monthly' AND a.period_start = :first
ORDER BY change DESC NULLS LAST LIMIT 50
"""
VIEW = """
SELECT {columns} FROM {view} AS g JOIN instances AS i ON i.id = g.instance_id
WHERE g.instance_id = :instance_id AND period_type = '{period_type}' AND period_start BETWEEN :first AND :last
{and_database} ORDER BY {order}
"""


DATABASE = DATABASE_GROWTH.format(scope="instance_id = :instance_id AND database_name = :database_name") + IN_ORDER
DATABASES_OF_INSTANCE = DATABASE_GROWTH.format(scope="instance_id = :instance_id") + DATABASES_IN_ORDER
INSTANCE = INSTANCE_GROWTH.format(scope="instance_id = :instance_id") + IN_ORDER


@dataclass(frozen=True)
class Query:
    """A question, the values that it is asked with, and the three ways to ask it."""

    name: str
    values: dict[str, Any]
    ours: Callable[[], Sequence[Any]]
    by_hand: str
    view: str


def measure(engine: Engine, instance_id: int, first: date, last: date) -> None:
    """Print the milliseconds of a year of weeks, *first* to *last*, and of its last month."""
    month = window_of(last, PeriodType.MONTHLY)
    year = {"instance_id": instance_id, "first": first, "last": last}
    queries = [
        Query(
            "one database's year of weeks",
            year | {"database_name": "database_00025"},
            lambda: _ours(
                engine,
                DATABASE,
                year | {"database_name": "database_00025"} | growth_range(PeriodType.WEEKLY, first, last),
            ),
            DATABASES.format(trend=TREND, windows=ONE_DATABASE),
            _view(DatabaseGrowth, PeriodType.WEEKLY, "AND g.database_name = :database_name"),
        ),
        Query(
            "one instance's month, all databases",
            {"instance_id": instance_id, "first": month.start, "last": month.start},
            lambda: _ours(
                engine, DATABASES_OF_INSTANCE, year | growth_range(PeriodType.MONTHLY, month.start, month.start)
            ),
            DATABASES.format(trend=TREND, windows=ONE_INSTANCE),
            _view(DatabaseGrowth, PeriodType.MONTHLY),
        ),
        Query(
            "one instance's totals, a year of weeks",
            year,
            lambda: _ours(engine, INSTANCE, year | growth_range(PeriodType.WEEKLY, first, last)),
            TOTALS.format(trend=TREND, windows=ONE_TOTAL),
            _view(InstanceGrowth, PeriodType.WEEKLY),
        ),
    ]
    rows = []
    for query in queries:
        expected = [tuple(row) for row in _ask(engine, query.by_hand, query.values)]
        assert [astuple(row) for row in query.ours()] == expected
        assert [tuple(row) for row in _ask(engine, query.view, query.values)] == expected
        rows.append(_row(engine, query))
    print_result(
        "growth",
        ("query", "by hand ms", "ms", "ratio", "through the view ms", "ratio"),
        rows,
    )
    ours, by_hand = in_turns(
        (
            lambda _: top_growing_databases(engine, month, 50),
            lambda _: _ask(engine, TOP, {"first": month.start}),
        ),
        rounds=9,
    )
    print_result(
        "growth of everything",
        ("query", "by hand ms", "ms", "ratio"),
        [("top 50 growers of a month", 1000 * by_hand, 1000 * ours, ours / by_hand)],
    )


def _row(engine: Engine, query: Query) -> tuple[object, ...]:
    by_hand, ours, view = in_turns(
        (
            lambda _: _ask(engine, query.by_hand, query.values),
            lambda _: query.ours(),
            lambda _: _ask(engine, query.view, query.values),
        ),
        rounds=ROUNDS,
    )
    return (query.name, 1000 * by_hand, 1000 * ours, ours / by_hand, 1000 * view, view / by_hand)


def _ours(engine: Engine, statement: str, values: dict[str, Any]) -> list[DatabaseGrowth] | list[InstanceGrowth]:
    rows = _ask(engine, statement, values)
    return [InstanceGrowth(*row) for row in rows] if statement is INSTANCE else [DatabaseGrowth(*row) for row in rows]


def _ask(engine: Engine, statement: str, values: dict[str, Any]) -> Sequence[Any]:
    with engine.connect() as connection:
        return connection.execute(text(statement), values).all()


def _view(kind: type[Any], period_type: PeriodType, and_database: str = "") -> str:
    """Return the question to the view of *kind*, in the order of its fields."""
    names = [field.name for field in fields(kind)]
    return VIEW.format(
        columns=", ".join(OF_INSTANCE.get(name, f"g.{name}") for name in names),
        view="database_size_growth" if kind is DatabaseGrowth else "instance_size_growth",
        period_type=period_type.value,
        and_database=and_database,
        order="i.name, g.database_name, period_start" if kind is DatabaseGrowth else "i.name, period_start",
    )
