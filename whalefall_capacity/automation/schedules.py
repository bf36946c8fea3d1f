"""Schedules of the collection and of the maintenance."""

from __future__ import annotations

import dagster as dg

from whalefall_capacity.jobs import sync_databases
from whalefall_capacity.jobs.partition_maintenance import partition_maintenance
from whalefall_capacity.partitions import DAILY
from whalefall_capacity.periods import today
from whalefall_capacity.run_tags import TRIGGER_TAG
from whalefall_capacity.settings import load_settings


@dg.schedule(
    job=sync_databases,
    cron_schedule=load_settings().collection_schedule,
    execution_timezone=load_settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Measures the fleet once a day, for the day on which the tick is due.",
)
def daily_collection(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Start the collection for the day on which the tick was due; the run key ensures that a tick starts it only once.

    Of the ticks that the daemon missed, Dagster evaluates only the latest. If that is today's, the collection is caught
    up; an earlier day can only be reported, because its sizes can no longer be measured.
    """
    due = context.scheduled_execution_time.astimezone(load_settings().zone)
    day = DAILY.get_partition_key_for_timestamp(due.timestamp())
    if due.date() != today(load_settings().zone):
        missed = (
            f"{day} was missed: the daemon did not run at {due:%H:%M}, when its collection was due, nor for the rest "
            "of the day. A past day cannot be measured; `whalefall-capacity history import FILE` imports sizes from "
            "other sources"
        )
        context.log.warning(missed)
        return dg.SkipReason(missed)
    return dg.RunRequest(run_key=f"sync_databases {day}", partition_key=day, tags={TRIGGER_TAG: "schedule"})


# May run beside a collection: it holds a lock of its own, and detaches without blocking whoever reads or writes.
@dg.schedule(
    job=partition_maintenance,
    cron_schedule=load_settings().maintenance_schedule,
    execution_timezone=load_settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Creates table partitions ahead and retires those beyond retention, once a day.",
)
def daily_maintenance(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    due = context.scheduled_execution_time.astimezone(load_settings().zone)
    return dg.RunRequest(
        run_key=f"partition_maintenance {due.date()}",
        run_config={"ops": {"plan": {"config": {"dry_run": False}}}},
        tags={TRIGGER_TAG: "schedule"},
    )
