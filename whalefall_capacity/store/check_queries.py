"""What the asset checks ask the store: what is odd about the latest day, and whether aggregations follow the stats.

Sizes are bytes. "Before" is the nearest earlier day with a size, at most a week back: a day on which a server could
not be reached hides nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from psycopg2 import sql
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.credentials import decrypt, resolve_reference
from whalefall_capacity.errors import CredentialError
from whalefall_capacity.periods import PeriodType, Window, window_of
from whalefall_capacity.store.aggregation_statements import TABLES, Level
from whalefall_capacity.store.copying import raw_cursor
from whalefall_capacity.store.engine import again_if_connection_lost

REACH = timedelta(days=7)
ONE_DAY = timedelta(days=1)

LATEST_DAY = "SELECT max(collected_date) FROM instance_size_stats"
SHRUNK = """
SELECT i.name AS instance, latest.listed, before.listed AS listed_before, before.collected_date AS day_before
FROM (SELECT instance_id, database_count + missing_count AS listed FROM instance_size_stats
      WHERE collected_date = :day) AS latest
CROSS JOIN LATERAL (
    SELECT collected_date, database_count + missing_count AS listed FROM instance_size_stats AS earlier
    WHERE earlier.instance_id = latest.instance_id AND collected_date BETWEEN :earliest AND :yesterday
    ORDER BY collected_date DESC LIMIT 1) AS before
JOIN instances AS i ON i.id = latest.instance_id
WHERE latest.listed < before.listed
ORDER BY before.listed - latest.listed DESC, i.name
"""
# The few databases without a size are found first, by one join, and only their past is looked up. One that is still
# listed is reported as long as it had a size in reach; one that went away on the first day without it.
LOST = """
WITH absent AS MATERIALIZED (
    SELECT known.instance_id, known.database_name, known.is_active
    FROM instance_size_stats AS total
    JOIN instance_databases AS known ON known.instance_id = total.instance_id
    WHERE total.collected_date = :day AND total.source = 'measured' AND known.last_seen_date >= :earliest
      AND NOT EXISTS (SELECT FROM database_size_stats AS s
                      WHERE s.instance_id = known.instance_id AND s.database_name = known.database_name
                        AND s.collected_date = :day)
)
SELECT i.name AS instance, absent.database_name AS database, absent.is_active AS is_listed,
       last.collected_date AS last_day, last.size_bytes
FROM absent
CROSS JOIN LATERAL (
    SELECT collected_date, size_bytes FROM database_size_stats AS s
    WHERE s.instance_id = absent.instance_id AND s.database_name = absent.database_name
      AND collected_date BETWEEN :earliest AND :yesterday
    ORDER BY collected_date DESC LIMIT 1) AS last
JOIN instances AS i ON i.id = absent.instance_id
WHERE absent.is_active
   OR last.collected_date = (SELECT max(collected_date) FROM instance_size_stats AS earlier
                             WHERE earlier.instance_id = absent.instance_id
                               AND collected_date BETWEEN :earliest AND :yesterday)
ORDER BY last.size_bytes DESC, i.name, absent.database_name
"""
# Nearly every database has a size on the day before, which one join finds; only for the others is one searched.
CHANGED = """
WITH compared AS (
    SELECT latest.instance_id, latest.database_name, latest.size_bytes,
           coalesce(before.collected_date, older.collected_date) AS day_before,
           coalesce(before.size_bytes, older.size_bytes) AS size_bytes_before
    FROM database_size_stats AS latest
    LEFT JOIN (SELECT instance_id, database_name, collected_date, size_bytes FROM database_size_stats
               WHERE collected_date = :yesterday) AS before
      ON before.instance_id = latest.instance_id AND before.database_name = latest.database_name
    LEFT JOIN LATERAL (
        SELECT collected_date, size_bytes FROM database_size_stats AS earlier
        WHERE before.instance_id IS NULL
          AND earlier.instance_id = latest.instance_id AND earlier.database_name = latest.database_name
          AND collected_date BETWEEN :earliest AND :yesterday
        ORDER BY collected_date DESC LIMIT 1) AS older ON true
    WHERE latest.collected_date = :day
)
SELECT i.name AS instance, compared.database_name AS database, size_bytes, size_bytes_before, day_before,
       size_bytes - size_bytes_before AS change_bytes,
       round(100.0 * (size_bytes - size_bytes_before) / nullif(size_bytes_before, 0), 2)::float AS change_percent
