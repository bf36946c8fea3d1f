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
from psycopg2.errors import CheckViolation
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
        first_day_of, months, suffix = CHILD_SPANS[self.child_span]
        lower = first_day_of(day)
        return Child(self, f"{self.name}_{lower:{suffix}}", lower, add_months(lower, months))

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


# The first day of the child of a day, its calendar months, and what its name ends in.
CHILD_SPANS = {"month": (month_start, 1, "%Y_%m"), "year": (year_start, 12, "%Y")}
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
CAPACITY_FORECASTS = PartitionedTable("capacity_forecasts", "forecast_date", "month", "retention_forecasts_months")
SIZE_ANOMALIES = PartitionedTable("size_anomalies", "day", "month", "retention_forecasts_months")
INSIGHT_TABLES = (CAPACITY_FORECASTS, SIZE_ANOMALIES)
PARTITIONED_TABLES = (*STATS_TABLES, *AGGREGATION_TABLES.values(), *INSIGHT_TABLES)

# Asked before every write: by the index of pg_inherits on the parent, and without the sizes that catalog.py reads.
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
        """Tell whether *day* lies within; never in a default partition, which no day should need."""
        if self.is_default:
            return False
        return self.overlap(day, day)

    def overlap(self, first: date, last: date) -> bool:
        """Tell whether any day of first..last, inclusive, lies within; always where there is no limit."""
        return (self.lower is None or self.lower <= last) and (self.upper is None or first < self.upper)


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
        # Looked up again under the lock: of two writers that need the same child, one makes it.
        lock_child_creation(connection)
        absent = _absent(connection, wanted)
    for child in absent.values():
        _create(connection, child)
    return sorted(absent)


def name_is_taken(connection: Connection, child: Child) -> bool:
    """Tell whether there is a table, attached or not, of the name of *child*."""
    return connection.execute(text("SELECT to_regclass(:name)"), {"name": f'"{child.name}"'}).scalar() is not None


def create_child_table(connection: Connection, child: Child) -> None:
    """Create the table of *child*, without indexes and not attached yet."""
    with raw_cursor(connection) as cursor:
        cursor.execute(CREATE.format(child=sql.Identifier(child.name), parent=sql.Identifier(child.table.name)))


def attach_child(connection: Connection, child: Child) -> None:
    """Attach the table of *child* to its parent; its rows are looked through once, and its indexes are made.

    Raises StoreError when rows of its days are in a default partition, which somebody has added by hand.
    """
    statement = ATTACH.format(
        child=sql.Identifier(child.name),
        parent=sql.Identifier(child.table.name),
        column=sql.Identifier(child.table.column),
        bounds=sql.Identifier(f"{child.name}_bounds"),
        lower=sql.Literal(child.lower.isoformat()),
        upper=sql.Literal(child.upper.isoformat()),
    )
    try:
        with raw_cursor(connection) as cursor:
            cursor.execute(statement)
    except CheckViolation as error:
        # A row outside its bounds violates the constraint, which then has a name.
        if error.diag.constraint_name is not None:
            raise
        default = error.diag.table_name
        raise StoreError(
            f"{child.name} cannot be made: rows of its days are in {default}, a default partition of "
            f"{child.table.name} that was added by hand. Detach that (`ALTER TABLE {child.table.name} DETACH PARTITION "
            f"{default}`), try again, and then insert its rows into {child.table.name}"
        ) from error


def create_ahead(engine: Engine, settings: Settings, today: date) -> list[str]:
    """Create every table's children from the start of this quarter, or its cut-off if later, to N months ahead.

    One transaction a table; returns the names of the new children.
    """
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
        # NULL of a child that was dropped just now.
        if row.bounds is not None:
            existing[row.table_name].append(parse_bounds(row.bounds))
    children: dict[str, Child] = {}
    for table, day in wanted:
        if not any(bounds.hold(day) for bounds in existing[table.name]):
            child = table.child_of(day)
            children[child.name] = child
    return children


def _create(connection: Connection, child: Child) -> None:
    if name_is_taken(connection, child):
        _move_aside(connection, child)
    create_child_table(connection, child)
    attach_child(connection, child)


def _move_aside(connection: Connection, child: Child) -> None:
    """Free the name of *child* by renaming the table that has it. Raises StoreError unless that is being retired."""
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
