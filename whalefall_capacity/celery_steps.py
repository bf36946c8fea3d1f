"""Steps of a run on Celery workers, for which the run does not wait once it is cancelled and no worker answers.

Dagster revokes the tasks of a cancelled run and waits until a worker confirms it. Where there is no worker, or all of
them are busy, that may be never. Tasks stay in the queue; the workers drop those of runs that are over, see
`celery_app`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_celery import celery_executor
from dagster_celery.executor import _submit_task

from whalefall_capacity.run_states import goes_on
from whalefall_capacity.wrapped_executor import WrappedExecutor, WrappedExecutorDefinition

if TYPE_CHECKING:
    from celery.result import AsyncResult

# How long a cancelled run waits for a step that a worker has begun; as long as Dagster's daemon waits for the run.
STOP_SECONDS = 60.0
LOOK_SECONDS = 2.0

logger = logging.getLogger(__name__)


class RunEnd:
    """Whether a run is to end: it was interrupted, or is cancelled.

    Dagster's launcher cannot interrupt each run, but changes its status.
    """

    def __init__(self, is_over: Callable[[], bool], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._is_over = is_over
        self._monotonic = monotonic
        self._looked_at: float | None = None
        self._asked_at: float | None = None

    def ask(self) -> None:
        """Note that the run is to end."""
        if self._asked_at is None:
            self._asked_at = self._monotonic()

    def is_asked(self) -> bool:
        """Tell whether the run is to end; looks at its status now and then."""
        now = self._monotonic()
        if self._asked_at is None and (self._looked_at is None or now - self._looked_at >= LOOK_SECONDS):
            self._looked_at = now
            if self._seems_over():
                self.ask()
        return self._asked_at is not None

    def is_overdue(self) -> bool:
        """Tell whether steps have had their time to stop."""
        return self._asked_at is not None and self._monotonic() - self._asked_at >= STOP_SECONDS

    def _seems_over(self) -> bool:
        try:
            return self._is_over()
        # Dagster's storage may be away for a while; a run that waits for its steps must not fail because of that.
        except Exception as error:
            logger.warning("whether the run was cancelled cannot be known at the moment: %s", error)
            return False


class SubmittedStep:
    """The result of a step, as Dagster asks for it; a run that is to end does not wait for one that nobody executes."""

    def __init__(self, result: AsyncResult, end: RunEnd) -> None:
        self._result = result
        self._end = end

    def revoke(self) -> None:
        """Ask the workers not to begin the step."""
        self._end.ask()
        self._result.revoke()

    def ready(self) -> bool:
        """Tell whether there is nothing to wait for."""
        return bool(self._result.ready()) or self._is_given_up()

    def get(self) -> Any:
        """Return the events of the step. Raises TaskRevokedError when there are none."""
        from celery.exceptions import TaskRevokedError

        if self._result.ready():
            return self._result.get()
        raise TaskRevokedError("no worker executed it before its run was cancelled")

    def _is_given_up(self) -> bool:
        from celery.states import PENDING

        # First the run, then the task: a worker that begins a step looks at the two in the other order.
        return self._end.is_asked() and (bool(self._result.state == PENDING) or self._end.is_overdue())


class EndingCeleryExecutor(WrappedExecutor):
    """Dagster's executor of Celery, which waits for workers only until its run is cancelled."""

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        from dagster_celery.core_execution_loop import core_celery_execution_loop

        end = RunEnd(partial(is_over, plan_context.instance, plan_context.run_id))

        def submit(*arguments: Any) -> SubmittedStep:
            return SubmittedStep(_submit_task(*arguments), end)  # type: ignore[no-untyped-call]

        yield from core_celery_execution_loop(plan_context, execution_plan, submit)  # type: ignore[no-untyped-call]


def is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Tell whether no step of a run is to begin any more."""
    return not goes_on(instance.get_run_by_id(run_id))


def is_dropped(packed: Any) -> bool:
    """Tell whether the step that a task is to execute, *packed* as Dagster does it, is of a run that is over."""
    from dagster._grpc.types import ExecuteStepArgs
    from dagster._serdes import unpack_value

    step = unpack_value(packed, as_type=ExecuteStepArgs)
    assert step.instance_ref is not None
    with dg.DagsterInstance.from_ref(step.instance_ref) as instance:
        return is_over(instance, step.run_id)


def ending_celery_executor() -> dg.ExecutorDefinition:
    """Return the definition of Dagster's executor of Celery, whose cancelled runs end without a worker, too."""
    return WrappedExecutorDefinition(celery_executor, EndingCeleryExecutor)
