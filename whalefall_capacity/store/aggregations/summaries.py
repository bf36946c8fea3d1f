"""Summaries of the console: count, total, average and largest of the latest sizes, and who is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, Engine

from whalefall_capacity.periods import window_of
from whalefall_capacity.store.aggregations.latest_sizes import LATEST_SIZES
from whalefall_capacity.store.aggregations.selection import Scope, Selection, newest_window, scope_of
from whalefall_capacity.store.aggregations.statements import Level

# Names that a summary carries; how many more there are it says too.
MOST_NAMED = 100

# The data of a replica counts with its primary, unless somebody asks for instances by name.
IS_REPLICA = """
(NOT :named AND instance_id = ANY (ARRAY(SELECT id FROM instances WHERE replica_of_id IS NOT NULL)))
"""
# Of rows with as many days the sums compare as the means do: so a division a group is enough, where one a row takes as
# long as all the rest. Of the largest that are alike it is the first, as in the charts.
DATABASE_FIGURES = """
<sizes>, alike AS MATERIALIZED (
    SELECT instance_id, data_count, count(*) AS databases, sum(sum_size_bytes) AS total, max(sum_size_bytes) AS largest,
           <is_replica> AS is_replica
    FROM sizes GROUP BY instance_id, data_count
), top AS MATERIALIZED (
    SELECT instance_id, data_count, largest FROM alike
    WHERE largest / data_count = (SELECT max(largest / data_count) FROM alike)
)
SELECT count(DISTINCT instance_id) AS instances, sum(databases)::bigint AS databases,
       coalesce(round(sum(total / data_count) FILTER (WHERE NOT is_replica)), 0)::bigint AS total_size_bytes,
       round(sum(total / data_count) FILTER (WHERE NOT is_replica)
             / sum(databases) FILTER (WHERE NOT is_replica))::bigint AS average_size_bytes,
       round(max(largest / data_count))::bigint AS largest_size_bytes,
       (SELECT name FROM instances WHERE id = (SELECT min(instance_id) FROM top)) AS largest_instance,
       (SELECT min(database_name) FROM sizes JOIN top USING (instance_id, data_count)
        WHERE sum_size_bytes = largest AND instance_id = (SELECT min(instance_id) FROM top)) AS largest_database,
       count(DISTINCT instance_id) FILTER (WHERE is_replica) AS replicas,
       coalesce(round(sum(total / data_count) FILTER (WHERE is_replica)), 0)::bigint AS replica_size_bytes
FROM alike
HAVING count(*) > 0
""".replace("<sizes>", LATEST_SIZES[Level.DATABASE]).replace("<is_replica>", IS_REPLICA)
INSTANCE_FIGURES = """
<sizes>
SELECT count(*) AS instances, round(sum(databases))::bigint AS databases,
       coalesce(round(sum(size) FILTER (WHERE NOT is_replica)), 0)::bigint AS total_size_bytes,
       round(avg(size) FILTER (WHERE NOT is_replica))::bigint AS average_size_bytes,
       round(max(size))::bigint AS largest_size_bytes,
       (SELECT name FROM instances WHERE id = (
            SELECT min(instance_id) FROM sizes WHERE size = (SELECT max(size) FROM sizes))) AS largest_instance,
       NULL AS largest_database, count(*) FILTER (WHERE is_replica) AS replicas,
       coalesce(round(sum(size) FILTER (WHERE is_replica)), 0)::bigint AS replica_size_bytes
FROM (SELECT *, <is_replica> AS is_replica FROM sizes) AS sizes
HAVING count(*) > 0
""".replace("<sizes>", LATEST_SIZES[Level.INSTANCE]).replace("<is_replica>", IS_REPLICA)
FIGURES = {Level.DATABASE: DATABASE_FIGURES, Level.INSTANCE: INSTANCE_FIGURES}
# Days from the newest on, until one has a row, which is nearly always the first. As a value of its own the search of a
# day is not turned into a join.
NEWEST_DAY = """
SELECT CAST(day AS date) AS day
FROM (SELECT day FROM generate_series(CAST(:first AS timestamp), CAST(:last_day AS timestamp), '1 day') AS day
      ORDER BY day DESC OFFSET 0) AS days
