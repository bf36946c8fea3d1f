"""A recomputation tells which aggregation rows differ from their stats. The latest day is a Thursday."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, window_of, windows_between
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.recompute import Difference, Recomputation, recompute
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity_tests.store.maintenance.upkeep import calculate, days_of, put_month, upkeep
from whalefall_capacity_tests.store.past import put_sizes

DAY = date(2026, 6, 25)
LEVELS = [Level.DATABASE, Level.INSTANCE]


def ago(days: int) -> date:
    return DAY - timedelta(days=days)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("period_type", PeriodType)
def test_what_was_aggregated_equals_its_recomputation(store: Engine, level: Level, period_type: PeriodType) -> None:
    varied_past(store)
    aggregate(store, level, windows_between(ago(120), DAY, period_type))
    for seed in range(5):
        latest, earlier = recompute(store, level, period_type, seed)
        assert latest.window == window_of(DAY, period_type)
        assert earlier.window < latest.window
        assert (latest.differences, latest.behind, earlier.differences, earlier.behind) == ([], None, [], None)
        assert latest.keys > 0


@pytest.mark.parametrize("level", LEVELS)
def test_one_wrong_byte_is_a_difference(store: Engine, level: Level) -> None:
    put_sizes(store, [(1, "crm", DAY, 100), (1, "crm", ago(1), 90)])
    aggregate(store, level, [window_of(DAY, PeriodType.WEEKLY)])
    changed(store, f"UPDATE {level.value}_size_aggregations SET closing_size_bytes = 101")
    (latest,) = recompute(store, level, PeriodType.WEEKLY, 1)
    key = "instance-1 crm" if level is Level.DATABASE else "instance-1"
    assert latest == Recomputation(
        window_of(DAY, PeriodType.WEEKLY), None, 1, [Difference(key, "closing_size_bytes", 101, 100)]
    )


@pytest.mark.parametrize("measure", ["data_count", "sum_size_bytes", "min_size_bytes", "sum_log_size_bytes"])
def test_every_measure_is_compared_also_where_it_is_not_known(store: Engine, measure: str) -> None:
    put_sizes(store, [(1, "crm", DAY, 100)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.MONTHLY)])
    changed(store, f"UPDATE database_size_aggregations SET {measure} = 7")
    (latest,) = recompute(store, Level.DATABASE, PeriodType.MONTHLY, 1)
    assert [(d.measure, d.stored) for d in latest.differences] == [(measure, 7)]


def test_rows_that_are_missing_or_have_no_stats_are_differences(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY, 100), (1, "erp", DAY, 50)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    changed(store, "UPDATE database_size_aggregations SET database_name = 'ghost' WHERE database_name = 'erp'")
    (latest,) = recompute(store, Level.DATABASE, PeriodType.DAILY, 1)
    assert latest.differences == [
        Difference("instance-1 erp", "the whole row", None, "there"),
        Difference("instance-1 ghost", "the whole row", "there", None),
    ]


def test_one_key_in_a_hundred_is_compared_and_twenty_at_least(store: Engine) -> None:
    put_sizes(store, [(1, f"db{number}", DAY, number) for number in range(2101)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    (many,) = recompute(store, Level.DATABASE, PeriodType.DAILY, 1)
    assert many.keys == 22
    changed(store, "DELETE FROM database_size_stats WHERE size_bytes >= 300")
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    (few,) = recompute(store, Level.DATABASE, PeriodType.DAILY, 1)
    assert few.keys == 20


def test_the_seed_repeats_the_sample_and_another_one_takes_other_keys(store: Engine) -> None:
    put_sizes(store, [(1, f"db{number}", DAY, number) for number in range(500)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    changed(store, "UPDATE database_size_aggregations SET max_size_bytes = -1")
    first, again, other = (recompute(store, Level.DATABASE, PeriodType.DAILY, seed)[0] for seed in (4711, 4711, 1174))
    assert first == again
    assert {d.key for d in first.differences} != {d.key for d in other.differences}


def test_the_earlier_window_is_any_that_is_not_sealed(store: Engine) -> None:
    days = [ago(days) for days in range(10)]
    put_sizes(store, [(1, "crm", day, 1) for day in days])
    aggregate(store, Level.DATABASE, [window_of(day, PeriodType.DAILY) for day in sorted(days)])
    changed(store, f"UPDATE aggregation_windows SET sealed_at = now() WHERE period_start < '{ago(3)}'")
    chosen = {recompute(store, Level.DATABASE, PeriodType.DAILY, seed)[1].window.start for seed in range(30)}
    assert chosen == {ago(1), ago(2), ago(3)}


@pytest.mark.parametrize("level", LEVELS)
def test_a_window_whose_rows_went_by_their_own_retention_is_left_out(store: Engine, level: Level) -> None:
    may = [date(2026, 5, 18), date(2026, 5, 19)]
    put_month(store, date(2025, 1, 1))
    put_sizes(store, [(1, "shop", day, 1) for day in may])
    calculate(store, days_of(date(2025, 1, 1)) + may)
    upkeep(store, date(2026, 5, 20), retention_daily_months=12, retention_stats_months=30)
    found = [window for seed in range(8) for window in recompute(store, level, PeriodType.DAILY, seed)]
    assert {window.window.start for window in found} == set(may)
    assert [difference for window in found for difference in window.differences] == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_window_whose_stats_changed_since_is_behind(store: Engine, level: Level) -> None:
    put_sizes(store, [(1, "crm", DAY, 100)])
    aggregate(store, level, [window_of(DAY, PeriodType.MONTHLY)])
    put_sizes(store, [(1, "crm", ago(1), 90)])
    (latest,) = recompute(store, level, PeriodType.MONTHLY, 1)
    assert latest.behind is not None
    assert latest.behind.startswith("2 rows of stats, the newest of ")


def test_stats_that_changed_but_add_up_to_the_same_leave_a_window_behind(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY, 100), (1, "erp", DAY, 50)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    put_sizes(store, [(1, "crm", DAY, 50), (1, "erp", DAY, 100)])
    (latest,) = recompute(store, Level.DATABASE, PeriodType.DAILY, 1)
    assert latest.behind is not None


def test_a_window_that_was_never_calculated_is_behind(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY, 100)])
    (latest,) = recompute(store, Level.INSTANCE, PeriodType.QUARTERLY, 1)
    assert latest.behind == "1 rows of stats, and no calculation yet"


def test_without_stats_there_is_nothing_to_recompute(store: Engine) -> None:
    assert recompute(store, Level.DATABASE, PeriodType.DAILY, 1) == []


def changed(store: Engine, statement: str) -> None:
    with store.begin() as connection:
        connection.execute(text(statement))


def varied_past(store: Engine) -> None:
    """Leave four months with gaps, databases that come and go, unknown logs and days with missing databases."""
    put_sizes(
        store,
        [
            (
                instance,
                f"db{number}",
                ago(days),
                1000 * number + 7 * days,
                500 + days if number % 2 else None,
                days if (number + days) % 3 else None,
            )
            for instance in (1, 2, 501)
            for number in range(8)
            for days in range(121)
            if (days + number * instance) % 5 and (number != 3 or days > 20)
        ],
    )
    changed(store, "UPDATE instance_size_stats SET missing_count = 2 WHERE instance_id = 2")
    changed(store, f"UPDATE instance_size_stats SET missing_count = 1 WHERE collected_date > '{ago(3)}'")
