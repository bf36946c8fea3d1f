"""The tasks that a task run may be of, and the code location whose runs they are."""

from __future__ import annotations

from dataclasses import dataclass

# The name under which the supervisor starts the code server, and the console finds its jobs.
LOCATION = "whalefall_capacity"


@dataclass(frozen=True)
class Task:
    """A task: its key in `task_runs`, which is the name of its job where it has one of its own."""

    key: str
    name: str
    category: str


SYNC_DATABASES = Task("sync_databases", "Collect sizes", "capacity")
CALCULATE_DATABASE = Task("calculate_database", "Calculate aggregations", "aggregation")
# Its graph of steps that measure.
STATS_STEP = "size_stats"
# What calculates forecasts; its runs have no task of their own.
INSIGHT_STEP = "insight"
INSIGHT = Task("other", "Forecast capacity", "maintenance")
AGGREGATE_CURRENT = Task("capacity_aggregate_current", "Aggregate current period", "aggregation")
PARTITION_MAINTENANCE = Task("partition_maintenance", "Table partition maintenance", "maintenance")
# The jobs of ops, whose name says which task they are.
OP_JOBS = {task.key: task for task in (AGGREGATE_CURRENT, PARTITION_MAINTENANCE)}
