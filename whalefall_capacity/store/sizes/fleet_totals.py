"""The total of the fleet, day by day: what was not measured counts with its own latest size.

A database that a server listed and could not measure counts with its size of before, and a server that did not answer
with all that it had: until the inventory says that the database was dropped, or the server left the fleet.

The sum of a day is that of the stored totals. Only servers that lack something are looked at one by one, and of their
databases only those that have fewer sizes than the server has days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Engine, Row, text

from whalefall_capacity.byte_sizes import change_percent

# A change over some days is taken from the nearest day before them on which anything was measured.
BASELINE_REACH = timedelta(days=7)
CHANGE_DAYS = (7, 30, 90)

# The servers that count, and whether they go on counting after their last day.
COUNTED = """SELECT id AS instance_id, is_active AND deleted_at IS NULL AS in_fleet FROM instances
WHERE (replica_of_id IS NOT NULL) = :replicas"""
# Both in the table partitions of the range, each in one pass that sorts nothing.
STORED = """
SELECT collected_date AS day, sum(total_size_bytes)::bigint AS size_bytes, count(*)::integer AS servers
FROM instance_size_stats JOIN (<counted>) AS counted USING (instance_id)
WHERE collected_date BETWEEN :first AND :last
GROUP BY collected_date
""".replace("<counted>", COUNTED)
LACKING = """
SELECT counted.instance_id
FROM (<counted>) AS counted
LEFT JOIN (SELECT instance_id, count(*) AS days, max(missing_count) AS missing FROM instance_size_stats
           WHERE collected_date BETWEEN :first AND :last GROUP BY instance_id) AS stored USING (instance_id)
WHERE stored.missing > 0 OR stored.days < CAST(:last AS date) - :first + 1
   OR stored.days IS NULL AND counted.in_fleet
""".replace("<counted>", COUNTED)
# What those servers add to the stored totals. A day without a visit has all that the visit before it found; a server
# that left the fleet ends with its last day. A visit that lacks databases has their sizes of before: each stands from
# its own day until the next, or until the database was last listed: one that the last visit listed is still there on a
# day that an import brought since. Look-ups go down the primary keys, which begin with the instance; those of what was
# before end at their first row.
CARRIED = """
WITH absent AS MATERIALIZED (
    SELECT instance_id, days.day, visit.collected_date AS visited_on, visit.total_size_bytes, visit.missing_count
    FROM (<counted>) AS counted
    CROSS JOIN (SELECT CAST(day AS date) AS day
                FROM generate_series(CAST(:first AS timestamp), CAST(:last AS timestamp), '1 day') AS day) AS days
    CROSS JOIN LATERAL (
        SELECT collected_date, total_size_bytes, missing_count FROM instance_size_stats AS s
        WHERE s.instance_id = counted.instance_id AND s.collected_date < days.day
        ORDER BY s.collected_date DESC LIMIT 1) AS visit
    WHERE instance_id = ANY (:ids)
      AND NOT EXISTS (SELECT FROM instance_size_stats AS s
                      WHERE s.instance_id = counted.instance_id AND s.collected_date = days.day
                        AND s.collected_date BETWEEN :first AND :last)
      AND (in_fleet OR EXISTS (SELECT FROM instance_size_stats AS s
                               WHERE s.instance_id = counted.instance_id AND s.collected_date > days.day))
), partial AS MATERIALIZED (
    SELECT instance_id, collected_date AS day FROM instance_size_stats
    WHERE instance_id = ANY (:ids) AND collected_date BETWEEN :first AND :last AND missing_count > 0
    UNION
    SELECT instance_id, visited_on FROM absent WHERE missing_count > 0
), servers AS MATERIALIZED (
    SELECT instance_id, min(day) AS earliest,
           (SELECT count(*) FROM instance_size_stats AS s
            WHERE s.instance_id = partial.instance_id AND s.collected_date BETWEEN :first AND :last) AS visits,
           coalesce((SELECT s.collected_date FROM instance_size_stats AS s
                     WHERE s.instance_id = partial.instance_id AND s.source = 'measured'
                     ORDER BY s.collected_date DESC LIMIT 1), 'infinity') AS last_visit
    FROM partial GROUP BY instance_id
), sizes AS MATERIALIZED (
    SELECT servers.instance_id, found.database_name, count(*) AS days
    FROM servers
    CROSS JOIN LATERAL (SELECT database_name FROM database_size_stats AS s
                        WHERE s.instance_id = servers.instance_id
                          AND s.collected_date BETWEEN :first AND :last OFFSET 0) AS found
    GROUP BY servers.instance_id, found.database_name
), incomplete AS MATERIALIZED (
    SELECT d.instance_id, d.database_name,
           CASE WHEN d.last_seen_date >= last_visit THEN 'infinity'::date ELSE d.last_seen_date + 1 END AS gone_on
    FROM servers
    JOIN instance_databases AS d
      ON d.instance_id = servers.instance_id AND d.last_seen_date >= least(servers.earliest, servers.last_visit)
    LEFT JOIN sizes ON sizes.instance_id = d.instance_id AND sizes.database_name = d.database_name
    WHERE sizes.days IS NULL OR sizes.days < servers.visits OR servers.earliest < :first
), spans AS MATERIALIZED (
    SELECT instance_id, size.day, size.size_bytes,
           lead(size.day, 1, gone_on) OVER (PARTITION BY instance_id, database_name ORDER BY size.day) AS until
    FROM incomplete
    CROSS JOIN LATERAL (
        SELECT collected_date AS day, size_bytes FROM database_size_stats AS s
        WHERE s.instance_id = incomplete.instance_id AND s.database_name = incomplete.database_name
          AND s.collected_date BETWEEN :first AND :last
        UNION ALL
        (SELECT collected_date, size_bytes FROM database_size_stats AS s
         WHERE s.instance_id = incomplete.instance_id AND s.database_name = incomplete.database_name
           AND s.collected_date < :first
         ORDER BY s.collected_date DESC LIMIT 1)) AS size
), carried AS MATERIALIZED (
    SELECT partial.instance_id, partial.day, sum(span.size_bytes) AS size_bytes
    FROM partial
    JOIN (SELECT * FROM spans WHERE until > day + 1) AS span
      ON span.instance_id = partial.instance_id AND span.day < partial.day AND span.until > partial.day
    GROUP BY partial.instance_id, partial.day
)
SELECT day, sum(size_bytes)::bigint AS size_bytes, sum(servers)::integer AS servers
FROM (SELECT day, size_bytes, 0 AS servers FROM carried WHERE day >= :first
      UNION ALL
      SELECT absent.day, absent.total_size_bytes + coalesce(carried.size_bytes, 0), 1
      FROM absent
      LEFT JOIN carried ON carried.instance_id = absent.instance_id AND carried.day = absent.visited_on) AS added
