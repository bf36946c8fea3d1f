"""The account of a migration: what became, or would become, of every row of the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum


class Outcome(StrEnum):
    """Outcome of a row of the source."""

    CREATED = "created"
    CHANGED = "changed"
    KEPT = "kept"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Line:
    """Rows of one table, of one instance where they have one, that fare alike, and why."""

    table: str
    instance: str | None
    outcome: Outcome
    rows: int
    reason: str = ""


@dataclass(frozen=True)
class TableSummary:
    """One table of the source: its rows, by what becomes of them."""

    table: str
    rows: int
    created: int
    changed: int
    kept: int
    skipped: int


@dataclass(frozen=True)
class InstanceSummary:
    """One instance of the source: what becomes of it and of its rows."""

    instance: str
    db_type: str
    outcome: Outcome
    state: str
    reason: str
    tables: tuple[TableSummary, ...] = ()


@dataclass(frozen=True)
class DifferingDays:
    """Days from *first* to *last* on which the source had another total of an instance than its databases give."""

    instance: str
    first: date
    last: date
    days: int
    largest_difference_bytes: int


@dataclass(frozen=True)
class Report:
    """Everything that a plan, or a migration that was carried out, has to tell."""

    applied: bool
    tables: tuple[TableSummary, ...]
    instances: tuple[InstanceSummary, ...]
    lines: tuple[Line, ...]
    differing_totals: tuple[DifferingDays, ...] = ()
    settings: tuple[str, ...] = ()
    not_carried: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Account:
    """Collects lines while tables are moved."""

    lines: list[Line] = field(default_factory=list)

    def add(self, table: str, instance: str | None, outcome: Outcome, rows: int, reason: str = "") -> None:
        """Add *rows*; none is no line."""
        if rows:
            self.lines.append(Line(table, instance, outcome, rows, reason))

    def merged(self) -> list[Line]:
        """Return one line for all rows of a table and an instance that fare alike, in the order of the tables."""
        counts: dict[tuple[str, str | None, Outcome, str], int] = {}
        for line in self.lines:
            key = (line.table, line.instance, line.outcome, line.reason)
            counts[key] = counts.get(key, 0) + line.rows
        tables = list(dict.fromkeys(table for table, *_ in counts))
        lines = [
            Line(table, instance, outcome, rows, reason) for (table, instance, outcome, reason), rows in counts.items()
        ]
        outcomes = list(Outcome)
        return sorted(
            lines,
            key=lambda line: (tables.index(line.table), line.instance or "", outcomes.index(line.outcome), line.reason),
        )


def summarize(lines: Sequence[Line]) -> tuple[TableSummary, ...]:
    """Return the tables of *lines*, in the order in which they come."""
    counts: dict[str, dict[Outcome, int]] = {}
    for line in lines:
        of_table = counts.setdefault(line.table, dict.fromkeys(Outcome, 0))
        of_table[line.outcome] += line.rows
    return tuple(
        TableSummary(
            table,
            sum(found.values()),
            found[Outcome.CREATED],
            found[Outcome.CHANGED],
            found[Outcome.KEPT],
            found[Outcome.SKIPPED],
        )
        for table, found in counts.items()
    )
