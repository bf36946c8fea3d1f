"""The raw daily sizes: what a day's visits brought, and what is stored of a day.

Writing is set-based: the databases of a batch of visits go into a temporary table by COPY, and one
statement each brings inventory, sizes and totals up to date, in one transaction. For an instance the
last listing of a day counts: sizes of databases that it no longer lists are removed from that day, and
a database that it lists but could not measure keeps an earlier size of the same day, as do the logs. What the store
cannot take of one instance costs that instance alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import psycopg2
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from whalefall_capacity.collection.answers import LONGEST_REASON
from whalefall_capacity.collection.sizes import FailedVisit, Visit
from whalefall_capacity.printable import one_line, printable
from whalefall_capacity.store.postgres.copying import copy_rows
from whalefall_capacity.store.postgres.engine import again_if_connection_lost, connection_lost
from whalefall_capacity.store.postgres.one_statement import read_rows, read_value
from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children

# Made once a connection and emptied at every commit: a table a batch would bloat the catalog.
LISTED_TABLE = """
CREATE TEMPORARY TABLE IF NOT EXISTS listed (
    instance_id integer NOT NULL,
    database_name text COLLATE "C" NOT NULL,
    size_bytes bigint,
    data_size_bytes bigint,
    log_size_bytes bigint
) ON COMMIT DELETE ROWS
"""
LISTED_COLUMNS = ("instance_id", "database_name", "size_bytes", "data_size_bytes", "log_size_bytes")
# Two runs that bring the same instance take turns; in one order, so that they cannot deadlock. The table comes
# before its rows: whoever applies a fleet file locks the table and then waits for the rows.
LOCK_INSTANCES = """
LOCK TABLE instances IN ROW EXCLUSIVE MODE;
SELECT id FROM instances WHERE id = ANY (:ids) ORDER BY id FOR NO KEY UPDATE
"""
ACTIVE_DATABASES = """
SELECT instance_id, count(*) AS databases FROM instance_databases
WHERE is_active AND instance_id = ANY (:ids)
GROUP BY instance_id
"""
# A merge joins once; nobody else writes these instances meanwhile, they are locked. The ids are named again, so that
# only their part of the inventory is read.
MERGE_INVENTORY = """
MERGE INTO instance_databases AS known
USING listed
   ON known.instance_id = listed.instance_id AND known.database_name = listed.database_name
  AND known.instance_id = ANY (:ids)
WHEN MATCHED AND (NOT known.is_active OR known.deleted_at IS NOT NULL
                  OR :day NOT BETWEEN known.first_seen_date AND known.last_seen_date) THEN
    UPDATE SET is_active = true, deleted_at = NULL, first_seen_date = least(known.first_seen_date, :day),
               last_seen_date = greatest(known.last_seen_date, :day), updated_at = now()
WHEN NOT MATCHED THEN
    INSERT (instance_id, database_name, first_seen_date, last_seen_date)
    VALUES (listed.instance_id, listed.database_name, :day, :day)
"""
# A run that crossed midnight may be late: it knows nothing of databases that a later day has seen.
DEACTIVATE_UNLISTED = """
UPDATE instance_databases AS known SET is_active = false, deleted_at = now(), updated_at = now()
WHERE known.is_active AND known.instance_id = ANY (:ids) AND known.last_seen_date <= :day
  AND NOT EXISTS (SELECT FROM listed
                  WHERE listed.instance_id = known.instance_id AND listed.database_name = known.database_name)
"""
# What such a run lists, and the visit of the day after did not, was dropped meanwhile.
DEACTIVATE_DROPPED_SINCE = """
UPDATE instance_databases AS known SET is_active = false, deleted_at = now(), updated_at = now()
FROM instance_size_stats AS since
WHERE since.instance_id = ANY (:ids) AND since.collected_date = CAST(:day AS date) + 1 AND since.source = 'measured'
  AND known.instance_id = since.instance_id AND known.is_active AND known.last_seen_date <= :day
