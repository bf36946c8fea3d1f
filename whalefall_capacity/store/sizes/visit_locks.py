"""Visits under way: one session-level advisory lock an instance, so that two runs never measure it at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from whalefall_capacity.store.postgres.advisory_locks import try_lock_visits, unlock_visits
from whalefall_capacity.store.postgres.engine import again_if_connection_lost


class VisitLocks:
    """The locks that one session holds; all are free again when it ends, or is lost."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @again_if_connection_lost
    def take(self, instance_ids: Collection[int]) -> set[int]:
        """Take the locks of *instance_ids* that are free, without waiting, and return which."""
        self._connect_if_lost()
        return try_lock_visits(self._connection, instance_ids)

    @again_if_connection_lost
    def release(self, instance_ids: Collection[int]) -> None:
        """Let others visit *instance_ids*."""
        self._connect_if_lost()
        unlock_visits(self._connection, instance_ids)

    def _connect_if_lost(self) -> None:
        """Let a lost connection be made anew; what it had taken is free."""
        self._connection.rollback()


@contextmanager
def visit_locks(engine: Engine) -> Iterator[VisitLocks]:
    """Hold a session for locks."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            yield VisitLocks(connection)
        finally:
            # The session goes back to the pool, and would keep them.
            connection.invalidate()
