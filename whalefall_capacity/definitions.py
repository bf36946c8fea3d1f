"""The whole pipeline on one page: what Dagster loads.

Every day `daily_collection` starts `sync_databases`, which visits each server once and so materializes
today's `database_size_stats` and `instance_size_stats`.
"""

from __future__ import annotations

import dagster as dg

from whalefall_capacity.assets.external import SERVERS
from whalefall_capacity.assets.stats import size_stats
from whalefall_capacity.automation.schedules import daily_collection
from whalefall_capacity.jobs import sync_databases
from whalefall_capacity.resources.fleet import FleetResource
from whalefall_capacity.resources.store import StoreResource

defs = dg.Definitions(
    assets=[*SERVERS, size_stats],
    jobs=[sync_databases],
    schedules=[daily_collection],
    resources={"store": StoreResource(), "fleet": FleetResource()},
    executor=dg.in_process_executor,
)
