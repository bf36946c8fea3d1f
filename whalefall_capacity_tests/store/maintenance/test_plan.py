"""Past children, contents of a plan, and plans of which somebody has to be asked. Pure."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from whalefall_capacity.periods import PeriodType, window_of
from whalefall_capacity.store.maintenance.plan import Plan, cut_off, plan_drops
from whalefall_capacity.store.table_partitions.catalog import ChildTable
from whalefall_capacity.store.table_partitions.create import (
    AGGREGATION_TABLES,
    DATABASE_SIZE_STATS,
    Bounds,
    PartitionedTable,
)
from whalefall_capacity_tests.store.maintenance.upkeep import settings_for

TODAY = date(2026, 5, 20)


def child_of(day: date, table: PartitionedTable = DATABASE_SIZE_STATS, **changes: Any) -> ChildTable:
    child = table.child_of(day)
    values: dict[str, Any] = {
        "table": table,
        "oid": day.toordinal(),
        "schema": "public",
        "name": child.name,
        "same_schema": True,
        "bounds": Bounds(child.lower, child.upper),
        "detach_pending": False,
        "is_plain": True,
        "rows_estimate": 5,
        "size_bytes": 8192,
    }
    return ChildTable(**{**values, **changes})


def plan(*children: ChildTable, day: date = TODAY, last_time: int = 0, max_drops: int = 50, **overrides: Any) -> Plan:
    return plan_drops(children, settings_for(**overrides), day, {}, last_time, max_drops)


@pytest.mark.parametrize(
    ("day", "months", "month", "past"),
    [
        (date(2026, 3, 1), 13, date(2025, 1, 1), True),
        (date(2026, 2, 28), 13, date(2025, 1, 1), False),
        # The cut-off of 31 March minus one month is the last of February.
        (date(2026, 3, 31), 13, date(2025, 2, 1), False),
        (date(2028, 2, 29), 12, date(2027, 1, 1), True),
        (date(2028, 3, 29), 13, date(2027, 2, 1), False),
        (date(2026, 7, 1), 4, date(2026, 2, 1), True),
        (date(2026, 6, 30), 4, date(2026, 2, 1), False),
    ],
)
def test_a_child_is_past_when_its_upper_bound_is_not_after_the_cut_off(
    day: date, months: int, month: date, past: bool
) -> None:
    drops = plan(child_of(month), day=day, retention_stats_months=months).drops
    assert bool(drops) is past


def test_a_child_of_a_year_is_past_when_its_last_month_is() -> None:
    table = AGGREGATION_TABLES["database", PeriodType.MONTHLY]
    assert plan(child_of(date(2016, 1, 1), table), day=date(2026, 12, 31)).drops == ()
    assert len(plan(child_of(date(2016, 1, 1), table), day=date(2027, 1, 1)).drops) == 1


def test_the_oldest_go_first_and_the_others_wait() -> None:
    months = [date(2024, 3, 1), date(2024, 1, 1), date(2024, 2, 1)]
    made = plan(*map(child_of, months), max_drops=2)
    assert [drop.lower for drop in made.drops] == [date(2024, 1, 1), date(2024, 2, 1)]
    assert [drop.lower for drop in made.waiting] == [date(2024, 3, 1)]


def test_a_drop_says_why() -> None:
    (drop,) = plan(child_of(date(2024, 1, 1))).drops
    assert (drop.rows, drop.bytes) == (5, 8192)
    assert drop.reason == "all of it lies before 2025-04-20, 13 months ago"


def test_the_id_follows_what_would_go_and_how_and_nothing_else() -> None:
    january, february = child_of(date(2024, 1, 1)), child_of(date(2024, 2, 1))
    made = plan(january, february)
    assert len(made.id) == 12
    assert made.id == plan(february, january, day=TODAY + timedelta(days=1)).id
    assert made.id == plan(child_of(date(2024, 1, 1), rows_estimate=9, size_bytes=1), february).id
    assert made.id != plan(january).id
    assert made.id != plan(child_of(date(2024, 1, 1), oid=7), february).id
    assert made.id != plan(january, february, archive_dir=Path("/archive")).id


@pytest.mark.parametrize(
    ("past", "last_time", "asked"),
    [(12, 0, False), (13, 0, True), (18, 6, False), (19, 6, True), (150, 50, False), (151, 50, True)],
)
def test_far_more_than_last_time_is_asked_for(past: int, last_time: int, asked: bool) -> None:
    children = [child_of(date(2000 + number // 12, number % 12 + 1, 1)) for number in range(past)]
    assert (plan(*children, last_time=last_time).question is not None) is asked


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"same_schema": False, "schema": "other"}, "is in another schema, other: drop it by hand"),
        ({"is_plain": False}, "is no plain table: drop it by hand"),
        (
            {"bounds": Bounds(date(2024, 1, 2), date(2024, 2, 1))},
            "has bounds of its own, 2024-01-02 to 2024-02-01: drop it by hand",
        ),
    ],
)
def test_what_the_program_did_not_make_is_kept(changes: dict[str, Any], reason: str) -> None:
    made = plan(child_of(date(2024, 1, 1), **changes))
    assert made.drops == ()
    assert [kept.reason for kept in made.kept] == [reason]


def test_a_restored_child_is_kept_until_its_day() -> None:
    child = child_of(date(2024, 1, 1))
    until = {("database_size_stats", date(2024, 1, 1)): date(2026, 5, 21)}
    settings = settings_for()
    assert plan_drops([child], settings, TODAY, until, 0).drops == ()
    assert len(plan_drops([child], settings, date(2026, 5, 21), until, 0).drops) == 1


def test_the_shortest_retention_of_stats_outlasts_every_window_that_needs_them() -> None:
    """A month may go only when the quarter, the longest window with one of its days, is over."""
    settings = settings_for(retention_stats_months=4)
    day = date(2023, 1, 1)
    while day < date(2029, 1, 1):
        limit = cut_off(DATABASE_SIZE_STATS, settings, day)
        newest_to_go = limit.replace(day=1) - timedelta(days=1)
        for period_type in PeriodType:
            assert window_of(newest_to_go, period_type).end < day
        day += timedelta(days=1)
