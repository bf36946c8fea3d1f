"""Aggregation: calendar windows, measures that add up, growth derived on read."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, days_to_windows, window_of, windows_between
from whalefall_capacity.store.aggregations import calculate as module
from whalefall_capacity.store.aggregations.calculate import WindowResult, WindowState, aggregate
from whalefall_capacity.store.aggregations.growth import (
    DatabaseGrowth,
    InstanceGrowth,
    database_growth,
    instance_growth,
    top_growing_databases,
    top_growing_instances,
)
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.postgres.advisory_locks import lock_child_creation
from whalefall_capacity.watching import Watcher
from whalefall_capacity_tests.processes import PATIENCE_SECONDS, run, start, wait_for
from whalefall_capacity_tests.store.past import MIB, put_sizes, put_total
from whalefall_capacity_tests.store.records import WAITING_FOR_ADVISORY_LOCKS, rows

DAILY, WEEKLY, MONTHLY, QUARTERLY = PeriodType
MONDAY = date(2026, 6, 22)
TB = 10**12


def calculate(store: Engine, days: Iterable[date], *period_types: PeriodType) -> list[WindowResult]:
    """Aggregate the windows that contain *days* on both levels; return the results of the database level."""
    found = []
    for period_type in period_types or PeriodType:
        windows = days_to_windows(days, period_type)
        for window in windows:
            found += aggregate(store, Level.DATABASE, [window])
            aggregate(store, Level.INSTANCE, [window])
    return found


def growth_of(store: Engine, period_type: PeriodType, start: date, database: str = "shop") -> DatabaseGrowth:
    (row,) = database_growth(store, period_type, start, start, 1, database)
    return row


def total_of(store: Engine, period_type: PeriodType, start: date) -> InstanceGrowth:
    (row,) = instance_growth(store, period_type, start, start, 1)
    return row


def rows_of(store: Engine, table: str) -> list[tuple[Any, ...]]:
    """Return every row of an aggregation table but its times."""
    with store.connect() as connection:
        rows = connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4"))
        return [tuple(value for key, value in row.items() if not key.endswith("_at")) for row in rows.mappings()]


def test_a_week_against_the_week_before(store: Engine) -> None:
    sizes = {0: 100, 2: 110, 4: 120, -7: 90, -3: 100}
    put_sizes(store, [(1, "shop", MONDAY + timedelta(days=d), s * MIB) for d, s in sizes.items()])
    calculate(store, [MONDAY, MONDAY - timedelta(days=7)], WEEKLY)
    week = growth_of(store, WEEKLY, MONDAY)
    assert (week.period_start, week.period_end) == (date(2026, 6, 22), date(2026, 6, 28))
    assert (week.avg_size_bytes, week.max_size_bytes, week.min_size_bytes) == (110 * MIB, 120 * MIB, 100 * MIB)
    assert week.data_count == 3
    assert week.closing_size_bytes == 120 * MIB
    assert week.size_change_bytes == 15 * MIB
    assert week.size_change_percent == Decimal("15.79")
    assert week.baseline_start == date(2026, 6, 15)
    assert week.trend_direction == "growing"


def test_equal_sums_of_thirds_are_no_change(store: Engine) -> None:
    rows = [(1, "shop", MONDAY + timedelta(days=d), s) for d, s in {0: 100, 1: 101, 2: 101}.items()]
    rows += [(1, "shop", day - timedelta(days=7), size) for _, _, day, size in rows]
    put_sizes(store, rows)
    calculate(store, [MONDAY, MONDAY - timedelta(days=7)], WEEKLY)
    week = growth_of(store, WEEKLY, MONDAY)
    assert week.size_change_bytes == 0
    assert week.size_change_percent == Decimal("0.00")
    assert week.trend_direction == "stable"


@pytest.mark.parametrize(
    ("day", "period_type", "start", "end"),
    [
        (date(2026, 1, 1), WEEKLY, date(2025, 12, 29), date(2026, 1, 4)),
        (date(2024, 12, 30), WEEKLY, date(2024, 12, 30), date(2025, 1, 5)),
        (date(2024, 2, 29), MONTHLY, date(2024, 2, 1), date(2024, 2, 29)),
        (date(2023, 2, 28), MONTHLY, date(2023, 2, 1), date(2023, 2, 28)),
        (date(2024, 2, 29), QUARTERLY, date(2024, 1, 1), date(2024, 3, 31)),
        (date(2026, 12, 31), QUARTERLY, date(2026, 10, 1), date(2026, 12, 31)),
    ],
)
def test_a_day_falls_into_its_calendar_window(
    store: Engine, day: date, period_type: PeriodType, start: date, end: date
) -> None:
    put_sizes(store, [(1, "shop", day, 100)])
    calculate(store, [day], period_type)
    row = growth_of(store, period_type, start)
    assert (row.period_start, row.period_end, row.data_count) == (start, end, 1)


def test_the_weeks_around_the_first_day_that_can_have_sizes_are_calculated_together(store: Engine) -> None:
    days = [date(2000, 1, day) for day in range(1, 5)]
    put_sizes(store, [(1, "shop", day, 100) for day in days])
    aggregate(store, Level.DATABASE, windows_between(days[0], days[-1], WEEKLY))
    weeks = database_growth(store, WEEKLY, date(1999, 12, 27), date(2000, 1, 3), 1)
    assert [(week.period_start, week.data_count) for week in weeks] == [
        (date(1999, 12, 27), 2),
        (date(2000, 1, 3), 2),
    ]


def test_a_quarter_has_all_three_months_of_the_one_before_as_baseline(store: Engine) -> None:
    put_sizes(store, [(1, "shop", date(2026, month, 15), month * 100) for month in range(1, 7)])
    calculate(store, [date(2026, 1, 1), date(2026, 4, 1)], QUARTERLY)
    quarter = growth_of(store, QUARTERLY, date(2026, 4, 1))
    assert (quarter.period_start, quarter.period_end) == (date(2026, 4, 1), date(2026, 6, 30))
    assert quarter.baseline_start == date(2026, 1, 1)
    assert quarter.avg_size_bytes == 500
    assert quarter.size_change_bytes == 300
    assert quarter.size_change_percent == Decimal("150.00")


def test_the_quarter_of_a_leap_year_has_91_days(store: Engine) -> None:
    put_sizes(store, [(1, "shop", date(2024, 1, 1) + timedelta(days=d), 100) for d in range(91)])
    calculate(store, [date(2024, 1, 1)], QUARTERLY)
    assert growth_of(store, QUARTERLY, date(2024, 1, 1)).data_count == 91


def test_day_totals_and_database_counts_against_the_day_before(store: Engine) -> None:
    put_total(store, 1, MONDAY - timedelta(days=1), 900, 3)
    put_total(store, 1, MONDAY, 1000, 4)
    calculate(store, [MONDAY, MONDAY - timedelta(days=1)], DAILY)
    day = total_of(store, DAILY, MONDAY)
    assert (day.total_size_bytes, day.database_count) == (1000, 4)
    assert (day.total_size_change_bytes, day.total_size_change_percent) == (100, Decimal("11.11"))
    assert (day.database_count_change, day.database_count_change_percent) == (1, Decimal("33.33"))
    assert day.trend_direction == "growing"
    assert day.avg_database_size_bytes == 250


@pytest.mark.parametrize(
    ("after", "trend"),
    [(1050, "stable"), (1051, "growing"), (950, "stable"), (949, "shrinking"), (1000, "stable")],
)
def test_exactly_five_percent_is_stable(store: Engine, after: int, trend: str) -> None:
    put_total(store, 1, MONDAY - timedelta(days=1), 1000, 1)
    put_total(store, 1, MONDAY, after, 1)
    calculate(store, [MONDAY, MONDAY - timedelta(days=1)], DAILY)
    assert total_of(store, DAILY, MONDAY).trend_direction == trend


def test_the_baseline_reaches_over_a_gap(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY - timedelta(days=2), 100), (1, "shop", MONDAY, 130)])
    calculate(store, [MONDAY - timedelta(days=2), MONDAY - timedelta(days=1), MONDAY], DAILY)
    day = growth_of(store, DAILY, MONDAY)
    assert (day.size_change_bytes, day.size_change_percent) == (30, Decimal("30.00"))
    assert day.baseline_start == MONDAY - timedelta(days=2)


@pytest.mark.parametrize(
    ("period_type", "start", "farthest", "too_far"),
    [
        (DAILY, MONDAY, MONDAY - timedelta(days=7), MONDAY - timedelta(days=8)),
        (WEEKLY, MONDAY, MONDAY - timedelta(weeks=4), MONDAY - timedelta(weeks=5)),
        (MONTHLY, date(2026, 6, 1), date(2026, 3, 1), date(2026, 2, 1)),
        (QUARTERLY, date(2026, 4, 1), date(2025, 4, 1), date(2025, 1, 1)),
    ],
)
def test_the_baseline_reaches_no_further_than_its_limit(
    store: Engine, period_type: PeriodType, start: date, farthest: date, too_far: date
) -> None:
    put_sizes(
        store, [(1, "near", farthest, 100), (1, "far", too_far, 100), (1, "near", start, 200), (1, "far", start, 200)]
    )
    calculate(store, [farthest, too_far, start], period_type)
    assert growth_of(store, period_type, start, "near").baseline_start == farthest
    far = growth_of(store, period_type, start, "far")
    assert (far.baseline_start, far.size_change_bytes, far.size_change_percent, far.trend_direction) == (None,) * 4


def test_a_baseline_of_zero_gives_a_change_and_no_percent(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY - timedelta(days=1), 0), (1, "shop", MONDAY, 130)])
    calculate(store, [MONDAY - timedelta(days=1), MONDAY], DAILY)
    day = growth_of(store, DAILY, MONDAY)
    assert (day.size_change_bytes, day.size_change_percent, day.trend_direction) == (130, None, None)


def test_growth_from_one_megabyte_to_forty_terabytes_has_its_percent(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY - timedelta(days=1), 10**6), (1, "shop", MONDAY, 40 * TB)])
    calculate(store, [MONDAY - timedelta(days=1), MONDAY], DAILY)
    assert growth_of(store, DAILY, MONDAY).size_change_percent == Decimal("3999999900.00")


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [(8, 9, "12.50"), (1600, 1601, "0.06"), (800, 801, "0.13"), (800, 799, "-0.13"), (20000, 20001, "0.01")],
)
def test_percent_is_rounded_once_half_away_from_zero(store: Engine, before: int, after: int, percent: str) -> None:
    put_sizes(store, [(1, "shop", MONDAY - timedelta(days=1), before), (1, "shop", MONDAY, after)])
    calculate(store, [MONDAY - timedelta(days=1), MONDAY], DAILY)
    assert growth_of(store, DAILY, MONDAY).size_change_percent == Decimal(percent)


def test_a_percent_that_is_almost_a_half_is_not_rounded_twice(store: Engine) -> None:
    """The exact percent is 100.00499999999999999…: to 16 digits it would read 100.005, and round up."""
    before = 2 * 10**17
    put_sizes(store, [(1, "shop", MONDAY - timedelta(days=1), before), (1, "shop", MONDAY, 400009999999999999)])
    calculate(store, [MONDAY - timedelta(days=1), MONDAY], DAILY)
    assert growth_of(store, DAILY, MONDAY).size_change_percent == Decimal("100.00")


def test_databases_that_come_and_go_in_mid_period_are_averaged_over_their_own_days(store: Engine) -> None:
    days = [MONDAY + timedelta(days=d) for d in range(7)]
    put_sizes(store, [(1, "old", day, 100) for day in days[:3]] + [(1, "new", day, 300) for day in days[5:]])
    calculate(store, days, WEEKLY)
    old, new = growth_of(store, WEEKLY, MONDAY, "old"), growth_of(store, WEEKLY, MONDAY, "new")
    assert (old.data_count, old.avg_size_bytes, old.closing_size_bytes) == (3, 100, 100)
    assert (new.data_count, new.avg_size_bytes, new.closing_size_bytes) == (2, 300, 300)


def test_the_closing_size_is_that_of_the_last_day_with_data(store: Engine) -> None:
    put_sizes(
        store,
        [
            (1, "gone", MONDAY, 500),
            (1, "gone", MONDAY + timedelta(days=1), 200),
            (1, "shop", MONDAY + timedelta(days=6), 9),
        ],
    )
    calculate(store, [MONDAY], WEEKLY)
    assert growth_of(store, WEEKLY, MONDAY, "gone").closing_size_bytes == 200


def test_a_day_that_lands_while_its_week_is_calculated_closes_the_week(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY, 100, 90, 10)])
    with ThreadPoolExecutor(1) as pool:
        with store.begin() as connection:
            lock_child_creation(connection)
            calculated = pool.submit(aggregate, store, Level.DATABASE, [window_of(MONDAY, WEEKLY)])
            # It has read which days there are, and is about to make the week's table partition.
            wait_for(lambda: rows(store, WAITING_FOR_ADVISORY_LOCKS) == [(1,)], "the calculation at the lock")
            put_sizes(store, [(1, "shop", MONDAY + timedelta(days=1), 200, 160, 40)])
        assert [result.closing_size_bytes for result in calculated.result()] == [200]
    closing = (
        "SELECT closing_size_bytes, closing_data_size_bytes, closing_log_size_bytes FROM database_size_aggregations"
    )
    assert rows(store, closing) == [(200, 160, 40)]


def test_as_many_chunks_are_calculated_at_once_as_asked_for(store: Engine) -> None:
    class Together(Watcher[range, range]):
        def began(self, chunk: range) -> None:  # noqa: ARG002
            barrier.wait(PATIENCE_SECONDS)

    put_sizes(store, [(instance_id, "shop", MONDAY, 100) for instance_id in (1, 501, 1001, 1501)])
    barrier = threading.Barrier(4)
    (result,) = aggregate(store, Level.DATABASE, [window_of(MONDAY, DAILY)], Together(), 4)
    assert result.rows_written == 4


def test_an_instance_that_is_disabled_on_thursday_still_counts_for_its_week(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY + timedelta(days=d), 100) for d in range(3)])
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET is_active = false, deleted_at = now()"))
    calculate(store, [MONDAY], WEEKLY)
    assert growth_of(store, WEEKLY, MONDAY).data_count == 3


def test_databases_of_the_same_name_on_two_instances_stay_apart(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY, 100), (2, "shop", MONDAY, 900)])
    calculate(store, [MONDAY], DAILY)
    assert growth_of(store, DAILY, MONDAY).avg_size_bytes == 100
    assert [g.instance for g in top_growing_databases(store, window_of(MONDAY, DAILY))] == ["instance-1", "instance-2"]


def test_names_of_63_bytes_of_utf8_are_kept_whole(store: Engine) -> None:
    name = "库" * 21
    put_sizes(store, [(1, name, MONDAY, 100)])
    calculate(store, [MONDAY])
    assert growth_of(store, QUARTERLY, date(2026, 4, 1), name).database_name == name


def test_data_and_log_sizes_are_averaged_over_the_days_on_which_they_are_known(store: Engine) -> None:
    first, second, third = (MONDAY + timedelta(days=d) for d in range(3))
    put_sizes(
        store, [(1, "shop", first, 10, 6, None), (1, "shop", second, 10, 8, 4), (1, "shop", third, 10, None, None)]
    )
    calculate(store, [MONDAY], WEEKLY)
    week = growth_of(store, WEEKLY, MONDAY)
    assert (week.avg_data_size_bytes, week.avg_log_size_bytes) == (7, 4)
    with store.connect() as connection:
        query = (
            "SELECT data_size_count, closing_data_size_bytes, log_size_count, closing_log_size_bytes "
            "FROM database_size_aggregations"
        )
        assert tuple(connection.execute(text(query)).one()) == (2, 8, 1, 4)


def test_a_data_size_that_is_unknown_on_either_side_has_no_change(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY - timedelta(days=1), 10, None, None), (1, "shop", MONDAY, 20, 8, None)])
    calculate(store, [MONDAY - timedelta(days=1), MONDAY], DAILY)
    day = growth_of(store, DAILY, MONDAY)
    assert (day.avg_data_size_bytes, day.data_size_change_bytes, day.avg_log_size_bytes) == (8, None, None)


def test_days_with_missing_databases_enter_only_where_there_is_no_complete_day(store: Engine) -> None:
    put_total(store, 1, MONDAY, 1000, 4)
    put_total(store, 1, MONDAY + timedelta(days=1), 600, 3, missing=1)
    put_total(store, 1, MONDAY + timedelta(days=7), 700, 3, missing=1)
    calculate(store, [MONDAY, MONDAY + timedelta(days=7)], WEEKLY)
    with_complete, without = total_of(store, WEEKLY, MONDAY), total_of(store, WEEKLY, MONDAY + timedelta(days=7))
    assert (with_complete.total_size_bytes, with_complete.data_count, with_complete.partial_days) == (1000, 1, 1)
    assert with_complete.closing_size_bytes == 1000
    assert (without.total_size_bytes, without.data_count, without.partial_days) == (700, 1, 1)


def test_an_instance_without_databases_has_an_average_database_size_of_zero(store: Engine) -> None:
    put_total(store, 1, MONDAY, 0, 0)
    calculate(store, [MONDAY], DAILY)
    day = total_of(store, DAILY, MONDAY)
    assert (day.avg_database_size_bytes, day.database_count, day.avg_database_count) == (0, 0, Decimal("0.00"))


def test_calculating_again_rewrites_no_row(store: Engine) -> None:
    put_sizes(store, [(1, f"db{n}", MONDAY + timedelta(days=d), n * d) for n in range(20) for d in range(7)])
    calculate(store, [MONDAY])
    versions = "SELECT tableoid, ctid, xmin FROM database_size_aggregations ORDER BY 1, 2"
    with store.connect() as connection:
        before = list(connection.execute(text(versions)))
    again = calculate(store, [MONDAY])
    with store.connect() as connection:
        assert list(connection.execute(text(versions))) == before
    assert [(result.rows_written, result.rows_removed) for result in again] == [(0, 0)] * 4


def test_a_corrected_day_corrects_its_windows_and_a_vanished_one_removes_its_rows(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY, 100), (1, "gone", MONDAY, 100), (1, "shop", MONDAY + timedelta(days=1), 100)])
    calculate(store, [MONDAY, MONDAY + timedelta(days=1)])
    put_sizes(store, [(1, "shop", MONDAY, 300)])
    with store.begin() as connection:
        connection.execute(text("DELETE FROM database_size_stats WHERE database_name = 'gone'"))
    results = calculate(store, [MONDAY], WEEKLY)
    assert (results[0].rows_written, results[0].rows_removed) == (1, 1)
    assert growth_of(store, WEEKLY, MONDAY).avg_size_bytes == 200
    assert database_growth(store, WEEKLY, MONDAY, MONDAY, 1, "gone") == []


def test_a_window_without_any_stats_writes_nothing_and_says_so(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY, 100)])
    (result,) = aggregate(store, Level.DATABASE, [window_of(MONDAY - timedelta(days=30), WEEKLY)])
    assert result.state is WindowState.SKIPPED
    assert rows_of(store, "database_size_aggregations") == []


def test_an_empty_window_creates_no_table_partition(store: Engine) -> None:
    put_sizes(store, [(1, "shop", date(2020, 5, 4), 100)])
    aggregate(store, Level.DATABASE, windows_between(date(2020, 4, 1), date(2020, 5, 31), DAILY))
    with store.connect() as connection:
        children = connection.execute(text("SELECT relname FROM pg_class WHERE relname ~ '^database.*daily_2020_..$'"))
        assert list(children.scalars()) == ["database_size_aggregations_daily_2020_05"]


def test_the_record_of_a_window_says_what_the_calculation_saw(store: Engine) -> None:
    put_sizes(store, [(n, "shop", MONDAY + timedelta(days=d), 100 + d) for n in (1, 2) for d in range(3)])
    calculate(store, [MONDAY], WEEKLY)
    with store.connect() as connection:
        query = (
            "SELECT level, source_rows, source_sum_bytes, result_rows, instances, sealed_at, "
            "source_max_updated_at = (SELECT max(updated_at) FROM database_size_stats) "
            "OR level = 'instance' FROM aggregation_windows ORDER BY level"
        )
        assert [tuple(row) for row in connection.execute(text(query))] == [
            ("database", 6, Decimal(606), 2, 2, None, True),
            ("instance", 6, Decimal(606), 2, 2, None, True),
        ]


def test_a_sealed_window_is_final(store: Engine) -> None:
    put_sizes(store, [(1, "shop", MONDAY + timedelta(days=d), 100) for d in range(-7, 7)])
    calculate(store, [MONDAY, MONDAY - timedelta(days=7)], WEEKLY)
    with store.begin() as connection:
        seal = "UPDATE aggregation_windows SET sealed_at = now() WHERE period_start = :monday"
        connection.execute(text(seal), {"monday": MONDAY - timedelta(days=7)})
        connection.execute(text("DELETE FROM database_size_stats"))
        connection.execute(text("DELETE FROM instance_size_stats"))
    put_sizes(store, [(1, "shop", MONDAY - timedelta(days=7), 999), (1, "shop", MONDAY, 300)])
    sealed, following = aggregate(store, Level.DATABASE, windows_between(MONDAY - timedelta(days=7), MONDAY, WEEKLY))
    assert sealed.state is WindowState.SEALED
    assert growth_of(store, WEEKLY, MONDAY - timedelta(days=7)).data_count == 7
    assert (following.state, growth_of(store, WEEKLY, MONDAY).size_change_bytes) == (WindowState.DONE, 200)


def test_the_top_growers_are_those_of_the_view(store: Engine) -> None:
    days = [MONDAY - timedelta(days=d) for d in (0, 1, 3, 7)]
    sizes = [
        (n, f"db{m}", day, (n * 31 + m * 17 + day.day * 7) % 101 * MIB)
        for n in (1, 2, 3)
        for m in range(9)
        for day in days
    ]
    # Gaps: some keys have their baseline further back, some have none.
    put_sizes(store, [s for s in sizes if s[2] == MONDAY or (s[0] + int(s[1][2:]) + s[2].day) % 3])
    calculate(store, days, DAILY)
    found = [(g.instance_id, g.database_name) for g in top_growing_databases(store, window_of(MONDAY, DAILY), 20)]
    query = """
        SELECT instance_id, database_name FROM database_size_growth
        WHERE period_type = 'daily' AND period_start = :day AND size_change_bytes IS NOT NULL
        ORDER BY size_change_bytes DESC, instance_id, database_name LIMIT 20
    """
    with store.connect() as connection:
        assert found == [tuple(row) for row in connection.execute(text(query), {"day": MONDAY})]


def test_the_instances_that_grew_most_are_those_of_the_view_and_ties_go_by_name(store: Engine) -> None:
    days = [MONDAY - timedelta(days=d) for d in (0, 1, 3, 7)]
    sizes = [(n, "shop", day, (n * 31 + day.day * n * 7) % 53 * MIB) for n in range(1, 20) for day in days]
    # Gaps: some have their baseline further back, some have none; 20 to 22 hold still, as do those of the same size.
    put_sizes(store, [s for s in sizes if s[2] == MONDAY or (s[0] + s[2].day) % 3])
    put_sizes(store, [(n, "shop", day, 100) for n in (20, 21, 22) for day in days])
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET name = 'a' || (100 - id)"))
    aggregate(store, Level.INSTANCE, [window_of(day, DAILY) for day in sorted(days)])
    query = """
        SELECT name, total_size_bytes, total_size_change_bytes, baseline_start
        FROM instance_size_growth JOIN instances ON id = instance_id
        WHERE period_type = 'daily' AND period_start = :day
        ORDER BY total_size_change_bytes DESC NULLS LAST, name LIMIT :count
    """
    for count in (5, 12, 30):
        found = [
            (g.instance, g.total_size_bytes, g.total_size_change_bytes, g.baseline_start)
            for g in top_growing_instances(store, window_of(MONDAY, DAILY), count)
        ]
        with store.connect() as connection:
            assert found == [tuple(row) for row in connection.execute(text(query), {"day": MONDAY, "count": count})]


@pytest.mark.parametrize("level", Level)
def test_two_runs_of_the_same_window_at_once_both_succeed(store: Engine, level: Level) -> None:
    put_sizes(
        store,
        [
            (n, f"db{m}", MONDAY + timedelta(days=d), n * m + d)
            for n in range(1, 31)
            for m in range(10)
            for d in range(7)
        ],
    )
    window = window_of(MONDAY, WEEKLY)
    table = f"{level.value}_size_aggregations"
    aggregate(store, level, [window])
    expected = rows_of(store, table)
    for _ in range(10):
        with store.begin() as connection:
            connection.execute(text(f"DELETE FROM {table} WHERE instance_id % 2 = 0"))
        errors: list[Exception] = []

        def run(errors: list[Exception] = errors) -> None:
            try:
                aggregate(store, level, [window])
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert rows_of(store, table) == expected


def test_what_stops_between_two_chunks_leaves_each_old_or_new_and_is_completed_later(
    store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_INSTANCES", dict.fromkeys(Level, 2))
    put_sizes(store, [(n, "shop", MONDAY, 100) for n in range(1, 10)])
    window = window_of(MONDAY, DAILY)
    aggregate(store, Level.DATABASE, [window])
    put_sizes(store, [(n, "shop", MONDAY, 200) for n in range(1, 10)])

    class Stop(Watcher[range, range]):
        def progressed(self, done: int, total: int) -> None:
            assert total == 5
            if done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aggregate(store, Level.DATABASE, [window], Stop())
    sizes = [row.max_size_bytes for row in growth_rows(store, DAILY)]
    assert sizes[0:8:2] == sizes[1:8:2]
    assert sizes.count(200) >= 3
    with store.connect() as connection:
        recorded = connection.execute(text("SELECT source_sum_bytes FROM aggregation_windows")).scalar_one()
        assert recorded == 900
    (result,) = aggregate(store, Level.DATABASE, [window])
    assert (result.rows_written, result.source_sum_bytes) == (sizes.count(100), 1800)


@pytest.mark.slow
def test_a_process_killed_in_mid_statement_leaves_each_chunk_old_or_new_and_the_next_run_completes_it(
    store: Engine, empty_database: str, tmp_path: Path
) -> None:
    put_sizes(store, [(1, "shop", MONDAY, 100), (501, "shop", MONDAY, 100)])
    aggregate(store, Level.DATABASE, [window_of(MONDAY, DAILY)])
    put_sizes(store, [(1, "shop", MONDAY, 200), (501, "shop", MONDAY, 200)])
    settings = {
        "WHALEFALL_HOME": str(tmp_path / "home"),
        "WHALEFALL_STORE_URL": store.url.render_as_string(hide_password=False),
        "WHALEFALL_DAGSTER_URL": empty_database,
    }
    command = ["aggregate", "daily", "--from", str(MONDAY), "--to", str(MONDAY), "--scope", "database"]
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with store.begin() as holder:
        # Somebody holds a row of the second chunk: its statement gets so far and no further.
        holder.execute(text("SELECT FROM database_size_aggregations WHERE instance_id = 501 FOR UPDATE"))
        process = start(command, settings, tmp_path / "killed.log")
        with store.connect() as observer:
            autocommit = observer.execution_options(isolation_level="AUTOCOMMIT")
            wait_for(lambda: autocommit.execute(waiting).scalar_one() == 1, "statement that waits")
            sizes = text("SELECT max_size_bytes FROM database_size_aggregations ORDER BY instance_id")
            wait_for(lambda: list(autocommit.execute(sizes).scalars()) == [200, 100], "first chunk")
        process.kill()
        process.wait()
    assert [row.max_size_bytes for row in growth_rows(store, DAILY)] == [200, 100]
    again = run(command, settings)
    assert again.returncode == 0, again.stderr
    assert [row.max_size_bytes for row in growth_rows(store, DAILY)] == [200, 200]


def growth_rows(store: Engine, period_type: PeriodType) -> list[Any]:
    query = "SELECT * FROM database_size_growth WHERE period_type = :period_type ORDER BY instance_id"
    with store.connect() as connection:
        return list(connection.execute(text(query), {"period_type": period_type.value}))
