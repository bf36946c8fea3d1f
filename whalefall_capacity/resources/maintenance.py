"""The store as the maintenance of its table partitions uses it: alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.store.postgres.locks import maintenance_lock

# A run that was launched twice ends soon, and a restore by hand has its time.
LOCK_WAIT_SECONDS = 10.0


class MaintenanceStore(StoreResource):
    """Connections to the store, and the lock of the maintenance for as long as the run, or a process of it, lives."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[MaintenanceStore]:
        with super().yield_for_execution(context), maintenance_lock(self.engine, LOCK_WAIT_SECONDS):
            yield self
