"""Health of the partitioned tables: each table partition with its state, and what is missing, left over or odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field
from sqlalchemy import Engine

from whalefall_capacity.periods import add_months, month_start
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.maintenance.ledger import Retirement, open_retirements, restored_until
from whalefall_capacity.store.maintenance.plan import RestoredUntil, cut_off, kept_until
from whalefall_capacity.store.table_partitions.catalog import (
    ChildTable,
    LookAlike,
    count_rows,
    look_alikes,
    read_children,
)
from whalefall_capacity.store.table_partitions.create import PARTITIONED_TABLES, PartitionedTable


class PartitionState(StrEnum):
    """The place of a table partition in time; odd is one that this program did not make."""

    PAST = "past"
    CURRENT = "current"
    FUTURE = "future"
    DETACHING = "detaching"
    ODD = "odd"


@dataclass(frozen=True)
class TablePartition:
    """One table partition."""

    table: str
    child: str
    lower: date | None
    upper: Annotated[date | None, Field(description="The first day that it does not hold.")]
    state: PartitionState
    rows: int | None
    rows_exact: Annotated[bool, Field(description="False: PostgreSQL's estimate.")]
    bytes: int
    note: str


@dataclass(frozen=True)
class TableHealth:
    """One partitioned table."""

    table: str
    healthy: Annotated[bool, Field(description="It has its current and its next partition.")]
    problems: tuple[str, ...]  # All that needs a person.


@dataclass(frozen=True)
class PartitionHealth:
    """All partitioned tables on *day*."""

    day: date
    healthy: bool
    tables: tuple[TableHealth, ...]
    children: tuple[TablePartition, ...]


@dataclass(frozen=True)
class _Findings:
    """One look at the store on *day*: its table partitions, and what the ledger says of them."""

    settings: Settings
    day: date
    children: Sequence[ChildTable]
    restored: RestoredUntil
    leftovers: Sequence[Retirement]
    strangers: Sequence[LookAlike]
    counts: Mapping[int, int]

    def kept_until(self, child: ChildTable) -> date | None:
        return kept_until(child, self.restored, self.day)

    def is_past(self, child: ChildTable, day: date) -> bool:
        return child.oddity is None and child.span[1] <= cut_off(child.table, self.settings, day)


def read_status(engine: Engine, settings: Settings, day: date, exact: bool = False) -> PartitionHealth:
    """Return how the tables are on *day*, which is today; *exact* counts the rows, which reads all of them."""
    with engine.connect() as connection:
        children = read_children(connection)
        found = _Findings(
            settings,
            day,
            children,
            restored=restored_until(connection),
            leftovers=open_retirements(connection),
            strangers=look_alikes(connection),
            counts=count_rows(connection, children) if exact else {},
        )
    tables = tuple(_table_health(table, found) for table in PARTITIONED_TABLES)
    partitions = tuple(_table_partition(child, found) for child in children)
    return PartitionHealth(day, all(table.healthy for table in tables), tables, partitions)


def _table_health(table: PartitionedTable, found: _Findings) -> TableHealth:
    """Say of one table whether it has its current and next child, and what else needs a person."""
    own = [child for child in found.children if child.table == table]
    next_month = add_months(month_start(found.day), 1)
    missing = [
        problem
        for wanted, problem in (
            (found.day, Sentence("no table partition holds {day}, today", day=found.day)),
            (next_month, Sentence("no table partition holds {day}, the next month", day=next_month)),
        )
        if not any(child.bounds.hold(wanted) and not child.detach_pending for child in own)
    ]
    problems = [*missing]
    # Since yesterday: what became past today goes in the next maintenance.
    yesterday = found.day - timedelta(days=1)
    past = [
        child
        for child in own
        if found.is_past(child, yesterday) and not found.kept_until(child) and not child.detach_pending
    ]
    if past:
        problems.append(
            Sentence(
                "table partitions beyond retention: {count}, the oldest is {name}", count=len(past), name=past[0].name
            )
        )
    problems += [
        Sentence("{name} {oddity}", name=child.name, oddity=child.oddity) for child in own if child.oddity is not None
    ]
    problems += [
        Sentence("the detach of {name} was not completed", name=child.name) for child in own if child.detach_pending
    ]
    problems += [
        Sentence("{name} is detached and not dropped yet", name=left.name)
        for left in found.leftovers
        if left.table == table.name and left.is_pending is None
    ]
    problems += [
        Sentence("{name} is named like a table partition and is none", name=f"{stranger.schema}.{stranger.name}")
        for stranger in found.strangers
        if stranger.table == table.name
    ]
    return TableHealth(table.name, not missing, tuple(problems))


def _table_partition(child: ChildTable, found: _Findings) -> TablePartition:
    note = child.oddity or ""
    if found.is_past(child, found.day):
        until = found.kept_until(child)
        note = Sentence("restored, kept until {day}", day=until) if until else Sentence("beyond retention")
    return TablePartition(
        table=child.table.name,
        child=child.name,
        lower=child.bounds.lower,
        upper=child.bounds.upper,
        state=_state(child, found.day),
        rows=found.counts.get(child.oid, child.rows_estimate),
        rows_exact=child.oid in found.counts,
        bytes=child.size_bytes,
        note=note,
    )


def _state(child: ChildTable, day: date) -> PartitionState:
    if child.detach_pending:
        return PartitionState.DETACHING
    if child.oddity is not None:
        return PartitionState.ODD
    lower, upper = child.span
    if upper <= day:
        return PartitionState.PAST
    return PartitionState.FUTURE if day < lower else PartitionState.CURRENT
