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
    day = date.fromisoformat(config.day) if config.day else today(load_settings().zone)
    window = window_of(day, PeriodType.DAILY)
    for level in CurrentPeriod(config.scope, day).levels:
        metadata = calculate_windows(context.log, store, task_runs, level, [window])[window]
        key = aggregation_key(level, PeriodType.DAILY)
        context.log_event(dg.AssetMaterialization(key, partition=day.isoformat(), metadata=metadata))


@dg.job(
    name=AGGREGATE_CURRENT.key,
    description="Aggregate the current period: today's daily assets, from the sizes stored so far.",
    tags={PERIOD_TYPE_TAG: PeriodType.DAILY.value},
    # Somebody waits for this one step: whatever the executor, it is not handed over.
    executor_def=KeptAlive(dg.in_process_executor),
)
def capacity_aggregate_current() -> None:
    aggregate_current()
