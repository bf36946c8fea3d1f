"""The newest forecasts and their accuracy, as page and API say them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from whalefall_capacity.console.http.state import Console
from whalefall_capacity.insight.statuses import HORIZONS, ForecastStatus
from whalefall_capacity.store.insight.read import (
    Accuracy,
    CapacityForecast,
    accuracy_of_days,
    forecasts_of_day,
    newest_forecast_day,
)

# The accuracy that is said beside a date: of instances, over the longest horizon.
LEVEL, HORIZON = "instance", max(HORIZONS)


@dataclass(frozen=True)
class ForecastDay:
    """The forecasts of the newest day: those of instances with a limit, soonest first; how many others there are."""

    day: date | None
    forecasts: Sequence[CapacityForecast]
    without_limit: int


def newest_forecasts(console: Console) -> ForecastDay:
    """Return the forecasts of the newest day."""
    day = newest_forecast_day(console.reading)
    found = [] if day is None else forecasts_of_day(console.reading, day)
    limited = [_said(forecast) for forecast in found if forecast.status is not ForecastStatus.NO_LIMIT]
    return ForecastDay(day, limited, len(found) - len(limited))


def newest_forecast(console: Console, instance: str) -> CapacityForecast | None:
    """Return the forecast of the instance of that name of the newest day; None when that has none of it."""
    day = newest_forecast_day(console.reading)
    found = [] if day is None else forecasts_of_day(console.reading, day, instance)
    return _said(found[0]) if found else None


def accuracy_of(console: Console, day: date | None) -> Accuracy | None:
    """Return how good the forecasts of 90 days before *day* were; None when that is not known."""
    found = [] if day is None else accuracy_of_days(console.reading, day, day)
    return next((row for row in found if (row.level, row.horizon_days) == (LEVEL, HORIZON) and row.forecasts), None)


def _said(forecast: CapacityForecast) -> CapacityForecast:
    """Return *forecast* with the dates and the pace that people see."""
    return replace(
        forecast,
        expected_date=forecast.shown_expected_date,
        rate_bytes_per_day=forecast.shown_rate_bytes_per_day,
    )
