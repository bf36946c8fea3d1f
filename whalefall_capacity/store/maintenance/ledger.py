"""Ledger of retired children: which are being retired, which were dropped, which were restored.

A child is recorded, by its oid, before its detach begins. So whatever interrupts the retirement, the next maintenance
can tell its leftovers from tables that merely have such a name; and the ledger says which days are gone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date

from sqlalchemy import Connection, text

from whalefall_capacity.store.maintenance.archive import Manifest
from whalefall_capacity.store.maintenance.plan import PlannedDrop

INSERT_RETIREMENT = """
INSERT INTO retired_children (table_name, child_name, child_oid, lower_bound, upper_bound, retired_on, rows, bytes,
                              archive)
VALUES (:table, :child, :oid, :lower, :upper, :day, :rows, :bytes, :archive)
RETURNING id
"""
DELETE_RETIREMENT = "DELETE FROM retired_children WHERE id = :id"
MARK_DROPPED = """
UPDATE retired_children SET dropped_at = now(), rows = :rows, updated_at = now() WHERE id = :id
"""
# Of a child that is gone there is neither name nor place any more. In a store that was restored from a backup its oid
# may be that of any other relation: it is the child only under its name, or under the one that create.py moves it to.
OPEN_RETIREMENTS = """
SELECT r.id, r.table_name AS "table", r.child_name AS child, r.child_oid AS oid, r.lower_bound AS lower,
       r.upper_bound AS upper, r.rows, r.bytes, r.archive,
       n.nspname AS schema, c.relname AS name, i.inhdetachpending AS is_pending
FROM retired_children AS r
LEFT JOIN pg_class AS c
  ON c.oid = CAST(r.child_oid AS oid) AND c.relkind = 'r'
  AND c.relname IN (r.child_name, r.child_name || '_' || r.child_oid)
  AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass(r.table_name))
LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
WHERE r.dropped_at IS NULL AND r.restored_at IS NULL
ORDER BY r.id
"""
COUNT_LAST_DROPS = """
SELECT count(*) FROM retired_children
WHERE dropped_at IS NOT NULL
  AND retired_on = (SELECT max(retired_on) FROM retired_children WHERE dropped_at IS NOT NULL)
"""
KEPT_UNTIL = """
SELECT table_name AS "table", lower_bound AS lower, max(kept_until) AS kept_until FROM retired_children
WHERE kept_until IS NOT NULL
GROUP BY table_name, lower_bound
"""
MARK_RESTORED = """
UPDATE retired_children SET restored_at = now(), kept_until = :kept_until, updated_at = now()
WHERE table_name = :table AND lower_bound = :lower AND upper_bound = :upper AND dropped_at IS NOT NULL
  AND restored_at IS NULL
"""
# An archive of another store, or of one that was itself restored from a backup.
INSERT_RESTORED = """
INSERT INTO retired_children (table_name, child_name, lower_bound, upper_bound, retired_on, rows, archive, dropped_at,
                              restored_at, kept_until)
VALUES (:table, :child, :lower, :upper, :day, :rows, :archive, now(), now(), :kept_until)
"""


@dataclass(frozen=True)
class Retirement:
    """A child on its way out. *schema* and *name* are where it is now, None when it is gone.

    *is_pending*: True while a detach is pending, False while it is attached, None once it is a table of its own.
    """

    id: int
    table: str
    child: str
    oid: int
    lower: date
    upper: date
    rows: int | None
    bytes: int | None
    archive: str | None
    schema: str | None
    name: str | None
    is_pending: bool | None


def begin_retirement(connection: Connection, drop: PlannedDrop, day: date, archive: str | None) -> int:
    """Record that the detach of a child is about to begin, and return the id of the entry."""
    values = {**asdict(drop), "day": day, "archive": archive}
    return int(connection.execute(text(INSERT_RETIREMENT), values).scalar_one())


def forget_retirement(connection: Connection, retirement_id: int) -> None:
    """Delete an entry: its child stays."""
    connection.execute(text(DELETE_RETIREMENT), {"id": retirement_id})


def mark_dropped(connection: Connection, retirement_id: int, rows: int) -> None:
    """Record that a child is dropped, and its *rows* with it."""
    connection.execute(text(MARK_DROPPED), {"id": retirement_id, "rows": rows})


def open_retirements(connection: Connection) -> list[Retirement]:
    """Return the children that are on their way out, in the order in which they were begun."""
    return [Retirement(**row) for row in connection.execute(text(OPEN_RETIREMENTS)).mappings()]


def dropped_last_time(connection: Connection) -> int:
    """Return how many children were dropped on the last day on which any was; 0 when none ever was."""
    return int(connection.execute(text(COUNT_LAST_DROPS)).scalar_one())


def restored_until(connection: Connection) -> dict[tuple[str, date], date]:
    """Return, by table and lower bound, until when a restored child is kept."""
    return {(row.table, row.lower): row.kept_until for row in connection.execute(text(KEPT_UNTIL))}


def mark_restored(connection: Connection, manifest: Manifest, day: date, kept_until: date) -> None:
    """Record that the child of an archive is back, and until when it stays."""
    archive = str(manifest.path.resolve())
    values = {**manifest.model_dump(), "archive": archive, "day": day, "kept_until": kept_until}
    if connection.execute(text(MARK_RESTORED), values).rowcount == 0:
        connection.execute(text(INSERT_RESTORED), values)
