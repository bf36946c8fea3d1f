"""Totals of table partitions: their number, rows, bytes and span. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated

from pydantic import Field

from whalefall_capacity.store.maintenance.health import TablePartition
from whalefall_capacity.store.maintenance.plan import PlannedDrop


@dataclass(frozen=True)
class PartitionTotals:
    """Some table partitions together."""

    partitions: int
    rows: Annotated[int | None, Field(description="Sum of PostgreSQL's estimates; null where it has none at all.")]
    not_estimated: Annotated[int, Field(description="Table partitions whose rows are not known, and not in the sum.")]
    bytes: int
    lower: date | None
    upper: Annotated[date | None, Field(description="The first day that none of them holds.")]


def totals(partitions: Sequence[TablePartition] | Sequence[PlannedDrop]) -> PartitionTotals:
    """Return the totals of *partitions*; what is not known of one is left out of the sum and counted."""
    rows = [partition.rows for partition in partitions if partition.rows is not None]
    return PartitionTotals(
        partitions=len(partitions),
        rows=sum(rows) if rows or not partitions else None,
        not_estimated=len(partitions) - len(rows),
        bytes=sum(partition.bytes for partition in partitions),
        lower=min((partition.lower for partition in partitions if partition.lower is not None), default=None),
        upper=max((partition.upper for partition in partitions if partition.upper is not None), default=None),
    )
