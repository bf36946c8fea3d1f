"""Shared parts of the lists of instances and of databases: filters, statuses, and the age of a latest size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from whalefall_capacity.store.postgres.tables import LARGEST_ID

# Days of the small line beside each row.
TREND_DAYS = 30
# A size of today or of yesterday is up to date: today's visit may still be to come.
FRESH_DAYS = 1
# A change over some days is taken against the nearest size before them, at most so much earlier.
BASELINE_REACH_DAYS = 7
# A failed visit is told as long as no later one of these days went well.
VISIT_DAYS = 3
WEEK_DAYS, MONTH_DAYS = 7, 30


class SizeStatus(StrEnum):
    """State of what is known of an instance, or of a database."""

    MEASURED = "measured"
    LATE = "late"
    FAILED = "failed"
    NEVER_MEASURED = "never_measured"
    DROPPED = "dropped"


@dataclass(frozen=True)
class ListFilter:
    """A choice of rows; None is no filter. *search* is a part of a name, in any case."""

    search: str | None = None
    instance_ids: Sequence[int] | None = None
    db_types: Sequence[str] | None = None
    statuses: Sequence[SizeStatus] | None = None

    def values(self, today: date) -> dict[str, Any]:
        """Return the values that the statements of both lists take."""
        return {
            "search": self.search,
            "instance_ids": None if self.instance_ids is None else [n for n in self.instance_ids if n <= LARGEST_ID],
            "db_types": None if self.db_types is None else list(self.db_types),
            "statuses": None if self.statuses is None else [status.value for status in self.statuses],
            "today": today,
            "fresh_days": FRESH_DAYS,
            "visit_days": VISIT_DAYS,
            "week_days": WEEK_DAYS,
            "month_days": MONTH_DAYS,
            "reach_days": BASELINE_REACH_DAYS,
        }


Row = TypeVar("Row")
Trend = Annotated[
    Sequence[int | None],
    Field(description=f"Sizes of the last {TREND_DAYS} days, oldest first; null where none is known."),
]
NO_TREND: Trend = (None,) * TREND_DAYS


@dataclass(frozen=True)
class Listed(Generic[Row]):
    """Some rows of a list, and how many there are in all."""

    rows: Sequence[Row]
    total: int


# The newest visit of each instance, where that failed: by the index of the runs' times, and from each run by that of
# its items, which begins with run and type.
FAILED_VISITS = """
SELECT instance_id, error_message FROM (
    SELECT DISTINCT ON (item.instance_id) item.instance_id, item.status, item.error_message
    FROM task_runs AS run
    JOIN task_run_items AS item ON item.run_id = run.run_id AND item.item_type = 'collection'
    WHERE run.created_at > CAST(:today AS date) - :visit_days AND item.status IN ('completed', 'failed')
    ORDER BY item.instance_id, item.completed_at DESC
) AS newest
WHERE status = 'failed'
"""
IN_FLEET = "(i.is_active AND i.deleted_at IS NULL)"
OF_INSTANCES = """
(CAST(:instance_ids AS integer[]) IS NULL OR i.id = ANY (CAST(:instance_ids AS integer[])))
AND (CAST(:db_types AS text[]) IS NULL OR i.db_type = ANY (CAST(:db_types AS text[])))
"""
# Names sort by code point; which letter is the capital of which, the collation of the store knows.
OF_SEARCH = """
(CAST(:search AS text) IS NULL OR position(lower(:search) IN lower({name} COLLATE "default")) > 0)
"""
# The size that a change is taken against, of what *key* says: down the primary key, in the table partitions of its few
# days, to its first row.
BASELINE = """
SELECT {size} FROM {table} AS s
WHERE {key} AND s.collected_date <= latest.collected_date - {days}
  AND s.collected_date >= latest.collected_date - {days} - :reach_days
ORDER BY s.collected_date DESC LIMIT 1
"""
OF_STATUSES = "(CAST(:statuses AS text[]) IS NULL OR status = ANY (CAST(:statuses AS text[])))"


def ordered(orders: Mapping[str, str], sort: str) -> str:
    """Return the ORDER BY of *sort*: a key of *orders*, with a minus before it when the largest come first.

    What is not known comes last either way.
    """
    key = sort.removeprefix("-")
    direction = "DESC" if sort.startswith("-") else "ASC"
    column, *others = orders[key].split(", ")
    return ", ".join([f"{column} {direction} NULLS LAST", *others])


def trend_of(days: Sequence[int], sizes: Sequence[int]) -> Trend:
    """Return the trend that has *sizes* on its *days*, counted from its first, which is 0; None on the others."""
    trend: list[int | None] = [None] * TREND_DAYS
    for day, size_bytes in zip(days, sizes, strict=True):
        trend[day] = size_bytes
    return trend


def trend_start(today: date) -> date:
    """Return the first day of a trend that ends with *today*."""
    return today - timedelta(days=TREND_DAYS - 1)
