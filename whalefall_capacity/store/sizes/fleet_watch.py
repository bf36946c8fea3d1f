"""The fleet for whoever watches it by figures: the latest size of each instance, and of all together.

They follow the rule of `fleet_totals`: what was not measured counts with its own latest size, until the inventory says
that the database was dropped, or the server left the fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection, Engine, text

from whalefall_capacity.store.sizes.listing import FAILED_VISITS, IN_FLEET, VISIT_DAYS

# Nearly every instance was visited on the newest day or shortly before it: one pass over those days finds them all.
# Only the others are looked up one by one.
NEARBY = timedelta(days=2)
# The newest day with a size is looked for in the last days, then before them in twice as many, and so on.
FIRST_REACH = timedelta(days=3)
FARTHEST_REACH = timedelta(days=100 * 366)

NEWEST = "SELECT max(collected_date) FROM instance_size_stats WHERE collected_date BETWEEN :first AND :last"
# An instance that left the fleet counts on the newest day alone, which is nearby. What a day lacks has its size of
# before, as far as the last visit listed it: an import lists nothing. Look-ups go down the primary keys, which begin
# with the instance, and end at their first row.
WATCHED = f"""
WITH nearby AS MATERIALIZED (
    SELECT DISTINCT ON (instance_id) instance_id, collected_date AS day, total_size_bytes, missing_count
    FROM instance_size_stats
    WHERE collected_date BETWEEN :nearby AND :newest
    ORDER BY instance_id, collected_date DESC
), latest AS MATERIALIZED (
    SELECT * FROM nearby
    UNION ALL
    SELECT i.id, older.*
    FROM instances AS i
    CROSS JOIN LATERAL (
        SELECT collected_date, total_size_bytes, missing_count FROM instance_size_stats AS s
        WHERE s.instance_id = i.id AND s.collected_date < :nearby
        ORDER BY s.collected_date DESC LIMIT 1) AS older
    WHERE {IN_FLEET} AND NOT EXISTS (SELECT FROM nearby WHERE nearby.instance_id = i.id)
), carried AS MATERIALIZED (
    SELECT partial.instance_id, sum(last.size_bytes) AS size_bytes
    FROM (SELECT instance_id, day,
                 coalesce((SELECT s.collected_date FROM instance_size_stats AS s
                           WHERE s.instance_id = latest.instance_id AND s.collected_date <= latest.day
                             AND s.source = 'measured'
                           ORDER BY s.collected_date DESC LIMIT 1), day) AS visited_on
          FROM latest WHERE missing_count > 0) AS partial
    CROSS JOIN LATERAL (SELECT database_name FROM instance_databases AS d
                        WHERE d.instance_id = partial.instance_id AND d.last_seen_date >= partial.visited_on
                        OFFSET 0) AS d
    CROSS JOIN LATERAL (
        SELECT collected_date, size_bytes FROM database_size_stats AS s
        WHERE s.instance_id = partial.instance_id AND s.database_name = d.database_name
          AND s.collected_date <= partial.day
        ORDER BY s.collected_date DESC LIMIT 1) AS last
    WHERE last.collected_date < partial.day
    GROUP BY partial.instance_id
)
SELECT i.name AS instance, i.db_type, {IN_FLEET} AS in_fleet, i.replica_of_id IS NOT NULL AS is_replica, latest.day,
       coalesce(latest.missing_count, 0) AS missing,
       (latest.total_size_bytes + coalesce(carried.size_bytes, 0))::bigint AS size_bytes
FROM instances AS i
LEFT JOIN latest ON latest.instance_id = i.id
LEFT JOIN carried ON carried.instance_id = i.id
WHERE {IN_FLEET} OR latest.day IS NOT NULL
"""  # noqa: S608 - constants of ours
FAILED = f"""
WITH failed AS MATERIALIZED ({FAILED_VISITS})
SELECT count(*) FROM instances AS i JOIN failed ON failed.instance_id = i.id
WHERE {IN_FLEET} AND NOT EXISTS (SELECT FROM instance_size_stats AS s
                                 WHERE s.instance_id = i.id AND s.collected_date = CAST(:newest AS date))
"""  # noqa: S608 - constants of ours


@dataclass(frozen=True)
class WatchedInstance:
    """An instance of the fleet; *day* is its latest day with a size, *missing* its databases without one."""

    instance: str
    db_type: str
    in_fleet: bool
    is_replica: bool
    day: date | None
    missing: int
    size_bytes: int | None


@dataclass(frozen=True)
class WatchedFleet:
    """Every instance of the fleet, and what follows from them."""

    instances: Sequence[WatchedInstance]
    newest_day: date | None
    # Without replicas: their data is that of their primaries.
    total_size_bytes: int | None
    measured: int
    missing_databases: int


def watched_fleet(engine: Engine, today: date) -> WatchedFleet:
    """Return the fleet as it is known on *today*."""
    with engine.connect() as connection:
        newest = _newest_stored_day(connection, today) or today
        values = {"newest": newest, "nearby": newest - NEARBY}
        rows = [WatchedInstance(*row) for row in connection.execute(text(WATCHED), values)]
    fleet = [one for one in rows if one.in_fleet]
    newest_day = max((one.day for one in fleet if one.day is not None), default=None)
    measured = [one for one in fleet if one.day is not None and one.day == newest_day]
    missing = sum(one.missing for one in measured)
    return WatchedFleet(fleet, newest_day, _total(rows), len(measured), missing)


def count_failed(engine: Engine, today: date, newest_day: date | None) -> int:
    """Return how many instances of the fleet have no size of *newest_day*, and a newest visit that failed."""
    values = {"today": today, "visit_days": VISIT_DAYS, "newest": newest_day}
    with engine.connect() as connection:
        return int(connection.execute(text(FAILED), values).scalar_one())


def _newest_stored_day(connection: Connection, today: date) -> date | None:
    """Return the newest day with a size, until *today*; None when there is none."""
    last, reach = today, FIRST_REACH
    while reach < FARTHEST_REACH:
        day: date | None = connection.execute(text(NEWEST), {"first": last - reach, "last": last}).scalar_one()
        if day is not None:
            return day
        last, reach = last - reach - timedelta(days=1), 2 * reach
    return None


def _total(rows: Sequence[WatchedInstance]) -> int | None:
    """Return what the instances that are no replicas have on the newest day on which any of them was measured."""
    counted = [one for one in rows if one.size_bytes is not None and not one.is_replica]
    newest_day = max((one.day for one in counted if one.day is not None), default=None)
    sizes = [one.size_bytes or 0 for one in counted if one.in_fleet or one.day == newest_day]
    return sum(sizes) if sizes else None
