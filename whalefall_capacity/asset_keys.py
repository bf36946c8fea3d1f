"""The keys of the assets, and which of them each job materializes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.tasks import INSIGHT_STEP, STATS_STEP, SYNC_DATABASES

DATABASE_SIZE_STATS = dg.AssetKey("database_size_stats")
INSTANCE_SIZE_STATS = dg.AssetKey("instance_size_stats")
STATS_KEYS = (DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS)
CAPACITY_FORECASTS = dg.AssetKey("capacity_forecasts")
SIZE_ANOMALIES = dg.AssetKey("size_anomalies")
INSIGHT_KEYS = (CAPACITY_FORECASTS, SIZE_ANOMALIES)
FORECAST_JOB_NAME = "forecast_capacity"


def aggregation_key(level: Level, period_type: PeriodType) -> dg.AssetKey:
    """Return the key of an aggregation asset, such as database_size_aggregations/weekly."""
    return dg.AssetKey([f"{level.value}_size_aggregations", period_type.value])


def aggregation_keys(period_type: PeriodType) -> list[dg.AssetKey]:
    """Return the keys of the assets of one period type."""
    return [aggregation_key(level, period_type) for level in Level]


AGGREGATION_JOB_NAMES: Mapping[PeriodType, str] = {
    period_type: f"aggregate_{period_type.value}" for period_type in PeriodType
}
KEYS_OF_JOB: Mapping[str, Sequence[dg.AssetKey]] = {
    SYNC_DATABASES.key: [*STATS_KEYS, *aggregation_keys(PeriodType.DAILY), *INSIGHT_KEYS],
    **{name: aggregation_keys(period_type) for period_type, name in AGGREGATION_JOB_NAMES.items()},
    FORECAST_JOB_NAME: INSIGHT_KEYS,
}


def step_key(key: dg.AssetKey) -> str:
    """Return the key of the step that materializes an asset, or of the graph of such steps."""
    if key in STATS_KEYS:
        return STATS_STEP
    return INSIGHT_STEP if key in INSIGHT_KEYS else "__".join(key.path)


def materializes(step: str, key: dg.AssetKey) -> bool:
    """Tell whether *step* materializes an asset, or is of the graph that does: `size_stats.visits[1_500]`."""
    return step.partition(".")[0] == step_key(key)
