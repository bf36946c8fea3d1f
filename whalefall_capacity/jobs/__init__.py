"""Jobs: work that can be started by name."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from whalefall_capacity.asset_keys import AGGREGATION_JOB_NAMES, FORECAST_JOB_NAME, KEYS_OF_JOB
from whalefall_capacity.assets.checks import TABLE_PARTITION_CHECKS
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.run_tags import PERIOD_TYPE_TAG
from whalefall_capacity.tasks import STATS_STEP, SYNC_DATABASES

# The maintenance evaluates these checks once a day; runs of the assets leave them out.
_CHECKS_OF_TABLES = dg.AssetSelection.checks(*TABLE_PARTITION_CHECKS)

sync_databases = dg.define_asset_job(
    SYNC_DATABASES.key,
    selection=dg.AssetSelection.assets(*KEYS_OF_JOB[SYNC_DATABASES.key]) - _CHECKS_OF_TABLES,
    description="Measure the fleet, aggregate the day and forecast from it: today's daily assets.",
    tags={PERIOD_TYPE_TAG: PeriodType.DAILY.value},
    # The launchpad opens with this: it shows where the options of the collection go, with a harmless default.
    config={"ops": {STATS_STEP: {"config": {"accept_empty": False}}}},
)

AGGREGATION_JOBS: Mapping[PeriodType, dg.UnresolvedAssetJobDefinition] = {
    period_type: dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*KEYS_OF_JOB[name]) - _CHECKS_OF_TABLES,
        description=f"Aggregate {period_type.value} windows on both levels.",
        tags={PERIOD_TYPE_TAG: period_type.value},
    )
    for period_type, name in AGGREGATION_JOB_NAMES.items()
}

forecast_capacity = dg.define_asset_job(
    FORECAST_JOB_NAME,
    selection=dg.AssetSelection.assets(*KEYS_OF_JOB[FORECAST_JOB_NAME]) - _CHECKS_OF_TABLES,
    description="Forecast when every instance is full, and look for jumps, as of one day or of each of a range.",
    tags={PERIOD_TYPE_TAG: PeriodType.DAILY.value},
)
