"""Capacity as the console shows it: pages and series of growth, each bounded.

A query names its period type and the first and last window, so that the planner leaves out every table partition
but those. Which keys are shown is decided first, on their measures alone; growth is derived for those keys only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, TextClause, text

from whalefall_capacity.store.aggregations.growth import (
    DATABASE_GROWTH,
    DATABASES_IN_ORDER,
    IN_ORDER,
    INSTANCE_GROWTH,
    OF_KEYS,
    DatabaseGrowth,
    InstanceGrowth,
    growth_range,
)
from whalefall_capacity.store.aggregations.ranking import ChangeRankings, Measure, ranked
from whalefall_capacity.store.aggregations.selection import Selection, scope_of
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.postgres.tables import LARGEST_ID

# Rows that can be paged through, and how far they are counted: a reader of more narrows the filter.
MOST_ROWS = 10_000
MOST_CHOICES = 1_000

Growth = TypeVar("Growth", DatabaseGrowth, InstanceGrowth)
# For each measure the windows of what is largest by it, largest first.
LargestSeries = Mapping[Measure, Sequence[DatabaseGrowth] | Sequence[InstanceGrowth]]


@dataclass(frozen=True)
class Page(Generic[Growth]):
    """Some rows of a list; *total* counts no further than MOST_ROWS."""

    rows: Sequence[Growth]
    total: int


@dataclass(frozen=True)
class InstanceChoice:
    """An instance to filter by."""

    id: int
    name: str
    db_type: str


COUNT = """
SELECT count(*) AS total FROM (
    SELECT FROM {aggregations}
    WHERE period_type = :period_type AND period_start BETWEEN :first AND :last AND {scope}
    LIMIT :most
) AS counted
"""
# Which rows, and how many there are: one statement, for a round trip costs as much as the page.
DATABASE_PAGE = """
SELECT instance_id, database_name, period_start, (<count>) AS total FROM database_size_aggregations
WHERE period_type = :period_type AND period_start BETWEEN :first AND :last AND {scope}
ORDER BY instance_id, database_name, period_start
LIMIT :limit OFFSET :offset
""".replace("<count>", COUNT)
INSTANCE_PAGE = """
SELECT instance_id, period_start, (<count>) AS total FROM instance_size_aggregations
WHERE period_type = :period_type AND period_start BETWEEN :first AND :last AND {scope}
ORDER BY instance_id, period_start
LIMIT :limit OFFSET :offset
""".replace("<count>", COUNT)
PAGES = {Level.DATABASE: DATABASE_PAGE, Level.INSTANCE: INSTANCE_PAGE}
OF_INSTANCE_KEYS = "instance_id = ANY (CAST(:instance_ids AS integer[]))"
# Plain arrays plan in half the time of a join with the pairs; what they bring too much is left out afterwards.
OF_DATABASE_KEYS = OF_INSTANCE_KEYS + " AND database_name = ANY (CAST(:database_names AS text[]))"
INSTANCE_CHOICES = "SELECT id, name, db_type FROM instances ORDER BY name"
DATABASE_CHOICES = """
SELECT DISTINCT database_name FROM instance_databases
WHERE instance_id = ANY (CAST(:instance_ids AS integer[])) ORDER BY database_name LIMIT :most
"""


def database_page(engine: Engine, selection: Selection, limit: int, offset: int) -> Page[DatabaseGrowth]:
    """Return rows by instance id, database name and window, oldest window first."""
    with engine.connect() as connection:
        keys, total = _page(connection, Level.DATABASE, selection, limit, offset)
        databases = sorted({(instance_id, name) for instance_id, name, _ in keys})
        rows = _database_growth(connection, selection, databases, [start for _, _, start in keys])
    wanted = set(keys)
    found = [row for row in rows if (row.instance_id, row.database_name, row.period_start) in wanted]
    return Page(sorted(found, key=lambda row: (row.instance_id, row.database_name, row.period_start)), total)


def instance_page(engine: Engine, selection: Selection, limit: int, offset: int) -> Page[InstanceGrowth]:
    """Return rows by instance id and window, oldest window first."""
    with engine.connect() as connection:
        keys, total = _page(connection, Level.INSTANCE, selection, limit, offset)
        instances = sorted({instance_id for instance_id, _ in keys})
        rows = _instance_growth(connection, selection, instances, [start for _, start in keys])
    wanted = set(keys)
    found = [row for row in rows if (row.instance_id, row.period_start) in wanted]
    return Page(sorted(found, key=lambda row: (row.instance_id, row.period_start)), total)


def largest_series(
    engine: Engine, rankings: ChangeRankings, level: Level, selection: Selection, count: int
) -> LargestSeries:
    """Return for each measure every window of the *count* keys that are largest by it; largest first."""
    with engine.connect() as connection:
        scope = scope_of(connection, selection, level)
        if scope is None:
            return {measure: [] for measure in Measure}
        keys = ranked(connection, rankings, scope, selection, count)
        every = sorted({key for of_measure in keys.values() for key in of_measure})
        rows = _series(connection, level, selection, every)
    return {measure: [row for key in of_measure for row in rows.get(key, ())] for measure, of_measure in keys.items()}


def instance_choices(engine: Engine) -> list[InstanceChoice]:
    """Return every instance, by name."""
    with engine.connect() as connection:
        return [InstanceChoice(*row) for row in connection.execute(text(INSTANCE_CHOICES))]


def database_choices(engine: Engine, instance_ids: Sequence[int]) -> list[str]:
    """Return the names of the databases that some instances have or had, in order, MOST_CHOICES at most."""
    values = {"instance_ids": [id_ for id_ in instance_ids if id_ <= LARGEST_ID], "most": MOST_CHOICES}
    with engine.connect() as connection:
        return list(connection.execute(text(DATABASE_CHOICES), values).scalars())


def _page(
    connection: Connection, level: Level, selection: Selection, limit: int, offset: int
) -> tuple[list[tuple[Any, ...]], int]:
    """Return the keys of the rows of a page, and how many rows there are up to MOST_ROWS."""
    scope = scope_of(connection, selection, level)
    if scope is None:
        return [], 0
    values = scope.values | {"limit": limit, "offset": offset, "most": MOST_ROWS}
    rows = connection.execute(scope.statement(PAGES[level]), values).all()
    if rows:
        return [tuple(row[:-1]) for row in rows], rows[0].total
    # A page behind the last one still says how many rows there are.
    return [], int(connection.execute(scope.statement(COUNT), values).scalar_one())


def _database_growth(
    connection: Connection, selection: Selection, keys: Sequence[Any], days: Sequence[date]
) -> list[DatabaseGrowth]:
    if not keys:
        return []
    values = growth_range(selection.period_type, min(days), max(days)) | {
        "instance_ids": sorted({instance_id for instance_id, _ in keys}),
        "database_names": sorted({name for _, name in keys}),
    }
    rows = connection.execute(_statement(DATABASE_GROWTH + DATABASES_IN_ORDER, OF_DATABASE_KEYS), values).all()
    wanted = set(keys)
    return [DatabaseGrowth(*row) for row in rows if (row.instance_id, row.database_name) in wanted]


def _instance_growth(
    connection: Connection, selection: Selection, ids: Sequence[int], days: Sequence[date]
) -> list[InstanceGrowth]:
    if not ids:
        return []
    values = growth_range(selection.period_type, min(days), max(days)) | {"instance_ids": list(ids)}
    rows = connection.execute(_statement(INSTANCE_GROWTH + IN_ORDER, OF_INSTANCE_KEYS), values).all()
    return [InstanceGrowth(*row) for row in rows]


def _series(
    connection: Connection, level: Level, selection: Selection, keys: Sequence[tuple[Any, ...]]
) -> dict[tuple[Any, ...], list[Any]]:
    """Return the windows of each of *keys*, oldest first."""
    values = growth_range(selection.period_type, selection.first, selection.last) | {
        "instance_ids": [key[0] for key in keys],
        "database_names": [key[-1] for key in keys],
    }
    found: dict[tuple[Any, ...], list[Any]] = {key: [] for key in keys}
    if keys and level is Level.DATABASE:
        for row in connection.execute(_statement(DATABASE_GROWTH + DATABASES_IN_ORDER, OF_KEYS), values):
            found[row.instance_id, row.database_name].append(DatabaseGrowth(*row))
    elif keys:
        for row in connection.execute(_statement(INSTANCE_GROWTH + IN_ORDER, OF_INSTANCE_KEYS), values):
            found[(row.instance_id,)].append(InstanceGrowth(*row))
    return found


@lru_cache(maxsize=64)
def _statement(template: str, scope: str) -> TextClause:
    """Return a statement, taken apart once."""
    return text(template.format(scope=scope))
