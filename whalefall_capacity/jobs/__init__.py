"""What an operator starts by name."""

from __future__ import annotations

import dagster as dg

from whalefall_capacity.assets.metadata import STATS_KEYS

sync_databases = dg.define_asset_job(
    "sync_databases",
    selection=dg.AssetSelection.assets(*STATS_KEYS),
    description="Measure the fleet: today's daily assets.",
    tags={"dagster/priority": "1"},
)
