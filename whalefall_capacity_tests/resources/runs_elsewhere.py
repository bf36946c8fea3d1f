"""Jobs whose steps are executed by other processes than the run, wait until one does, or look whether the run is alive.

`python -m whalefall_capacity_tests.resources.runs_elsewhere JOB` executes one in the Dagster instance of DAGSTER_HOME.
"""

import os
import signal
import sys
from pathlib import Path

import dagster as dg

from whalefall_capacity.resources.run_process import KeptAlive
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.store.postgres.advisory_locks import without_worker
from whalefall_capacity_tests.processes import wait_for

PID_FILE = "STEP_PID_FILE"
# No step with this tag ever starts: a cluster without any worker.
NO_WORKER = {"tag_concurrency_limits": [{"key": "needs", "limit": 0}]}


@dg.op(tags={"needs": "worker"})
def never_starts() -> None:
    pass


@dg.job(name="capacity_aggregate_current", executor_def=KeptAlive(dg.multiprocess_executor.configured(NO_WORKER)))
def waits_for_a_worker() -> None:
    never_starts()


@dg.op
def goes_on_for_ever(task_runs: TaskRunsResource) -> None:
    task_runs.raise_if_cancelled()
    part = Path(os.environ[PID_FILE] + ".part")
    part.write_text(str(os.getpid()))
    part.rename(os.environ[PID_FILE])
    while True:
        signal.pause()


@dg.job(
    name="partition_maintenance",
    executor_def=KeptAlive(dg.multiprocess_executor),
    resource_defs={"task_runs": TaskRunsResource()},
)
def has_an_endless_step() -> None:
    goes_on_for_ever()


@dg.op
def looks_at_itself(context: dg.OpExecutionContext, store: StoreResource, task_runs: TaskRunsResource) -> None:
    task_runs.raise_if_cancelled()

    def is_alive() -> bool:
        with store.engine.connect() as connection:
            return not without_worker(connection, [context.run_id])

    wait_for(is_alive, "liveness lock")


@dg.job(name="sync_databases", resource_defs={"store": StoreResource(), "task_runs": TaskRunsResource()})
def is_alive_meanwhile() -> None:
    looks_at_itself()


@dg.op
def fails_after_a_forced_cancel(context: dg.OpExecutionContext) -> None:
    context.instance.report_run_canceled(context.run)
    raise dg.Failure("the run was interrupted", allow_retries=False)


@dg.job(executor_def=KeptAlive(dg.in_process_executor))
def is_cancelled_by_force() -> None:
    fails_after_a_forced_cancel()


@dg.op
def fails() -> None:
    raise dg.Failure("for another reason")


@dg.job(executor_def=KeptAlive(dg.in_process_executor))
def fails_by_itself() -> None:
    fails()


def main() -> None:
    job = {"waits_for_a_worker": waits_for_a_worker, "has_an_endless_step": has_an_endless_step}[sys.argv[1]]
    with dg.DagsterInstance.get() as instance:
        dg.execute_job(dg.reconstructable(job), instance)


if __name__ == "__main__":
    main()
