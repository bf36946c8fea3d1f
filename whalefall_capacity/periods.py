"""Calendar arithmetic on days: windows of aggregation, months and years of table partitions. Pure, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from enum import StrEnum
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta


class PeriodType(StrEnum):
    """Length of an aggregation window."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


# How far back the baseline of a window may lie.
REACH = {
    PeriodType.DAILY: relativedelta(days=7),
    PeriodType.WEEKLY: relativedelta(weeks=4),
    PeriodType.MONTHLY: relativedelta(months=3),
    PeriodType.QUARTERLY: relativedelta(years=1),
}


@dataclass(frozen=True, order=True)
class Window:
    """A calendar window, inclusive; *end* is its natural end, also for the period in progress."""

    start: date
    end: date
    period_type: PeriodType = field(compare=False)


def utc_now() -> datetime:
    """Return the time in UTC, as Dagster compares it and the store keeps it."""
    return datetime.now(timezone.utc)


def today(zone: ZoneInfo, now: datetime | None = None) -> date:
    """Return the calendar day in *zone* at *now* (an aware datetime; the clock when not given)."""
    return (now or datetime.now(tz=zone)).astimezone(zone).date()


def month_start(day: date) -> date:
    """Return the first day of the month of *day*."""
    return day.replace(day=1)


def quarter_start(day: date) -> date:
    """Return the first day of the calendar quarter of *day*."""
    return date(day.year, 3 * ((day.month - 1) // 3) + 1, 1)


def year_start(day: date) -> date:
    """Return the first of January of the year of *day*."""
    return date(day.year, 1, 1)


def add_months(day: date, months: int) -> date:
    """Return *day* moved by calendar months; 31 January plus one is the last day of February."""
    return day + relativedelta(months=months)


def month_starts(first: date, last: date) -> Iterator[date]:
    """Yield the first day of every month that has a day in first..last, inclusive."""
    month = month_start(first)
    while month <= last:
        yield month
        month = add_months(month, 1)


def window_of(day: date, period_type: PeriodType) -> Window:
    """Return the window that contains *day*: the day, its Monday-Sunday week (ISO 8601), its month or its quarter."""
    if period_type is PeriodType.DAILY:
        return Window(day, day, period_type)
    if period_type is PeriodType.WEEKLY:
        monday = day - timedelta(days=day.weekday())
        return Window(monday, monday + timedelta(days=6), period_type)
    months = 1 if period_type is PeriodType.MONTHLY else 3
    start = month_start(day) if period_type is PeriodType.MONTHLY else quarter_start(day)
    return Window(start, add_months(start, months) - timedelta(days=1), period_type)


def window_before(window: Window) -> Window:
    """Return the window of the same type that ends the day before *window* starts."""
    return window_of(window.start - timedelta(days=1), window.period_type)


def days_to_windows(days: Iterable[date], period_type: PeriodType) -> list[Window]:
    """Return the distinct windows that contain any of *days*, oldest first."""
    return sorted({window_of(day, period_type) for day in days})


def windows_between(first: date, last: date, period_type: PeriodType) -> list[Window]:
    """Return every window that has a day in first..last, inclusive, oldest first."""
    windows = []
    day = first
    while day <= last:
        windows.append(window_of(day, period_type))
        day = windows[-1].end + timedelta(days=1)
    return windows


def adjacent_runs(windows: Iterable[Window]) -> list[list[Window]]:
    """Return *windows*, oldest first, cut where one does not start the day after the one before ends."""
    runs: list[list[Window]] = []
    for window in windows:
        if runs and (window.start - runs[-1][-1].end).days == 1:
            runs[-1].append(window)
        else:
            runs.append([window])
    return runs


def look_back(window_start: date, period_type: PeriodType) -> date:
    """Return the earliest start of a window that can be the baseline: 7 days, 4 weeks, 3 months or 4 quarters back."""
    return window_start - REACH[period_type]
