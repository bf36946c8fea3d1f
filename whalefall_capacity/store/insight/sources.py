"""Sources of a calculation beside the histories: the instances of a day, and the width of the ranges before it."""

from __future__ import annotations

from datetime import date, timedelta

from sqlalchemy import Engine, text

from whalefall_capacity.insight.calibration import DEFAULT_REACH, Reach
from whalefall_capacity.insight.statuses import HISTORY_DAYS, HORIZONS
from whalefall_capacity.store.insight.histories import Instance
from whalefall_capacity.store.postgres.engine import again_if_connection_lost

# Those that have sizes, and those of the fleet that have none yet. How many databases an instance has only decides
# which instances are read together. What was measured before the histories begin matters where they hold nothing yet.
INSTANCES = """
SELECT i.id, i.name, i.capacity_limit_bytes AS limit_bytes, i.is_active AND i.deleted_at IS NULL AS is_active,
       (i.created_at AT TIME ZONE :zone)::date AS created_on, (i.deleted_at AT TIME ZONE :zone)::date AS deleted_on,
       coalesce(totals.databases, 1) AS databases, before.measured_before
FROM instances AS i
LEFT JOIN (SELECT instance_id, max(database_count) AS databases,
                  min(collected_date) FILTER (WHERE database_count > 0 OR missing_count = 0) AS measured_since
           FROM instance_size_stats
           WHERE collected_date BETWEEN :first AND :last GROUP BY instance_id) AS totals ON totals.instance_id = i.id
LEFT JOIN LATERAL (SELECT max(collected_date) AS measured_before FROM instance_size_stats
                   WHERE instance_id = i.id AND collected_date < :first AND (database_count > 0 OR missing_count = 0)
                  ) AS before ON coalesce(totals.measured_since > :day, true)
WHERE totals.instance_id IS NOT NULL OR i.is_active AND i.deleted_at IS NULL
ORDER BY i.id
"""
REACHES = """
SELECT level, horizon_days, range_low::float AS low, range_high::float AS high
FROM forecast_accuracy
WHERE forecast_date = CAST(:day AS date) - horizon_days
"""


@again_if_connection_lost
def read_instances(engine: Engine, first: date, last: date, zone: str) -> list[tuple[Instance, int]]:
    """Return the instances that days from *first* to *last* may be about, and how many databases each has."""
    values = {"first": first - timedelta(days=HISTORY_DAYS - 1), "day": first, "last": last, "zone": zone}
    with engine.connect() as connection:
        rows = connection.execute(text(INSTANCES), values).mappings().all()
    return [
        (
            Instance(
                row["id"],
                row["name"],
                row["limit_bytes"],
                row["is_active"],
                row["created_on"],
                row["deleted_on"],
                row["measured_before"],
            ),
            max(row["databases"], 1),
        )
        for row in rows
    ]


@again_if_connection_lost
def read_reaches(engine: Engine, day: date) -> dict[tuple[str, int], Reach]:
    """Return, by level and horizon, the reach of the ranges that were given so long before *day*.

    Where nothing is stored of that day, the reach that a fleet begins with.
    """
    with engine.connect() as connection:
        rows = connection.execute(text(REACHES), {"day": day}).all()
    default = {(level, horizon): DEFAULT_REACH for level in ("database", "instance") for horizon in HORIZONS}
    return default | {(row.level, row.horizon_days): Reach(row.low, row.high) for row in rows}
