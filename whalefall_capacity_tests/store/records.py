"""Rows that the tests of the store put in by hand and read back: instances, visits, rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timezone
from threading import Barrier
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine, text

from whalefall_capacity.collection.sizes import DatabaseSize, Measurement, ServerEngine, Target, Visit
from whalefall_capacity.history_file import HistoryRows
from whalefall_capacity_tests.processes import wait_for

Row = tuple[str, str, date, int]

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=timezone.utc)
# Sessions of this store.
WAITING_FOR_ADVISORY_LOCKS = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND NOT granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
EVERY_TABLE = ("credentials", "instances", "instance_databases", "database_size_stats", "instance_size_stats")


def add_instance(store: Engine, name: str, is_active: bool = True) -> int:
    """Register a PostgreSQL server and return its id."""
    statement = text(
        "INSERT INTO instances (name, db_type, host, port, is_active) "
        "VALUES (:name, 'postgresql', 'db.example', 5432, :is_active) RETURNING id"
    )
    with store.begin() as connection:
        return int(connection.execute(statement, {"name": name, "is_active": is_active}).scalar_one())


def visit(
    instance_id: int,
    sizes: Mapping[str, int | None] | Sequence[DatabaseSize],
    log_size_bytes: int | None = None,
    at: datetime = NOON,
    version: str = "16.4",
    name: str = "shop",
) -> Visit:
    """Return a visit that brought *sizes*; None is a database that could not be measured."""
    if isinstance(sizes, Mapping):
        sizes = [
            DatabaseSize(database, size, None if size is not None else "permission denied")
            for database, size in sizes.items()
        ]
    target = Target(
        instance_id, name, ServerEngine.POSTGRESQL, "db.example", 5432, None, "whalefall", SecretStr("secret")
    )
    return Visit(target, Measurement(version, tuple(sizes), log_size_bytes), at, 0.1)


def history(*lines: Row, data: str = "", logs: str = "", time: str = "") -> list[HistoryRows]:
    """Return rows as they come from a file whose first row is line 2."""
    instances, databases, days, sizes = zip(*lines, strict=True) if lines else ((), (), (), ())
    columns = (
        instances,
        databases,
        [day.isoformat() for day in days],
        [str(size) for size in sizes],
        [data] * len(lines),
        [logs] * len(lines),
        [time] * len(lines),
    )
    return [HistoryRows(range(2, 2 + len(lines)), columns)]


def rows(store: Engine, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query as plain tuples."""
    with store.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def row_versions(store: Engine) -> list[tuple[Any, ...]]:
    """Return every stored row's place and writing transaction: equal lists mean that no row was touched."""
    return [
        row
        for table in EVERY_TABLE
        for row in rows(store, f"SELECT CAST(tableoid::regclass AS text), ctid, xmin, t::text FROM {table} AS t")
    ]


def children(store: Engine) -> list[str]:
    """Return the names of all table partitions of the stats tables."""
    found = rows(
        store,
        "SELECT inhrelid::regclass::text FROM pg_inherits "
        "WHERE inhparent IN ('database_size_stats'::regclass, 'instance_size_stats'::regclass) ORDER BY 1",
    )
    return [name for (name,) in found]


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Start *calls* at the same moment, in threads, and return what each returned."""
    barrier = Barrier(len(calls))

    def started_together(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=10)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result(timeout=60) for future in [threads.submit(started_together, call) for call in calls]]


def held_up(store: Engine, lock: str, first: Callable[[], Any], second: Callable[[], Any]) -> None:
    """Let *first* run into the rows that the statement *lock* locks, start *second*, and let go when both wait."""

    def waiting(count: int) -> Callable[[], bool]:
        statement = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return lambda: int(rows(store, statement)[0][0]) >= count

    def second_when_first_waits() -> None:
        wait_for(waiting(1), "waiting first")
        second()

    with store.connect() as holder:
        holder.execute(text(lock))

        def let_go_when_both_wait() -> None:
            try:
                wait_for(waiting(2), "waiting second")
            finally:
                holder.rollback()

        at_once(first, second_when_first_waits, let_go_when_both_wait)
