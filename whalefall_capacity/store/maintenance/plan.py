"""Plan of a maintenance: the table partitions to drop, and why. Pure: no store, no clock."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from whalefall_capacity.errors import PlanError
from whalefall_capacity.periods import add_months
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.table_partitions.catalog import ChildTable
from whalefall_capacity.store.table_partitions.create import PartitionedTable

MAX_DROPS = 50
# Eight children go in an ordinary month and twelve in a January: up to here nobody is asked.
USUAL_DROPS = 12
UNUSUAL_FACTOR = 3
# Until when restored children are kept, by table and lower bound.
RestoredUntil = Mapping[tuple[str, date], date]


class Outcome(StrEnum):
    """A step of a table partition in one maintenance."""

    CREATED = "created"
    EXISTS = "exists"
    ARCHIVED = "archived"
    DETACHED = "detached"
    FINALIZED = "finalized"
    DROPPED = "dropped"
    KEPT = "kept"
    CONTENDED = "contended"
    FAILED = "failed"


@dataclass(frozen=True)
class ChildOutcome:
    """A step that one table partition took; *rows* and *bytes* where known. The last one is what it ends as."""

    table: str
    child: str
    outcome: Outcome
    reason: str = ""
    rows: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class PlannedDrop:
    """A table partition to be dropped, and why."""

    table: str
    child: str
    oid: Annotated[int, Field(exclude=True)]  # No concern of the API.
    lower: date
    upper: date
    rows: int | None  # PostgreSQL's estimate.
    bytes: int
    reason: str

    def outcome(self, outcome: Outcome, reason: str = "") -> ChildOutcome:
        return ChildOutcome(self.table, self.child, outcome, reason, self.rows, self.bytes)


@dataclass(frozen=True)
class Plan:
    """The table partitions beyond retention on *day*: *drops* go, *kept* stay; oldest first.

    *waiting* would go too, but are more than one run may drop; *last_time* is how many were dropped last time.
    """

    day: date
    drops: tuple[PlannedDrop, ...]
    kept: tuple[ChildOutcome, ...]
    waiting: tuple[PlannedDrop, ...]
    last_time: int
    archive_dir: Path | None

    @property
    def id(self) -> str:
        """Twelve digits that change when other table partitions would go, or the same ones in another way."""
        lines = [f"archive: {self.archive_dir or 'none'}"]
        lines += sorted(f"{drop.table} {drop.oid} {drop.child} {drop.lower} {drop.upper}" for drop in self.drops)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def require(self, plan_id: str | None) -> None:
        """Raise PlanError unless *plan_id* is the id of this plan, or None, which any plan will do for."""
        if plan_id not in (None, self.id):
            raise PlanError(
                Sentence(
                    "the plan {plan} no longer holds, it is {now} now; nothing was changed", plan=plan_id, now=self.id
                )
            )

    @property
    def question(self) -> str | None:
        """The question that a person has to answer first; None when there is none."""
        past = len(self.drops) + len(self.waiting)
        if past <= max(USUAL_DROPS, UNUSUAL_FACTOR * self.last_time):
            return None
        return Sentence(
            "{past} table partitions would be dropped ({before} last time). Was the retention shortened on purpose?",
            past=past,
            before=self.last_time,
        )


def cut_off(table: PartitionedTable, settings: Settings, day: date) -> date:
    """Return the day before which rows of *table* are past on *day*."""
    return add_months(day, -table.retention_months(settings))


def kept_until(child: ChildTable, restored: RestoredUntil, day: date) -> date | None:
    """Return until when a restored child is kept; None when it may go on *day*, and of one that was not restored."""
    until = restored.get((child.table.name, child.span[0]))
    return until if until is not None and day < until else None


def plan_drops(
    children: Sequence[ChildTable],
    settings: Settings,
    day: date,
    restored: RestoredUntil,
    last_time: int,
    max_drops: int = MAX_DROPS,
) -> Plan:
    """Decide which of *children* to drop on *day*, which is today.

    A child is past when its upper bound is not after the cut-off of its table. A restored one is kept until its day;
    *last_time* is how many were dropped last time.
    """
    drops, kept = [], []
    defaults = {child.table.name: child.name for child in children if child.bounds.is_default}
    for child in children:
        limit = cut_off(child.table, settings, day)
        if child.detach_pending or child.bounds.upper is None or child.bounds.upper > limit:
            continue
        reason = _kept_because(child, defaults, restored, day)
        if reason is not None:
            rows, size_bytes = child.rows_estimate, child.size_bytes
            kept.append(ChildOutcome(child.table.name, child.name, Outcome.KEPT, reason, rows, size_bytes))
            continue
        lower, upper = child.span
        months = child.table.retention_months(settings)
        drops.append(
            PlannedDrop(
                table=child.table.name,
                child=child.name,
                oid=child.oid,
                lower=lower,
                upper=upper,
                rows=child.rows_estimate,
                bytes=child.size_bytes,
                reason=Sentence("all of it lies before {limit}, {months} months ago", limit=limit, months=months),
            )
        )
    # The sort is stable: of the same month, stats stay before aggregations, into which their sealing writes.
    drops.sort(key=lambda drop: drop.upper)
    return Plan(day, tuple(drops[:max_drops]), tuple(kept), tuple(drops[max_drops:]), last_time, settings.archive_dir)


def _kept_because(child: ChildTable, defaults: Mapping[str, str], restored: RestoredUntil, day: date) -> str | None:
    if child.oddity is not None:
        return f"{child.oddity}: drop it by hand"
    if child.table.name in defaults:
        return f"{child.table.name} has a default partition, {defaults[child.table.name]}: nothing can be detached"
    until = kept_until(child, restored, day)
    return None if until is None else f"was restored, and is kept until {until}"
