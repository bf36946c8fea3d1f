"""What an operator starts by name."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from whalefall_capacity.assets.aggregations import aggregation_keys
from whalefall_capacity.assets.checks import TABLE_PARTITION_CHECKS
from whalefall_capacity.assets.metadata import STATS_KEYS
from whalefall_capacity.periods import PeriodType

# The maintenance evaluates these once a day; a run of the assets need not.
_CHECKS_OF_TABLES = dg.AssetSelection.checks(*TABLE_PARTITION_CHECKS)

sync_databases = dg.define_asset_job(
    "sync_databases",
    selection=dg.AssetSelection.assets(*STATS_KEYS, *aggregation_keys(PeriodType.DAILY)) - _CHECKS_OF_TABLES,
    description="Measure the fleet and aggregate the day: today's daily assets.",
    tags={"dagster/priority": "1"},
)

AGGREGATION_JOBS: Mapping[PeriodType, dg.UnresolvedAssetJobDefinition] = {
    period_type: dg.define_asset_job(
        f"aggregate_{period_type.value}",
        selection=dg.AssetSelection.assets(*aggregation_keys(period_type)) - _CHECKS_OF_TABLES,
        description=f"Aggregate {period_type.value} windows on both levels.",
    )
    for period_type in PeriodType
}
