"""The maintenance of the table partitions: leftovers first, then create, seal, archive, detach, drop.

Every step can be broken off, also by kill -9, and the next maintenance goes on from what the catalog and the ledger
say. A child is dropped only as the table, by oid, that the ledger says was sealed, and only after a last look at it
once nobody can write it any more; what came in between puts it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.errors import StoreError, WhalefallError
from whalefall_capacity.printable import one_line
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.maintenance.archive import checksum_of, read_manifest, write_archive
from whalefall_capacity.store.maintenance.ledger import (
    Retirement,
    begin_retirement,
    dropped_last_time,
    forget_retirement,
    mark_dropped,
    open_retirements,
    restored_until,
)
from whalefall_capacity.store.maintenance.plan import (
    MAX_DROPS,
    ChildOutcome,
    Outcome,
    Plan,
    PlannedDrop,
    cut_off,
    plan_drops,
)
from whalefall_capacity.store.maintenance.seal import (
    LEVELS,
    SealError,
    calculate_behind,
    has_its_sealed_rows,
    is_as_sealed,
    seal,
    unseal_what_lost_nothing,
    windows_left_behind,
)
from whalefall_capacity.store.postgres.advisory_locks import lock_child_creation
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.postgres.locks import (
    Patience,
    impatient_autocommit,
    is_contention,
    limit_waits,
    with_patience,
)
from whalefall_capacity.store.table_partitions.catalog import COUNT, TABLES, read_children
from whalefall_capacity.store.table_partitions.create import (
    FINALIZE,
    PARTITIONED_TABLES,
    Bounds,
    Child,
    PartitionedTable,
    attach_child,
    ensure_children,
    months_ahead,
)
from whalefall_capacity.watching import Watcher

DETACH = sql.SQL("ALTER TABLE {parent} DETACH PARTITION {child} CONCURRENTLY")
DROP = sql.SQL("DROP TABLE {child}")
REINSERT_ROWS = sql.SQL("INSERT INTO {parent} SELECT * FROM {child} ON CONFLICT DO NOTHING")
CONTENDED_REASON = "somebody else held a lock for longer than the lock timeout; the next maintenance tries again"
WITHIN_RETENTION_REASON = "is within retention again"
# An oid alone may be that of another table: a plan or a ledger may be older than the backup that the store came from.
LOCATE_CHILD = """
SELECT n.nspname AS schema, c.relname AS name, i.inhdetachpending AS is_pending
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
WHERE c.oid = CAST(:oid AS oid) AND c.relname IN (:child, CAST(:child AS text) || '_' || :oid)
"""
PENDING_DETACHES = """
SELECT parent.relname AS table, child.relname AS child, CAST(child.oid AS bigint) AS oid
FROM pg_inherits
JOIN pg_class AS child ON child.oid = inhrelid
JOIN pg_class AS parent ON parent.oid = inhparent
WHERE inhdetachpending AND inhparent = ANY (CAST(:parents AS regclass[]))
ORDER BY parent.relname
"""


@dataclass
class Maintenance:
    """One maintenance of a store on *day*, which is today.

    *watcher* hears the name of every child before it is touched, and every outcome as it happens; *outcomes* collects
    them all.
    """

    engine: Engine
    settings: Settings
    day: date
    patience: Patience = field(default_factory=Patience)
    watcher: Watcher[str, ChildOutcome] = field(default_factory=Watcher)
    outcomes: list[ChildOutcome] = field(default_factory=list)

    def tell(self, outcome: ChildOutcome) -> None:
        """Report an outcome; all of them pass through here."""
        self.outcomes.append(outcome)
        self.watcher.ended(outcome)


def make_plan(engine: Engine, settings: Settings, day: date, max_drops: int = MAX_DROPS) -> Plan:
    """Return what a maintenance on *day* would drop; reads the catalog and the ledger, changes nothing."""
    with engine.connect() as connection:
        return plan_drops(
            read_children(connection),
            settings,
            day,
            restored_until(connection),
            dropped_last_time(connection),
            max_drops,
        )


def finish_leftovers(maintenance: Maintenance) -> None:
    """Complete the retirements that were interrupted, and the detaches that somebody else began.

    Then unseal the windows that have lost nothing, and calculate those that were left behind.
    """
    with maintenance.engine.connect() as connection:
        leftovers = open_retirements(connection)
        pending = connection.execute(text(PENDING_DETACHES), {"parents": list(TABLES)}).all()
    for leftover in leftovers:
        with _one_child(maintenance, leftover.table, leftover.child):
            _finish(maintenance, leftover)
    ours = {leftover.oid for leftover in leftovers}
    for row in pending:
        if row.oid in ours:
            continue
        with _one_child(maintenance, row.table, row.child):
            _detach(maintenance, row.table, row.child, row.oid)
            reason = "its detach was begun by hand; the table is left to whoever began it"
            maintenance.tell(ChildOutcome(row.table, row.child, Outcome.FINALIZED, reason))
    for table in LEVELS:
        with _one_child(maintenance, table, table):
            _catch_up(maintenance, table)


def create(maintenance: Maintenance) -> None:
    """Create the children that are missing ahead, in one transaction a table: one that fails costs no other."""
    for table in PARTITIONED_TABLES:
        months = months_ahead(table, maintenance.settings, maintenance.day)
        names = sorted({table.child_of(month).name for month in months})
        with _one_child(maintenance, table.name, names[-1]):
            created = with_patience(maintenance.patience, partial(_create, maintenance, table, months))
            for name in names:
                outcome = Outcome.CREATED if name in created else Outcome.EXISTS
                maintenance.tell(ChildOutcome(table.name, name, outcome))


def allowed_drops(maintenance: Maintenance, plan: Plan, confirmed: bool) -> tuple[PlannedDrop, ...]:
    """Report what stays, and return what may go: nothing as long as the plan's question is not answered."""
    for outcome in plan.kept:
        maintenance.tell(outcome)
    if plan.question is not None and not confirmed:
        for drop in (*plan.drops, *plan.waiting):
            maintenance.tell(drop.outcome(Outcome.KEPT, f"not confirmed: {plan.question}"))
        return ()
    for drop in plan.waiting:
        reason = f"no more than {len(plan.drops)} go in one run, the oldest first"
        maintenance.tell(drop.outcome(Outcome.KEPT, reason))
    return plan.drops