"""
# Only an instance that has its total has sizes of the day.
WITH_TOTAL = "SELECT instance_id FROM instance_size_stats WHERE instance_id = ANY (:ids) AND collected_date = :day"
DELETE_UNLISTED = """
DELETE FROM database_size_stats AS stored
USING instance_size_stats AS total
WHERE total.instance_id = ANY (:ids) AND total.collected_date = :day
  AND stored.instance_id = total.instance_id AND stored.collected_date = :day
  AND NOT EXISTS (SELECT FROM listed
                  WHERE listed.instance_id = stored.instance_id AND listed.database_name = stored.database_name)
"""
# One instance of a batch has one time of collection; it comes from the arrays, not from each row.
INSERT_SIZES = """
INSERT INTO database_size_stats AS stored (instance_id, database_name, collected_date, size_bytes, data_size_bytes,
                                           log_size_bytes, source, collected_at)
SELECT instance_id, database_name, :day, size_bytes, data_size_bytes, log_size_bytes, 'measured', collected_at
FROM listed
JOIN unnest(CAST(:ids AS integer[]), CAST(:collected_ats AS timestamptz[])) AS visited (instance_id, collected_at)
     USING (instance_id)
WHERE size_bytes IS NOT NULL
ORDER BY instance_id, database_name
"""
# `updated_at` moves only when a size changes: what follows from the sizes is then known to hold still. To expect a row
# of the same key takes half as long again as to insert: on a new day none of these instances has any.
OVERWRITE_SIZES = """
ON CONFLICT (instance_id, database_name, collected_date) DO UPDATE
SET size_bytes = excluded.size_bytes, data_size_bytes = excluded.data_size_bytes,
    log_size_bytes = excluded.log_size_bytes, source = excluded.source, collected_at = excluded.collected_at,
    updated_at = CASE WHEN (stored.size_bytes, stored.data_size_bytes, stored.log_size_bytes)
                           IS DISTINCT FROM (excluded.size_bytes, excluded.data_size_bytes, excluded.log_size_bytes)
                      THEN now() ELSE stored.updated_at END
"""
# A database that was listed but not measured counts with an earlier size of the same day, if there is one.
UPSERT_TOTALS = """
INSERT INTO instance_size_stats AS stored (instance_id, collected_date, total_size_bytes, database_count,
                                           missing_count, log_size_bytes, source, collected_at)
SELECT visited.instance_id, :day, coalesce(sizes.total_size_bytes, 0), coalesce(sizes.database_count, 0),
       coalesce(sizes.listed_count - sizes.database_count, 0), visited.log_size_bytes, 'measured', visited.collected_at
FROM unnest(CAST(:ids AS integer[]), CAST(:log_sizes AS bigint[]), CAST(:collected_ats AS timestamptz[]))
     AS visited (instance_id, log_size_bytes, collected_at)
LEFT JOIN (
    SELECT instance_id, sum(size_bytes) AS total_size_bytes, count(size_bytes) AS database_count,
           count(*) AS listed_count
    FROM (SELECT listed.instance_id,
                 coalesce(listed.size_bytes, (SELECT stored.size_bytes FROM database_size_stats AS stored
                                              WHERE stored.instance_id = listed.instance_id
                                                AND stored.database_name = listed.database_name
                                                AND stored.collected_date = :day)) AS size_bytes
          FROM listed) AS known
    GROUP BY instance_id) AS sizes USING (instance_id)
ON CONFLICT (instance_id, collected_date) DO UPDATE
SET total_size_bytes = excluded.total_size_bytes, database_count = excluded.database_count,
    missing_count = excluded.missing_count,
    log_size_bytes = coalesce(excluded.log_size_bytes, stored.log_size_bytes), source = excluded.source,
    collected_at = excluded.collected_at,
    updated_at = CASE WHEN (stored.total_size_bytes, stored.database_count, stored.missing_count, stored.log_size_bytes)
                           IS DISTINCT FROM (excluded.total_size_bytes, excluded.database_count,
                                             excluded.missing_count,
                                             coalesce(excluded.log_size_bytes, stored.log_size_bytes))
                      THEN now() ELSE stored.updated_at END
"""
MARK_CONNECTED = """
UPDATE instances SET version = visited.version, last_connected_at = visited.collected_at, updated_at = now()
FROM unnest(CAST(:ids AS integer[]), CAST(:versions AS text[]), CAST(:collected_ats AS timestamptz[]))
     AS visited (instance_id, version, collected_at)
