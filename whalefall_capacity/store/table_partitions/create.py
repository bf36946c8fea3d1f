"""Children of the partitioned tables: created ahead, and on demand before a write that needs them.

A child is made as a table of its own with the bounds as a CHECK and then attached: that takes a SHARE
UPDATE EXCLUSIVE lock on the parent and waits for no writer, where `CREATE TABLE … PARTITION OF` would
take ACCESS EXCLUSIVE. Whether there is one for a day is told by the bounds of the children, never by their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from psycopg2 import sql
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.periods import PeriodType, add_months, month_start, month_starts, quarter_start, year_start
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.postgres.advisory_locks import lock_child_creation
from whalefall_capacity.store.postgres.copying import raw_cursor


@dataclass(frozen=True)
class PartitionedTable:
    """A parent that is partitioned by RANGE over a date column, with one child a month or a year."""

    name: str
    column: str
    child_span: Literal["month", "year"]
    retention: str

    def child_of(self, day: date) -> Child:
        """Return the child that holds *day*."""
        if self.child_span == "month":
            lower = month_start(day)
            return Child(self, f"{self.name}_{lower:%Y_%m}", lower, add_months(lower, 1))
        lower = year_start(day)
        return Child(self, f"{self.name}_{lower:%Y}", lower, add_months(lower, 12))

    def retention_months(self, settings: Settings) -> int:
        months: int = getattr(settings, self.retention)
        return months


@dataclass(frozen=True)
class Child:
    """A table partition for lower <= column < upper."""

    table: PartitionedTable
    name: str
    lower: date
    upper: date


# By level ("database", "instance") and period type.
AGGREGATION_TABLES = {
    (level, period_type): PartitionedTable(
        f"{level}_size_aggregations_{period_type.value}",
        "period_start",
        period_type.calendar.table_partition,
        f"retention_{period_type.value}_months",
    )
    for level in ("database", "instance")
    for period_type in PeriodType
}


DATABASE_SIZE_STATS = PartitionedTable("database_size_stats", "collected_date", "month", "retention_stats_months")
INSTANCE_SIZE_STATS = PartitionedTable("instance_size_stats", "collected_date", "month", "retention_stats_months")
STATS_TABLES = (DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS)
PARTITIONED_TABLES = (*STATS_TABLES, *AGGREGATION_TABLES.values())

EXISTING = """
SELECT parent.relname AS table_name, pg_get_expr(child.relpartbound, child.oid) AS bounds
FROM pg_inherits
JOIN pg_class AS child ON child.oid = inhrelid
JOIN pg_class AS parent ON parent.oid = inhparent
WHERE inhparent = ANY (CAST(:parents AS regclass[])) AND NOT inhdetachpending
"""
CREATE = sql.SQL("CREATE TABLE {child} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)")
ATTACH = sql.SQL(
    "ALTER TABLE {child} ADD CONSTRAINT {bounds} CHECK ({column} >= {lower} AND {column} < {upper});"
    "ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES FROM ({lower}) TO ({upper});"
    "ALTER TABLE {child} DROP CONSTRAINT {bounds};"
)
# A child on its way out that still has the name that a write needs: the ledger tells it from somebody else's table.
RETIRING = """
SELECT CAST(child_oid AS oid) AS oid, inhdetachpending AS is_pending
FROM retired_children
LEFT JOIN pg_inherits ON inhrelid = CAST(child_oid AS oid)
WHERE child_oid = CAST(to_regclass(:name) AS oid) AND dropped_at IS NULL AND inhdetachpending IS NOT FALSE
"""
FINALIZE = sql.SQL("ALTER TABLE {parent} DETACH PARTITION {child} FINALIZE")
RENAME = sql.SQL("ALTER TABLE {child} RENAME TO {aside}")


@dataclass(frozen=True)
class Bounds:
    """lower <= column < upper, None where there is no limit; a default partition takes what no other child takes."""

    lower: date | None
    upper: date | None
    is_default: bool = False

    def hold(self, day: date) -> bool:
        """Is *day* within? A default partition is no place that a day should be in."""
        if self.is_default:
            return False
        return (self.lower is None or self.lower <= day) and (self.upper is None or day < self.upper)


def parse_bounds(expression: str) -> Bounds:
    """Return the bounds of a child as the catalog spells them, such as FOR VALUES FROM ('2026-05-01') TO (MAXVALUE)."""
    if expression == "DEFAULT":
        return Bounds(None, None, is_default=True)
    found = re.fullmatch(r"FOR VALUES FROM \((.+)\) TO \((.+)\)", expression)
    if found is None:
        raise StoreError(f"a child has bounds that this program does not know: {expression}")
    lower, upper = (
        None if value in ("MINVALUE", "MAXVALUE") else date.fromisoformat(value.strip("'")) for value in found.groups()
    )
    return Bounds(lower, upper)


def ensure_children(connection: Connection, tables: Iterable[PartitionedTable], days: Iterable[date]) -> list[str]:
    """Create the children that hold *days* and are not there yet, in the transaction of *connection*.

    Returns their names.

    Cheap when all are there: one catalog query and no lock. Raises StoreError when a table that is no
    child stands under the name of one. A child of that name that is on its way out is moved aside.
    """
    wanted = [(table, day) for table in tables for day in sorted(set(days))]
    absent = _absent(connection, wanted)
    if absent:
        # Two writers that need the same child make it once.
        lock_child_creation(connection)
        absent = _absent(connection, wanted)
    for child in absent.values():
        _create(connection, child)
    return sorted(absent)


def create_child_table(connection: Connection, child: Child) -> None:
    """Create the table of *child*, without indexes and not attached yet."""
    with raw_cursor(connection) as cursor:
        cursor.execute(CREATE.format(child=sql.Identifier(child.name), parent=sql.Identifier(child.table.name)))


def attach_child(connection: Connection, child: Child) -> None:
    """Attach the table of *child* to its parent; its rows are looked through once, and its indexes are made."""
    statement = ATTACH.format(
        child=sql.Identifier(child.name),
        parent=sql.Identifier(child.table.name),
        column=sql.Identifier(child.table.column),
        bounds=sql.Identifier(f"{child.name}_bounds"),
        lower=sql.Literal(child.lower.isoformat()),
        upper=sql.Literal(child.upper.isoformat()),
    )
    with raw_cursor(connection) as cursor:
        cursor.execute(statement)


def create_ahead(engine: Engine, settings: Settings, today: date) -> list[str]:
    """Create every table's children from the start of this quarter, or its cut-off if later, to N months ahead."""
    created = []
    for table in PARTITIONED_TABLES:
        with engine.begin() as connection:
            created += ensure_children(connection, [table], months_ahead(table, settings, today))
    return created