GROUP BY day
""".replace("<counted>", COUNTED)


@dataclass(frozen=True)
class DayTotal:
    """The fleet on one day."""

    day: date
    total_size_bytes: Annotated[int | None, Field(description="null when nothing was measured on the day.")]
    measured: Annotated[int, Field(description="Servers with a size of the day itself.")]
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
    values = {"first": first, "last": last, "replicas": replicas}
    with engine.connect() as connection:
        stored = {row.day: row for row in connection.execute(text(STORED), values)}
        ids = list(connection.execute(text(LACKING), values).scalars())
        carried = {row.day: row for row in connection.execute(text(CARRIED), values | {"ids": ids})} if ids else {}
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return [_day_total(day, stored.get(day), carried.get(day)) for day in days]


def total_changes(totals: Sequence[DayTotal]) -> list[TotalChange]:
    """Return the changes until the newest known total of *totals*, which are days in a row. Pure."""
    known = {one.day: one.total_size_bytes for one in totals if one.total_size_bytes is not None}
    return [_change(known, days) for days in CHANGE_DAYS]


def _day_total(day: date, stored: Row[Any] | None, carried: Row[Any] | None) -> DayTotal:
    size_bytes, servers = (0, 0) if carried is None else (carried.size_bytes, carried.servers)
    if stored is None:
        return DayTotal(day, None, 0, servers)
    return DayTotal(day, stored.size_bytes + size_bytes, stored.servers, stored.servers + servers)


def _change(known: dict[date, int], days: int) -> TotalChange:
    if not known:
        return TotalChange(days, None, None, None)
    newest = max(known)
    wanted = newest - timedelta(days=days)
    since = next((day for n in range(BASELINE_REACH.days + 1) if (day := wanted - timedelta(days=n)) in known), None)
    if since is None:
        return TotalChange(days, None, None, None)
    change, base = known[newest] - known[since], known[since]
    return TotalChange(days, since, change, change_percent(change, base))
