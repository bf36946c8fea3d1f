"""The tables of one database, as its server tells them when it is asked; nothing of it is kept.

Sizes are bytes, rows are the server's own estimates; None is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

# Tables that are shown, of which there may be hundreds of thousands.
MOST_TABLES = 500


@dataclass(frozen=True)
class DatabaseTable:
    """One table; *reason* says why its size is not known."""

    schema_name: Annotated[str | None, Field(description="null where databases have no schemas.")]
    name: str
    engine: Annotated[str | None, Field(description="The storage engine, where tables have one.")]
    size_bytes: int | None
    data_size_bytes: int | None
    index_size_bytes: int | None
    rows: Annotated[int | None, Field(description="As the server estimates them.")]
    reason: Annotated[str | None, Field(description="Why the size is not known.")] = None


@dataclass(frozen=True)
class DatabaseTables:
    """The tables of one database: the largest, and how many there are of all that the account sees."""

    tables: Sequence[DatabaseTable]
    total: int
    total_size_bytes: Annotated[int, Field(description="Of all tables whose size is known.")]
    missing_grant: Annotated[str | None, Field(description="What lets the account see the tables that it does not.")]


def largest_first(tables: Iterable[DatabaseTable], missing_grant: str | None = None) -> DatabaseTables:
    """Return *tables* by size, those whose size is not known first, as far as they are shown."""
    found = sorted(tables, key=lambda t: (t.size_bytes is not None, -(t.size_bytes or 0), t.schema_name or "", t.name))
    known = sum(table.size_bytes or 0 for table in found)
    return DatabaseTables(found[:MOST_TABLES], len(found), known, missing_grant)
