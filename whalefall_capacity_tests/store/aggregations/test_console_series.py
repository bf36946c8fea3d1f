"""The questions of the console about capacity touch no more table partitions than they need, and stay bounded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from whalefall_capacity.periods import PeriodType, days_to_windows, window_of
from whalefall_capacity.store.aggregations import console_series
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.console_series import largest_series
from whalefall_capacity.store.aggregations.growth import DatabaseGrowth, InstanceGrowth
from whalefall_capacity.store.aggregations.ranking import ChangeRankings, Measure
from whalefall_capacity.store.aggregations.selection import Selection
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.aggregations.summaries import Summary, summary
from whalefall_capacity_tests.store.past import MIB, put_sizes

FIRST, LAST = date(2026, 1, 1), date(2026, 6, 30)
INVENTORY = """
INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)
SELECT instance_id, database_name, min(collected_date), max(collected_date) FROM database_size_stats GROUP BY 1, 2
"""
CHILD = re.compile(r" on ((?:database|instance)_size_aggregations_\w+)")


@pytest.fixture
def half_a_year(store: Engine) -> Engine:
    """Every tenth day of January to June 2026, all period types."""
    days = [FIRST + timedelta(days=n) for n in range(0, 181, 10)]
    put_sizes(store, [(i, name, day, i * MIB) for i in (1, 2, 3) for name in ("shop", "crm") for day in days])
    with store.begin() as connection:
        connection.execute(text(INVENTORY))
    for period_type in PeriodType:
        for level in Level:
            aggregate(store, level, days_to_windows(days, period_type))
    return store


@contextmanager
def explained(engine: Engine) -> Iterator[set[str]]:
    """Collect the table partitions that the plans of all queries in the block scan."""
    children: set[str] = set()

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "size_aggregations" in statement and not statement.startswith("EXPLAIN"):
            cursor.execute(f"EXPLAIN {statement}", parameters)
            children.update(CHILD.findall("\n".join(line for (line,) in cursor.fetchall())))

    event.listen(engine, "before_cursor_execute", explain)
    yield children
    event.remove(engine, "before_cursor_execute", explain)


MAY = Selection(PeriodType.DAILY, date(2026, 5, 15), date(2026, 5, 31))
QUERIES: dict[str, Callable[[Engine, Selection], object]] = {
    "database page": lambda e, s: console_series.database_page(e, s, 20, 0),
    "instance page": lambda e, s: console_series.instance_page(e, s, 20, 0),
    "database summary": lambda e, s: summary(e, Level.DATABASE, s),
    "instance summary": lambda e, s: summary(e, Level.INSTANCE, s),
    "largest databases": lambda e, s: largest_series(e, ChangeRankings(), Level.DATABASE, s, 5),
    "largest instances": lambda e, s: largest_series(e, ChangeRankings(), Level.INSTANCE, s, 5),
}


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize(
    "filters",
    [{}, {"instance_ids": [1, 2]}, {"database_names": ["shop", "crm"]}, {"db_types": ["postgresql"]}],
    ids=str,
)
def test_a_query_of_a_month_reads_that_month_alone(half_a_year: Engine, name: str, filters: dict[str, Any]) -> None:
    selection = Selection(MAY.period_type, MAY.first, MAY.last, **filters)
    with explained(half_a_year) as children:
        QUERIES[name](half_a_year, selection)
    assert {child.partition("_aggregations_")[2] for child in children} == {"daily_2026_05"}


@pytest.mark.parametrize(
    ("period_type", "expected"),
    [
        (PeriodType.DAILY, {"daily_2026_05", "daily_2026_06"}),
        (PeriodType.WEEKLY, {"weekly_2026_05", "weekly_2026_06"}),
        (PeriodType.MONTHLY, {"monthly_2026"}),
        (PeriodType.QUARTERLY, {"quarterly_2026"}),
    ],
)
def test_the_look_back_to_a_baseline_adds_only_the_months_it_reaches(
    half_a_year: Engine, period_type: PeriodType, expected: set[str]
) -> None:
    first = date(2026, 6, 1) if period_type is not PeriodType.QUARTERLY else date(2026, 4, 1)
    with explained(half_a_year) as children:
        console_series.database_page(half_a_year, Selection(period_type, first, LAST), 20, 0)
    assert {child.removeprefix("database_size_aggregations_") for child in children} <= expected


def test_rows_are_counted_no_further_than_they_can_be_paged(
    half_a_year: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_series, "MOST_ROWS", 50)
    page = console_series.database_page(half_a_year, Selection(PeriodType.DAILY, FIRST, LAST), 20, 0)
    assert (len(page.rows), page.total) == (20, 50)


def largest(store: Engine, selection: Selection, count: int) -> list[DatabaseGrowth | InstanceGrowth]:
    """Return the windows of the largest databases."""
    return list(largest_series(store, ChangeRankings(), Level.DATABASE, selection, count)[Measure.SIZE])


def test_the_top_of_an_earlier_range_is_of_its_own_newest_window(half_a_year: Engine) -> None:
    with half_a_year.begin() as connection:
        connection.execute(
            text(
                "UPDATE database_size_aggregations SET sum_size_bytes = sum_size_bytes * 10 "
                "WHERE instance_id = 1 AND period_start < '2026-03-01'"
            )
        )
    early = Selection(PeriodType.DAILY, FIRST, date(2026, 2, 28))
    late = Selection(PeriodType.DAILY, FIRST, LAST)
    assert {row.instance_id for row in largest(half_a_year, early, 2)} == {1}
    assert {row.instance_id for row in largest(half_a_year, late, 2)} == {3}


WEEK = Selection(PeriodType.WEEKLY, date(2026, 6, 22), date(2026, 6, 22))


def weekly_summaries(store: Engine, sizes: list[tuple[int, str, date, int]]) -> tuple[Summary, Summary]:
    """Return the summaries of databases and of instances of one week."""
    put_sizes(store, sizes)
    for level in Level:
        aggregate(store, level, [window_of(WEEK.first, PeriodType.WEEKLY)])
    return summary(store, Level.DATABASE, WEEK), summary(store, Level.INSTANCE, WEEK)


def test_a_summary_adds_up_means_of_windows_with_unlike_days(store: Engine) -> None:
    monday = WEEK.first
    databases, instances = weekly_summaries(
        store,
        [
            *((1, "shop", monday + timedelta(days=n), size) for n, size in enumerate((100, 101, 101))),
            (1, "crm", monday, 50),
            (2, "shop", monday, 120),
            (2, "shop", monday + timedelta(days=1), 121),
        ],
    )
    # Means: 100 2/3, 50 and 120 1/2.
    assert (databases.instances, databases.databases) == (2, 3)
    assert (databases.total_size_bytes, databases.average_size_bytes, databases.largest_size_bytes) == (271, 90, 121)
    assert (databases.largest_instance, databases.largest_database) == ("instance-2", "shop")
    # Means: 352 / 3 and 120 1/2, with 4 / 3 and 1 databases.
    assert (instances.instances, instances.databases) == (2, 2)
    assert (instances.total_size_bytes, instances.average_size_bytes, instances.largest_size_bytes) == (238, 119, 121)
    assert instances.largest_instance == "instance-2"


def test_of_the_largest_that_are_alike_a_summary_names_the_first_as_the_charts_do(store: Engine) -> None:
    monday = WEEK.first
    databases, instances = weekly_summaries(
        store,
        [
            *((1, "shop", monday + timedelta(days=n), 100) for n in range(3)),
            *((1, "crm", monday + timedelta(days=n), 100) for n in range(3)),
            *((2, "a", monday + timedelta(days=n), 100) for n in range(2)),
            *((2, "b", monday + timedelta(days=n), 100) for n in range(2)),
        ],
    )
    assert (databases.largest_instance, databases.largest_database) == ("instance-1", "crm")
    assert instances.largest_instance == "instance-1"
    rankings = ChangeRankings()
    (database,) = largest_series(store, rankings, Level.DATABASE, WEEK, 1)[Measure.SIZE]
    (instance,) = largest_series(store, rankings, Level.INSTANCE, WEEK, 1)[Measure.SIZE]
    assert isinstance(database, DatabaseGrowth)
    assert (database.database_name, instance.instance) == ("crm", "instance-1")
