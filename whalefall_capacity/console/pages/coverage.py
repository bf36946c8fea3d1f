"""Days as a calendar: what is known of each, one row a month."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from whalefall_capacity.periods import add_months

MONTHS = 13
DAYS_OF_THE_LONGEST_MONTH = 31


class Coverage(StrEnum):
    """State of what is known of a day."""

    MEASURED = "measured"
    PARTIAL = "partial"
    IMPORTED = "imported"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Day:
    """One day of the calendar, with its size if one is known."""

    day: date
    coverage: Coverage
    size_bytes: int | None


@dataclass(frozen=True)
class Month:
    """One row of the calendar: a day or None for each of 31 places."""

    label: str
    days: tuple[Day | None, ...]


def calendar_start(last: date) -> date:
    """Return the first day of the calendar that ends with *last*."""
    return add_months(last.replace(day=1), 1 - MONTHS)


def calendar(known: Mapping[date, Day], last: date) -> list[Month]:
    """Return the months that end with the one of *last*, newest first; a day that is not *known* has nothing."""
    return [_month(known, add_months(last.replace(day=1), -n), last) for n in range(MONTHS)]


def _month(known: Mapping[date, Day], first: date, last: date) -> Month:
    after = min(add_months(first, 1), last + timedelta(days=1))
    days: list[Day | None] = [None] * DAYS_OF_THE_LONGEST_MONTH
    for n in range((after - first).days):
        day = first + timedelta(days=n)
        days[n] = known.get(day) or Day(day, Coverage.NOTHING, None)
    return Month(f"{first:%Y-%m}", tuple(days))
