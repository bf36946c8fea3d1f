"""What stands between a month and its seal: what its windows were calculated from, against what is there. Pure."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from whalefall_capacity.periods import PeriodType, Window
from whalefall_capacity.store.maintenance.seal import Recorded, StatsTotals, judge, together, windows_of
from whalefall_capacity.store.table_partitions.ledger import LostDays

JANUARY, FEBRUARY, MARCH = date(2025, 1, 1), date(2025, 2, 1), date(2025, 3, 1)
NOON = datetime(2025, 6, 1, 12, tzinfo=timezone.utc)
DAYS = {
    JANUARY + timedelta(days=n): StatsTotals(2, Decimal(100 + n), NOON + timedelta(seconds=n)) for n in range(0, 90, 3)
}


def recorded(sealed: bool = False) -> dict[Window, Recorded]:
    """Return windows of February that are up to date."""
    return {window: Recorded(together(DAYS, window), sealed) for window in windows_of(FEBRUARY, MARCH)}


def test_the_windows_of_a_month_are_those_with_one_of_its_days() -> None:
    windows = windows_of(FEBRUARY, MARCH)
    count = {period_type: sum(w.period_type is period_type for w in windows) for period_type in PeriodType}
    assert list(count.values()) == [28, 5, 1, 1]
    assert next(w.start for w in windows if w.period_type is PeriodType.WEEKLY) == date(2025, 1, 27)


def test_a_window_is_its_days_together() -> None:
    (quarter,) = [w for w in windows_of(FEBRUARY, MARCH) if w.period_type is PeriodType.QUARTERLY]
    assert together(DAYS, quarter) == StatsTotals(
        60, Decimal(sum(100 + n for n in range(0, 90, 3))), NOON + timedelta(seconds=87)
    )
    assert together({}, quarter) == StatsTotals(0, Decimal(0), None)


def test_what_is_up_to_date_may_be_sealed() -> None:
    verdict = judge(FEBRUARY, MARCH, DAYS, recorded(), [])
    assert (verdict.behind, verdict.refusal) == ((), None)


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
    verdict = judge(FEBRUARY, MARCH, DAYS | {day: changed}, recorded(), [])
    kinds = {window.period_type for window in verdict.behind}
    assert PeriodType.DAILY in kinds
    assert all(window.start <= day <= window.end for window in verdict.behind)


def test_a_window_that_was_never_calculated_is_behind() -> None:
    assert len(judge(FEBRUARY, MARCH, DAYS, {}, []).behind) == 35


def test_a_sealed_window_whose_days_are_all_there_is_judged_like_any_other() -> None:
    assert judge(FEBRUARY, MARCH, DAYS, recorded(sealed=True), []).behind == ()
    assert len(judge(FEBRUARY, MARCH, {}, recorded(sealed=True), []).behind) > 10


def test_a_sealed_window_that_has_lost_days_is_final() -> None:
    gone = [LostDays(JANUARY, FEBRUARY, date(2026, 3, 1))]
    days = {day: seen for day, seen in DAYS.items() if day >= FEBRUARY}
    verdict = judge(FEBRUARY, MARCH, days, recorded(sealed=True), gone)
    assert (verdict.behind, verdict.refusal) == ((), None)
    assert [window.period_type for window in verdict.final] == [PeriodType.WEEKLY, PeriodType.QUARTERLY]


def test_a_window_that_has_lost_days_and_is_not_sealed_keeps_the_month() -> None:
    gone = [LostDays(JANUARY, FEBRUARY, date(2026, 3, 1))]
    assert judge(FEBRUARY, MARCH, DAYS, recorded(), gone).refusal == (
        "the weekly window 2025-01-27 has lost days and is not sealed"
    )


def test_rows_for_days_that_are_gone_keep_the_month() -> None:
    gone = [LostDays(FEBRUARY, MARCH, date(2026, 4, 1))]
    refusal = judge(FEBRUARY, MARCH, DAYS, recorded(sealed=True), gone).refusal
    assert refusal is not None
    assert refusal.startswith("18 rows came after these days were retired on 2026-04-01")
    days = {day: seen for day, seen in DAYS.items() if day.month != 2}
    assert judge(FEBRUARY, MARCH, days, recorded(sealed=True), gone).refusal is None
