"""Waits for locks: never long ones, and repeated after a pause."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import psycopg2
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from whalefall_capacity.errors import StoreError
from whalefall_capacity.store.postgres.advisory_locks import lock_maintenance

# A statement that writes has this lock on its table before it takes ids from a sequence, and until it is committed.
WRITERS = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = to_regclass(:table) AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
POLL_SECONDS = 0.02
LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK_DETECTED = "40P01"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """The wait of one statement for a lock, and the pauses between attempts; in seconds."""

    lock_timeout_seconds: float = 2.0
    pauses_seconds: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)


def is_contention(error: BaseException) -> bool:
    """Tell whether *error* says that somebody else held a lock for too long."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, psycopg2.Error) and cause.pgcode in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED)


def limit_waits(connection: Connection, patience: Patience) -> None:
    """Let every statement of the transaction fail that waits for a lock longer than *patience* allows."""
    _set_lock_timeout(connection, patience.lock_timeout_seconds, local=True)


def with_patience(
    patience: Patience, attempt: Callable[[], Result], sleep: Callable[[float], None] = time.sleep
) -> Result:
    """Call *attempt* until no lock stands in its way; raises what the last one raised."""
    for pause_seconds in patience.pauses_seconds:
        try:
            return attempt()
        except (DBAPIError, psycopg2.Error) as error:
            if not is_contention(error):
                raise
        sleep(pause_seconds)
    return attempt()


def wait_for_writers(
    connection: Connection,
    table: str,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Wait until the transactions that are writing to *table* now have ended; return False if some take too long.

    *connection* is in autocommit. Afterwards all rows can be seen whose ids are at most the largest that was seen
    before. Nobody is kept from writing meanwhile.
    """
    deadline = clock() + seconds
    writing = _writers(connection, table)
    while writing and clock() < deadline:
        sleep(POLL_SECONDS)
        writing &= _writers(connection, table)
    return not writing


@contextmanager
def impatient_autocommit(engine: Engine, patience: Patience) -> Iterator[Connection]:
    """Yield a connection of its own, in autocommit, whose statements wait no longer than *patience* allows."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            _set_lock_timeout(connection, patience.lock_timeout_seconds, local=False)
            yield connection
        finally:
            # Closed, not returned to the pool: nobody else is to inherit its timeout or its locks.
            connection.invalidate()


@contextmanager
def maintenance_lock(engine: Engine, wait_seconds: float = 10.0) -> Iterator[None]:
    """Hold the lock of the maintenance for the length of the block, in a session of its own.

    It goes with the session, also when this process is killed. Raises StoreError when another maintenance has it
    for longer than *wait_seconds*.
    """
    with impatient_autocommit(engine, Patience(wait_seconds)) as connection:
        try:
            lock_maintenance(connection)
        except DBAPIError as error:
            if not is_contention(error):
                raise
            raise StoreError(
                "another maintenance of the table partitions, or a restore, is under way: try again when it has ended"
            ) from error
        yield


def _writers(connection: Connection, table: str) -> set[str]:
    return set(connection.execute(text(WRITERS), {"table": table}).scalars())


def _set_lock_timeout(connection: Connection, seconds: float, *, local: bool) -> None:
    value = f"{int(seconds * 1000)}ms"
    connection.execute(text("SELECT set_config('lock_timeout', :value, :local)"), {"value": value, "local": local})
