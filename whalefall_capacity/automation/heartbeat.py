"""The dead-man's switch: an address outside is called after each good day, and misses the call when there is none.

A good day is one whose collection of the fleet ended as SUCCESS. The sensor goes by state, as that of the alerts, and
keeps its calls in the same table: one a day, tried again until it is taken, also by a daemon that was started again.
"""

from __future__ import annotations

import logging
from datetime import date, timedelta

import dagster as dg
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.alerts.message import Alert
from whalefall_capacity.alerts.transports import HEARTBEAT, call_heartbeat
from whalefall_capacity.automation.alerts import deliver
from whalefall_capacity.periods import today
from whalefall_capacity.resources.store import store_engine
from whalefall_capacity.settings import Settings, load_settings
from whalefall_capacity.store.alerts import file_alerts
from whalefall_capacity.store.task_runs.good_days import good_days

# What ended longer ago is no sign of life.
NEWS = timedelta(days=1)


@dg.sensor(
    default_status=(
        dg.DefaultSensorStatus.RUNNING if load_settings().heartbeat_url else dg.DefaultSensorStatus.STOPPED
    ),
    minimum_interval_seconds=30,
    description="Calls WHALEFALL_HEARTBEAT_URL once after each day whose collection succeeded. Off until that is set.",
)
def good_days_are_told(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    settings = load_settings()
    if settings.heartbeat_url is None:
        return dg.SkipReason("WHALEFALL_HEARTBEAT_URL is not set")
    with store_engine() as engine:
        called, failed = tell_good_days(engine, settings, settings.heartbeat_url, today(settings.zone), context.log)
    return dg.SkipReason(f"{called} calls of WHALEFALL_HEARTBEAT_URL, {failed} not taken now")


def tell_good_days(
    engine: Engine, settings: Settings, url: SecretStr, this_day: date, log: logging.Logger
) -> tuple[int, int]:
    """Call *url* for each good day that was not told; return how many calls were taken, and how many were not."""

    def call(told: Alert) -> str | None:
        if told.day < this_day - NEWS:
            return "not called any more: the day is too long ago to be a sign of life"
        call_heartbeat(url)
        return None

    days = good_days(engine, settings.timezone, NEWS)
    file_alerts(engine, [_message(day) for day in days], [HEARTBEAT])
    return deliver(engine, {HEARTBEAT: call}, log)


def _message(day: date) -> Alert:
    """Return what the table of alerts says of the call for *day*."""
    return Alert(
        cause="good day", day=day, title=f"heartbeat of {day}", what="the fleet was collected", remedy="nothing"
    )
