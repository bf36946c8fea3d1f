"""Alerts about failures to every configured receiver, once per cause and day; off until a receiver is configured.

Each tick looks at state, not at events: task runs closed since the last tick, the latest evaluation of every asset
check, the freshness of every asset, and days without stored sizes. Earlier alerts are kept in the store, so a tick may
be repeated at any time, and a source that cannot be read does not hold up the others.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.alerts.message import Alert
from whalefall_capacity.alerts.transports import Channel, channels
from whalefall_capacity.assets.insight_checks import DISK_FULL_SOON, FORECAST_ACCURACY
from whalefall_capacity.byte_sizes import binary_size
from whalefall_capacity.dagster_private import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
    FreshnessState,
)
from whalefall_capacity.errors import AlertError
from whalefall_capacity.insight.statuses import Urgency
from whalefall_capacity.periods import today, utc_now
from whalefall_capacity.resources.store import store_engine
from whalefall_capacity.settings import Settings, load_settings
from whalefall_capacity.store.alerts import (
    alert_was_not_sent,
    alert_was_sent,
    claim_alert,
    delete_old_alerts,
    failed_runs,
    file_alerts,
    give_up_unknown,
    missed_days,
)
from whalefall_capacity.store.insight.read import CapacityForecast, forecasts_of_day, newest_forecast_day
from whalefall_capacity.tasks import CALCULATE_DATABASE, SYNC_DATABASES

# The sources of alerts, by name.
Sources = Mapping[str, Callable[[], Iterator[Alert]]]
# Without a cursor: failures from before alerts were turned on are old news.
FIRST_LOOK_BACK = timedelta(days=1)
# A row may become visible after the time it carries.
OVERLAP = timedelta(seconds=60)
# Sending stops after this time, well within Dagster's limit for a tick; the next tick continues.
SENDING_SECONDS = 25.0
DAYS_LOOKED_AT = 7
# What lasts is told again after so many days.
WEEK_DAYS = 7
EVALUATIONS_LOOKED_AT = 100
REASONS_SHOWN = 20
SEE_LOG = "the log of the run says why; once that is fixed, re-execute the run in the Dagster UI"
REMEDIES: Mapping[str, str] = {
    SYNC_DATABASES.key: "`whalefall-capacity fleet check` shows what each server lacks; `whalefall-capacity collect` "
    "measures today's sizes again, before the day is over",
    CALCULATE_DATABASE.key: "the log of the run says why; once that is fixed, `whalefall-capacity aggregate "
    "PERIOD_TYPE --from DAY --to DAY` calculates the windows again",
}


@dg.sensor(
    default_status=(dg.DefaultSensorStatus.RUNNING if channels(load_settings()) else dg.DefaultSensorStatus.STOPPED),
    minimum_interval_seconds=60,
    description="Reports failures to the receivers in WHALEFALL_ALERT_URLS: runs, checks, missed freshness, missed "
    "days; once per cause and day. Off until a receiver is set.",
)
def alerts_go_out(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    settings = load_settings()
    receivers = channels(settings)
    if not receivers:
        return dg.SkipReason("no receiver of alerts is set")
    now = utc_now()
    since = (datetime.fromisoformat(context.cursor) if context.cursor else now - FIRST_LOOK_BACK) - OVERLAP
    instance, repository, this_day = context.instance, context.repository_def, today(settings.zone, now)
    assert repository is not None
    with store_engine() as engine:
        sources: Sources = {
            "task runs": lambda: run_alerts(engine, settings, since),
            "days": lambda: missed_day_alerts(engine, settings, this_day),
            "forecasts": lambda: full_disk_alerts(engine),
            "asset checks": lambda: check_alerts(instance, repository, settings, since),
            "freshness": lambda: freshness_alerts(instance, repository, settings, this_day, context.log),
        }
        new, unread = look(engine, sources, receivers, context.log)
        sent, failed = deliver(engine, receivers, context.log)
        delete_old_alerts(engine)
    if unread:
        # The cursor stays, so that the next look covers the same time.
        raise AlertError(f"some sources of alerts could not be read: {'; '.join(unread)}")
    reason = f"{new} new alerts, {sent} sent, {failed} not delivered now"
    return dg.SensorResult(skip_reason=reason, cursor=now.isoformat())


def look(engine: Engine, sources: Sources, receivers: Collection[str], log: logging.Logger) -> tuple[int, list[str]]:
    """File the alerts of *sources*; return how many are new, and which sources could not be read."""
    new, unread = 0, []
    for name, source in sources.items():
        try:
            new += file_alerts(engine, list(source()), receivers)
        except Exception as error:
            log.exception("the %s could not be read for alerts", name)
            unread.append(f"{name} ({type(error).__name__})")
    return new, unread


def deliver(engine: Engine, receivers: Mapping[str, Channel], log: logging.Logger) -> tuple[int, int]:
    """Send the alerts that are due and return how many were sent and failed; a receiver that fails gets no more now."""
    for cause, channel in give_up_unknown(engine):
        log.warning("it is unknown whether this alert was delivered by %s; it is not sent again: %s", channel, cause)
    deadline = time.monotonic() + SENDING_SECONDS
    remaining = dict(receivers)
    sent = failed = 0
    while remaining and time.monotonic() < deadline and (claimed := claim_alert(engine, remaining)):
        try:
            note = remaining[claimed.channel](claimed.alert)
        except AlertError as error:
            pause = alert_was_not_sent(engine, claimed, str(error))
            log.warning("alert not sent: %s; tried again in %s: %s", error, pause, claimed.alert.title)
            del remaining[claimed.channel]
            failed += 1
        else:
            alert_was_sent(engine, claimed, note)
            if note:
                log.warning("%s: %s", note, claimed.alert.title)
            sent += 1
    return sent, failed


def run_alerts(engine: Engine, settings: Settings, since: datetime) -> Iterator[Alert]:
    """Yield an alert for each task run that was closed after *since* and failed in whole or in part."""
    for run in failed_runs(engine, since):
        what_failed = "run" if run.status == "failed" else str(len(run.names))
        ended = run.completed_at.astimezone(settings.zone)
        yield Alert(
            cause=f"run {run.task_key} {run.status} {_digest(run.names)}",
            day=ended.date(),
            title=f"{what_failed} failed: {run.task_name}",
            what=f"{run.task_name}: {run.error or 'no reason was given'}",
            where=tuple(run.names),
            since=ended,
            link=run.result_url or settings.run_url.format(run_id=run.run_id),
            remedy=REMEDIES.get(run.task_key, SEE_LOG),
        )


def missed_day_alerts(engine: Engine, settings: Settings, this_day: date) -> Iterator[Alert]:
    """Yield an alert for each recent day without stored sizes; it is dated that day, and so sent only once."""
    first = max(this_day - timedelta(days=DAYS_LOOKED_AT), settings.start_date)
    for day in missed_days(engine, first, this_day - timedelta(days=1), settings.timezone):
        yield Alert(
            cause="missed day",
            day=day,
            title=f"no sizes were collected on {day}",
            what=f"nothing is stored for {day}, and a past day can no longer be measured",
            remedy="make sure that the daemon runs at the time of WHALEFALL_COLLECTION_SCHEDULE; "
            "`whalefall-capacity history import FILE` imports sizes from other sources",
        )


def full_disk_alerts(engine: Engine) -> Iterator[Alert]:
    """Yield an alert for each instance that is full or will be soon, by the newest forecast; weekly while it lasts.

    How urgent it is belongs to the cause: an instance that comes closer to being full is told at once.
    """
    day = newest_forecast_day(engine)
    if day is None:
        return
    for forecast in forecasts_of_day(engine, day):
        if (urgency := forecast.urgency) is None:
            continue
        name, when = forecast.instance, _when_full(forecast)
        used, limit = (binary_size(size) for size in (forecast.used_bytes, forecast.limit_bytes))
        yield Alert(
            cause=f"disk of {name} {urgency.value}",
            day=day,
            title=f"{name} {when}",
            what=f"{name} uses {used} of {limit} and {when}",
            where=(name,),
            remedy="make room, or enlarge the disk and say so in the fleet file (capacity_limit); "
            f"`whalefall-capacity forecast --instance {shlex.quote(name)}` says what grows",
            quiet_days=WEEK_DAYS,
        )


def _when_full(forecast: CapacityForecast) -> str:
    if forecast.urgency is Urgency.FULL:
        return "is full"
    if forecast.shown_expected_date is None:
        return f"may be full any day from {forecast.earliest_date} on"
    return f"will be full about {forecast.expected_date} ({forecast.earliest_date} to {forecast.latest_date})"


def check_alerts(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, settings: Settings, since: datetime
) -> Iterator[Alert]:
    """Yield an alert for each asset check whose latest evaluation failed, after *since*.

    Full disks are reported one by one, and the accuracy of forecasts changes slowly.
    """
    graph = repository.asset_graph
    keys = [key for key in graph.asset_check_keys if key != DISK_FULL_SOON.key]
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key, record in latest.items():
        evaluation, evaluated = record.evaluation, _evaluated_at(record)
        if record.status is not AssetCheckExecutionRecordStatus.FAILED or evaluation is None or evaluated <= since:
            continue
        # Tables and counts are for the UI; the description sums them up.
        texts = {name: value.value for name, value in evaluation.metadata.items() if isinstance(value.value, str)}
        severity = "warning" if evaluation.severity is dg.AssetCheckSeverity.WARN else "error"
        reasons = [f"{name}: {reason}" for name, reason in texts.items()][:REASONS_SHOWN]
        yield Alert(
            cause=f"check {key.to_user_string()}",
            day=evaluated.astimezone(settings.zone).date(),
            title=f"check {key.name} failed ({severity})",
            what="; ".join(filter(None, [evaluation.description, *reasons])) or "no reason was given",
            where=(f"asset {key.asset_key.to_user_string()}",),
            since=_failing_since(instance, record).astimezone(settings.zone),
            link=settings.run_url.format(run_id=record.run_id),
            remedy=graph.get_check_spec(key).description or SEE_LOG,
            quiet_days=WEEK_DAYS if key == FORECAST_ACCURACY.key else 1,
        )


def freshness_alerts(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    settings: Settings,
    this_day: date,
    log: logging.Logger,
) -> Iterator[Alert]:
    """Yield an alert for each asset that violates its freshness policy, for each day on which it does."""
    graph = repository.asset_graph
    keys = [key for key in graph.materializable_asset_keys if graph.get(key).freshness_policy_or_from_metadata]
    if not keys:
        return
    if not instance.freshness_enabled:
        log.warning("freshness is turned off in dagster.yaml: missed freshness is not reported")
    for key, record in instance.event_log_storage.get_freshness_state_records(keys).items():
        if record.freshness_state is FreshnessState.FAIL:
            yield Alert(
                cause=f"freshness {key.to_user_string()}",
                day=this_day,
                title=f"{key.to_user_string()} is not fresh",
                what=f"{key.to_user_string()} was not materialized within the time that its freshness policy allows",
                where=(f"asset {key.to_user_string()}",),
                since=record.updated_at.astimezone(settings.zone),
                remedy="look for a run that failed or never started: `whalefall-capacity runs list`; make sure that "
                "the daemon runs and that its schedules and sensors are on",
            )


def _digest(names: Collection[str]) -> str:
    """Return a digest of the set of *names*: if the same servers fail again that day, it is not news."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def _evaluated_at(record: AssetCheckExecutionRecord) -> datetime:
    seconds = record.create_timestamp if record.event is None else record.event.timestamp
    return datetime.fromtimestamp(seconds, timezone.utc)


def _failing_since(instance: dg.DagsterInstance, latest: AssetCheckExecutionRecord) -> datetime:
    """Return when a failing check began to fail, within the evaluations that are looked at."""
    first = latest
    for record in instance.event_log_storage.get_asset_check_execution_history(latest.key, EVALUATIONS_LOOKED_AT):
        if record.status is AssetCheckExecutionRecordStatus.SUCCEEDED:
            break
        if record.status is AssetCheckExecutionRecordStatus.FAILED:
            first = record
    return _evaluated_at(first)