WHERE (SELECT true FROM instance_size_stats WHERE collected_date = CAST(day AS date) LIMIT 1)
ORDER BY days.day DESC LIMIT 1
"""
MEASURED = {
    Level.DATABASE: "SELECT count(*) FROM database_size_stats WHERE collected_date = :day AND {scope}",
    Level.INSTANCE: "SELECT count(*) FROM instance_size_stats WHERE collected_date = :day AND {scope}",
}
# Servers of the fleet without a row on the day, and databases that a server listed and that were not measured. A server
# that was first measured later was not missing; one that was never measured is.
MISSING = """
WITH absent AS MATERIALIZED (
    SELECT i.id AS instance_id, i.name AS instance,
           (SELECT s.collected_date FROM instance_size_stats AS s
            WHERE s.instance_id = i.id AND s.collected_date < :day ORDER BY s.collected_date DESC LIMIT 1) AS last_day
    FROM (SELECT * FROM (SELECT *, id AS instance_id FROM instances) AS every WHERE {instance_scope}) AS i
    WHERE i.is_active AND i.deleted_at IS NULL
      AND i.id NOT IN (SELECT instance_id FROM instance_size_stats WHERE collected_date = :day)
), servers AS (
    SELECT instance_id, instance, NULL AS database_name, last_day,
           (SELECT count(*) FROM (SELECT * FROM instance_databases WHERE {scope}) AS d
            WHERE d.instance_id = absent.instance_id AND d.is_active) AS databases
    FROM absent
    WHERE last_day IS NOT NULL
       OR NOT EXISTS (SELECT FROM instance_size_stats AS s WHERE s.instance_id = absent.instance_id
                                                            AND s.collected_date > :day)
), databases AS (
    SELECT i.id, i.name, listed.database_name, last.collected_date, 1 AS databases
    FROM instance_size_stats AS visit
    JOIN instances AS i ON i.id = visit.instance_id
    JOIN (SELECT * FROM instance_databases WHERE {scope}) AS listed ON listed.instance_id = visit.instance_id
    LEFT JOIN LATERAL (
        SELECT s.collected_date FROM database_size_stats AS s
        WHERE s.instance_id = listed.instance_id AND s.database_name = listed.database_name
          AND s.collected_date BETWEEN CAST(:day AS date) - :reach_days AND :day
        ORDER BY s.collected_date DESC LIMIT 1) AS last ON true
    WHERE visit.collected_date = :day AND visit.missing_count > 0
      AND listed.first_seen_date <= :day AND listed.last_seen_date >= :day
      AND last.collected_date IS DISTINCT FROM :day
)
SELECT *, count(*) OVER () AS names, sum(databases) OVER () AS missing_databases,
       count(*) FILTER (WHERE database_name IS NULL) OVER () AS missing_instances
FROM (SELECT * FROM servers UNION ALL SELECT * FROM databases) AS missing
ORDER BY database_name IS NOT NULL, instance, database_name
LIMIT :most
"""
# How long before the day the latest size of a database that is missing is looked for.
REACH = timedelta(days=92)


@dataclass(frozen=True)
class Missing:
    """A server of the fleet without a size on the newest day, or a database that it listed without one."""

    instance_id: int
    instance: str
    database_name: Annotated[str | None, Field(description="null: the whole server was not measured.")]
    last_day: Annotated[date | None, Field(description="The last day with a size; null when there is none.")]


@dataclass(frozen=True)
class Summary:
    """The latest size of each instance (database) in the range, and who is missing on its newest day."""

    period_start: Annotated[date | None, Field(description="The newest window; null when the range has no data.")]
    instances: int
    databases: int
    total_size_bytes: Annotated[int, Field(description="Without replicas, as the average, unless instances are named.")]
    average_size_bytes: int | None
    largest_size_bytes: int | None
    largest_instance: str | None
    largest_database: str | None
    replicas: Annotated[int, Field(description="Instances that are left out of total and average.")]
    replica_size_bytes: Annotated[int, Field(description="The latest sizes of those, in all.")]
    newest_day: Annotated[date | None, Field(description="The newest day of the range on which anything was measured.")]
    measured: Annotated[int | None, Field(description="Instances (databases) that have a size on the newest day.")]
    expected: Annotated[int | None, Field(description="Those, and the ones that are missing on it.")]
    missing: Annotated[Sequence[Missing], Field(description=f"The first {MOST_NAMED}, servers before databases.")]
    missing_not_named: int


EMPTY_SUMMARY = Summary(None, 0, 0, 0, None, None, None, None, 0, 0, None, None, None, (), 0)


def summary(engine: Engine, level: Level, selection: Selection) -> Summary:
    """Return the summary of the keys of *selection*, each with its own latest size."""
    with engine.connect() as connection:
        scope = scope_of(connection, selection, level)
        if scope is None:
            return EMPTY_SUMMARY
        return _with_missing(connection, scope, _figures(connection, scope, selection))


def _figures(connection: Connection, scope: Scope, selection: Selection) -> Summary:
    newest = newest_window(connection, scope)
    if newest is None:
        return EMPTY_SUMMARY
    values = scope.values | {
        "newest": newest,
        "newest_end": window_of(newest, selection.period_type).end,
        "named": selection.instance_ids is not None,
    }
    row = connection.execute(scope.statement(FIGURES[scope.level]), values).mappings().one_or_none()
    return EMPTY_SUMMARY if row is None else replace(EMPTY_SUMMARY, period_start=newest, **row)


def _with_missing(connection: Connection, scope: Scope, found: Summary) -> Summary:
    day = connection.execute(scope.statement(NEWEST_DAY), scope.values).scalar()
    if day is None:
        return found
    values: dict[str, Any] = scope.values | {"day": day, "reach_days": REACH.days, "most": MOST_NAMED}
    measured = connection.execute(scope.statement(MEASURED[scope.level]), values).scalar_one()
    rows = connection.execute(scope.statement(MISSING), values).all()
    total = rows[0] if rows else None
    unmeasured = 0 if total is None else getattr(total, f"missing_{scope.level.value}s")
    return replace(
        found,
        newest_day=day,
        measured=measured,
        expected=measured + int(unmeasured),
        missing=[Missing(row.instance_id, row.instance, row.database_name, row.last_day) for row in rows],
        missing_not_named=0 if total is None else total.names - len(rows),
    )
