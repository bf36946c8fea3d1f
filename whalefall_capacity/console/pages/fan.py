"""The lines from the size of today to the limit, on the windows of the chart of an instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any

from whalefall_capacity.console.http.what_if import Altered, FanLine
from whalefall_capacity.console.pages.formats import binary_size, window_label
from whalefall_capacity.periods import PeriodType, Window, window_of, windows_between


def fan_payload(
    altered: Altered, windows: Sequence[Window], period_type: PeriodType, translate: Callable[..., str]
) -> dict[str, Any] | None:
    """Return what the script draws: a line for each date that is said; None when no date is, or nothing can be seen.

    The lines begin in the window of the day of the forecast, which must be one of those shown.
    """
    since, lines = altered.forecast.forecast_date, altered.lines()
    begin = window_of(since, period_type)
    if not lines or begin not in windows:
        return None
    ahead = windows_between(since, max(line.last for line in lines), period_type)
    if len(ahead) < 2:
        return None
    limit = max(line.sizes[-1] for line in lines)
    return {
        "labels": [window_label(window.start, period_type) for window in ahead],
        "limit": limit,
        "limit_name": translate("outlook.limit"),
        "limit_text": binary_size(round(limit)),
        "lines": [
            {
                "key": line.key,
                "name": translate(f"outlook.line.{line.key}"),
                "values": (values := [_value(line, since, window) for window in ahead]),
                "texts": [binary_size(round(value)) for value in values],
                "reached": max(1, next(place for place, window in enumerate(ahead) if line.last <= window.end)),
            }
            for line in lines
        ],
    }


def _value(line: FanLine, since: date, window: Window) -> float:
    """Return the size in the middle of a window, as the chart shows the mean of its days: the limit once reached."""
    if window.start <= since:
        return line.sizes[0]
    if line.last <= window.end:
        return line.sizes[-1]
    middle = window.start + timedelta(days=(window.end - window.start).days // 2)
    return line.sizes[(middle - since).days]
