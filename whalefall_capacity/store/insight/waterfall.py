"""The growth of an instance over a range of days, taken apart by database and cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Annotated

import numpy as np
from pydantic import Field
from sqlalchemy import Engine, Row, text

from whalefall_capacity.insight.growth import histories, increments, one_offs
from whalefall_capacity.insight.statuses import HISTORY_DAYS
from whalefall_capacity.insight.waterfall import DatabaseEnds, WaterfallRow, waterfall
from whalefall_capacity.store.sizes.raw_days import InstanceDay, instance_days

# By a range of the primary key, in the table partitions of those days. Both arrays have the same order.
DATABASES = """
SELECT s.database_name,
       array_agg(s.collected_date - CAST(:earliest AS date)) AS places, array_agg(s.size_bytes) AS sizes,
       max(s.size_bytes) FILTER (WHERE s.collected_date = :since) AS start_bytes,
       max(s.size_bytes) FILTER (WHERE s.collected_date = :until) AS end_bytes,
       coalesce(bool_or(d.first_seen_date > :since), false) AS is_new,
       coalesce(bool_or(NOT d.is_active AND d.last_seen_date < :until), false) AS is_gone
FROM database_size_stats AS s
LEFT JOIN instance_databases AS d USING (instance_id, database_name)
WHERE s.instance_id = :instance_id AND s.collected_date BETWEEN :earliest AND :until
GROUP BY s.database_name
HAVING bool_or(s.collected_date = :since OR s.collected_date = :until)
"""


@dataclass(frozen=True)
class InstanceWaterfall:
    """The change of an instance between the first and the last measured day of a range, and what explains it."""

    since: Annotated[date | None, Field(description="The first measured day; null when there are not two.")]
    until: date | None
    change_bytes: Annotated[int | None, Field(description="Of the databases that were measured; rows sum to it.")]
    missing_at_start: Annotated[int, Field(description="Databases that were listed that day and not measured.")]
    missing_at_end: int
    rows: Annotated[Sequence[WaterfallRow], Field(description="The largest change first; then those not named.")]


def instance_waterfall(
    engine: Engine, instance_id: int, first: date, last: date, limit: int | None
) -> InstanceWaterfall:
    """Return which databases explain the growth from *first* to *last*: the *limit* largest parts by name, or all.

    What is one-off is told by the history that a forecast on the last measured day looks at; nothing later is read.
    """
    days = instance_days(engine, instance_id, first, last)
    if len(days) < 2:
        return InstanceWaterfall(None, None, None, 0, 0, [])
    start, end = days[0], days[-1]
    databases = _databases(engine, instance_id, start, end)
    return InstanceWaterfall(
        start.day,
        end.day,
        sum((one.end_bytes or 0) - (one.start_bytes or 0) for one in databases),
        start.missing_count,
        end.missing_count,
        waterfall(databases, limit),
    )


def _databases(engine: Engine, instance_id: int, start: InstanceDay, end: InstanceDay) -> list[DatabaseEnds]:
    earliest = min(start.day, end.day - timedelta(days=HISTORY_DAYS - 1))
    values = {"instance_id": instance_id, "earliest": earliest, "since": start.day, "until": end.day}
    with engine.connect() as connection:
        found = connection.execute(text(DATABASES), values).all()
    one_offs = _one_offs(found, (start.day - earliest).days, (end.day - earliest).days)
    ends = [DatabaseEnds(row.database_name, row.start_bytes, row.end_bytes) for row in found]
    return [
        replace(one, one_off_bytes=one_off, is_new=row.is_new, is_gone=row.is_gone)
        for one, one_off, row in zip(ends, one_offs, found, strict=True)
    ]


def _one_offs(found: Sequence[Row[tuple[object, ...]]], start: int, end: int) -> list[int]:
    """Return the one-offs of each database after the column *start*, until *end*, in bytes."""
    sizes = np.full((len(found), end + 1), np.nan)
    for number, row in enumerate(found):
        sizes[number, row.places] = row.sizes
    jumps = zip(*one_offs(increments(histories(sizes), 0, end)), strict=True)
    total = [0] * len(found)
    for number, column, size_bytes in jumps:
        if column > start:
            total[number] += round(float(size_bytes))
    return total