FROM compared
JOIN instances AS i ON i.id = instance_id
WHERE abs(size_bytes - size_bytes_before) > :bytes
  AND 100.0 * abs(size_bytes - size_bytes_before) > CAST(:percent AS numeric) * size_bytes_before
ORDER BY abs(size_bytes - size_bytes_before) DESC, i.name, compared.database_name
"""
SECRETS = """
SELECT c.name, c.password, c.secret_reference,
       array(SELECT i.name FROM instances AS i
             WHERE i.credential_id = c.id AND i.is_active AND i.deleted_at IS NULL ORDER BY i.name) AS instances
FROM credentials AS c
ORDER BY c.name
"""
# An instance counts from the day on which it was registered, and no longer on the day on which it was disabled.
MISSING_DAYS = """
SELECT i.name AS instance, count(*) AS days, min(d.day)::date AS first_day, max(d.day)::date AS last_day
FROM instances AS i
JOIN generate_series(CAST(:first AS timestamp), CAST(:last AS timestamp), '1 day') AS d (day)
  ON d.day >= (i.created_at AT TIME ZONE :zone)::date
LEFT JOIN instance_size_stats AS s ON s.instance_id = i.id AND s.collected_date = d.day::date
WHERE s.instance_id IS NULL
  AND (i.is_active AND i.deleted_at IS NULL OR d.day < (i.deleted_at AT TIME ZONE :zone)::date)
GROUP BY i.name
ORDER BY days DESC, i.name
"""

RECORDED = """
SELECT source_rows, source_sum_bytes, source_max_updated_at, sealed_at IS NOT NULL AS is_sealed FROM aggregation_windows
WHERE level = :level AND period_type = :period_type AND period_start = :start
"""
EARLIER_WINDOWS = """
SELECT period_start FROM aggregation_windows
WHERE level = :level AND period_type = :period_type AND period_start < :start AND sealed_at IS NULL AND result_rows > 0
ORDER BY period_start
"""
DAYS = (
    "SELECT DISTINCT collected_date FROM instance_size_stats WHERE collected_date BETWEEN :first AND :last ORDER BY 1"
)
SEEN = {
    Level.DATABASE: "SELECT count(*), coalesce(sum(size_bytes), 0), max(updated_at) FROM database_size_stats "
    "WHERE collected_date BETWEEN :first AND :last",
    Level.INSTANCE: "SELECT count(*), coalesce(sum(total_size_bytes), 0), max(updated_at) FROM instance_size_stats "
    "WHERE collected_date BETWEEN :first AND :last",
}
# Keys that have a row, and those of one day of the window that should have one. The order by a hash is as random as
# its seed, and the same for the same seed. Each stored row is looked up by itself, whatever the planner, which has no
# statistics of a new table partition, thinks of their number.
SAMPLE = """
WITH keys AS (
    SELECT {key} FROM {aggregations} WHERE period_type = %(period_type)s AND period_start = %(first)s
    UNION
    SELECT {key} FROM {stats} WHERE collected_date = %(day)s
), sample AS (
    SELECT {key} FROM keys AS sample
    ORDER BY hashtextextended({key_text}, %(seed)s), {key_text}
    LIMIT (SELECT greatest(%(at_least)s, ceil(count(*) * %(fraction)s::numeric)) FROM keys)
), recomputed AS (
{recompute}
)
SELECT i.name, {key_text}, to_jsonb(stored), to_jsonb(recomputed)
FROM sample
LEFT JOIN LATERAL (
    SELECT * FROM {aggregations} AS row
    WHERE {row_key} AND row.period_type = %(period_type)s AND row.period_start = %(first)s
    LIMIT 1) AS stored ON true
