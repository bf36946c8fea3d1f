"""The dates of forecasts for given limits: from the pace and the range that are stored, whatever the limit was then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np

from whalefall_capacity.insight.dates import Instances, dates, instances
from whalefall_capacity.store.insight.read import CapacityForecast


def as_instances(forecasts: Sequence[CapacityForecast]) -> Instances:
    """Return *forecasts* as the pure functions take them, for a what-if."""
    return instances(
        used=[np.nan if f.used_bytes is None else f.used_bytes for f in forecasts],
        limit=[np.nan if f.limit_bytes is None else f.limit_bytes for f in forecasts],
        rate=[np.nan if f.rate_bytes_per_day is None else f.rate_bytes_per_day for f in forecasts],
        spread=[f.spread_bytes for f in forecasts],
        swing=[f.swing_bytes for f in forecasts],
        low=[f.range_low for f in forecasts],
        high=[f.range_high for f in forecasts],
        measured_days=[f.measured_days for f in forecasts],
        unmeasured_days=[
            0 if f.last_measured_date is None else (f.forecast_date - f.last_measured_date).days for f in forecasts
        ],
    )


def with_limits(forecasts: Sequence[CapacityForecast], limits: Sequence[int | None]) -> list[CapacityForecast]:
    """Return *forecasts* with status and dates for *limits*, in bytes, one for each; None: no limit."""
    limited = [replace(forecast, limit_bytes=limit) for forecast, limit in zip(forecasts, limits, strict=True)]
    found = dates(as_instances(limited))
    return [
        replace(
            forecast,
            status=found.status[number],
            expected_date=_after(forecast.forecast_date, found.expected[number]),
            earliest_date=_after(forecast.forecast_date, found.earliest[number]),
            latest_date=_after(forecast.forecast_date, found.latest[number]),
        )
        for number, forecast in enumerate(limited)
    ]


def _after(day: date, days: float) -> date | None:
    return None if np.isnan(days) else day + timedelta(days=int(days))
