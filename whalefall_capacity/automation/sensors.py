"""The sensor that follows the stats: each new or corrected day triggers the windows that contain it.

It reads the event log with its own cursor. A declarative automation condition would lose a day that is materialized
while its target runs; an asset sensor sees one event per tick. The cursor moves only together with the requests of its
tick, and the key of each request says what it is for: a failed tick is evaluated again and launches nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg

from whalefall_capacity.asset_keys import (
    AGGREGATION_JOB_NAMES,
    CAPACITY_FORECASTS,
    DATABASE_SIZE_STATS,
    FORECAST_JOB_NAME,
    aggregation_keys,
)
from whalefall_capacity.assets.metadata import ROWS_CHANGED
from whalefall_capacity.dagster_private import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from whalefall_capacity.insight.statuses import HISTORY_DAYS
from whalefall_capacity.jobs import AGGREGATION_JOBS, forecast_capacity
from whalefall_capacity.mirror.run_plan import asset_keys_of
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.periods import PeriodType, Window, adjacent_runs, days_to_windows, today
from whalefall_capacity.run_tags import TRIGGER_TAG
from whalefall_capacity.settings import load_settings

# Ten years of days: an import of any size is one tick.
EVENTS_PER_TICK = 4000
# Up to this many runs for days that are not adjacent; beyond that, one run covers all of them and the days between.
RUNS_PER_PERIOD = 3
NOTHING_LANDED = "no day of stats was materialized since the last tick"
WAITING = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]
UNDER_WAY = [*WAITING, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
FROM_A_SENSOR = {TRIGGER_TAG: "sensor"}


@dataclass(frozen=True)
class MaterializedDay:
    """A materialized day of stats and the run that materialized it."""

    storage_id: int
    day: date
    run_id: str
    timestamp: float
    changed: bool


@dataclass(frozen=True)
class LandedDays:
    """The days of stats that landed after the storage id *after* and up to *last*; only *changed* ones bring work."""

    after: int
    last: int
    changed: list[MaterializedDay]


@dg.sensor(
    jobs=list(AGGREGATION_JOBS.values()),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Turns each new or corrected day of stats into runs for the weeks, months and quarters that contain "
    "it, and for the day itself if its own run did not aggregate it.",
)
def aggregations_follow_stats(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    landed = read_landed_days(context)
    if landed is None:
        return dg.SkipReason(NOTHING_LANDED)
    if _will_follow(context.instance, landed, aggregation_keys(PeriodType.DAILY)):
        # The cursor stays where it is: the next tick looks again.
        return dg.SkipReason("the run that measured what landed is about to aggregate its day")
    requests = [
        request for period_type in PeriodType for request in requests_for(context.instance, period_type, landed)
    ]
    return dg.SensorResult(run_requests=requests, cursor=str(landed.last))


@dg.sensor(
    job=forecast_capacity,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Forecasts today again, once, when days that today's forecast looks back at landed or were corrected "
    "by another run than the one that forecast today, and their aggregations have ended.",
)
def forecasts_follow_stats(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    landed = read_landed_days(context)
    if landed is None:
        return dg.SkipReason(NOTHING_LANDED)
    this_day = today(load_settings().zone)
    if _will_follow(context.instance, landed, [CAPACITY_FORECASTS]):
        return dg.SkipReason("the run that measured what landed is about to forecast from it")
    forecast = _materialized(context.instance, CAPACITY_FORECASTS, landed.after)
    news = [
        event
        for event in landed.changed
        if this_day - timedelta(days=HISTORY_DAYS) < event.day <= this_day and (event.run_id, this_day) not in forecast
    ]
    cursor = str(landed.last)
    # A run that waits in the queue reads the store when it starts: it will see these days, too.
    if not news or _is_waiting(context.instance, this_day):
        return dg.SensorResult(skip_reason="today's forecast knows, or will know, what landed", cursor=cursor)
    if _is_to_be_aggregated(context, news[0]):
        # The cursor stays where it is: the next tick looks again.
        return dg.SkipReason("what landed is aggregated first, for the charts")
    request = dg.RunRequest(
        run_key=f"{FORECAST_JOB_NAME} {this_day} after {cursor}",
        partition_key=this_day.isoformat(),
        tags=FROM_A_SENSOR,
    )
    return dg.SensorResult(run_requests=[request], cursor=cursor)


def _is_waiting(instance: dg.DagsterInstance, day: date) -> bool:
    """Tell whether a run that will forecast *day* has not started yet."""
    runs = instance.get_runs(dg.RunsFilter(job_name=FORECAST_JOB_NAME, statuses=WAITING))
    return any(run.tags.get(PARTITION_NAME_TAG) == day.isoformat() for run in runs)


def _is_to_be_aggregated(context: dg.SensorEvaluationContext, landed: MaterializedDay) -> bool:
    """Tell whether runs that aggregate what *landed* are still to be asked for, or to end.

    The forecast of a large fleet would take a core from them. The sensor of the aggregations looks twice as often: it
    has seen by now what was there when this one looked last.
    """
    last_look = context.last_tick_completion_time
    if last_look is not None and landed.timestamp > last_look:
        return True
    runs = context.instance.get_runs(dg.RunsFilter(tags=FROM_A_SENSOR, statuses=UNDER_WAY))
    return any(run.job_name in AGGREGATION_JOB_NAMES.values() for run in runs)


def read_landed_days(context: dg.SensorEvaluationContext) -> LandedDays | None:
    """Return the days of stats that landed since the last tick of the sensor, None if there are none."""
    after = int(context.cursor or 0)
    days = list(read_materialized_days(context.instance, after))
    return LandedDays(after, days[-1].storage_id, [day for day in days if day.changed]) if days else None


def read_materialized_days(instance: dg.DagsterInstance, cursor: int) -> Iterator[MaterializedDay]:
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
            yield MaterializedDay(
                record.storage_id,
                date.fromisoformat(materialization.partition),
                record.run_id,
                record.timestamp,
                changed=rows_changed is None or rows_changed.value != 0,
            )


def requests_for(instance: dg.DagsterInstance, period_type: PeriodType, landed: LandedDays) -> Iterator[dg.RunRequest]:
    """Yield as few runs as cover the days that landed for one period type."""
    job = AGGREGATION_JOBS[period_type]
    materialized = landed.changed
    if period_type is PeriodType.DAILY:
        done = _done_by_their_own_run(instance, aggregation_keys(PeriodType.DAILY), landed.after)
        materialized = [event for event in materialized if (event.run_id, event.day) not in done]
    # A run that waits reads the stats when it starts, and so sees these days, too; one that has started may have read
    # them before they changed, and does not count.
    waiting = _waiting_ranges(instance, job.name)
    for first, last in ranges(days_to_windows({event.day for event in materialized}, period_type)):
        if not any(start <= first and last <= end for start, end in waiting):
            yield dg.RunRequest(
                job_name=job.name,
                run_key=f"{job.name} {first}..{last} after {materialized[-1].storage_id}",
                tags=range_tags(first, last) | FROM_A_SENSOR,
            )


def ranges(windows: Sequence[Window]) -> list[tuple[date, date]]:
    """Return (first start, last start) of each group of adjacent windows, or one pair for all if there are too many."""
    runs = adjacent_runs(windows)
    if len(runs) > RUNS_PER_PERIOD:
        runs = [list(windows)]
    return [(run[0].start, run[-1].start) for run in runs]


def _will_follow(instance: dg.DagsterInstance, landed: LandedDays, keys: Sequence[dg.AssetKey]) -> bool:
    """Tell whether a run that materialized changed stats is under way, and is still to materialize *keys* itself."""
    run_ids = list({event.run_id for event in landed.changed})
    runs = instance.get_runs(dg.RunsFilter(run_ids=run_ids, statuses=UNDER_WAY)) if run_ids else []
    under_way = {run.run_id for run in runs if set(keys) <= set(asset_keys_of(run))}
    if not under_way:
        return False
    done = _done_by_their_own_run(instance, keys, landed.after)
    return any(event.run_id in under_way and (event.run_id, event.day) not in done for event in landed.changed)


def _done_by_their_own_run(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey], cursor: int
) -> set[tuple[str, date]]:
    """Return (run id, day) of the days whose *keys* the run that measured them has materialized, too."""
    return set.intersection(*(_materialized(instance, key, cursor) for key in keys))


def _materialized(instance: dg.DagsterInstance, key: dg.AssetKey, cursor: int) -> set[tuple[str, date]]:
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, after_storage_id=cursor), limit=EVENTS_PER_TICK, ascending=True
    ).records
    return {(record.run_id, date.fromisoformat(record.partition_key)) for record in records if record.partition_key}


def _waiting_ranges(instance: dg.DagsterInstance, job_name: str) -> Iterable[tuple[date, date]]:
    """Return the ranges that the waiting runs of a job will cover anyway."""
    return [
        (
            date.fromisoformat(run.tags[ASSET_PARTITION_RANGE_START_TAG]),
            date.fromisoformat(run.tags[ASSET_PARTITION_RANGE_END_TAG]),
        )
        for run in instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=WAITING))
        if ASSET_PARTITION_RANGE_START_TAG in run.tags
    ]