WHERE instances.id = visited.instance_id
"""
DAY_TOTALS = """
SELECT collected_date AS day, count(*) AS instances, sum(database_count) AS databases,
       sum(missing_count) AS missing_databases, sum(total_size_bytes)::bigint AS total_size_bytes,
       sum(log_size_bytes)::bigint AS log_size_bytes,
       count(*) FILTER (WHERE log_size_bytes IS NULL) AS instances_without_log_size, max(updated_at) AS changed_at
FROM instance_size_stats
WHERE collected_date = ANY (:days)
GROUP BY collected_date
ORDER BY collected_date
"""
# Whatever imports sizes of databases writes the total of their day, too.
WRITTEN_DAYS = """
SELECT collected_date AS day, max(updated_at) AS changed_at FROM instance_size_stats
GROUP BY collected_date
ORDER BY collected_date
"""
# The total of an instance counts as measured when any of its databases was. The days are few, and the index of the
# dates finds them.
DAYS_WITH_IMPORTS = """
SELECT collected_date AS day FROM instance_size_stats WHERE collected_date = ANY (:days) AND source = 'imported'
UNION
SELECT collected_date FROM database_size_stats WHERE collected_date = ANY (:days) AND source = 'imported'
ORDER BY day
"""
CHANGED = """
SELECT (SELECT count(*) FROM database_size_stats WHERE collected_date = :day AND updated_at >= :since)
     + (SELECT count(*) FROM instance_size_stats WHERE collected_date = :day AND updated_at >= :since)
"""
# Two passes over the days, however many: imported rows lie in the order of the key, where finding one day alone means
# reading its whole month. The tenth of the instances' largest databases bounds the tenth of all from below, so that
# few rows are left to be sorted.
BIGGEST = """
WITH largest AS MATERIALIZED (
    SELECT collected_date, max(size_bytes) AS size_bytes FROM database_size_stats
    WHERE collected_date = ANY (:days)
    GROUP BY collected_date, instance_id),
floors AS MATERIALIZED (
    SELECT collected_date, min(size_bytes) FILTER (WHERE place = :count) AS size_bytes
    FROM (SELECT collected_date, size_bytes,
                 row_number() OVER (PARTITION BY collected_date ORDER BY size_bytes DESC) AS place
          FROM largest) AS placed
    GROUP BY collected_date)
SELECT biggest.day, i.name AS instance, biggest.database_name AS database, biggest.size_bytes, biggest.source
FROM (SELECT s.collected_date AS day, s.instance_id, s.database_name, s.size_bytes, s.source,
             row_number() OVER (PARTITION BY s.collected_date
                                ORDER BY s.size_bytes DESC, s.instance_id, s.database_name) AS place
      FROM database_size_stats AS s JOIN floors USING (collected_date)
      WHERE s.collected_date = ANY (:days) AND s.size_bytes >= coalesce(floors.size_bytes, 0)) AS biggest
JOIN instances AS i ON i.id = biggest.instance_id
WHERE biggest.place <= :count
ORDER BY biggest.day, biggest.size_bytes DESC, i.name, biggest.database_name
"""
INSTANCE_TOTALS = """
SELECT i.name AS instance, i.db_type, i.version, s.database_count, s.missing_count, s.total_size_bytes,
       s.log_size_bytes, s.collected_at
FROM instance_size_stats AS s
JOIN instances AS i ON i.id = s.instance_id
WHERE s.collected_date = :day
ORDER BY i.name
"""
DATABASE_SIZES = """
SELECT s.collected_date AS day, i.name AS instance, s.database_name AS database, s.size_bytes, s.source
FROM database_size_stats AS s
JOIN instances AS i ON i.id = s.instance_id
WHERE s.collected_date = :day
ORDER BY i.name, s.database_name
"""
# A server that was to be visited again has to have answered since: a size of earlier in the day says nothing of that.
COVERAGE = """
WITH fleet AS MATERIALIZED (
    SELECT i.name,
           CASE WHEN s.instance_id IS NULL THEN false
                WHEN CAST(:since AS timestamptz) IS NULL OR i.id <> ALL (CAST(:visited_ids AS integer[])) THEN true
                ELSE s.collected_at >= :since END AS answered
    FROM instances AS i
    LEFT JOIN instance_size_stats AS s ON s.instance_id = i.id AND s.collected_date = :day
    WHERE i.is_active AND i.deleted_at IS NULL)
