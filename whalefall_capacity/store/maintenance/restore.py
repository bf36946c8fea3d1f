"""Restoration of an archived child: the same rows, under the same bounds, and its windows open again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from psycopg2 import sql
from sqlalchemy import Connection, Engine

from whalefall_capacity.errors import StoreError
from whalefall_capacity.store.maintenance.archive import load_archive, read_manifest
from whalefall_capacity.store.maintenance.ledger import mark_restored
from whalefall_capacity.store.maintenance.seal import LEVELS, hold_windows, unseal_whole, windows_of
from whalefall_capacity.store.postgres.advisory_locks import lock_child_creation
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.postgres.locks import Patience, limit_waits, with_patience
from whalefall_capacity.store.table_partitions.catalog import TABLES, read_children
from whalefall_capacity.store.table_partitions.create import (
    RENAME,
    Child,
    attach_child,
    create_child_table,
    name_is_taken,
)

KEEP_DAYS = 7


@dataclass(frozen=True)
class Restored:
    """A child that is back. *windows_open* can be calculated again, *windows_sealed* lack days of others."""

    table: str
    child: str
    rows: int
    kept_until: date
    windows_open: int
    windows_sealed: int


def restore(
    engine: Engine, file: Path, day: date, keep_days: int = KEEP_DAYS, patience: Patience | None = None
) -> Restored:
    """Attach the child of the archive *file* again and keep it until *keep_days* after *day*, which is today.

    One transaction: it is back, or nothing has changed. The caller holds the lock of the maintenance. Raises StoreError
    when the archive is damaged, and when a child of its table has days of it.
    """
    manifest = read_manifest(file)
    table = TABLES.get(manifest.table)
    if table is None:
        raise StoreError(f"{manifest.path} is of the table {manifest.table}, which this store does not have")
    child = Child(table, manifest.child, manifest.lower, manifest.upper)
    level = LEVELS.get(table.name)
    patience = patience or Patience()
    kept_until = day + timedelta(days=keep_days)

    def attempt() -> Restored:
        with engine.begin() as connection:
            limit_waits(connection, patience)
            if level is not None:
                hold_windows(connection, level, windows_of(child.lower, child.upper))
            _refuse_what_is_there(connection, child)
            # Under another name: nobody who needs a child has to wait until all is loaded.
            loading = replace(child, name=f"{child.name}_restoring")
            create_child_table(connection, loading)
            load_archive(connection, manifest, sql.Identifier(loading.name))
            lock_child_creation(connection)
            _refuse_what_is_there(connection, child)
            with raw_cursor(connection) as cursor:
                cursor.execute(RENAME.format(child=sql.Identifier(loading.name), aside=sql.Identifier(child.name)))
            attach_child(connection, child)
            mark_restored(connection, manifest, day, kept_until)
            opened, sealed = (0, 0) if level is None else unseal_whole(connection, level, child.lower, child.upper)
        return Restored(table.name, child.name, manifest.rows, kept_until, opened, sealed)

    return with_patience(patience, attempt)


def _refuse_what_is_there(connection: Connection, child: Child) -> None:
    """Raise StoreError when a child has days of *child*, or another table its name."""
    last = child.upper - timedelta(days=1)
    for existing in read_children(connection):
        if existing.table == child.table and existing.bounds.overlap(child.lower, last):
            raise StoreError(f"{existing.name} already holds days from {child.lower} to {last}: nothing was restored")
    if name_is_taken(connection, child):
        raise StoreError(
            f"a table named {child.name} exists but is no table partition of {child.table.name}: rename it first"
        )
