"""The fleet for whoever watches it by figures: one row per instance, with its latest size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Engine, text

from whalefall_capacity.store.sizes.listing import FAILED_VISITS, IN_FLEET, VISIT_DAYS

# A size of a day with missing databases says too little where there is one of a complete day in the week before it.
COMPLETE_REACH_DAYS = 7

# Down the primary key (instance_id, collected_date) to the first row; the second time only after an incomplete day.
WATCHED = f"""
WITH failed AS MATERIALIZED ({FAILED_VISITS})
SELECT i.name AS instance, i.db_type, latest.collected_date AS day, coalesce(latest.missing_count, 0) AS missing,
       coalesce(complete.total_size_bytes, latest.total_size_bytes) AS size_bytes,
       failed.instance_id IS NOT NULL AS failed
FROM instances AS i
LEFT JOIN failed ON failed.instance_id = i.id
LEFT JOIN LATERAL (
    SELECT collected_date, total_size_bytes, missing_count FROM instance_size_stats AS s
    WHERE s.instance_id = i.id AND s.collected_date <= :today
    ORDER BY s.collected_date DESC LIMIT 1) AS latest ON true
LEFT JOIN LATERAL (
    SELECT total_size_bytes FROM instance_size_stats AS s
    WHERE s.instance_id = i.id AND latest.missing_count > 0 AND s.missing_count = 0
      AND s.collected_date BETWEEN latest.collected_date - :reach_days AND latest.collected_date
    ORDER BY s.collected_date DESC LIMIT 1) AS complete ON true
WHERE {IN_FLEET}
ORDER BY i.name
"""  # noqa: S608 - constants of ours


@dataclass(frozen=True)
class WatchedInstance:
    """An instance of the fleet; *day* is its latest day with a size, *missing* its databases without one."""

    instance: str
    db_type: str
    day: date | None
    missing: int
    size_bytes: int | None
    failed: bool


def watched_fleet(engine: Engine, today: date) -> Sequence[WatchedInstance]:
    """Return every instance of the fleet as it is known on *today*."""
    values = {"today": today, "visit_days": VISIT_DAYS, "reach_days": COMPLETE_REACH_DAYS}
    with engine.connect() as connection:
        return [WatchedInstance(**row) for row in connection.execute(text(WATCHED), values).mappings()]
