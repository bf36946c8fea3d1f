"""Prints docs/schema.md from the store's metadata: an entity-relationship diagram and what it cannot show."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sqlalchemy import Column, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql

from whalefall_capacity.store.postgres.tables import metadata

INTRODUCTION = """# The store's tables

Made by `make docs` from the metadata in `whalefall_capacity/store/postgres/tables.py`. Sizes are bytes; NULL is "not
known" or "not so", never 0. `created_at` and `updated_at`, which every table has, are left out of the diagram. A line
of dashes is a reference without a foreign key: the partitioned tables have none, because one would make every detach
and drop of a table partition lock other tables, and instances are never removed.

```mermaid
erDiagram
"""
TABLES = """
| table | primary key | partitioned by | unique, beside the key |
| --- | --- | --- | --- |
"""
VIEWS = """
Beside these are the views `database_size_growth` and `instance_size_growth`, one row per row of the aggregations, with
the averages, changes and trends that follow from them: [aggregations.md](aggregations.md). How table partitions come
and go: [table-partitions.md](table-partitions.md).
"""
ROW_TIMES = ("created_at", "updated_at")
# Names of columns that point at a row of another table wherever they stand.
REFERENCES = {"instance_id": "instances", "run_id": "task_runs"}
TYPE_NAMES = {"TIMESTAMP WITH TIME ZONE": "timestamptz"}


def schema_page() -> str:
    """Return the page as Markdown."""
    tables = list(metadata.tables.values())
    entities = "".join(_entity(table) for table in tables)
    relations = "".join(f"    {relation}\n" for table in tables for relation in _relations(table))
    rows = "".join(_row(table) for table in sorted(tables, key=lambda table: table.name))
    return f"{INTRODUCTION}{entities}{relations}```\n{TABLES}{rows}{VIEWS}"


def _entity(table: Table) -> str:
    lines = "".join(f"        {_attribute(column)}\n" for column in table.columns if column.name not in ROW_TIMES)
    return f"    {table.name} {{\n{lines}    }}\n"


def _attribute(column: Column[object]) -> str:
    keys = [
        *(["PK"] if column.primary_key else []),
        *(["FK"] if column.foreign_keys else []),
        *(["UK"] if column.unique else []),
    ]
    notes = [note for note in (column.comment, "may be NULL" if column.nullable else None) if note]
    parts = [_type_name(column), column.name, ", ".join(keys), f'"{"; ".join(notes)}"' if notes else ""]
    return " ".join(part for part in parts if part)


def _type_name(column: Column[object]) -> str:
    compiled = column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]
    # Names of types are one word here.
    name = compiled.partition(" COLLATE ")[0]
    return TYPE_NAMES.get(name, name.lower().replace(" ", "_"))


def _relations(table: Table) -> Iterator[str]:
    for column in table.columns:
        one = "|o" if column.nullable else "||"
        for key in column.foreign_keys:
            yield f"{key.column.table.name} {one}--o{{ {table.name} : {column.name}"
        target = REFERENCES.get(column.name)
        if target not in (None, table.name) and not column.foreign_keys:
            yield f"{target} {one}..o{{ {table.name} : {column.name}"


def _row(table: Table) -> str:
    key = ", ".join(f"`{column.name}`" for column in table.primary_key)
    partitioned_by = table.dialect_options["postgresql"]["partition_by"]
    unique = [index.columns.keys() for index in table.indexes if index.unique]
    unique += [rule.columns.keys() for rule in table.constraints if isinstance(rule, UniqueConstraint)]
    shown = "; ".join(", ".join(f"`{name}`" for name in names) for names in sorted(unique))
    cells = (f"`{table.name}`", key, f"`{partitioned_by}`" if partitioned_by else "", shown)
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(schema_page())
