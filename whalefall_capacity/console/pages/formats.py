"""Figures for people: sizes in binary units, changes with their sign, moments in the configured zone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from whalefall_capacity.byte_sizes import in_binary_units
from whalefall_capacity.periods import PeriodType

NOT_KNOWN = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def binary_size(size_bytes: int | None) -> str:
    """Return a size with three figures at least, such as 1.50 GiB or 512 B."""
    if size_bytes is None:
        return NOT_KNOWN
    value, unit = in_binary_units(abs(size_bytes))
    digits = 0 if unit == "B" or value >= 1000 else 1 if value >= 100 else 2
    return f"{MINUS if size_bytes < 0 else ''}{value:.{digits}f} {unit}"


def signed_size(size_bytes: int | None) -> str:
    """Return a change of size, such as +1.50 GiB or, with a true minus sign, -12 B."""
    return f"+{binary_size(size_bytes)}" if size_bytes is not None and size_bytes > 0 else binary_size(size_bytes)


def signed_percent(percent: float | None) -> str:
    """Return a change in percent, such as +15.79 %."""
    if percent is None:
        return NOT_KNOWN
    sign = "+" if percent > 0 else MINUS if percent < 0 else ""
    return f"{sign}{abs(percent):,.2f} %"


def moment(when: datetime | None, zone: ZoneInfo) -> str:
    """Return a moment in *zone*, to the second."""
    return NOT_KNOWN if when is None else when.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def duration(since: datetime | None, until: datetime | None) -> str:
    """Return how long something took, such as 4 s or 1:02:03."""
    if since is None or until is None:
        return NOT_KNOWN
    seconds = max(int((until - since) / timedelta(seconds=1)), 0)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


LABELS: Mapping[PeriodType, Callable[[date], str]] = {
    PeriodType.DAILY: date.isoformat,
    PeriodType.WEEKLY: lambda start: f"{start:%G W%V}",
    PeriodType.MONTHLY: lambda start: f"{start:%Y-%m}",
    PeriodType.QUARTERLY: lambda start: f"{start.year} Q{(start.month + 2) // 3}",
}


def window_label(start: date, period_type: PeriodType) -> str:
    """Return the name of a window: its day, its ISO week, its month or its quarter."""
    return LABELS[period_type](start)