def seal_children(maintenance: Maintenance, drops: Sequence[PlannedDrop]) -> list[PlannedDrop]:
    """Seal the windows of the stats children among *drops*; return those that may go on."""
    may_go = []
    for drop in _still_past(maintenance, drops):
        with _one_child(maintenance, drop.table, drop.child, drop):
            if drop.table in LEVELS:
                with_patience(
                    maintenance.patience,
                    partial(seal, maintenance.engine, drop.table, drop.lower, drop.upper, maintenance.patience),
                )
            may_go.append(drop)
    return may_go


def archive_children(
    maintenance: Maintenance, drops: Sequence[PlannedDrop]
) -> tuple[list[PlannedDrop], dict[int, str]]:
    """Archive *drops* when there is a folder for it.

    Returns those that may go on, and the path of the manifest of each by oid; no path when nothing is archived.
    """
    folder = maintenance.settings.archive_dir
    if folder is None:
        return list(drops), {}
    archives: dict[int, str] = {}
    for drop in drops:
        with _one_child(maintenance, drop.table, drop.child, drop):
            with maintenance.engine.connect() as connection:
                place = _place_of(_find(connection, drop.child, drop.oid))
            manifest = write_archive(maintenance.engine, folder, drop, place)
            archives[drop.oid] = str(manifest.path.resolve())
            reason = f"{manifest.file}, read back and compared"
            maintenance.tell(
                ChildOutcome(drop.table, drop.child, Outcome.ARCHIVED, reason, manifest.rows, manifest.file_bytes)
            )
    return [drop for drop in drops if drop.oid in archives], archives


def detach_and_drop(maintenance: Maintenance, drops: Sequence[PlannedDrop], archives: Mapping[int, str]) -> None:
    """Detach and drop *drops*, one after the other; a parent whose child could not be detached is left alone."""
    with maintenance.engine.connect() as connection:
        blocked = {row.table for row in connection.execute(text(PENDING_DETACHES), {"parents": list(TABLES)})}
    for drop in _still_past(maintenance, drops):
        if drop.table in blocked:
            reason = "another table partition of its table is still being detached; the next maintenance tries again"
            maintenance.tell(drop.outcome(Outcome.CONTENDED, reason))
            continue
        with _one_child(maintenance, drop.table, drop.child, drop):
            retirement = _retire(maintenance, drop, archives.get(drop.oid))
            maintenance.tell(drop.outcome(Outcome.DETACHED))
            _drop_or_put_back(maintenance, retirement)
        if maintenance.outcomes[-1].outcome is Outcome.CONTENDED:
            blocked.add(drop.table)


