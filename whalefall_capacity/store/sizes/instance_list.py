"""The list of all instances: each with its own latest size, however long ago, its changes and its status.

Which instances are on a page is decided first, by what order and filter need; figures are looked up for those alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Annotated

from pydantic import Field
from sqlalchemy import Connection, Engine, TextClause, text

from whalefall_capacity.store.postgres.tables import LARGEST_ID
from whalefall_capacity.store.sizes.listing import (
    BASELINE,
    FAILED_VISITS,
    IN_FLEET,
    NO_TREND,
    OF_INSTANCES,
    OF_SEARCH,
    Listed,
    ListFilter,
    SizeStatus,
    Trend,
    ordered,
    trend_of,
    trend_start,
)

# Each look-up goes down the primary key (instance_id, collected_date) and ends at its first row.
LATEST = """
LEFT JOIN LATERAL (
    SELECT collected_date, total_size_bytes, database_count, missing_count, log_size_bytes
    FROM instance_size_stats AS s
    WHERE s.instance_id = i.id AND s.collected_date <= :today
    ORDER BY s.collected_date DESC LIMIT 1) AS latest ON true
"""
# Between days on which every database was measured: what one that is missing takes from a total is no change.
EARLIER = BASELINE.format(
    table="instance_size_stats",
    size="total_size_bytes",
    key="s.instance_id = i.id AND s.missing_count = 0",
    days="{days}",
)
WEEK = f"LEFT JOIN LATERAL ({EARLIER.format(days=':week_days')}) AS week ON true"
MONTH = f"LEFT JOIN LATERAL ({EARLIER.format(days=':month_days')}) AS month ON true"
FAILED = f"LEFT JOIN failed ON failed.instance_id = i.id AND {IN_FLEET}"
STATUS = f"""
CASE WHEN NOT {IN_FLEET} THEN 'dropped'
     WHEN failed.instance_id IS NOT NULL THEN 'failed'
     WHEN latest.collected_date >= CAST(:today AS date) - :fresh_days THEN 'measured'
     WHEN latest.collected_date IS NULL THEN 'never_measured'
     ELSE 'late' END
"""
CHANGE = "CASE WHEN latest.missing_count = 0 THEN latest.total_size_bytes - {earlier}.total_size_bytes END"
WEEK_CHANGE = CHANGE.format(earlier="week")
MONTH_CHANGE = CHANGE.format(earlier="month")
IDS = """
WITH failed AS MATERIALIZED ({failed_visits})
SELECT i.id, count(*) OVER () AS total FROM instances AS i
{joins}
WHERE {of_instances} AND {of_search} {of_statuses}
ORDER BY {order}
LIMIT :limit OFFSET :offset
"""
FIGURES = """
WITH failed AS MATERIALIZED ({failed_visits})
SELECT i.id AS instance_id, i.name AS instance, i.db_type, i.host, i.port, i.version, i.description,
       i.capacity_limit_bytes, i.last_connected_at,
       (SELECT name FROM instances WHERE id = i.replica_of_id) AS replica_of,
       {status} AS status, failed.error_message AS failure,
       latest.collected_date AS day, latest.total_size_bytes AS size_bytes, latest.database_count,
       latest.missing_count, latest.log_size_bytes,
       {week_change} AS change_7_days_bytes, {month_change} AS change_30_days_bytes
