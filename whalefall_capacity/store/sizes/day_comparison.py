"""Comparison of the latest day with the days before it: what shrank, and what is lost.

Sizes are bytes. "Before" is the nearest earlier day with a size, at most a week back: a day on which a server could
not be reached hides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from whalefall_capacity.periods import PeriodType, look_back
from whalefall_capacity.store.postgres.one_statement import read_rows, read_value

ONE_DAY = timedelta(days=1)

LATEST_DAY = "SELECT max(collected_date) FROM instance_size_stats"
# Of visits alone: an import lists nothing.
SHRUNK = """
SELECT i.name AS instance, latest.listed, before.listed AS listed_before, before.collected_date AS day_before
FROM (SELECT instance_id, database_count + missing_count AS listed FROM instance_size_stats
      WHERE collected_date = :day AND source = 'measured') AS latest
CROSS JOIN LATERAL (
    SELECT collected_date, database_count + missing_count AS listed FROM instance_size_stats AS earlier
    WHERE earlier.instance_id = latest.instance_id AND collected_date BETWEEN :earliest AND :yesterday
      AND source = 'measured'
    ORDER BY collected_date DESC LIMIT 1) AS before
JOIN instances AS i ON i.id = latest.instance_id
WHERE latest.listed < before.listed
ORDER BY before.listed - latest.listed DESC, i.name
"""
# The few databases without a size are found first, by one join, and only their past is looked up. One that is still
# listed is reported as long as it had a size in reach; one that went away on the first day without it.
LOST_DATABASES = """
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
class MissingDays:
    """The days of a window on which nothing is stored of an instance that belonged to the fleet."""

    instance: str
    days: int
    first_day: date
    last_day: date


def latest_stored_day(engine: Engine) -> date | None:
    """Return the latest day with stats; None when there is none."""
    day: date | None = read_value(engine, LATEST_DAY)
    return day


def shrunk_instances(engine: Engine, day: date) -> list[ShrunkInstance]:
    """Return the instances that list fewer databases on *day* than before, the greatest loss first."""
    return read_rows(engine, ShrunkInstance, SHRUNK, **_days_before(day))


def lost_databases(engine: Engine, day: date) -> list[LostDatabase]:
    """Return the databases of instances measured on *day* that had a size before and have none on *day*."""
    return read_rows(engine, LostDatabase, LOST_DATABASES, **_days_before(day))


def missing_days(engine: Engine, first: date, last: date, zone: ZoneInfo) -> list[MissingDays]:
    """Return the instances of which days of first..last are missing, those with the most first."""
    return read_rows(engine, MissingDays, MISSING_DAYS, first=first, last=last, zone=zone.key)


def _days_before(day: date) -> dict[str, Any]:
    return {"day": day, "yesterday": day - ONE_DAY, "earliest": look_back(day, PeriodType.DAILY)}
