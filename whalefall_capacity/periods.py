"""Calendar arithmetic on days, of aggregation windows and table partitions, and the one place that reads the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from enum import StrEnum
from typing import Literal
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta


def week_start(day: date) -> date:
    """Return the Monday of the ISO 8601 week of *day*."""
    return day - timedelta(days=day.weekday())


def month_start(day: date) -> date:
    """Return the first day of the month of *day*."""
    return day.replace(day=1)


def quarter_start(day: date) -> date:
    """Return the first day of the calendar quarter of *day*."""
    return date(day.year, 3 * ((day.month - 1) // 3) + 1, 1)


def year_start(day: date) -> date:
    """Return the first of January of the year of *day*."""
    return date(day.year, 1, 1)


class PeriodType(StrEnum):
    """Length of an aggregation window."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"

    @property
    def calendar(self) -> Calendar:
        return CALENDARS[self]


@dataclass(frozen=True)
class Calendar:
    """The calendar of one period type: all that it differs in from the others."""

    period: str
    window_start: Callable[[date], date]
    length: relativedelta
    # Windows that a baseline may lie back.
    reach: int
    # Of the moments at which windows begin: Dagster makes its partitions by it.
    cron_schedule: str
    # Time that one table partition of the aggregations holds.
    table_partition: Literal["month", "year"]
    # Windows that the console shows where nothing says how many.
    shown_windows: int
    window_label: Callable[[date], str]


CALENDARS = {
    PeriodType.DAILY: Calendar(
        period="day",
        window_start=lambda day: day,
        length=relativedelta(days=1),
        reach=7,
        cron_schedule="0 0 * * *",
        table_partition="month",
        shown_windows=30,
        window_label=date.isoformat,
    ),
    PeriodType.WEEKLY: Calendar(
        period="week, Monday to Sunday",
        window_start=week_start,
        length=relativedelta(weeks=1),
        reach=4,
        cron_schedule="0 0 * * 1",
        table_partition="month",
        shown_windows=26,
        window_label="{:%G W%V}".format,
    ),
    PeriodType.MONTHLY: Calendar(
        period="calendar month",
        window_start=month_start,
        length=relativedelta(months=1),
        reach=3,
        cron_schedule="0 0 1 * *",
        table_partition="year",
        shown_windows=12,
        window_label="{:%Y-%m}".format,
    ),
    PeriodType.QUARTERLY: Calendar(
        period="calendar quarter",
        window_start=quarter_start,
        length=relativedelta(months=3),
        reach=4,
        cron_schedule="0 0 1 1,4,7,10 *",
        table_partition="year",
        shown_windows=8,
        window_label=lambda start: f"{start.year} Q{(start.month + 2) // 3}",
    ),
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
    return (now or utc_now()).astimezone(zone).date()


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
    start = period_type.calendar.window_start(day)
    return Window(start, start + period_type.calendar.length - timedelta(days=1), period_type)


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


def windows_back(day: date, period_type: PeriodType, count: int) -> date:
    """Return the start of the window that lies *count* windows before the one of *day*."""
    return window_of(day, period_type).start - period_type.calendar.length * count


def look_back(start: date, period_type: PeriodType) -> date:
    """Return the earliest start of a window that can be the baseline of the one that starts on *start*."""
    return windows_back(start, period_type, period_type.calendar.reach)
