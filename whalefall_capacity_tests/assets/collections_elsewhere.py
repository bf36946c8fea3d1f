"""The collection as a job, under an executor of one process and under one of a process a step.

`python -m whalefall_capacity_tests.assets.collections_elsewhere FIRST LAST` executes the latter for a range
of days, in the Dagster instance of DAGSTER_HOME.
"""

import sys
from datetime import date

import dagster as dg

from whalefall_capacity.assets.external import SERVERS
from whalefall_capacity.assets.stats import size_stats
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.resources.fleet import FleetResource
from whalefall_capacity.resources.run_process import KeptAlive
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource


def job_under(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    """Return the job that collects, executed by *executor*."""
    job = dg.define_asset_job("sync_databases", dg.AssetSelection.assets(size_stats), executor_def=KeptAlive(executor))
    resources = {"store": StoreResource(), "fleet": FleetResource(), "task_runs": TaskRunsResource()}
    return dg.Definitions([*SERVERS, size_stats], jobs=[job], resources=resources).resolve_job_def("sync_databases")


def in_process() -> dg.JobDefinition:
    """Return the job whose steps are executed by the process of the run."""
    return job_under(dg.in_process_executor)


def multiprocess() -> dg.JobDefinition:
    """Return the job whose steps are processes of their own."""
    return job_under(dg.multiprocess_executor.configured({"max_concurrent": 3}))


def main(first: str, last: str) -> None:
    days = range_tags(date.fromisoformat(first), date.fromisoformat(last))
    with dg.DagsterInstance.get() as instance:
        dg.execute_job(dg.reconstructable(multiprocess), instance, tags=days)


if __name__ == "__main__":
    main(*sys.argv[1:])
