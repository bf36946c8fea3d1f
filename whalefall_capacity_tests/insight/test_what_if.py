"""Dates under another limit, another pace, an import: and the lines that lead to them."""

from __future__ import annotations

import numpy as np
import pytest

from whalefall_capacity.insight.dates import Import, Instances, altered, dates, fan, instances, together
from whalefall_capacity.insight.statuses import ForecastStatus

SPREAD = 2.8598


def growing(limit: float = 329.0, swing: float = 0.0) -> Instances:
    """Return an instance of 299 that grows 1 a day."""
    return instances(299.0, limit, 1.0, SPREAD, swing, 1.2, 1.35, 200, 0)


def days(of: Instances, planned: Import | None = None) -> tuple[float, float, float]:
    found = dates(of, planned)
    assert found.status == [ForecastStatus.DATED]
    return float(found.expected[0]), float(found.earliest[0]), float(found.latest[0])


def test_nothing_changed_changes_nothing() -> None:
    assert days(altered(growing())) == days(growing()) == (30.0, 27.0, 35.0)


def test_another_limit_moves_the_dates_and_not_the_pace() -> None:
    assert days(altered(growing(), limit=359.0)) == (60.0, 53.0, 69.0)
    assert dates(altered(growing(limit=np.nan), limit=329.0)).status == [ForecastStatus.DATED]
    assert dates(altered(growing(), limit=299.0)).status == [ForecastStatus.FULL]


def test_a_pace_is_multiplied_with_its_spread() -> None:
    assert days(altered(growing(), pace=2.0)) == (15.0, 14.0, 18.0)
    assert dates(altered(growing(), pace=0.0)).status == [ForecastStatus.NOT_WITHIN_A_YEAR]


@pytest.mark.parametrize(
    ("size", "after", "expected"),
    [
        (10.0, 5, 20.0),  # it takes room of the days after it
        (28.0, 10, 10.0),  # it fills the disk itself
        (10.0, 40, 30.0),  # it comes too late to matter
    ],
)
def test_an_import_takes_its_room_from_its_day_on(size: float, after: int, expected: float) -> None:
    assert days(growing(), Import(size, after))[0] == expected


def test_a_dropped_database_is_left_out_of_the_sum() -> None:
    assert together([1.0, 2.0], [3.0, 4.0], [0.0, 5.0]) == (3.0, 5.0, 5.0)
    assert together([], [], []) == (0.0, 0.0, 0.0)


def test_each_line_of_the_fan_reaches_the_limit_on_its_day_and_stays_there() -> None:
    of = growing(swing=6.0)
    until = dates(of)
    lines = fan(of, until, np.arange(60))
    for line, day in zip(lines, (until.earliest, until.expected, until.latest), strict=True):
        reached = int(day[0])
        assert line[0, 0] == 299.0
        assert line[0, reached - 1] < 329.0 == line[0, reached] == line[0, 59]
        assert (np.diff(line[0]) >= 0).all()


def test_an_import_is_a_step_in_each_line() -> None:
    of, planned = growing(), Import(10.0, 5)
    _, expected, _ = fan(of, dates(of, planned), np.array([4, 5, 20]), planned)
    assert expected.tolist() == [[303.0, 314.0, 329.0]]


def test_a_line_without_a_day_is_not_drawn() -> None:
    of = instances(100.0, 300.0, 1.0, 100.0, 0.0, 1.2, 1.35, 200, 0)
    until = dates(of)
    assert until.status == [ForecastStatus.NOT_BEFORE]
    earliest, _, latest = fan(of, until, np.array([0, 10]))
    assert not np.isnan(earliest).any()
    assert np.isnan(latest).all()
