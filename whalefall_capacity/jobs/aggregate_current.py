"""Aggregate the current period: today's daily aggregations, without measuring anything.

Annotations are not postponed here: Dagster reads the type of the configuration and of the resource from the function.
"""

from datetime import date
from typing import Literal

import dagster as dg
from pydantic import Field

from whalefall_capacity.assets.aggregations import aggregation_key, describe, top_growers, window_metadata
from whalefall_capacity.periods import PeriodType, today, window_before, window_of
from whalefall_capacity.resources.progress import report_progress
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregation import WindowState, aggregate, closing_size
from whalefall_capacity.store.aggregation_statements import Level


class AggregateCurrentConfig(dg.Config):
    """What to aggregate."""

    scope: Literal["all", "instance", "database"] = Field(
        default="all",
        description="Which aggregations: those of instances, those of databases, or all.",
    )
    day: str | None = Field(
        default=None,
        description="The day that was today when the run was asked for, such as 2026-01-31; unset: today.",
    )


@dg.op(description="Calculate today's daily aggregations from the stats as they are, and report them as materialized.")
def aggregate_current(context: dg.OpExecutionContext, config: AggregateCurrentConfig, store: StoreResource) -> None:
    day = date.fromisoformat(config.day) if config.day else today(load_settings().zone)
    window = window_of(day, PeriodType.DAILY)
    for level in Level if config.scope == "all" else [Level(config.scope)]:
        results = aggregate(store.engine, level, [window], report_progress)
        context.log.info(f"{level.value}: {describe(results)}")
        (result,) = results
        metadata = dict(window_metadata(result, closing_size(store.engine, level, window_before(window))))
        if result.state is WindowState.DONE:
            metadata["top_growers"] = top_growers(store, level, window)
        context.log_event(
            dg.AssetMaterialization(
                aggregation_key(level, PeriodType.DAILY), partition=day.isoformat(), metadata=metadata
            )
        )


@dg.job(description="Aggregate the current period: today's daily assets, at once, from the sizes that are stored.")
def capacity_aggregate_current() -> None:
    aggregate_current()