FROM unnest(CAST(:ids AS integer[])) WITH ORDINALITY AS wanted (id, place)
JOIN instances AS i ON i.id = wanted.id
{joins}
ORDER BY place
"""
TRENDS = """
SELECT instance_id, array_agg(collected_date - CAST(:first AS date)), array_agg(total_size_bytes)
FROM instance_size_stats
WHERE instance_id = ANY (:ids) AND collected_date BETWEEN :first AND :today
GROUP BY instance_id
"""
# The expressions of each order, and the joins that the first of them needs.
ORDERS = {
    "instance": ("i.name", ()),
    "db_type": ("i.db_type, i.name", ()),
    "size": ("latest.total_size_bytes, i.name", (LATEST,)),
    "day": ("latest.collected_date, i.name", (LATEST,)),
    "change_7_days": (f"{WEEK_CHANGE}, i.name", (LATEST, WEEK)),
    "change_30_days": (f"{MONTH_CHANGE}, i.name", (LATEST, MONTH)),
    "databases": ("latest.database_count, i.name", (LATEST,)),
    "status": (f"{STATUS}, i.name", (LATEST, FAILED)),
}


@dataclass(frozen=True)
class ListedInstance:
    """One instance with its latest size."""

    instance_id: int
    instance: str
    db_type: str
    host: str | None
    port: int | None
    version: str | None
    description: str | None
    capacity_limit_bytes: int | None
    replica_of: Annotated[str | None, Field(description="Its primary, where its data counts.")]
    last_connected_at: datetime | None
    status: SizeStatus
    failure: Annotated[str | None, Field(description="Why the newest visit failed, if it did.")]
    day: Annotated[date | None, Field(description="The day of the latest size.")]
    size_bytes: int | None
    database_count: int | None
    missing_count: Annotated[int | None, Field(description="Databases that were listed that day and not measured.")]
    log_size_bytes: int | None
    change_7_days_bytes: int | None
    change_30_days_bytes: int | None
    trend: Trend


def list_instances(
    engine: Engine, wanted: ListFilter, today: date, sort: str, limit: int | None = None, offset: int = 0
) -> Listed[ListedInstance]:
    """Return instances in the order of *sort*, all of them when there is no *limit*."""
    statement = _ids(sort, wanted.statuses is not None)
    values = wanted.values(today) | {"limit": limit, "offset": offset}
    with engine.connect() as connection:
        found = connection.execute(statement, values).all()
        rows = _listed(connection, [row.id for row in found], today)
    if not found and offset:
        # A page behind the last one still says how many rows there are.
        return Listed([], list_instances(engine, wanted, today, sort, 1).total)
    return Listed(rows, found[0].total if found else 0)


def get_instance(engine: Engine, instance_id: int, today: date) -> ListedInstance | None:
    """Return one instance, which need not be in the fleet any more."""
    if instance_id > LARGEST_ID:
        return None
    with engine.connect() as connection:
        rows = _listed(connection, [instance_id], today)
    return rows[0] if rows else None


@cache
def _ids(sort: str, by_status: bool) -> TextClause:
    key = sort.removeprefix("-")
    joins = dict.fromkeys([*ORDERS[key][1], *((LATEST, FAILED) if by_status else ())])
    return text(
        IDS.format(
            failed_visits=FAILED_VISITS,
            joins=" ".join(joins),
            of_instances=OF_INSTANCES,
            of_search=OF_SEARCH.format(name="i.name"),
            of_statuses=f"AND {STATUS} = ANY (CAST(:statuses AS text[]))" if by_status else "",
            order=ordered({key: ORDERS[key][0]}, sort),
        )
    )


@cache
def _figures() -> TextClause:
    return text(
        FIGURES.format(
            failed_visits=FAILED_VISITS,
            status=STATUS,
            week_change=WEEK_CHANGE,
            month_change=MONTH_CHANGE,
            joins=f"{LATEST} {WEEK} {MONTH} {FAILED}",
        )
    )


def _listed(connection: Connection, ids: Sequence[int], today: date) -> list[ListedInstance]:
    """Return the instances of *ids* that there are, in their order."""
    if not ids:
        return []
    rows = connection.execute(_figures(), ListFilter().values(today) | {"ids": list(ids)}).mappings()
    trends = _trends(connection, ids, today)
    return [
        ListedInstance(
            **{**row, "status": SizeStatus(row["status"]), "trend": trends.get(row["instance_id"], NO_TREND)}
        )
        for row in rows
    ]


def _trends(connection: Connection, ids: Sequence[int], today: date) -> dict[int, Trend]:
    """Return the trend of each instance of *ids* that has one."""
    rows = connection.execute(text(TRENDS), {"ids": list(ids), "first": trend_start(today), "today": today})
    return {instance_id: trend_of(days, sizes) for instance_id, days, sizes in rows}
