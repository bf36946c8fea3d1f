"""What an operator starts by name."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from whalefall_capacity.asset_keys import AGGREGATION_JOB_NAMES, KEYS_OF_JOB, SYNC_DATABASES
from whalefall_capacity.periods import PeriodType

sync_databases = dg.define_asset_job(
    SYNC_DATABASES,
    selection=dg.AssetSelection.assets(*KEYS_OF_JOB[SYNC_DATABASES]),
    description="Measure the fleet and aggregate the day: today's daily assets.",
    tags={"dagster/priority": "1"},
)

AGGREGATION_JOBS: Mapping[PeriodType, dg.UnresolvedAssetJobDefinition] = {
    period_type: dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*KEYS_OF_JOB[name]),
        description=f"Aggregate {period_type.value} windows on both levels.",
    )
    for period_type, name in AGGREGATION_JOB_NAMES.items()
}