LEFT JOIN recomputed ON {recomputed_key}
LEFT JOIN instances AS i ON i.id = sample.instance_id
ORDER BY sample.instance_id, {key_text}
"""
# Written in another way than the statements of the aggregation, on purpose: both would have to be wrong.
RECOMPUTE_DATABASES = """
    SELECT s.instance_id, s.database_name, CAST(%(last)s AS date) AS period_end,
           count(*) AS data_count, sum(s.size_bytes) AS sum_size_bytes, max(s.size_bytes) AS max_size_bytes,
           min(s.size_bytes) AS min_size_bytes,
           (array_agg(s.size_bytes ORDER BY s.collected_date DESC))[1] AS closing_size_bytes,
           nullif(count(s.data_size_bytes), 0) AS data_size_count, sum(s.data_size_bytes) AS sum_data_size_bytes,
           max(s.data_size_bytes) AS max_data_size_bytes, min(s.data_size_bytes) AS min_data_size_bytes,
           (array_agg(s.data_size_bytes ORDER BY s.collected_date DESC)
               FILTER (WHERE s.data_size_bytes IS NOT NULL))[1] AS closing_data_size_bytes,
           nullif(count(s.log_size_bytes), 0) AS log_size_count, sum(s.log_size_bytes) AS sum_log_size_bytes,
           max(s.log_size_bytes) AS max_log_size_bytes, min(s.log_size_bytes) AS min_log_size_bytes,
           (array_agg(s.log_size_bytes ORDER BY s.collected_date DESC)
               FILTER (WHERE s.log_size_bytes IS NOT NULL))[1] AS closing_log_size_bytes
    FROM sample
    JOIN database_size_stats AS s ON s.instance_id = sample.instance_id AND s.database_name = sample.database_name
    WHERE s.collected_date BETWEEN %(first)s AND %(last)s
    GROUP BY s.instance_id, s.database_name
"""
# Complete days count; only where there is none do the others.
RECOMPUTE_INSTANCES = """
    SELECT s.instance_id, CAST(%(last)s AS date) AS period_end,
           count(*) AS data_count, all_days.partial_days, sum(s.total_size_bytes) AS sum_size_bytes,
           max(s.total_size_bytes) AS max_size_bytes, min(s.total_size_bytes) AS min_size_bytes,
           (array_agg(s.total_size_bytes ORDER BY s.collected_date DESC))[1] AS closing_size_bytes,
           sum(s.database_count) AS sum_database_count, max(s.database_count) AS max_database_count,
           min(s.database_count) AS min_database_count,
           nullif(count(s.log_size_bytes), 0) AS log_size_count, sum(s.log_size_bytes) AS sum_log_size_bytes,
           max(s.log_size_bytes) AS max_log_size_bytes, min(s.log_size_bytes) AS min_log_size_bytes,
           (array_agg(s.log_size_bytes ORDER BY s.collected_date DESC)
               FILTER (WHERE s.log_size_bytes IS NOT NULL))[1] AS closing_log_size_bytes
    FROM sample
    JOIN (SELECT instance_id, count(*) AS days, count(nullif(missing_count, 0)) AS partial_days
          FROM instance_size_stats
          WHERE collected_date BETWEEN %(first)s AND %(last)s
          GROUP BY instance_id) AS all_days USING (instance_id)
    JOIN instance_size_stats AS s
      ON s.instance_id = sample.instance_id AND (s.missing_count = 0 OR all_days.partial_days = all_days.days)
    WHERE s.collected_date BETWEEN %(first)s AND %(last)s
    GROUP BY s.instance_id, all_days.partial_days