SELECT count(*) AS instances, count(*) FILTER (WHERE answered) AS answered,
       array(SELECT name FROM fleet WHERE NOT answered ORDER BY name LIMIT :most) AS silent
FROM fleet
"""
INSTANCES_IN_RANGE = """
SELECT i.id, i.name, i.is_active AND i.deleted_at IS NULL AS is_active, coalesce(stored.days, 0) AS days
FROM instances AS i
LEFT JOIN (SELECT instance_id, count(*) AS days FROM instance_size_stats
           WHERE collected_date BETWEEN :first AND :last GROUP BY instance_id) AS stored ON stored.instance_id = i.id
WHERE stored.days > 0 OR i.is_active AND i.deleted_at IS NULL
ORDER BY i.id
"""


@dataclass(frozen=True)
class InstanceDays:
    """An instance and the number of days of a range for which it has stats."""

    id: int
    name: str
    is_active: bool
    days: int


@dataclass(frozen=True)
class Coverage:
    """The instances of today's fleet, and those that reported sizes; *silent* names the first of the others."""

    instances: int
    answered: int
    silent: Sequence[str]


@dataclass(frozen=True)
class DayTotals:
    """One day as it is stored, over all instances. Sizes are bytes; *log_size_bytes* is of those that have one.

    *changed_at*: when the newest of its totals was written, by the store's clock.
    """

    day: date
    instances: int
    databases: int
    missing_databases: int
    total_size_bytes: int
    log_size_bytes: int | None
    instances_without_log_size: int
    changed_at: datetime


@dataclass(frozen=True)
class InstanceTotal:
    """One instance on one day, as it is stored."""

    instance: str
    db_type: str
    version: str | None
    database_count: int
    missing_count: int
    total_size_bytes: int
    log_size_bytes: int | None
    collected_at: datetime


@dataclass(frozen=True)
class StoredSize:
    """One database on one day, as it is stored."""

    day: date
    instance: str
    database: str
    size_bytes: int
    source: str


@again_if_connection_lost
def write_visits(
    engine: Engine, day: date, visits: Sequence[Visit], accept_empty: bool = False
) -> list[Visit | FailedVisit]:
    """Store what *visits* brought under *day*, in one transaction, and return what became of each.

    A visit with an empty listing, from a server that has active databases on record, changes nothing and
    comes back as failed, unless *accept_empty* confirms that the server really was emptied.
    """
    try:
        return _write(engine, day, visits, accept_empty)
    # ValueError: the driver cannot send a text, such as one with a lone surrogate.
    except (SQLAlchemyError, psycopg2.Error, ValueError) as error:
        if isinstance(error, DBAPIError | psycopg2.Error) and connection_lost(error):
            raise
        if len(visits) == 1:
            reason = printable(one_line(error), LONGEST_REASON)
            return [_failed(visits[0], f"the store refused its sizes: {reason}")]
        # One of them cannot be stored: one by one, the others can.
        return [outcome for visit in visits for outcome in write_visits(engine, day, [visit], accept_empty)]


def day_totals(engine: Engine, days: Iterable[date]) -> list[DayTotals]:
    """Return what is stored of each of *days*, oldest first; days without a row are left out."""
    return read_rows(engine, DayTotals, DAY_TOTALS, days=list(days))


def written_days(engine: Engine) -> dict[date, datetime]:
    """Return the days that have rows, oldest first, and when the newest total of each was written."""
    return dict(read_rows(engine, lambda day, changed_at: (day, changed_at), WRITTEN_DAYS))


def days_with_imports(engine: Engine, days: Iterable[date]) -> list[date]:
    """Return those of *days* that have an imported row, beside measured ones or alone; oldest first."""
    return read_rows(engine, lambda day: day, DAYS_WITH_IMPORTS, days=list(days))


def rows_changed(engine: Engine, day: date, since: datetime) -> int:
    """Return how many sizes and totals of *day* are new or other than they were at *since*, by the store's clock."""
    return int(read_value(engine, CHANGED, day=day, since=since))


