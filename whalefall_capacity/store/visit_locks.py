"""Who visits a server now: one session-level advisory lock an instance, so that two runs never measure it at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from whalefall_capacity.store.engine import again_if_connection_lost

# Taken in the select list: a condition may be evaluated for rows that another one leaves out.
TAKE = """
SELECT id FROM (SELECT id, pg_try_advisory_lock(hashtextextended('visit ' || id, 0)) AS taken
                FROM unnest(CAST(:ids AS integer[])) AS id) AS tried
WHERE taken
"""
RELEASE = """
SELECT pg_advisory_unlock(hashtextextended('visit ' || id, 0)) FROM unnest(CAST(:ids AS integer[])) AS id
"""


class VisitLocks:
    """The locks that one session holds; all are free again when it ends, or is lost."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self, instance_ids: Iterable[int]) -> set[int]:
        """Take the locks of *instance_ids* that are free, without waiting, and return which."""
        return set(self._ask(TAKE, list(instance_ids)))

    def release(self, instance_ids: Iterable[int]) -> None:
        """Let others visit *instance_ids*."""
        self._ask(RELEASE, list(instance_ids))

    @again_if_connection_lost
    def _ask(self, statement: str, instance_ids: list[int]) -> list[int]:
        # After a loss, this lets the connection be made anew; what was taken is free then.
        self._connection.rollback()
        return list(self._connection.execute(text(statement), {"ids": instance_ids}).scalars())


@contextmanager
def visit_locks(engine: Engine) -> Iterator[VisitLocks]:
    """Hold a session for locks."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            yield VisitLocks(connection)
        finally:
            # The session goes back to the pool, and would keep them.
            connection.invalidate()