@contextmanager
def _one_child(maintenance: Maintenance, table: str, child: str, drop: PlannedDrop | None = None) -> Iterator[None]:
    """Run the work on one child: an error there becomes its outcome, and stops nothing else."""
    maintenance.watcher.began(child)
    try:
        yield
    except (WhalefallError, SQLAlchemyError, psycopg2.Error, OSError) as error:
        if isinstance(error, SealError):
            outcome, reason = Outcome.KEPT, str(error)
        elif is_contention(error):
            outcome, reason = Outcome.CONTENDED, CONTENDED_REASON
        else:
            outcome, reason = Outcome.FAILED, one_line(error)
        rows, size_bytes = (drop.rows, drop.bytes) if drop else (None, None)
        maintenance.tell(ChildOutcome(table, child, outcome, reason, rows, size_bytes))


def _create(maintenance: Maintenance, table: PartitionedTable, months: Sequence[date]) -> list[str]:
    with maintenance.engine.begin() as connection:
        limit_waits(connection, maintenance.patience)
        return ensure_children(connection, [table], months)


def _retire(maintenance: Maintenance, drop: PlannedDrop, archive: str | None) -> Retirement:
    """Take *drop* out of its table and return its entry in the ledger."""
    engine = maintenance.engine
    # Committed before the detach begins: whatever breaks that off, the ledger knows whose it was.
    with engine.begin() as connection:
        entry = begin_retirement(connection, drop, maintenance.day, archive)
    try:
        _detach(maintenance, drop.table, drop.child, drop.oid)
    except (SQLAlchemyError, psycopg2.Error):
        with engine.begin() as connection:
            if _find(connection, drop.child, drop.oid).is_pending is False:
                forget_retirement(connection, entry)
        raise
    with engine.connect() as connection:
        (retirement,) = [found for found in open_retirements(connection) if found.id == entry]
    return retirement


def _detach(maintenance: Maintenance, table: str, child: str, oid: int) -> None:
    """Detach the child of *table* with this name and oid, or end a detach of it that was begun."""

    def attempt() -> None:
        with impatient_autocommit(maintenance.engine, maintenance.patience) as connection:
            found = _find(connection, child, oid)
            if found.is_pending is None:
                return
            # An attempt that was cut off while it waited has begun what only FINALIZE can end.
            statement = FINALIZE if found.is_pending else DETACH
            with raw_cursor(connection) as cursor:
                cursor.execute(statement.format(parent=sql.Identifier(table), child=_place_of(found)))

    with_patience(maintenance.patience, attempt)


def _finish(maintenance: Maintenance, leftover: Retirement) -> None:
    """Complete a retirement that was interrupted, or take it back if the child is within retention again."""
    if leftover.name is None or leftover.is_pending is False:
        _close_ledger_entry(maintenance, leftover)
        return
    if leftover.is_pending:
        _detach(maintenance, leftover.table, leftover.child, leftover.oid)
        maintenance.tell(ChildOutcome(leftover.table, leftover.child, Outcome.FINALIZED, "its detach was broken off"))
    if _is_past(maintenance, leftover):
        _drop_or_put_back(maintenance, leftover)
        return
    with_patience(maintenance.patience, partial(_put_back, maintenance, leftover))
    maintenance.tell(
        ChildOutcome(
            leftover.table, leftover.child, Outcome.KEPT, WITHIN_RETENTION_REASON, leftover.rows, leftover.bytes
        )
    )


def _catch_up(maintenance: Maintenance, table: str) -> None:
    """Unseal the windows of *table* that lost nothing after all, and calculate every open one that is behind."""
    limit = cut_off(TABLES[table], maintenance.settings, maintenance.day)
    with_patience(
        maintenance.patience,
        partial(unseal_what_lost_nothing, maintenance.engine, table, limit, maintenance.patience),
    )
    behind = windows_left_behind(maintenance.engine, table, limit, maintenance.day)
    calculate_behind(maintenance.engine, LEVELS[table], behind)


def _still_past(maintenance: Maintenance, drops: Sequence[PlannedDrop]) -> list[PlannedDrop]:
    """Return those of *drops* that may still go; the plan of a run that is executed again is as old as that run."""
    for drop in drops:
        if not _is_past(maintenance, drop):
            maintenance.tell(drop.outcome(Outcome.KEPT, WITHIN_RETENTION_REASON))
    return [drop for drop in drops if _is_past(maintenance, drop)]


def _is_past(maintenance: Maintenance, child: PlannedDrop | Retirement) -> bool:
    """Tell whether the settings, which may have changed since *child* was planned, still let it go."""
    return child.upper <= cut_off(TABLES[child.table], maintenance.settings, maintenance.day)


