"""The list of all instances: each with its own latest size, however long ago, its changes and its status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated

from pydantic import Field
from sqlalchemy import Connection, Engine, RowMapping, text

from whalefall_capacity.store.postgres.tables import LARGEST_ID
from whalefall_capacity.store.sizes.listing import (
    BASELINE,
    FAILED_VISITS,
    IN_FLEET,
    NO_TREND,
    OF_INSTANCES,
    OF_SEARCH,
    OF_STATUSES,
    Listed,
    ListFilter,
    SizeStatus,
    Trend,
    ordered,
    trend_of,
    trend_start,
)

# Each look-up goes down the primary key (instance_id, collected_date) and ends at its first row.
INSTANCES = """
WITH failed AS MATERIALIZED ({failed_visits})
SELECT *, count(*) OVER () AS total FROM (
    SELECT i.id AS instance_id, i.name AS instance, i.db_type, i.host, i.port, i.version, i.description,
           i.capacity_limit_bytes, i.last_connected_at,
           (SELECT name FROM instances WHERE id = i.replica_of_id) AS replica_of,
           CASE WHEN NOT {in_fleet} THEN 'dropped'
                WHEN failed.instance_id IS NOT NULL THEN 'failed'
                WHEN latest.collected_date >= CAST(:today AS date) - :fresh_days THEN 'measured'
                WHEN latest.collected_date IS NULL THEN 'never_measured'
                ELSE 'late' END AS status,
           failed.error_message AS failure,
           latest.collected_date AS day, latest.total_size_bytes AS size_bytes, latest.database_count,
           latest.missing_count, latest.log_size_bytes,
           latest.total_size_bytes - week.total_size_bytes AS change_7_days_bytes,
           latest.total_size_bytes - month.total_size_bytes AS change_30_days_bytes
    FROM instances AS i
    LEFT JOIN failed ON failed.instance_id = i.id AND {in_fleet}
    LEFT JOIN LATERAL (
        SELECT collected_date, total_size_bytes, database_count, missing_count, log_size_bytes
        FROM instance_size_stats AS s
        WHERE s.instance_id = i.id AND s.collected_date <= :today
        ORDER BY s.collected_date DESC LIMIT 1) AS latest ON true
    LEFT JOIN LATERAL ({week}) AS week ON true
    LEFT JOIN LATERAL ({month}) AS month ON true
    WHERE {of_instances} AND {of_search}
) AS known
WHERE {of_statuses}
ORDER BY {order}
LIMIT :limit OFFSET :offset
"""
TRENDS = """
SELECT instance_id, array_agg(collected_date - CAST(:first AS date)), array_agg(total_size_bytes)
FROM instance_size_stats
WHERE instance_id = ANY (:ids) AND collected_date BETWEEN :first AND :today
GROUP BY instance_id
"""
ORDERS = {
    "instance": "instance",
    "db_type": "db_type, instance",
    "size": "size_bytes, instance",
    "day": "day, instance",
    "change_7_days": "change_7_days_bytes, instance",
    "change_30_days": "change_30_days_bytes, instance",
    "databases": "database_count, instance",
    "status": "status, instance",
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
    statement = INSTANCES.format(
        failed_visits=FAILED_VISITS,
        in_fleet=IN_FLEET,
        week=_baseline(":week_days"),
        month=_baseline(":month_days"),
        of_instances=OF_INSTANCES,
        of_search=OF_SEARCH.format(name="i.name"),
        of_statuses=OF_STATUSES,
        order=ordered(ORDERS, sort),
    )
    with engine.connect() as connection:
        found = (
            connection.execute(text(statement), wanted.values(today) | {"limit": limit, "offset": offset})
            .mappings()
            .all()
        )
        trends = _trends(connection, [row["instance_id"] for row in found], today)
    if not found and offset:
        # A page behind the last one still says how many rows there are.
        return Listed([], list_instances(engine, wanted, today, sort, 1).total)
    return Listed([_listed(row, trends) for row in found], found[0]["total"] if found else 0)


def get_instance(engine: Engine, instance_id: int, today: date) -> ListedInstance | None:
    """Return one instance, which need not be in the fleet any more."""
    if instance_id > LARGEST_ID:
        return None
    found = list_instances(engine, ListFilter(instance_ids=[instance_id]), today, "instance", 1).rows
    return found[0] if found else None


def _baseline(days: str) -> str:
    return BASELINE.format(table="instance_size_stats", size="total_size_bytes", key="s.instance_id = i.id", days=days)


def _trends(connection: Connection, ids: Sequence[int], today: date) -> dict[int, Trend]:
    """Return the trend of each instance of *ids* that has one."""
    values = {"ids": list(ids), "first": trend_start(today), "today": today}
    rows = connection.execute(text(TRENDS), values) if ids else ()
    return {instance_id: trend_of(days, sizes) for instance_id, days, sizes in rows}


def _listed(row: RowMapping, trends: Mapping[int, Trend]) -> ListedInstance:
    columns = {name: value for name, value in row.items() if name != "total"}
    trend = trends.get(row["instance_id"], NO_TREND)
    return ListedInstance(**columns | {"status": SizeStatus(row["status"]), "trend": trend})
