"""Aggregate the current period: today's daily aggregations, without measuring anything.

Annotations are not postponed here: Dagster reads the types of the config and the resources from the function.
"""

from datetime import date

import dagster as dg
from pydantic import Field

from whalefall_capacity.asset_keys import aggregation_key
from whalefall_capacity.assets.aggregations import calculate_windows
from whalefall_capacity.current_period import ALL, OP, AggregationScope, CurrentPeriod
from whalefall_capacity.periods import PeriodType, today, window_of
from whalefall_capacity.resources.run_process import KeptAlive
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.run_tags import PERIOD_TYPE_TAG
from whalefall_capacity.settings import load_settings
from whalefall_capacity.tasks import AGGREGATE_CURRENT


class AggregateCurrentConfig(dg.Config):
    """The aggregations to calculate."""

    scope: AggregationScope = Field(
        default=ALL,
        description="Which aggregations: those of instances, those of databases, or all.",
    )
    day: str | None = Field(
        default=None,
        description="The day on which the run was requested, such as 2026-01-31; unset: today.",
    )
    period_type: str | None = Field(
        default=None,
        description="The period type that was requested; daily aggregations are calculated in any case.",
    )


@dg.op(
    name=OP,
    description="Calculate today's daily aggregations from the stored sizes, and report them as materialized.",
)
def aggregate_current(
    context: dg.OpExecutionContext, config: AggregateCurrentConfig, store: StoreResource, task_runs: TaskRunsResource
) -> None:
    day = requested_day(config.day)
    window = window_of(day, PeriodType.DAILY)
    for level in CurrentPeriod(config.scope, day).levels:
        metadata = calculate_windows(context.log, store, task_runs, level, [window])[window]
        key = aggregation_key(level, PeriodType.DAILY)
        context.log_event(dg.AssetMaterialization(key, partition=day.isoformat(), metadata=metadata))


def requested_day(asked: str | None) -> date:
    """Return the day to aggregate, today by default. Raises dagster.Failure when there is no partition of that day."""
    settings = load_settings()
    this_day = today(settings.zone)
    if not asked:
        return this_day
    try:
        day = date.fromisoformat(asked)
    except ValueError:
        day = None
    if day is None or not settings.start_date <= day <= this_day:
        raise dg.Failure(
            f"day is {asked!r}, and has to be one from {settings.start_date} to {this_day}, written like that; "
            "without it, today is aggregated",
            allow_retries=False,
        )
    return day


@dg.job(
    name=AGGREGATE_CURRENT.key,
    description="Aggregate the current period: today's daily assets, from the sizes stored so far.",
    tags={PERIOD_TYPE_TAG: PeriodType.DAILY.value},
    # Somebody waits for this one step: whatever the executor, it is not handed over.
    executor_def=KeptAlive(dg.in_process_executor),
)
def capacity_aggregate_current() -> None:
    aggregate_current()
