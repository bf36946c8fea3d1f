"""Forecasts through the store: sizes in, forecasts, accuracy and anomalies out."""

from __future__ import annotations

from datetime import date, timedelta

from sqlalchemy import Engine, text

from whalefall_capacity.store.insight.read import (
    accuracy_of_days,
    anomalies_of_days,
    database_forecasts,
    forecasts_of_day,
)
from whalefall_capacity_tests.store.insight.golden import (
    GIB,
    TODAY,
    days_until,
    forecast,
    history,
    line,
    put_history,
    set_limit,
    the_forecast,
)


def test_a_steady_growth_is_dated(store: Engine) -> None:
    put_history(store, 1, {"orders": line()}, limit=329)
    forecast(store)
    found = the_forecast(store)
    assert found.status == "dated"
    assert days_until(found) == (30, 27, 35)
    assert (found.used_bytes, found.limit_bytes) == (299 * GIB, 329 * GIB)
    assert (found.rate_bytes_per_day, found.spread_bytes, found.swing_bytes) == (GIB, round(2.8598 * GIB), 0)
