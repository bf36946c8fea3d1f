"""Forecasts through the store: sizes in, forecasts, accuracy and anomalies out."""

from __future__ import annotations

from sqlalchemy import Engine

from whalefall_capacity_tests.store.insight.golden import (
    GIB,
    days_until,
    forecast,
    line,
    put_history,
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
