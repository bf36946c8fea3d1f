"""Calendar arithmetic on days: the months and years that table partitions span. Pure, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from enum import Enum
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta


class PeriodType(str, Enum):
    """Length of an aggregation window."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


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
