"""The collection as a job, under an executor of one process and under the one of the settings.

`python -m whalefall_capacity_tests.assets.collections_elsewhere FIRST LAST [FAILED]` executes the latter for a range
of days, from where the run FAILED failed if it is given, in the Dagster instance of DAGSTER_HOME.
"""

import sys
from datetime import date

import dagster as dg

from whalefall_capacity.assets.external import SERVERS
from whalefall_capacity.assets.stats import size_stats
from whalefall_capacity.executor import executor_of
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.resources.fleet import FleetResource
from whalefall_capacity.resources.run_process import KeptAlive
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.settings import load_settings


def job_under(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    """Return the job that collects, executed by *executor*."""
    job = dg.define_asset_job("sync_databases", dg.AssetSelection.assets(size_stats), executor_def=KeptAlive(executor))
    resources = {"store": StoreResource(), "fleet": FleetResource(), "task_runs": TaskRunsResource()}
    return dg.Definitions([*SERVERS, size_stats], jobs=[job], resources=resources).resolve_job_def("sync_databases")


def in_process() -> dg.JobDefinition:
    """Return the job whose steps are executed by the process of the run."""
    return job_under(dg.in_process_executor)


def of_settings() -> dg.JobDefinition:
    """Return the job whose steps are executed as the settings say."""
    return job_under(executor_of(load_settings()))


def main(first: str, last: str, failed: str | None = None) -> None:
    days = range_tags(date.fromisoformat(first), date.fromisoformat(last))
    with dg.DagsterInstance.get() as instance:
        again = dg.ReexecutionOptions.from_failure(failed, instance) if failed else None
        dg.execute_job(dg.reconstructable(of_settings), instance, tags=days, reexecution_options=again)


if __name__ == "__main__":
    main(*sys.argv[1:])
