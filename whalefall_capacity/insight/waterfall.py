"""The growth of an instance, taken apart: which databases explain it, by which cause, to 100.0 %."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import Annotated

from pydantic import Field

TENTHS = 1000  # of a percent in the whole: shares are given to one decimal


class Cause(StrEnum):
    """The cause of a change between the two ends of a window."""

    STEADY = "steady"
    ONE_OFF = "one_off"
    NEW = "new"
    GONE = "gone"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True)
class DatabaseEnds:
    """One database at both ends of a window; None is an end on which it has no size."""

    database_name: str
    start_bytes: int | None
    end_bytes: int | None
    one_off_bytes: int = 0
    is_new: bool = False
    is_gone: bool = False


@dataclass(frozen=True)
class WaterfallRow:
    """A part of the change, of one cause."""

    database_name: Annotated[str | None, Field(description="null: the databases that are not named.")]
    cause: Cause
    databases: Annotated[int, Field(description="1, or how many are not named.")]
    change_bytes: int
    share_percent: Annotated[
        float | None,
        Field(
            description="Of the change of the instance, to 100.0 in all; below 0 and above 100 too. null: no change."
        ),
    ] = None


def waterfall(databases: Iterable[DatabaseEnds], limit: int | None) -> list[WaterfallRow]:
    """Return the *limit* largest parts of the change, and what is left, by cause. They sum exactly to the change.

    The order of *databases* does not matter.
    """
    rows = sorted((row for one in databases for row in _parts(one)), key=_place)
    shown = rows if limit is None else rows[:limit] + _others(rows[limit:])
    shares = shares_in_tenths([row.change_bytes for row in shown])
    if shares is None:
        return shown
    return [replace(row, share_percent=tenths / 10) for row, tenths in zip(shown, shares, strict=True)]


def shares_in_tenths(changes: Sequence[int]) -> list[int] | None:
    """Return the shares of *changes* in their sum, in tenths of a percent that sum to 1000; None when they sum to 0.

    Each share is rounded down; the tenths that are left go to the largest remainders, among equals to the first.
    """
    net = sum(changes)
    if net == 0:
        return None
    divided = [divmod(TENTHS * change, net) for change in changes]
    # With a net below 0 remainders are at most 0: the largest is the one furthest from 0.
    by_remainder = sorted(range(len(changes)), key=lambda place: -abs(divided[place][1]))
    raised = set(by_remainder[: TENTHS - sum(share for share, _ in divided)])
    return [share + (place in raised) for place, (share, _) in enumerate(divided)]


def _parts(one: DatabaseEnds) -> Iterator[WaterfallRow]:
    """Yield the parts of the change of one database: its own growth may be both steady and one-off."""
    if one.start_bytes is not None and one.end_bytes is not None:
        changes = {
            Cause.STEADY: one.end_bytes - one.start_bytes - one.one_off_bytes,
            Cause.ONE_OFF: one.one_off_bytes,
        }
        yield from (WaterfallRow(one.database_name, cause, 1, change) for cause, change in changes.items() if change)
    elif one.end_bytes is not None:
        cause = Cause.NEW if one.is_new else Cause.NOT_MEASURED
        yield WaterfallRow(one.database_name, cause, 1, one.end_bytes)
    elif one.start_bytes is not None:
        cause = Cause.GONE if one.is_gone else Cause.NOT_MEASURED
        yield WaterfallRow(one.database_name, cause, 1, -one.start_bytes)


def _place(row: WaterfallRow) -> tuple[int, str, str]:
    """Return what rows are ordered by: the largest change first, whatever its sign."""
    return (-abs(row.change_bytes), row.database_name or "", row.cause)


def _others(rows: Sequence[WaterfallRow]) -> list[WaterfallRow]:
    causes = list(Cause)
    by_cause = groupby(sorted(rows, key=lambda row: causes.index(row.cause)), key=lambda row: row.cause)
    found = [(cause, [row.change_bytes for row in group]) for cause, group in by_cause]
    return [WaterfallRow(None, cause, len(changes), sum(changes)) for cause, changes in found]
