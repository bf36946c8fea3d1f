"""Obstacles between a month and its seal: what its windows were calculated from, against what is there. Pure."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from whalefall_capacity.periods import PeriodType, Window
from whalefall_capacity.store.maintenance.seal import (
    Recorded,
    SealError,
    StatsTotals,
    totals_of,
    windows_behind,
    windows_of,
)
from whalefall_capacity.store.table_partitions.retired import LostDays

JANUARY, FEBRUARY, MARCH = date(2025, 1, 1), date(2025, 2, 1), date(2025, 3, 1)
NOON = datetime(2025, 6, 1, 12, tzinfo=timezone.utc)
DAYS = {
    JANUARY + timedelta(days=n): StatsTotals(2, Decimal(100 + n), NOON + timedelta(seconds=n)) for n in range(0, 90, 3)
}


def recorded(sealed: bool = False) -> dict[Window, Recorded]:
    """Return windows of February that are up to date."""
    return {window: Recorded(totals_of(DAYS, window), sealed) for window in windows_of(FEBRUARY, MARCH)}


def test_the_windows_of_a_month_are_those_with_one_of_its_days() -> None:
    windows = windows_of(FEBRUARY, MARCH)
    count = {period_type: sum(w.period_type is period_type for w in windows) for period_type in PeriodType}
    assert list(count.values()) == [28, 5, 1, 1]
    assert next(w.start for w in windows if w.period_type is PeriodType.WEEKLY) == date(2025, 1, 27)


def test_a_window_is_its_days_together() -> None:
    (quarter,) = [w for w in windows_of(FEBRUARY, MARCH) if w.period_type is PeriodType.QUARTERLY]
    assert totals_of(DAYS, quarter) == StatsTotals(
        60, Decimal(sum(100 + n for n in range(0, 90, 3))), NOON + timedelta(seconds=87)
    )
    assert totals_of({}, quarter) == StatsTotals(0, Decimal(0), None)


def test_what_is_up_to_date_may_be_sealed() -> None:
    assert windows_behind(FEBRUARY, MARCH, DAYS, recorded(), []) == []


@pytest.mark.parametrize(
    "changed",
    [
        StatsTotals(3, Decimal(133), NOON + timedelta(seconds=33)),
        StatsTotals(2, Decimal(134), NOON + timedelta(seconds=33)),
        StatsTotals(2, Decimal(133), NOON + timedelta(seconds=34)),
    ],
    ids=["one row more", "another sum", "a newer update"],
)
def test_whatever_changed_of_a_day_puts_its_windows_behind(changed: StatsTotals) -> None:
    day = JANUARY + timedelta(days=33)
    assert DAYS[day] == StatsTotals(2, Decimal(133), NOON + timedelta(seconds=33))
    behind = windows_behind(FEBRUARY, MARCH, DAYS | {day: changed}, recorded(), [])
    kinds = {window.period_type for window in behind}
    assert PeriodType.DAILY in kinds
    assert all(window.start <= day <= window.end for window in behind)


def test_a_window_that_was_never_calculated_is_behind() -> None:
    assert len(windows_behind(FEBRUARY, MARCH, DAYS, {}, [])) == 35


def test_a_sealed_window_whose_days_are_all_there_is_judged_like_any_other() -> None:
    assert windows_behind(FEBRUARY, MARCH, DAYS, recorded(sealed=True), []) == []
    assert len(windows_behind(FEBRUARY, MARCH, {}, recorded(sealed=True), [])) > 10


def test_a_sealed_window_that_has_lost_days_is_final() -> None:
    gone = [LostDays(JANUARY, FEBRUARY, date(2026, 3, 1))]
    days = {day: seen for day, seen in DAYS.items() if day >= FEBRUARY}
    assert windows_behind(FEBRUARY, MARCH, days, recorded(sealed=True), gone) == []
    # The same windows without the loss: the week and the quarter that began in January.
    behind = windows_behind(FEBRUARY, MARCH, days, recorded(sealed=True), [])
    assert [window.period_type for window in behind] == [PeriodType.WEEKLY, PeriodType.QUARTERLY]


def test_a_window_that_has_lost_days_and_is_not_sealed_keeps_the_month() -> None:
    gone = [LostDays(JANUARY, FEBRUARY, date(2026, 3, 1))]
    with pytest.raises(SealError, match="the weekly window 2025-01-27 has lost days and is not sealed"):
        windows_behind(FEBRUARY, MARCH, DAYS, recorded(), gone)


def test_rows_for_days_that_are_gone_keep_the_month() -> None:
    gone = [LostDays(FEBRUARY, MARCH, date(2026, 4, 1))]
    with pytest.raises(SealError, match=r"^18 rows came after these days were retired on 2026-04-01"):
        windows_behind(FEBRUARY, MARCH, DAYS, recorded(sealed=True), gone)
    days = {day: seen for day, seen in DAYS.items() if day.month != 2}
    assert windows_behind(FEBRUARY, MARCH, days, recorded(sealed=True), gone) == []
