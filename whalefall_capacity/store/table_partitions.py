"""Children of the partitioned tables: created ahead, and on demand before a write that needs them.

A child is made as a table of its own with the bounds as a CHECK and then attached: that takes a SHARE
UPDATE EXCLUSIVE lock on the parent and waits for no writer, where `CREATE TABLE … PARTITION OF` would
take ACCESS EXCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from psycopg2 import sql
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.periods import PeriodType, add_months, month_start, month_starts, quarter_start, year_start
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.copying import raw_cursor


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


AGGREGATION_SPANS: Mapping[PeriodType, Literal["month", "year"]] = {
    PeriodType.DAILY: "month",
    PeriodType.WEEKLY: "month",
    PeriodType.MONTHLY: "year",
    PeriodType.QUARTERLY: "year",
}
# By level ("database", "instance") and period type.
AGGREGATION_TABLES = {
    (level, period_type): PartitionedTable(
        f"{level}_size_aggregations_{period_type.value}",
        "period_start",
        span,
        f"retention_{period_type.value}_months",
    )
    for level in ("database", "instance")
    for period_type, span in AGGREGATION_SPANS.items()
}


DATABASE_SIZE_STATS = PartitionedTable("database_size_stats", "collected_date", "month", "retention_stats_months")
INSTANCE_SIZE_STATS = PartitionedTable("instance_size_stats", "collected_date", "month", "retention_stats_months")
STATS_TABLES = (DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS)
PARTITIONED_TABLES = (*STATS_TABLES, *AGGREGATION_TABLES.values())

# Only true children count; a table that merely has such a name is none.
EXISTING = """
SELECT child.relname
FROM pg_inherits
JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent = ANY (CAST(:parents AS regclass[])) AND NOT inhdetachpending
"""
# Held to the end of the transaction: two writers that need the same child make it once.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('whalefall_capacity.table_partitions'))"
CREATE = sql.SQL(
    "CREATE TABLE {child} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE);"
    "ALTER TABLE {child} ADD CONSTRAINT {bounds} CHECK ({column} >= {lower} AND {column} < {upper});"
    "ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES FROM ({lower}) TO ({upper});"
    "ALTER TABLE {child} DROP CONSTRAINT {bounds};"
)


def ensure_children(connection: Connection, tables: Iterable[PartitionedTable], days: Iterable[date]) -> list[str]:
    """Create the children that hold *days* and are not there yet, in the transaction of *connection*.

    Returns their names.

    Cheap when all are there: one catalog query and no lock. Raises StoreError when a table that is no
    child stands under the name of one.
    """
    distinct_days = set(days)
    wanted = {child.name: child for table in tables for child in map(table.child_of, distinct_days)}
    absent = _absent(connection, wanted)
    if absent:
        connection.execute(text(LOCK))
        absent = _absent(connection, wanted)
    for name in absent:
        _create(connection, wanted[name])
    return absent


def create_ahead(engine: Engine, settings: Settings, today: date) -> list[str]:
    """Create every table's children from the start of this quarter, or its cut-off if later, to N months ahead."""
    created = []
    last = add_months(month_start(today), settings.create_ahead_months)
    for table in PARTITIONED_TABLES:
        cut_off = add_months(today, -table.retention_months(settings))
        first = max(quarter_start(today), cut_off)
        with engine.begin() as connection:
            created += ensure_children(connection, [table], month_starts(first, last))
    return created


def _absent(connection: Connection, wanted: dict[str, Child]) -> list[str]:
    parents = sorted({child.table.name for child in wanted.values()})
    existing = set(connection.execute(text(EXISTING), {"parents": parents}).scalars())
    return sorted(wanted.keys() - existing)


def _create(connection: Connection, child: Child) -> None:
    statement = CREATE.format(
        child=sql.Identifier(child.name),
        parent=sql.Identifier(child.table.name),
        column=sql.Identifier(child.table.column),
        bounds=sql.Identifier(f"{child.name}_bounds"),
        lower=sql.Literal(child.lower.isoformat()),
        upper=sql.Literal(child.upper.isoformat()),
    )
    if connection.execute(text("SELECT to_regclass(:name)"), {"name": f'"{child.name}"'}).scalar() is not None:
        raise StoreError(
            f"a table named {child.name} exists but is no child of {child.table.name}: rename it, so that the "
            "table partition of that name can be made"
        )
    with raw_cursor(connection) as cursor:
        cursor.execute(statement)
