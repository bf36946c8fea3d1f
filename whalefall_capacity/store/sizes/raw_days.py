"""The raw days of one instance, or of one database: what is stored, and nothing for a day without a row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import Engine

from whalefall_capacity.store.postgres.one_statement import read_rows
from whalefall_capacity.store.postgres.tables import LARGEST_ID

Source = Literal["measured", "imported"]
# Both by a range of the primary key, in the table partitions of those days.
INSTANCE_DAYS = """
SELECT collected_date AS day, total_size_bytes, database_count, missing_count, log_size_bytes, source, collected_at
FROM instance_size_stats
WHERE instance_id = :instance_id AND collected_date BETWEEN :first AND :last
ORDER BY collected_date
"""
DATABASE_DAYS = """
SELECT collected_date AS day, size_bytes, data_size_bytes, log_size_bytes, source, collected_at
FROM database_size_stats
WHERE instance_id = :instance_id AND database_name = :database_name AND collected_date BETWEEN :first AND :last
ORDER BY collected_date
"""


@dataclass(frozen=True)
class InstanceDay:
    """One stored day of an instance."""

    day: date
    total_size_bytes: Annotated[int, Field(description="Of the databases that were measured.")]
    database_count: int
    missing_count: Annotated[int, Field(description="Databases that were listed and not measured.")]
    log_size_bytes: Annotated[int | None, Field(description="WAL or binary logs.")]
    source: Source
    collected_at: datetime


@dataclass(frozen=True)
class DatabaseDay:
    """One stored day of a database."""

    day: date
    size_bytes: int
    data_size_bytes: int | None
    log_size_bytes: int | None
    source: Source
    collected_at: datetime


def instance_days(engine: Engine, instance_id: int, first: date, last: date) -> list[InstanceDay]:
    """Return the days from *first* to *last* on which something of an instance is stored, oldest first."""
    if instance_id > LARGEST_ID:
        return []
    return read_rows(engine, InstanceDay, INSTANCE_DAYS, instance_id=instance_id, first=first, last=last)


def database_days(engine: Engine, instance_id: int, database_name: str, first: date, last: date) -> list[DatabaseDay]:
    """Return the days from *first* to *last* on which a size of a database is stored, oldest first."""
    if instance_id > LARGEST_ID:
        return []
    key = {"instance_id": instance_id, "database_name": database_name}
    return read_rows(engine, DatabaseDay, DATABASE_DAYS, **key, first=first, last=last)
