"""Alerts of full disks: when an instance enters a state, then weekly, never daily."""

from __future__ import annotations

from datetime import date, timedelta

from sqlalchemy import Engine

from whalefall_capacity.automation.alerts import full_disk_alerts
from whalefall_capacity.store.alerts import file_alerts
from whalefall_capacity_tests.store.insight.golden import TODAY, forecast, line, put_history, set_limit
from whalefall_capacity_tests.store.records import rows


def told(store: Engine) -> list[tuple[date, str]]:
    """Look once, and return the days and causes of all alerts so far."""
    file_alerts(store, list(full_disk_alerts(store)), ["chat"])
    return [(day, cause) for day, cause in rows(store, "SELECT day, cause FROM alerts ORDER BY day, cause")]


def after(days: int) -> date:
    return TODAY + timedelta(days=days)


def test_an_instance_that_is_full_for_three_weeks_gives_three_alerts(store: Engine) -> None:
    put_history(store, 1, {"orders": line(250)}, 320, last=after(20))
    for days in range(21):
        forecast(store, after(days))
        told(store)
        told(store)
    assert told(store) == [(after(days), "disk of instance-1 full") for days in (0, 7, 14)]


def test_one_that_comes_closer_is_told_at_once(store: Engine) -> None:
    put_history(store, 1, {"orders": line(200)}, 307, last=TODAY)
    forecast(store, TODAY - timedelta(days=30), TODAY - timedelta(days=2), TODAY)
    assert told(store) == [(TODAY, "disk of instance-1 within_a_month")]
    put_history(store, 1, {"orders": line(202)}, 307, last=after(2))
    forecast(store, after(2))
    assert told(store)[1:] == [(after(2), "disk of instance-1 within_a_week")]


def test_one_that_comes_and_goes_is_told_once_a_week(store: Engine) -> None:
    put_history(store, 1, {"orders": line(210)}, 329, last=after(10))
    for days in range(8):
        set_limit(store, 1, 310 + days if days % 2 else 1000)
        forecast(store, after(days))
        told(store)
    assert [cause for _, cause in told(store)].count("disk of instance-1 within_a_month") == 1


def test_an_alert_names_what_is_used_and_what_to_do(store: Engine) -> None:
    put_history(store, 1, {"orders": line()}, 329)
    put_history(store, 2, {"orders": line()}, 400)
    forecast(store)
    (alert,) = full_disk_alerts(store)
    assert alert.title == "instance-1 will be full about 2026-07-30 (2026-07-27 to 2026-08-04)"
    assert alert.what == (
        "instance-1 uses 299.00 GiB of 329.00 GiB and will be full about 2026-07-30 (2026-07-27 to 2026-08-04)"
    )
    assert alert.remedy.endswith("`whalefall-capacity forecast --instance instance-1` says what grows")


def test_without_forecasts_nothing_is_told(store: Engine) -> None:
    assert list(full_disk_alerts(store)) == []
