"""The golden cases through the pure functions, in GiB; the range of a long history is 1.2 and 1.35 spreads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from whalefall_capacity.insight.anomalies import anomalies
from whalefall_capacity.insight.dates import (
    Dates,
    Import,
    Instances,
    altered,
    dates,
    days_until_full,
    instances,
    together,
)
from whalefall_capacity.insight.growth import Growth, Histories, Increments, growth, histories, increments, one_offs

GIB = 2.0**30
DAYS = np.arange(200.0)
Sizes = NDArray[np.float64]


def seen(*sizes: Sizes) -> tuple[Histories, Increments, Growth]:
    """Return what is found in histories that end on the same day."""
    width = max(map(len, sizes))
    rows = [np.concatenate([np.full(width - len(each), np.nan), each]) for each in sizes]
    of = histories(np.stack(rows) * GIB)
    within = increments(of, 0, width - 1)
    return of, within, growth(of, within, width - 1)


def instance(limit: float | None, *sizes: Sizes, unmeasured: int = 0) -> Instances:
    """Return one instance with these databases."""
    _, _, found = seen(*sizes)
    rate, spread, swing = together(found.rate, found.spread, found.swing)
    return instances(
        found.size.sum(),
        np.nan if limit is None else limit * GIB,
        rate,
        spread,
        swing,
        1.2,
        1.35,
        found.measured_days.max(),
        unmeasured,
    )


def days(of: Dates) -> list[float]:
    return [of.expected[0], of.earliest[0], of.latest[0]]


def in_gib(values: NDArray[np.float64]) -> list[float]:
    return [round(value / GIB, 4) for value in values.tolist()]


def test_a_steady_growth() -> None:
    _, _, found = seen(100 + DAYS)
    assert (in_gib(found.rate), in_gib(found.spread), in_gib(found.swing)) == ([1.0], [2.8598], [0.0])
    assert days(dates(instance(329, 100 + DAYS))) == [30, 27, 35]


def imported() -> Sizes:
    return np.asarray(100 + DAYS + np.where(DAYS >= 189, 100, 0))


def test_an_import_is_left_out() -> None:
    _, within, found = seen(imported())
    rows, columns, sizes = one_offs(within)
    assert (rows.tolist(), columns.tolist(), in_gib(sizes)) == ([0], [189], [100.0])
    assert in_gib(found.rate) == [1.0]
    assert days(dates(instance(459, imported()))) == [60, 53, 69]


def test_a_purge_is_a_way_of_growing() -> None:
    saw = np.asarray(100 + np.cumsum(1 - 20 * (DAYS % 28 == 27)))
    _, within, found = seen(saw)
    assert saw[-1] == 160
    assert not within.one_off.any()
    assert found.rate[0] / GIB == pytest.approx(21 / 91, rel=1e-12)
    assert found.swing[0] / GIB == pytest.approx(210 / 13, rel=1e-12)
    assert days(dates(instance(200, saw))) == [104, 91, 199]


def test_a_gap_is_never_filled() -> None:
    day = np.arange(120.0)
    sizes = np.where((day >= 60) & (day < 70), np.nan, 100 + day + np.where(day >= 70, 50, 0))
    _, within, found = seen(sizes)
    assert found.measured_days.tolist() == [110]
    assert in_gib(found.rate) == [1.0]
    assert in_gib(one_offs(within)[2]) == [50.0]


def test_databases_of_an_instance_add_up() -> None:
    old, young = 100 + DAYS, 50 + 2 * np.arange(20.0)
    of = instance(450, old, young)
    assert (of.used[0] / GIB, of.rate[0] / GIB) == (387, 3)
    assert days(dates(of)) == [21, 20, 24]


@pytest.mark.parametrize(
    ("sizes", "limit", "unmeasured", "status"),
    [
        (np.full(200, 64.0), 65, 0, "not_within_a_year"),
        (400 - DAYS, 500, 0, "not_within_a_year"),
        (100 + DAYS, 299, 0, "full"),
        (100 + np.arange(13.0), 300, 0, "too_new"),
        (100 + DAYS, 329, 4, "stale"),
        (100 + DAYS, 329, 3, "dated"),
        (100 + DAYS, 299, 4, "stale"),
        (100 + DAYS, None, 4, "no_limit"),
        (100 + np.arange(13.0), 112, 0, "full"),
    ],
)
def test_an_honest_no_beats_a_number(sizes: Sizes, limit: float | None, unmeasured: int, status: str) -> None:
    found = dates(instance(limit, sizes, unmeasured=unmeasured))
    assert found.status == [status]
    if status != "dated":
        assert np.isnan(days(found)).all()


def test_a_last_byte_of_room_is_not_none() -> None:
    limit, pace = np.array([8.0, 7.0, 372.0, 372.5]), np.array([1e9, 1e9, 1.0, 1.0])
    np.testing.assert_array_equal(days_until_full(np.full(4, 7.0), limit, pace), [1, 0, 365, np.nan])


@pytest.mark.parametrize(("size", "day"), [(39, np.nan), (40, 30), (99, 30), (110, 30)])
def test_what_shrinks_makes_room_for_an_import(size: float, day: float) -> None:
    # 90 of 100, and 1 less every day: 60 on the day of the import.
    found = days_until_full(np.array([90.0]), np.array([100.0]), np.array([-1.0]), Import(size, 30))
    np.testing.assert_array_equal(found, [day])


def test_only_what_is_there_can_shrink() -> None:
    found = days_until_full(np.array([9.0] * 2), np.array([100.0] * 2), np.array([-1.0, -50.0]), Import(100, 20))
    np.testing.assert_array_equal(found, [20, 20])


def test_an_open_end_says_only_the_earliest_day() -> None:
    # 28-day growths of 0 and of 60 by turns: the pace may as well be none at all.
    sizes = np.asarray(100 + 60 * (DAYS // 56))
    found = dates(instance(sizes[-1] + 260, sizes + np.minimum(DAYS % 56, 28) * 60 / 28))
    assert found.status == ["not_before"]
    assert np.isnan(found.latest[0])
    assert 0 < found.earliest[0] < found.expected[0]


def test_a_jump_is_told_with_its_threshold() -> None:
    sizes = 100 + np.arange(120.0)
    sizes[-1] *= 1.2
    of, within, _ = seen(sizes)
    (found,) = anomalies(of, within, 119)
    assert (found.row, found.kind) == (0, "jump")
    assert in_gib(np.array([found.change, found.usual, found.threshold])) == [43.8, 1.0, 10.9]


@pytest.mark.parametrize(("until", "kinds"), [(30, ["jump"]), (31, []), (120, [])])
def test_a_load_of_every_month_is_told_once(until: int, kinds: Sequence[str]) -> None:
    day = np.arange(float(until))
    of, within, _ = seen(100 + day + 30 * ((day + 1) // 30))
    assert [found.kind for found in anomalies(of, within, until - 1)] == kinds


def test_a_drop_is_told_below_zero() -> None:
    sizes = 100 + np.arange(120.0)
    sizes[-1] -= 50
    of, within, _ = seen(sizes)
    (found,) = anomalies(of, within, 119)
    assert (found.kind, round(found.change / GIB, 4)) == ("drop", -50.0)


def test_a_database_that_always_grew_stalls() -> None:
    sizes = 100 + np.arange(130.0)
    sizes[-15:] = sizes[-15]
    of, within, _ = seen(sizes)
    (found,) = anomalies(of, within, 129)
    assert (found.kind, found.change, found.usual / GIB) == ("stall", 0.0, 14.0)


def test_less_than_128_mib_is_no_anomaly() -> None:
    sizes = np.full(120, 0.1)
    sizes[-1] = 0.2
    of, within, _ = seen(sizes)
    assert anomalies(of, within, 119) == []


@pytest.mark.parametrize(
    ("change", "planned", "expected"),
    [
        ({"limit": 309 * GIB}, None, [10, 9, 12]),
        ({"pace": 2.0}, None, [15, 14, 18]),
        ({}, Import(20 * GIB, 5), [10, 9, 12]),
        ({}, Import(20 * GIB, 20), [20, 20, 20]),
        ({}, Import(20 * GIB, 60), [30, 27, 35]),
        ({"limit": 200 * GIB}, None, []),
    ],
)
def test_what_if(change: dict[str, float], planned: Import | None, expected: list[float]) -> None:
    found = dates(altered(instance(329, 100 + DAYS), **change), planned)
    assert days(found) == expected if expected else found.status == ["full"]
