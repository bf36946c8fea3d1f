"""The store as the maintenance of its table partitions uses it: alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import dagster as dg

from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.store.locks import maintenance_lock
from whalefall_capacity.store.retention import ChildOutcome

# A run that was launched twice ends soon, and a restore by hand has its time.
LOCK_WAIT_SECONDS = 10.0

OutcomeListener = Callable[[ChildOutcome], None]

_listener: ContextVar[OutcomeListener | None] = ContextVar("outcome_listener", default=None)


class MaintenanceStore(StoreResource):
    """Connections to the store, and the lock of the maintenance for as long as the run, or a process of it, lives."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[MaintenanceStore]:
        with super().yield_for_execution(context), maintenance_lock(self.engine, LOCK_WAIT_SECONDS):
            yield self


@contextmanager
def hearing_outcomes(listener: OutcomeListener) -> Iterator[None]:
    """Tell *listener* of every child as it happens, in steps that run in this thread within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report_outcome(outcome: ChildOutcome) -> None:
    """Tell the listener, if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(outcome)
