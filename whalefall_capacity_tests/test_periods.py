"""Calendar arithmetic on days; pure, in the configured zone."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whalefall_capacity.periods import (
    CALENDARS,
    PeriodType,
    add_months,
    month_start,
    month_starts,
    quarter_start,
    today,
    windows_back,
    year_start,
)

DAYS = st.dates(date(1970, 1, 1), date(2200, 12, 31))


def test_there_are_four_period_types() -> None:
    assert [period_type.value for period_type in PeriodType] == ["daily", "weekly", "monthly", "quarterly"]


def test_every_period_type_has_a_calendar_of_its_own() -> None:
    assert list(CALENDARS) == list(PeriodType)


@pytest.mark.parametrize(
    ("period_type", "start"),
    [
        (PeriodType.DAILY, date(2026, 2, 28)),
        (PeriodType.WEEKLY, date(2026, 2, 16)),
        (PeriodType.MONTHLY, date(2026, 1, 1)),
        (PeriodType.QUARTERLY, date(2025, 7, 1)),
    ],
)
def test_windows_are_counted_back_from_the_one_of_a_day(period_type: PeriodType, start: date) -> None:
    assert windows_back(date(2026, 3, 2), period_type, 2) == start


@pytest.mark.parametrize(
    ("zone", "utc", "day"),
    [
        ("Asia/Shanghai", "2026-03-10T15:59:59", date(2026, 3, 10)),
        ("Asia/Shanghai", "2026-03-10T16:00:00", date(2026, 3, 11)),
        ("UTC", "2026-03-10T23:59:59", date(2026, 3, 10)),
        ("America/New_York", "2026-03-08T04:59:59", date(2026, 3, 7)),
        ("America/New_York", "2026-03-09T03:59:59", date(2026, 3, 8)),
        ("America/New_York", "2026-11-02T04:59:59", date(2026, 11, 1)),
        ("Pacific/Kiritimati", "2026-03-10T10:00:00", date(2026, 3, 11)),
    ],
)
def test_today_is_the_calendar_day_of_the_zone(zone: str, utc: str, day: date) -> None:
    now = datetime.fromisoformat(utc).replace(tzinfo=timezone.utc)
    assert today(ZoneInfo(zone), now) == day


def test_today_without_a_time_is_that_of_the_clock() -> None:
    zone = ZoneInfo("Pacific/Kiritimati")
    before = datetime.now(tz=zone).date()
    assert before <= today(zone) <= datetime.now(tz=zone).date()


@pytest.mark.parametrize(
    ("day", "month", "quarter", "year"),
    [
        (date(2026, 1, 1), date(2026, 1, 1), date(2026, 1, 1), date(2026, 1, 1)),
        (date(2026, 3, 31), date(2026, 3, 1), date(2026, 1, 1), date(2026, 1, 1)),
        (date(2026, 4, 1), date(2026, 4, 1), date(2026, 4, 1), date(2026, 1, 1)),
        (date(2024, 2, 29), date(2024, 2, 1), date(2024, 1, 1), date(2024, 1, 1)),
        (date(2026, 9, 30), date(2026, 9, 1), date(2026, 7, 1), date(2026, 1, 1)),
        (date(2026, 12, 31), date(2026, 12, 1), date(2026, 10, 1), date(2026, 1, 1)),
    ],
)
def test_a_day_lies_in_its_month_quarter_and_year(day: date, month: date, quarter: date, year: date) -> None:
    assert (month_start(day), quarter_start(day), year_start(day)) == (month, quarter, year)


@given(DAYS)
def test_a_quarter_starts_with_one_of_its_months_and_has_three(day: date) -> None:
    start = quarter_start(day)
    assert start in [add_months(month_start(day), -back) for back in range(3)]
    assert start.month in {1, 4, 7, 10}
    assert start <= day < add_months(start, 3)


@pytest.mark.parametrize(
    ("day", "months", "moved"),
    [
        (date(2026, 1, 31), 1, date(2026, 2, 28)),
        (date(2024, 1, 31), 1, date(2024, 2, 29)),
        (date(2026, 12, 1), 1, date(2027, 1, 1)),
        (date(2026, 1, 1), -1, date(2025, 12, 1)),
        (date(2026, 3, 31), -13, date(2025, 2, 28)),
        (date(2026, 5, 20), 0, date(2026, 5, 20)),
        (date(2024, 2, 29), 12, date(2025, 2, 28)),
    ],
)
def test_a_day_is_moved_by_calendar_months(day: date, months: int, moved: date) -> None:
    assert add_months(day, months) == moved


@pytest.mark.parametrize(
    ("first", "last", "months"),
    [
        (date(2026, 5, 20), date(2026, 5, 20), [date(2026, 5, 1)]),
        (date(2026, 5, 31), date(2026, 6, 1), [date(2026, 5, 1), date(2026, 6, 1)]),
        (
            date(2025, 11, 30),
            date(2026, 2, 1),
            [date(2025, 11, 1), date(2025, 12, 1), date(2026, 1, 1), date(2026, 2, 1)],
        ),
        (date(2026, 6, 1), date(2026, 5, 31), []),
    ],
)
def test_every_month_that_has_a_day_in_the_range_is_given_once(first: date, last: date, months: list[date]) -> None:
    assert list(month_starts(first, last)) == months


@given(DAYS, st.integers(min_value=0, max_value=800))
def test_the_months_of_a_range_are_those_of_its_days(first: date, length: int) -> None:
    days = [first + timedelta(days=offset) for offset in range(length + 1)]
    assert list(month_starts(days[0], days[-1])) == sorted({month_start(day) for day in days})
