"""What an operator starts by name."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from whalefall_capacity.assets.aggregations import aggregation_keys
from whalefall_capacity.assets.metadata import STATS_KEYS
from whalefall_capacity.periods import PeriodType

sync_databases = dg.define_asset_job(
    "sync_databases",
    selection=dg.AssetSelection.assets(*STATS_KEYS, *aggregation_keys(PeriodType.DAILY)),
    description="Measure the fleet and aggregate the day: today's daily assets.",
    tags={"dagster/priority": "1"},
)

AGGREGATION_JOBS: Mapping[PeriodType, dg.UnresolvedAssetJobDefinition] = {
    period_type: dg.define_asset_job(
        f"aggregate_{period_type.value}",
        selection=dg.AssetSelection.assets(*aggregation_keys(period_type)),
        description=f"Aggregate {period_type.value} windows on both levels.",
    )
    for period_type in PeriodType
}
