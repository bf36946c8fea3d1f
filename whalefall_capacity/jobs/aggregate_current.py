"""Aggregate the current period: today's daily aggregations, without measuring anything.

Annotations are not postponed here: Dagster reads the type of the configuration and of the resource from the function.
"""

from datetime import date

import dagster as dg
from pydantic import Field

from whalefall_capacity.asset_keys import aggregation_key
from whalefall_capacity.assets.aggregations import describe, top_growers, window_metadata
from whalefall_capacity.current_period import ALL, OP, AggregationScope, CurrentPeriod
from whalefall_capacity.periods import PeriodType, today, window_before, window_of
from whalefall_capacity.resources.item_watchers import AggregationItems, aggregation_metrics
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.run_tags import PERIOD_TYPE_TAG
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.calculate import WindowState, aggregate, closing_size
from whalefall_capacity.store.sizes.stats import instances_in_range
from whalefall_capacity.tasks import AGGREGATE_CURRENT


class AggregateCurrentConfig(dg.Config):
    """Selection of the aggregations to calculate."""

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
        description="The period type that was requested; daily aggregations are calculated, whatever it is.",
    )


@dg.op(
    name=OP,
    description="Calculate today's daily aggregations from the sizes as they are, and report them as materialized.",
)
def aggregate_current(
    context: dg.OpExecutionContext, config: AggregateCurrentConfig, store: StoreResource, task_runs: TaskRunsResource
) -> None:
    day = date.fromisoformat(config.day) if config.day else today(load_settings().zone)
    window = window_of(day, PeriodType.DAILY)
    instances = instances_in_range(store.engine, day, day)
    for level in CurrentPeriod(config.scope, day).levels:
        task_runs.raise_if_cancelled()
        results = aggregate(store.engine, level, [window], AggregationItems(task_runs, level, instances, 1))
        task_runs.add_metrics(*aggregation_metrics(level, results))
        context.log.info(f"{level.value}: {describe(results)}")
        (result,) = results
        metadata = dict(window_metadata(result, closing_size(store.engine, level, window_before(window))))
        if result.state is WindowState.DONE:
            metadata["top_growers"] = top_growers(store, level, window)
        key = aggregation_key(level, PeriodType.DAILY)
        context.log_event(dg.AssetMaterialization(key, partition=day.isoformat(), metadata=metadata))


@dg.job(
    name=AGGREGATE_CURRENT.key,
    description="Aggregate the current period: today's daily assets, at once, from the sizes that are stored.",
    tags={PERIOD_TYPE_TAG: PeriodType.DAILY.value},
)
def capacity_aggregate_current() -> None:
    aggregate_current()
