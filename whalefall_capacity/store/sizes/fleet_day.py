"""A day of the fleet: how many of its servers were measured, and why the others were not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Engine, text

from whalefall_capacity.store.task_runs.write import ItemType

# Servers that are named; how many more there are is said too.
MOST_NAMED = 100
# How long before the day the visit is looked for that tells why there is no size.
VISITS_REACH = timedelta(days=3)

MEASURED = """
SELECT count(*) AS fleet, count(s.instance_id) AS measured,
       coalesce(sum(s.missing_count), 0)::bigint AS missing_databases
FROM instances AS i
LEFT JOIN instance_size_stats AS s ON s.instance_id = i.id AND s.collected_date = :day
WHERE i.is_active AND i.deleted_at IS NULL
"""
NEWEST_DAY = """
SELECT s.collected_date FROM instances AS i
CROSS JOIN LATERAL (SELECT collected_date FROM instance_size_stats AS s
                    WHERE s.instance_id = i.id AND s.collected_date <= :day
                    ORDER BY s.collected_date DESC LIMIT 1) AS s
WHERE i.is_active AND i.deleted_at IS NULL
ORDER BY 1 DESC LIMIT 1
"""
# The last day by the primary key; the newest visit by the index of the runs' times, and in each of the few collections
# by the unique index (run_id, item_type, item_key). A server that answered in part is named with its databases.
UNMEASURED = """
SELECT i.id AS instance_id, i.name AS instance, i.db_type,
       (SELECT last.collected_date FROM instance_size_stats AS last
        WHERE last.instance_id = i.id AND last.collected_date <= :day
        ORDER BY last.collected_date DESC LIMIT 1) AS last_day,
       coalesce(s.missing_count, 0) AS missing_databases,
       visit.run_id, visit.status AS visit_status, visit.completed_at AS visited_at, visit.error_message AS reason,
       count(*) OVER () AS total
FROM instances AS i
LEFT JOIN instance_size_stats AS s ON s.instance_id = i.id AND s.collected_date = :day
LEFT JOIN LATERAL (
    SELECT run.run_id, item.status, item.completed_at, item.error_message
    FROM task_runs AS run
    JOIN task_run_items AS item
      ON item.run_id = run.run_id AND item.item_type = :item_type AND item.item_key = CAST(i.id AS text)
    WHERE run.created_at > CAST(:day AS date) - :reach_days AND run.task_category = 'capacity'
    ORDER BY run.created_at DESC LIMIT 1) AS visit ON true
WHERE i.is_active AND i.deleted_at IS NULL AND (s.instance_id IS NULL OR s.missing_count > 0)
ORDER BY s.instance_id IS NOT NULL, (visit.status = 'failed') DESC NULLS LAST, i.name
LIMIT :most
"""


@dataclass(frozen=True)
class Unmeasured:
    """A server of the fleet without a size on the day, or with databases that have none."""

    instance_id: int
    instance: str
    db_type: str
    last_day: Annotated[date | None, Field(description="The last day with a size; null when there is none.")]
    missing_databases: Annotated[
        int, Field(description="Databases without a size on a day on which the others have one; 0: the whole server.")
    ]
    run_id: Annotated[str | None, Field(description="The run of the newest visit; null when there was none lately.")]
    visit_status: str | None
    visited_at: datetime | None
    reason: str | None


@dataclass(frozen=True)
class FleetDay:
    """Coverage and total of the fleet on a day."""

    day: date
    newest_day: Annotated[date | None, Field(description="The newest day with a size of the fleet.")]
    fleet: int
    measured: int
    missing_databases: int
    unmeasured: Annotated[Sequence[Unmeasured], Field(description=f"The first {MOST_NAMED}; failed visits first.")]
    unmeasured_not_named: int


def fleet_day(engine: Engine, day: date) -> FleetDay:
    """Return how the fleet was measured on *day*."""
    values: dict[str, Any] = {
        "day": day,
        "item_type": ItemType.COLLECTION.value,
        "reach_days": VISITS_REACH.days,
        "most": MOST_NAMED,
    }
    with engine.connect() as connection:
        counts = connection.execute(text(MEASURED), values).one()
        newest = day if counts.measured else connection.execute(text(NEWEST_DAY), values).scalar()
        rows = connection.execute(text(UNMEASURED), values).mappings().all()
    named = [Unmeasured(**{name: value for name, value in row.items() if name != "total"}) for row in rows]
    not_named = rows[0]["total"] - len(rows) if rows else 0
    return FleetDay(day, newest, counts.fleet, counts.measured, counts.missing_databases, named, not_named)
