"""The children of the partitioned tables as PostgreSQL's catalog has them, and what merely looks like one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from psycopg2 import sql
from sqlalchemy import Connection, text

from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.table_partitions.create import PARTITIONED_TABLES, Bounds, PartitionedTable, parse_bounds

TABLES = {table.name: table for table in PARTITIONED_TABLES}
# reltuples is -1 until a table was analyzed; what is not known is NULL. One that was dropped just now has no bounds and
# no size.
CHILDREN = """
SELECT parent.relname AS "table", CAST(child.oid AS bigint) AS oid, namespace.nspname AS schema,
       child.relname AS name, child.relnamespace = parent.relnamespace AS same_schema,
       pg_get_expr(child.relpartbound, child.oid) AS bounds,
       inhdetachpending AS detach_pending, child.relkind = 'r' AS is_plain,
       CAST(nullif(child.reltuples, -1) AS bigint) AS rows_estimate,
       coalesce(pg_total_relation_size(child.oid), 0) AS size_bytes
FROM pg_inherits
JOIN pg_class AS child ON child.oid = inhrelid
JOIN pg_class AS parent ON parent.oid = inhparent
JOIN pg_namespace AS namespace ON namespace.oid = child.relnamespace
WHERE inhparent = ANY (CAST(:parents AS regclass[]))
"""
# Named like a child of ours and attached to none of our tables. What the ledger knows is a leftover, no look-alike.
LOOK_ALIKES = """
SELECT named.table_name AS "table", namespace.nspname AS schema, found.relname AS name,
       coalesce(pg_total_relation_size(found.oid), 0) AS size_bytes
FROM pg_class AS found
JOIN pg_namespace AS namespace ON namespace.oid = found.relnamespace
JOIN unnest(CAST(:parents AS text[])) AS named (table_name)
  ON starts_with(found.relname, named.table_name || '_')
WHERE found.relkind IN ('r', 'p', 'v', 'm', 'f') AND namespace.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = found.oid AND inhparent = ANY (CAST(:parents AS regclass[])))
  AND NOT EXISTS (SELECT FROM retired_children WHERE child_oid = CAST(found.oid AS bigint) AND dropped_at IS NULL)
ORDER BY named.table_name, namespace.nspname, found.relname
"""
COUNT = sql.SQL("SELECT count(*) FROM {child}")


@dataclass(frozen=True)
class ChildTable:
    """A true child of a partitioned table. *rows_estimate* is None until PostgreSQL has analyzed it."""

    table: PartitionedTable
    oid: int
    schema: str
    name: str
    same_schema: bool
    bounds: Bounds
    detach_pending: bool
    is_plain: bool
    rows_estimate: int | None
    size_bytes: int

    @property
    def oddity(self) -> str | None:
        """The reason why this is not a child that the program made; None for one of its own."""
        if self.bounds.is_default:
            return Sentence("is a default partition, added by hand")
        if not self.same_schema:
            return Sentence("is in another schema, {schema}", schema=self.schema)
        if not self.is_plain:
            return Sentence("is no plain table")
        if self.bounds.lower is None or self.bounds.upper is None:
            return Sentence("has bounds without a limit")
        expected = self.table.child_of(self.bounds.lower)
        if (expected.lower, expected.upper) != (self.bounds.lower, self.bounds.upper):
            return Sentence(
                "has bounds of its own, {lower} to {upper}", lower=self.bounds.lower, upper=self.bounds.upper
            )
        return None

    @property
    def span(self) -> tuple[date, date]:
        """Lower and upper bound, of a child that has both."""
        if self.bounds.lower is None or self.bounds.upper is None:
            raise ValueError(f"{self.name} has bounds without a limit")
        return self.bounds.lower, self.bounds.upper


@dataclass(frozen=True)
class LookAlike:
    """A table, or a view, that is named like a child of *table* and is none."""

    table: str
    schema: str
    name: str
    size_bytes: int


def read_children(connection: Connection) -> list[ChildTable]:
    """Return every child of every partitioned table: by table, oldest first, a default partition last."""
    found = [
        ChildTable(**{**row, "table": TABLES[row["table"]], "bounds": parse_bounds(row["bounds"])})
        for row in connection.execute(text(CHILDREN), {"parents": list(TABLES)}).mappings()
        if row["bounds"] is not None
    ]
    order = list(TABLES)
    return sorted(
        found,
        key=lambda child: (
            order.index(child.table.name),
            child.bounds.is_default,
            child.bounds.lower or date.min,
            child.name,
        ),
    )


def look_alikes(connection: Connection) -> list[LookAlike]:
    """Return what is named like a table partition and is none; by table and name."""
    return [LookAlike(**row) for row in connection.execute(text(LOOK_ALIKES), {"parents": list(TABLES)}).mappings()]


def count_rows(connection: Connection, children: Sequence[ChildTable]) -> dict[int, int]:
    """Return the exact number of rows of each child, by oid; reads all of them."""
    counts = {}
    with raw_cursor(connection) as cursor:
        for child in children:
            cursor.execute(COUNT.format(child=sql.Identifier(child.schema, child.name)))
            ((counts[child.oid],),) = cursor.fetchall()
    return counts
