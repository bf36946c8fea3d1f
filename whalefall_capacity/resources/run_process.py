"""The process that executes a run: alive for as long as it does so, whichever processes execute the steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from whalefall_capacity.mirror.liveness import held_liveness
from whalefall_capacity.resources.store import held_store
from whalefall_capacity.run_states import is_cancelled
from whalefall_capacity.wrapped_executor import WrappedExecutor, WrappedExecutorDefinition

CANCELLATIONS = {dg.DagsterEventType.RUN_CANCELING, dg.DagsterEventType.RUN_CANCELED}


class KeptAlive(WrappedExecutorDefinition):
    """The executor *definition* with one addition: the process of the run holds the run's liveness lock.

    Dagster replaces the executor of a run that it executes in the process that created it, as `execute_in_process`
    does; the lock of such a run is held by the resource of its task run.
    """

    def __init__(self, definition: dg.ExecutorDefinition) -> None:
        super().__init__(definition, _Alive)


class _Alive(WrappedExecutor):
    """An executor that holds the liveness lock of the run while another one executes it."""

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        with held_store() as url, held_liveness(url, plan_context.run_id):
            _stop_if_cancelled_at_the_start(plan_context)
            yield from _cancelled_for_good(plan_context, self._executor.execute(plan_context, execution_plan))


def _stop_if_cancelled_at_the_start(plan_context: Any) -> None:
    """End the run as cancelled if somebody asked for that before it had started.

    A worker looks whether its run is cancelled, and reports a moment later that it has started, which takes the place
    of a cancellation in between: an interrupt would then count as a crash, and the run be executed again.
    """
    instance = plan_context.instance
    if instance.get_records_for_run(plan_context.run_id, of_type=CANCELLATIONS, limit=1).records:
        instance.report_run_canceling(plan_context.dagster_run, "Cancelled while it was starting.")
        raise dg.DagsterExecutionInterruptedError


def _cancelled_for_good(plan_context: Any, events: Iterator[dg.DagsterEvent]) -> Iterator[dg.DagsterEvent]:
    """Yield the *events* of a run; if steps failed because it was cancelled meanwhile, end it as interrupted.

    Dagster would say that a run failed which it had marked as cancelled by force, or could not interrupt.
    """
    has_failed = False
    try:
        for event in events:
            has_failed = has_failed or event.is_step_failure
            yield event
    except Exception as error:
        if is_cancelled(_run_of(plan_context)):
            raise dg.DagsterExecutionInterruptedError from error
        raise
    if has_failed and is_cancelled(_run_of(plan_context)):
        raise dg.DagsterExecutionInterruptedError


def _run_of(plan_context: Any) -> dg.DagsterRun | None:
    """Return the run as it is now: the one of the context is as old as the process."""
    run: dg.DagsterRun | None = plan_context.instance.get_run_by_id(plan_context.run_id)
    return run