def biggest_databases(engine: Engine, days: Iterable[date], count: int = 10) -> list[StoredSize]:
    """Return the biggest databases of each of *days*, days in order, biggest first."""
    return read_rows(engine, StoredSize, BIGGEST, days=list(days), count=count)


def instance_totals(engine: Engine, day: date) -> list[InstanceTotal]:
    """Return what is stored of every instance on *day*, by name."""
    return read_rows(engine, InstanceTotal, INSTANCE_TOTALS, day=day)


def database_sizes(engine: Engine, day: date) -> list[StoredSize]:
    """Return what is stored of every database on *day*, by instance and name."""
    return read_rows(engine, StoredSize, DATABASE_SIZES, day=day)


def coverage(
    engine: Engine, day: date, most: int, since: datetime | None = None, visited_ids: Sequence[int] | None = None
) -> Coverage:
    """Return how many instances of today's fleet have sizes stored for *day*, and at *most* so many that have not.

    With *since*, those of *visited_ids*, or the whole fleet, were visited on *day* from then on: only what was measured
    since is an answer of theirs.
    """
    ids = None if visited_ids is None else list(visited_ids)
    return read_rows(engine, Coverage, COVERAGE, day=day, since=since, visited_ids=ids, most=most)[0]


def instances_in_range(engine: Engine, first: date, last: date) -> list[InstanceDays]:
    """Return the instances that have stats from *first* to *last* and those of today's fleet, by id."""
    return read_rows(engine, InstanceDays, INSTANCES_IN_RANGE, first=first, last=last)


def _write(engine: Engine, day: date, visits: Sequence[Visit], accept_empty: bool) -> list[Visit | FailedVisit]:
    with engine.begin() as connection:
        ensure_children(connection, STATS_TABLES, [day])
        connection.execute(text(LOCK_INSTANCES), {"ids": [visit.target.instance_id for visit in visits]})
        outcomes: list[Visit | FailedVisit] = [*visits] if accept_empty else _refuse_emptied(connection, visits)
        accepted = [outcome for outcome in outcomes if isinstance(outcome, Visit)]
        if accepted:
            _store(connection, day, accepted)
    return outcomes


def _refuse_emptied(connection: Connection, visits: Sequence[Visit]) -> list[Visit | FailedVisit]:
    empty = [visit.target.instance_id for visit in visits if not visit.measurement.databases]
    if not empty:
        return [*visits]
    known = {row.instance_id: row.databases for row in connection.execute(text(ACTIVE_DATABASES), {"ids": empty})}
    return [
        _failed(
            visit,
            f"inventory shrank from {known[visit.target.instance_id]} to 0; nothing was changed. "
            "If the server really was emptied: "
            f"`whalefall-capacity collect --instance {visit.target.name} --accept-empty`",
        )
        if visit.target.instance_id in known
        else visit
        for visit in visits
    ]


def _failed(visit: Visit, reason: str) -> FailedVisit:
    name = visit.target.name
    return FailedVisit(visit.target.instance_id, name, f"{name}: {reason}", visit.seconds)


def _store(connection: Connection, day: date, visits: Sequence[Visit]) -> None:
    connection.execute(text(LISTED_TABLE))
    rows = (
        (visit.target.instance_id, found.name, found.size_bytes, found.data_size_bytes, found.log_size_bytes)
        for visit in visits
        for found in visit.measurement.databases
    )
    copy_rows(connection, "listed", LISTED_COLUMNS, rows)
    values = {
        "day": day,
        "ids": [visit.target.instance_id for visit in visits],
        "versions": [visit.measurement.version for visit in visits],
        "log_sizes": [visit.measurement.log_size_bytes for visit in visits],
        "collected_ats": [visit.collected_at for visit in visits],
    }
    # One by one, after the store refused them together, visits expect whatever may be there.
    is_new = len(visits) > 1 and not connection.execute(text(WITH_TOTAL), values).all()
    sizes = (INSERT_SIZES,) if is_new else (DELETE_UNLISTED, INSERT_SIZES + OVERWRITE_SIZES)
    # As one message: the round trip of each would take as long as some of them.
    statements = (MERGE_INVENTORY, DEACTIVATE_UNLISTED, DEACTIVATE_DROPPED_SINCE, *sizes, UPSERT_TOTALS, MARK_CONNECTED)
    connection.execute(text(";".join(statements)), values)
