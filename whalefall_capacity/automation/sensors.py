"""The sensor that follows the data: every day that landed or was corrected sets off the windows that contain it.

It reads the event log with a cursor of its own. A condition on the assets would lose a day that lands while its
target runs; an asset sensor sees one event a tick. The cursor moves only with the requests of its tick, and each
request has a key of what it is for: a tick that fails is evaluated again and launches nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg

from whalefall_capacity.asset_keys import CAPACITY_FORECASTS, DATABASE_SIZE_STATS, FORECAST_JOB_NAME, aggregation_keys
from whalefall_capacity.assets.metadata import ROWS_CHANGED
from whalefall_capacity.dagster_private import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from whalefall_capacity.insight.statuses import HISTORY_DAYS
from whalefall_capacity.jobs import AGGREGATION_JOBS, forecast_capacity
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.periods import PeriodType, Window, adjacent_runs, days_to_windows, today
from whalefall_capacity.run_tags import TRIGGER_TAG
from whalefall_capacity.settings import load_settings

# Ten years of days: an import of any size is one tick.
EVENTS_PER_TICK = 4000
# Days that lie apart are runs of their own up to here; beyond, one run covers them and what lies between.
RUNS_PER_PERIOD = 3
WAITING = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]


@dataclass(frozen=True)
class Landed:
    """A day of stats that landed, and the run that brought it."""

    storage_id: int
    day: date
    run_id: str
    changed: bool


@dg.sensor(
    jobs=list(AGGREGATION_JOBS.values()),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Turns every day of stats that landed or was corrected into runs of the weeks, months and quarters "
    "that contain it, and of the day itself where its own run did not aggregate it.",
)
def aggregations_follow_stats(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    cursor = int(context.cursor or 0)
    landed = list(read_landed(context.instance, cursor))
    if not landed:
        return dg.SkipReason("no day of stats has landed since the last tick")
    changed = [event for event in landed if event.changed]
    requests = [
        request
        for period_type in PeriodType
        for request in requests_for(context.instance, period_type, changed, cursor)
    ]
    return dg.SensorResult(run_requests=requests, cursor=str(landed[-1].storage_id))


@dg.sensor(
    job=forecast_capacity,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Forecasts today again, once, when days that today's forecast looks back at landed or were corrected "
    "by another run than the one that forecast today.",
)
def forecasts_follow_stats(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    cursor = int(context.cursor or 0)
    landed = list(read_landed(context.instance, cursor))
    if not landed:
        return dg.SkipReason("no day of stats has landed since the last tick")
    after = str(landed[-1].storage_id)
    this_day = today(load_settings().zone)
    forecast = _materialized(context.instance, CAPACITY_FORECASTS, cursor)
    seen = [
        event
        for event in landed
        if event.changed
        and this_day - timedelta(days=HISTORY_DAYS) < event.day <= this_day
        and (event.run_id, this_day) not in forecast
    ]
    if not seen or _is_waiting(context.instance, this_day):
        return dg.SensorResult(skip_reason="today's forecast knows, or will know, what landed", cursor=after)
    request = dg.RunRequest(
        run_key=f"{FORECAST_JOB_NAME} {this_day} after {after}",
        partition_key=this_day.isoformat(),
        tags={TRIGGER_TAG: "sensor"},
    )
    return dg.SensorResult(run_requests=[request], cursor=after)


def _is_waiting(instance: dg.DagsterInstance, day: date) -> bool:
    """Tell whether a run that will forecast *day* has not started yet."""
    runs = instance.get_runs(dg.RunsFilter(job_name=FORECAST_JOB_NAME, statuses=WAITING))
    return any(run.tags.get(PARTITION_NAME_TAG) == day.isoformat() for run in runs)


def read_landed(instance: dg.DagsterInstance, cursor: int) -> Iterator[Landed]:
    """Yield the materializations of days of stats after *cursor*, oldest first."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=DATABASE_SIZE_STATS, after_storage_id=cursor),
        limit=EVENTS_PER_TICK,
        ascending=True,
    ).records
    for record in records:
        materialization = record.asset_materialization
        if materialization is not None and materialization.partition is not None:
            rows_changed = materialization.metadata.get(ROWS_CHANGED)
            yield Landed(
                record.storage_id,
                date.fromisoformat(materialization.partition),
                record.run_id,
                changed=rows_changed is None or rows_changed.value != 0,
            )


def requests_for(
    instance: dg.DagsterInstance, period_type: PeriodType, landed: Sequence[Landed], cursor: int
) -> Iterator[dg.RunRequest]:
    """Yield the runs that the landed days need for one period type; as few as cover them."""
    job = AGGREGATION_JOBS[period_type]
    if period_type is PeriodType.DAILY:
        done = _aggregated_by_their_own_run(instance, cursor)
        landed = [event for event in landed if (event.run_id, event.day) not in done]
    waiting = _waiting_ranges(instance, job.name)
    for first, last in ranges(days_to_windows({event.day for event in landed}, period_type)):
        if not any(start <= first and last <= end for start, end in waiting):
            yield dg.RunRequest(
                job_name=job.name,
                run_key=f"{job.name} {first}..{last} after {landed[-1].storage_id}",
                tags=range_tags(first, last) | {TRIGGER_TAG: "sensor"},
            )


def ranges(windows: Sequence[Window]) -> list[tuple[date, date]]:
    """Return (first start, last start) of each run of adjacent windows; of all of them when those are too many."""
    runs = adjacent_runs(windows)
    if len(runs) > RUNS_PER_PERIOD:
        runs = [list(windows)]
    return [(run[0].start, run[-1].start) for run in runs]


def _aggregated_by_their_own_run(instance: dg.DagsterInstance, cursor: int) -> set[tuple[str, date]]:
    """Return (run id, day) where one run brought the stats of a day and aggregated the day on both levels."""
    levels = [_materialized(instance, key, cursor) for key in aggregation_keys(PeriodType.DAILY)]
    return set.intersection(*levels)


def _materialized(instance: dg.DagsterInstance, key: dg.AssetKey, cursor: int) -> set[tuple[str, date]]:
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, after_storage_id=cursor), limit=EVENTS_PER_TICK, ascending=True
    ).records
    return {(record.run_id, date.fromisoformat(record.partition_key)) for record in records if record.partition_key}


def _waiting_ranges(instance: dg.DagsterInstance, job_name: str) -> Iterable[tuple[date, date]]:
    """Return what runs of a job that have not started will read anyway."""
    return [
        (
            date.fromisoformat(run.tags[ASSET_PARTITION_RANGE_START_TAG]),
            date.fromisoformat(run.tags[ASSET_PARTITION_RANGE_END_TAG]),
        )
        for run in instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=WAITING))
        if ASSET_PARTITION_RANGE_START_TAG in run.tags
    ]
