"""The whole pipeline on one page: what Dagster loads.

Every day `daily_collection` starts `sync_databases`, which visits each server once, so materializes today's
`database_size_stats` and `instance_size_stats`, and aggregates the day. `aggregations_follow_stats` then brings the
week, the month and the quarter up to date, for this day and for every other that lands or is corrected.
"""

from __future__ import annotations

import dagster as dg

from whalefall_capacity.assets.aggregations import AGGREGATIONS
from whalefall_capacity.assets.external import SERVERS
from whalefall_capacity.assets.stats import size_stats
from whalefall_capacity.automation.schedules import daily_collection
from whalefall_capacity.automation.sensors import aggregations_follow_stats
from whalefall_capacity.jobs import AGGREGATION_JOBS, sync_databases
from whalefall_capacity.jobs.aggregate_current import capacity_aggregate_current
from whalefall_capacity.resources.fleet import FleetResource
from whalefall_capacity.resources.store import StoreResource

defs = dg.Definitions(
    assets=[*SERVERS, size_stats, *AGGREGATIONS],
    jobs=[sync_databases, capacity_aggregate_current, *AGGREGATION_JOBS.values()],
    schedules=[daily_collection],
    sensors=[aggregations_follow_stats],
    resources={"store": StoreResource(), "fleet": FleetResource()},
    executor=dg.in_process_executor,
)