def months_ahead(table: PartitionedTable, settings: Settings, today: date) -> list[date]:
    """Return the first day of every month for which *table* must have a child on *today*."""
    cut_off = add_months(today, -table.retention_months(settings))
    last = add_months(month_start(today), settings.create_ahead_months)
    return list(month_starts(max(quarter_start(today), cut_off), last))


def _absent(connection: Connection, wanted: Iterable[tuple[PartitionedTable, date]]) -> dict[str, Child]:
    """Return the children, by name, of the days in *wanted* that no child of their table holds."""
    wanted = list(wanted)
    parents = sorted({table.name for table, _ in wanted})
    existing: dict[str, list[Bounds]] = {name: [] for name in parents}
    for row in connection.execute(text(EXISTING), {"parents": parents}):
        existing[row.table_name].append(parse_bounds(row.bounds))
    children: dict[str, Child] = {}
    for table, day in wanted:
        if not any(bounds.hold(day) for bounds in existing[table.name]):
            child = table.child_of(day)
            children[child.name] = child
    return children


def _create(connection: Connection, child: Child) -> None:
    if connection.execute(text("SELECT to_regclass(:name)"), {"name": f'"{child.name}"'}).scalar() is not None:
        _move_aside(connection, child)
    create_child_table(connection, child)
    attach_child(connection, child)


def _move_aside(connection: Connection, child: Child) -> None:
    """Give the name of *child* free when the table that has it is one that is being retired."""
    retiring = connection.execute(text(RETIRING), {"name": f'"{child.name}"'}).one_or_none()
    if retiring is None:
        raise StoreError(
            f"a table named {child.name} exists but is no table partition of {child.table.name}: rename it, so that "
            "the table partition of that name can be made"
        )
    names = {"parent": sql.Identifier(child.table.name), "child": sql.Identifier(child.name)}
    with raw_cursor(connection) as cursor:
        if retiring.is_pending:
            cursor.execute(FINALIZE.format(**names))
        cursor.execute(RENAME.format(aside=sql.Identifier(f"{child.name}_{retiring.oid}"), **names))