def _close_ledger_entry(maintenance: Maintenance, leftover: Retirement) -> None:
    """Close the entry of a child that somebody else has dropped, or remove that of one that is still attached."""
    with maintenance.engine.begin() as connection:
        if leftover.name is not None or _is_there_under_another_oid(connection, leftover):
            forget_retirement(connection, leftover.id)
        else:
            # How many rows it had is not known; that it had any is the safe side.
            mark_dropped(connection, leftover.id, leftover.rows or 1)


def _is_there_under_another_oid(connection: Connection, leftover: Retirement) -> bool:
    """Tell whether a child is attached and has its rows, in a store that was restored from a backup.

    A child that a write has made anew, after the one before it was dropped by hand, lacks rows of the days it had.
    """
    bounds = Bounds(leftover.lower, leftover.upper)
    is_attached = any(
        child.table.name == leftover.table and child.bounds == bounds and not child.detach_pending
        for child in read_children(connection)
    )
    return (
        is_attached
        and leftover.table in LEVELS
        and has_its_sealed_rows(connection, leftover.table, leftover.lower, leftover.upper)
    )


def _drop_or_put_back(maintenance: Maintenance, retirement: Retirement) -> None:
    """Look at a detached child for the last time; drop it, or put it back when it is not what was sealed."""
    with maintenance.engine.begin() as connection:
        rows, reason = _last_look(connection, retirement)
    end = (
        partial(_drop, maintenance, retirement, rows) if reason is None else partial(_put_back, maintenance, retirement)
    )
    with_patience(maintenance.patience, end)
    outcome = Outcome.DROPPED if reason is None else Outcome.KEPT
    maintenance.tell(ChildOutcome(retirement.table, retirement.child, outcome, reason or "", rows, retirement.bytes))


def _last_look(connection: Connection, retirement: Retirement) -> tuple[int, str | None]:
    """Return the rows of a detached child, and why it must not go; None when it is what was sealed and archived."""
    place = _detached_place(connection, retirement)
    with raw_cursor(connection) as cursor:
        cursor.execute(COUNT.format(child=place))
        ((rows,),) = cursor.fetchall()
    if retirement.table in LEVELS and not is_as_sealed(
        connection, retirement.table, retirement.lower, retirement.upper, place
    ):
        return rows, "rows changed after its windows were sealed; it is back, and the next maintenance calculates them"
    if retirement.archive is not None:
        try:
            manifest = read_manifest(Path(retirement.archive))
        except (StoreError, OSError) as error:
            return rows, f"it is back, for its archive cannot be read: {error}"
        if checksum_of(connection, place, manifest.names) != (manifest.rows, manifest.checksum):
            return rows, "rows changed after it was archived; it is back, and the next maintenance archives it again"
    return rows, None


def _drop(maintenance: Maintenance, retirement: Retirement, rows: int) -> None:
    with _exclusive_access(maintenance, retirement) as (connection, place):
        with raw_cursor(connection) as cursor:
            cursor.execute(DROP.format(child=place))
        mark_dropped(connection, retirement.id, rows)


def _put_back(maintenance: Maintenance, retirement: Retirement) -> None:
    """Make the rows of a detached child part of its table again."""
    child = Child(TABLES[retirement.table], retirement.child, retirement.lower, retirement.upper)
    with _exclusive_access(maintenance, retirement) as (connection, place):
        if place.strings[-1] == child.name:
            attach_child(connection, child)
        else:
            # A write has moved it aside, and made a new one.
            with raw_cursor(connection) as cursor:
                cursor.execute(REINSERT_ROWS.format(parent=sql.Identifier(retirement.table), child=place))
                cursor.execute(DROP.format(child=place))
        forget_retirement(connection, retirement.id)


@contextmanager
def _exclusive_access(maintenance: Maintenance, retirement: Retirement) -> Iterator[tuple[Connection, sql.Identifier]]:
    """Yield a transaction in which no write can move the detached child aside, and where the child is."""
    with maintenance.engine.begin() as connection:
        limit_waits(connection, maintenance.patience)
        lock_child_creation(connection)
        yield connection, _detached_place(connection, retirement)


def _detached_place(connection: Connection, retirement: Retirement) -> sql.Identifier:
    found = _find(connection, retirement.child, retirement.oid)
    if found.is_pending is not None:
        raise StoreError(f"{retirement.child} is attached to its table again: somebody else has touched it")
    return _place_of(found)


def _find(connection: Connection, child: str, oid: int) -> Row[Any]:
    """Return where the child is now, moved aside or not, and whether its detach is pending."""
    found = connection.execute(text(LOCATE_CHILD), {"child": child, "oid": oid}).one_or_none()
    if found is None:
        raise StoreError("it was dropped by somebody else")
    return found


def _place_of(found: Row[Any]) -> sql.Identifier:
    return sql.Identifier(found.schema, found.name)
