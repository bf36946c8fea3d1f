"""Aggregation assets with empty bodies: what a step or a run costs before it does anything.

Annotations are not postponed here: Dagster reads the type of `context` from the function.
"""

import dagster as dg

from whalefall_capacity.asset_keys import aggregation_key
from whalefall_capacity.assets.columns import STATS
from whalefall_capacity.partitions import DAYS_OF_PERIOD, PARTITIONS
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.aggregations.statements import Level


def idle_asset(level: Level, period_type: PeriodType) -> dg.AssetsDefinition:
    """Return an asset with the partitions and the upstream asset of the real one, which says only that it is there."""

    @dg.asset(
        key=aggregation_key(level, period_type),
        deps=[dg.AssetDep(STATS[level], partition_mapping=DAYS_OF_PERIOD)],
        partitions_def=PARTITIONS[period_type],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def idle(context: dg.AssetExecutionContext) -> None:
        for key in context.partition_keys:
            context.add_asset_metadata({"state": "done"}, partition_key=key)

    return idle
