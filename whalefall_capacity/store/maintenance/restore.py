"""Bringing an archived child back: the same rows, under the same bounds, and its windows open again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from psycopg2 import sql
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.store.maintenance.archive import load_archive, read_manifest
from whalefall_capacity.store.maintenance.seal import LEVELS, hold_windows, unseal_whole
from whalefall_capacity.store.postgres.advisory_locks import lock_child_creation
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.postgres.locks import Patience, limit_waits, with_patience
from whalefall_capacity.store.table_partitions.catalog import TABLES, read_children
from whalefall_capacity.store.table_partitions.create import RENAME, Child, attach_child, create_child_table
from whalefall_capacity.store.table_partitions.ledger import mark_restored

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
    lower, upper = manifest.bounds
    if table is None:
        raise StoreError(f"{manifest.path} is of the table {manifest.table}, which this store does not have")
    child = Child(table, manifest.child, lower, upper)
    patience = patience or Patience()
    kept_until = day + timedelta(days=keep_days)

    def attempt() -> Restored:
        with engine.begin() as connection:
            limit_waits(connection, patience)
            if table.name in LEVELS:
                hold_windows(connection, table.name, lower, upper)
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
            mark_restored(
                connection,
                table=table.name,
                child=child.name,
                lower=lower,
                upper=upper,
                rows=manifest.rows,
                archive=str(manifest.path.resolve()),
                day=day,
                kept_until=kept_until,
            )
            opened, sealed = unseal_whole(connection, table.name, lower, upper) if table.name in LEVELS else (0, 0)
        return Restored(table.name, child.name, manifest.rows, kept_until, opened, sealed)

    return with_patience(patience, attempt)


def _refuse_what_is_there(connection: Connection, child: Child) -> None:
    """Raise StoreError when a child has days of *child*, or another table its name."""
    for existing in read_children(connection):
        bounds = existing.bounds
        starts_before = bounds.lower is None or bounds.lower < child.upper
        ends_after = bounds.upper is None or child.lower < bounds.upper
        if existing.table == child.table and starts_before and ends_after:
            last = child.upper - timedelta(days=1)
            raise StoreError(f"{existing.name} already holds days from {child.lower} to {last}: nothing was restored")
    if connection.execute(text("SELECT to_regclass(:name)"), {"name": f'"{child.name}"'}).scalar() is not None:
        raise StoreError(
            f"a table named {child.name} exists but is no table partition of {child.table.name}: rename it first"
        )
