"""The whole pipeline on one page: what Dagster loads.

Every day `daily_collection` starts `sync_databases`, which visits each server once, so materializes today's
`database_size_stats` and `instance_size_stats`, aggregates the day, and says in `capacity_forecasts` and
`size_anomalies` when disks are full and what was odd. `aggregations_follow_stats` then brings the week, the month and
the quarter up to date, for this day and for every other that lands or is corrected; `forecasts_follow_stats` does so
for today's forecast. Checks look at what was written, in the same run; none of them blocks. Later `daily_maintenance`
starts `partition_maintenance`, which creates table partitions ahead and retires past ones.
`capacity_aggregate_current` is the button "aggregate current period" for the launchpad.
`task_runs_follow_runs` keeps the table that the run centre reads in line with every run.
`alerts_go_out` sends alerts of what failed, when a receiver is set; `good_days_are_told` calls an address outside after
each good day, when one is set.
"""

from __future__ import annotations

import dagster as dg

from whalefall_capacity.assets.aggregation_checks import AGGREGATION_CHECKS
from whalefall_capacity.assets.aggregations import AGGREGATIONS
from whalefall_capacity.assets.checks import TABLE_PARTITION_CHECKS
from whalefall_capacity.assets.external import SERVERS
from whalefall_capacity.assets.insight import insight
from whalefall_capacity.assets.insight_checks import insight_checks
from whalefall_capacity.assets.stats import size_stats
from whalefall_capacity.assets.stats_checks import stats_checks
from whalefall_capacity.automation.alerts import alerts_go_out
from whalefall_capacity.automation.heartbeat import good_days_are_told
from whalefall_capacity.automation.reconciliation import task_runs_follow_runs, task_runs_hear_failures
from whalefall_capacity.automation.schedules import daily_collection, daily_maintenance
from whalefall_capacity.automation.sensors import aggregations_follow_stats, forecasts_follow_stats
from whalefall_capacity.executor import executor_of
from whalefall_capacity.jobs import AGGREGATION_JOBS, forecast_capacity, sync_databases
from whalefall_capacity.jobs.aggregate_current import capacity_aggregate_current
from whalefall_capacity.jobs.partition_maintenance import partition_maintenance
from whalefall_capacity.resources.fleet import FleetResource
from whalefall_capacity.resources.run_process import KeptAlive
from whalefall_capacity.resources.store import MaintenanceStore, StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.settings import load_settings

defs = dg.Definitions(
    assets=[*SERVERS, *dg.with_source_code_references([size_stats, *AGGREGATIONS, insight])],
    asset_checks=[stats_checks, *AGGREGATION_CHECKS, insight_checks, *TABLE_PARTITION_CHECKS],
    jobs=[
        sync_databases,
        capacity_aggregate_current,
        *AGGREGATION_JOBS.values(),
        forecast_capacity,
        partition_maintenance,
    ],
    schedules=[daily_collection, daily_maintenance],
    sensors=[
        aggregations_follow_stats,
        forecasts_follow_stats,
        task_runs_follow_runs,
        task_runs_hear_failures,
        alerts_go_out,
        good_days_are_told,
    ],
    resources={
        "store": StoreResource(),
        "fleet": FleetResource(),
        "maintenance_store": MaintenanceStore(),
        "task_runs": TaskRunsResource(),
    },
    executor=KeptAlive(executor_of(load_settings())),
)