"""
RECOMPUTE = {Level.DATABASE: RECOMPUTE_DATABASES, Level.INSTANCE: RECOMPUTE_INSTANCES}
SAMPLE_FRACTION = 0.01
SAMPLE_AT_LEAST = 20


@dataclass(frozen=True)
class ShrunkInstance:
    """An instance that lists fewer databases than on *day_before*."""

    instance: str
    listed: int
    listed_before: int
    day_before: date


@dataclass(frozen=True)
class LostDatabase:
    """A database that has no size on the latest day; *size_bytes* is that of *last_day*."""

    instance: str
    database: str
    is_listed: bool
    last_day: date
    size_bytes: int


@dataclass(frozen=True)
class ChangedDatabase:
    """A database that grew or shrank by more than is usual; no percent of a size of 0."""

    instance: str
    database: str
    size_bytes: int
    size_bytes_before: int
    day_before: date
    change_bytes: int
    change_percent: float | None


@dataclass(frozen=True)
class UnreadableSecret:
    """A credential without its secret, why, and the instances of the fleet that need it."""

    credential: str
    error: str
    instances: Sequence[str]


@dataclass(frozen=True)
class MissingDays:
    """The days of a window on which nothing is stored of an instance that was of the fleet."""

    instance: str
    days: int
    first_day: date
    last_day: date


@dataclass(frozen=True)
class Difference:
    """A measure of a row that is not what its stats give; None stands for NULL and for a row that is not there."""

    key: str
    measure: str
    stored: Any
    recomputed: Any


@dataclass(frozen=True)
class Recomputation:
    """What comparing a sample of a window with its stats gave.

    *behind* says how the stats differ from those that the last calculation saw; None when they do not.
    """

    window: Window
    behind: str | None
    keys: int
    differences: Sequence[Difference]


@again_if_connection_lost
def latest_stored_day(engine: Engine) -> date | None:
    """Return the latest day with stats; None when there is none."""
    with engine.connect() as connection:
        return _latest_day(connection)


@again_if_connection_lost
def shrunk_instances(engine: Engine, day: date) -> list[ShrunkInstance]:
    """Return the instances that list fewer databases on *day* than before, the greatest loss first."""
    with engine.connect() as connection:
        return [ShrunkInstance(**row) for row in connection.execute(text(SHRUNK), _days_before(day)).mappings()]


@again_if_connection_lost
def lost_databases(engine: Engine, day: date) -> list[LostDatabase]:
    """Return the databases of instances measured on *day* that had a size before and have none on *day*."""
    with engine.connect() as connection:
        return [LostDatabase(**row) for row in connection.execute(text(LOST), _days_before(day)).mappings()]


@again_if_connection_lost
def changed_databases(engine: Engine, day: date, percent: float, size_bytes: int) -> list[ChangedDatabase]:
    """Return the databases whose size on *day* differs from that before by more than both limits, greatest first."""
    values = _days_before(day) | {"percent": percent, "bytes": size_bytes}
    with engine.connect() as connection:
        return [ChangedDatabase(**row) for row in connection.execute(text(CHANGED), values).mappings()]


@again_if_connection_lost
def unreadable_secrets(engine: Engine, key: SecretStr | None) -> list[UnreadableSecret]:
    """Return the credentials whose secret *key* does not decrypt, or is not where the reference says."""
    with engine.connect() as connection:
        rows = list(connection.execute(text(SECRETS)))
    found = []
    for row in rows:
        try:
            if row.password is not None:
                decrypt(row.name, row.password, key)
            else:
                resolve_reference(row.secret_reference)
        except CredentialError as error:
            found.append(UnreadableSecret(row.name, str(error), row.instances))
    return found


@again_if_connection_lost
def missing_days(engine: Engine, first: date, last: date, zone: ZoneInfo) -> list[MissingDays]:
    """Return the instances of which days of first..last are missing, those with the most first."""
    values = {"first": first, "last": last, "zone": zone.key}
    with engine.connect() as connection:
        return [MissingDays(**row) for row in connection.execute(text(MISSING_DAYS), values).mappings()]


@again_if_connection_lost
def recompute(engine: Engine, level: Level, period_type: PeriodType, seed: int) -> list[Recomputation]:
    """Compare a sample of the window of the latest day, and of one earlier window, with what their stats give.

    The sample is one in a hundred keys of a window, twenty at least; *seed* decides which, and which earlier window.
    Sealed windows are final and left out. Everything is read from one snapshot.
    """
    chooser = random.Random(seed)  # noqa: S311 - a sample, not a secret
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"))
        latest_day = _latest_day(connection)
        if latest_day is None:
            return []
        latest = window_of(latest_day, period_type)
        values = {"level": level.value, "period_type": period_type.value, "start": latest.start}
        earlier = list(connection.execute(text(EARLIER_WINDOWS), values).scalars())
        windows = [latest, *(window_of(start, period_type) for start in chooser.sample(earlier, min(1, len(earlier))))]
        found = [_recompute(connection, level, window, seed, chooser) for window in windows]
    return [recomputation for recomputation in found if recomputation is not None]


def _latest_day(connection: Connection) -> date | None:
    day: date | None = connection.execute(text(LATEST_DAY)).scalar_one()
    return day


def _days_before(day: date) -> dict[str, Any]:
    return {"day": day, "yesterday": day - ONE_DAY, "earliest": day - REACH}


def _recompute(
    connection: Connection, level: Level, window: Window, seed: int, chooser: random.Random
) -> Recomputation | None:
    values = {"level": level.value, "period_type": window.period_type.value, "start": window.start}
    recorded = connection.execute(text(RECORDED), values).one_or_none()
    if recorded is not None and recorded.is_sealed:
        return None
    span = {"first": window.start, "last": window.end}
    seen = tuple(connection.execute(text(SEEN[level]), span).one())
    behind = None
    if recorded is None:
        behind = f"{seen[0]} rows of stats, and no calculation yet"
    elif tuple(recorded)[:3] != seen:
        behind = (
            f"{seen[0]} rows of stats, the newest of {seen[2]}; its calculation saw {recorded.source_rows}, the newest "
            f"of {recorded.source_max_updated_at}"
        )
    days = list(connection.execute(text(DAYS), span).scalars())
    sample = _sample(
        connection,
        level,
        span
        | {
            "period_type": window.period_type.value,
            "day": chooser.choice(days) if days else window.start,
            "seed": seed,
            "fraction": SAMPLE_FRACTION,
            "at_least": SAMPLE_AT_LEAST,
        },
    )
    differences = [
        difference for key, stored, recomputed in sample for difference in _differences(key, stored, recomputed)
    ]
    return Recomputation(window, behind, len(sample), differences)


def _sample(
    connection: Connection, level: Level, values: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any] | None, dict[str, Any] | None]]:
    """Return (key, stored row, recomputed row) of every key of the sample."""
    tables = TABLES[level]
    columns = [sql.Identifier(column) for column in tables.key]
    # The name of a database follows the id of its instance.
    key_text = sql.SQL(" || ' ' || ").join(sql.SQL("sample.{}::text").format(column) for column in columns)

    def same_key(table: str) -> sql.Composed:
        return sql.SQL(" AND ").join(
            sql.SQL("{}.{} = sample.{}").format(sql.Identifier(table), column, column) for column in columns
        )

    statement = sql.SQL(SAMPLE).format(
        key=sql.SQL(", ").join(columns),
        key_text=key_text,
        aggregations=sql.Identifier(tables.aggregations),
        stats=sql.Identifier(tables.stats),
        recompute=sql.SQL(RECOMPUTE[level]),
        row_key=same_key("row"),
        recomputed_key=same_key("recomputed"),
    )
    with raw_cursor(connection) as cursor:
        cursor.execute(statement, values)
        return [
            (f"{name} {key.partition(' ')[2]}".strip(), stored, recomputed)
            for name, key, stored, recomputed in cursor.fetchall()
        ]


def _differences(key: str, stored: dict[str, Any] | None, recomputed: dict[str, Any] | None) -> list[Difference]:
    if stored is None or recomputed is None:
        return [Difference(key, "the whole row", _present(stored), _present(recomputed))]
    return [
        Difference(key, measure, stored[measure], value)
        for measure, value in recomputed.items()
        if stored[measure] != value
    ]


def _present(row: dict[str, Any] | None) -> str | None:
    return None if row is None else "there"
