"""The total of the fleet, day by day: a server that was not measured counts with its size of before.

The total of a day is that of the day before plus what changed between neighbouring sizes of each server, so that one
look at the days is enough. Until the next size, the last one stands; that of a server which left the fleet ends with
its last day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated

from pydantic import Field
from sqlalchemy import Engine, text

# How long before the first day a size is looked for that still stands on it.
REACH = timedelta(days=31)
# A change over some days is taken from the nearest day before them on which anything was measured.
BASELINE_REACH = timedelta(days=7)
CHANGE_DAYS = (7, 30, 90)

# In the order of the primary key (instance_id, collected_date), of the table partitions of the range. A day with
# missing databases says too little: it counts only when there was no complete one in the week before it.
CHANGES = """
WITH days AS (
    SELECT instance_id, collected_date, total_size_bytes,
           missing_count = 0 OR max(collected_date) FILTER (WHERE missing_count = 0) OVER week IS NULL AS counts
    FROM instance_size_stats AS s
    JOIN instances AS i ON i.id = s.instance_id AND (i.replica_of_id IS NOT NULL) = :replicas
    WHERE collected_date BETWEEN :earliest AND :last
    WINDOW week AS (PARTITION BY instance_id ORDER BY collected_date
                    RANGE BETWEEN '7 days' PRECEDING AND CURRENT ROW)
), sizes AS (
    SELECT instance_id, collected_date AS day, total_size_bytes,
           total_size_bytes - lag(total_size_bytes, 1, CAST(0 AS bigint)) OVER earlier AS change,
           CASE WHEN row_number() OVER earlier = 1 THEN 1 ELSE 0 END AS servers,
           lead(collected_date) OVER earlier IS NULL AS is_last
    FROM days WHERE counts
    WINDOW earlier AS (PARTITION BY instance_id ORDER BY collected_date)
), changes AS (
    SELECT day, change, servers, 1 AS measured FROM sizes
    UNION ALL
    SELECT sizes.day + 1, -total_size_bytes, -1, 0
    FROM sizes JOIN instances AS i ON i.id = sizes.instance_id
    WHERE is_last AND sizes.day < :last AND NOT (i.is_active AND i.deleted_at IS NULL)
)
SELECT day, sum(change)::bigint AS change, sum(servers)::integer AS servers, sum(measured)::integer AS measured
FROM changes GROUP BY day ORDER BY day
"""


@dataclass(frozen=True)
class DayTotal:
    """The fleet on one day."""

    day: date
    total_size_bytes: Annotated[int | None, Field(description="null when nothing was measured on the day.")]
    measured: Annotated[int, Field(description="Servers with a complete size of the day itself.")]
    servers: Annotated[int, Field(description="Those, and the ones that count with a size of before.")]


@dataclass(frozen=True)
class TotalChange:
    """The change of the total until the newest day, over some days."""

    days: int
    since: Annotated[date | None, Field(description="The day that it is measured from; null when there is none.")]
    change_bytes: int | None
    change_percent: float | None


def fleet_totals(engine: Engine, first: date, last: date, replicas: bool = False) -> list[DayTotal]:
    """Return every day from *first* to *last*, of the servers that are no replicas, or of the *replicas* alone.

    The data of a replica is that of its primary, and counts there.
    """
    with engine.connect() as connection:
        rows = connection.execute(text(CHANGES), {"earliest": first - REACH, "last": last, "replicas": replicas}).all()
    changes = {row.day: row for row in rows}
    found = []
    total = servers = 0
    for day in (first - REACH + timedelta(days=n) for n in range((last - first + REACH).days + 1)):
        row = changes.get(day)
        if row is not None:
            total, servers = total + row.change, servers + row.servers
        measured = 0 if row is None else row.measured
        found.append(DayTotal(day, total if measured else None, measured, servers))
    return found[REACH.days :]


def total_changes(totals: Sequence[DayTotal]) -> list[TotalChange]:
    """Return the changes until the newest known total of *totals*, which are days in a row. Pure."""
    known = {one.day: one.total_size_bytes for one in totals if one.total_size_bytes is not None}
    return [_change(known, days) for days in CHANGE_DAYS]


def _change(known: dict[date, int], days: int) -> TotalChange:
    if not known:
        return TotalChange(days, None, None, None)
    newest = max(known)
    wanted = newest - timedelta(days=days)
    since = next((day for n in range(BASELINE_REACH.days + 1) if (day := wanted - timedelta(days=n)) in known), None)
    if since is None:
        return TotalChange(days, None, None, None)
    change, base = known[newest] - known[since], known[since]
    return TotalChange(days, since, change, round(100 * change / base, 2) if base else None)
