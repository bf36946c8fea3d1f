"""Capacity as the console shows it: pages, summaries and series of growth, each bounded.

A query names its period type and the first and last window, so that the planner leaves out every table partition
but those. Which keys are shown is decided first, on their measures alone; growth is derived for those keys only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field
from sqlalchemy import Connection, Engine, TextClause, text

from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.aggregations.growth import (
    DATABASE_GROWTH,
    DATABASES_IN_ORDER,
    EVERYTHING,
    IN_ORDER,
    INSTANCE_GROWTH,
    DatabaseGrowth,
    InstanceGrowth,
    growth_range,
)
from whalefall_capacity.store.aggregations.statements import Level

# Rows that can be paged through, and how far they are counted: a reader of more narrows the filter.
MOST_ROWS = 10_000
LARGEST_ID = 2**31 - 1  # of an INTEGER


@dataclass(frozen=True)
class Selection:
    """A choice of windows and keys: windows that start on *first* to *last*; None is no filter."""

    period_type: PeriodType
    first: date
    last: date
    instance_ids: Sequence[int] | None = None
    db_types: Sequence[str] | None = None
    database_name: str | None = None


Growth = TypeVar("Growth", DatabaseGrowth, InstanceGrowth)


@dataclass(frozen=True)
class Page(Generic[Growth]):
    """Some rows of a list; *total* counts no further than MOST_ROWS."""

    rows: Sequence[Growth]
    total: int


@dataclass(frozen=True)
class Summary:
    """The newest window with data in the range."""

    period_start: Annotated[date | None, Field(description="null when the range has no data.")]
    instances: int
    databases: int
    total_size_bytes: int
    average_size_bytes: int | None
    largest_size_bytes: int | None
    largest_instance: str | None
    largest_database: str | None


EMPTY_SUMMARY = Summary(None, 0, 0, 0, None, None, None, None)


@dataclass(frozen=True)
class InstanceChoice:
    """An instance to filter by."""

    id: int
    name: str
    db_type: str


# The filters by type and by name become instance ids, with which the primary keys begin.
INSTANCE_IDS = """
SELECT id FROM instances
WHERE (CAST(:instance_ids AS integer[]) IS NULL OR id = ANY (CAST(:instance_ids AS integer[])))
  AND (CAST(:db_types AS text[]) IS NULL OR db_type = ANY (CAST(:db_types AS text[])))
  AND (CAST(:database_name AS text) IS NULL OR id IN (
           SELECT instance_id FROM instance_databases WHERE database_name = :database_name))
"""
OF_INSTANCES = "instance_id = ANY (CAST(:ids AS integer[]))"
OF_NAME = "database_name = :database_name"
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
# As a value of its own the search in a window is not turned into a join: it ends at the first row. The range is said
# once more, for the planner: it does not yet know which window it will be.
NEWEST = """
SELECT period_start FROM aggregation_windows AS w
WHERE level = :level AND period_type = :period_type AND period_start BETWEEN :first AND :last AND result_rows > 0
  AND (SELECT true FROM {aggregations} AS a
       WHERE a.period_type = :period_type AND a.period_start = w.period_start
         AND a.period_start BETWEEN :first AND :last AND {scope} LIMIT 1)
ORDER BY period_start DESC LIMIT 1
"""
NEWEST_OF_ALL = """
SELECT max(period_start) FROM aggregation_windows
WHERE level = :level AND period_type = :period_type AND period_start BETWEEN :first AND :last AND result_rows > 0
"""
TOP_DATABASES = """
SELECT instance_id, database_name FROM database_size_aggregations
WHERE period_type = :period_type AND period_start = :newest AND {scope}
ORDER BY sum_size_bytes / data_count DESC, instance_id, database_name
LIMIT :count
"""
TOP_INSTANCES = """
SELECT instance_id FROM instance_size_aggregations
WHERE period_type = :period_type AND period_start = :newest AND {scope}
ORDER BY sum_size_bytes / data_count DESC, instance_id
LIMIT :count
"""
# Of rows with as many days the sums compare as the means do: so a division a group is enough, where one a row takes as
# long as all the rest. Of the largest that are alike it is the first, as in the charts.
DATABASE_SUMMARY = """
WITH alike AS MATERIALIZED (
    SELECT instance_id, data_count, count(*) AS databases, sum(sum_size_bytes) AS total, max(sum_size_bytes) AS largest
    FROM database_size_aggregations
    WHERE period_type = :period_type AND period_start = :newest AND {scope}
    GROUP BY instance_id, data_count
), top AS MATERIALIZED (
    SELECT instance_id, data_count, largest FROM alike
    WHERE largest / data_count = (SELECT max(largest / data_count) FROM alike)
)
SELECT count(DISTINCT instance_id) AS instances, sum(databases)::bigint AS databases,
       round(sum(total / data_count))::bigint AS total_size_bytes,
       round(sum(total / data_count) / sum(databases))::bigint AS average_size_bytes,
       round(max(largest / data_count))::bigint AS largest_size_bytes,
       (SELECT name FROM instances WHERE id = (SELECT min(instance_id) FROM top)) AS largest_instance,
       (SELECT min(database_name) FROM database_size_aggregations JOIN top USING (instance_id, data_count)
        WHERE period_type = :period_type AND period_start = :newest AND sum_size_bytes = largest
          AND instance_id = (SELECT min(instance_id) FROM top) AND {scope}) AS largest_database
FROM alike
HAVING count(*) > 0
"""
INSTANCE_SUMMARY = """
WITH sizes AS MATERIALIZED (
    SELECT instance_id, data_count, sum_size_bytes, sum_database_count
    FROM instance_size_aggregations
    WHERE period_type = :period_type AND period_start = :newest AND {scope}
), alike AS MATERIALIZED (
    SELECT data_count, count(*) AS instances, sum(sum_database_count) AS databases, sum(sum_size_bytes) AS total,
           max(sum_size_bytes) AS largest
    FROM sizes GROUP BY data_count
)
SELECT sum(instances)::bigint AS instances, round(sum(databases / data_count))::bigint AS databases,
       round(sum(total / data_count))::bigint AS total_size_bytes,
       round(sum(total / data_count) / sum(instances))::bigint AS average_size_bytes,
       round(max(largest / data_count))::bigint AS largest_size_bytes,
       (SELECT name FROM instances WHERE id = (
            SELECT min(instance_id) FROM sizes JOIN alike USING (data_count)
            WHERE sum_size_bytes = largest AND largest / data_count = (SELECT max(largest / data_count) FROM alike)
        )) AS largest_instance,
       NULL AS largest_database
FROM alike
HAVING count(*) > 0
"""
AGGREGATIONS = {Level.DATABASE: "database_size_aggregations", Level.INSTANCE: "instance_size_aggregations"}
PAGES = {Level.DATABASE: DATABASE_PAGE, Level.INSTANCE: INSTANCE_PAGE}
SUMMARIES = {Level.DATABASE: DATABASE_SUMMARY, Level.INSTANCE: INSTANCE_SUMMARY}
OF_INSTANCE_KEYS = "instance_id = ANY (CAST(:instance_ids AS integer[]))"
# Plain arrays plan in half the time of a join with the pairs; what they bring too much is left out afterwards.
OF_DATABASE_KEYS = OF_INSTANCE_KEYS + " AND database_name = ANY (CAST(:database_names AS text[]))"
INSTANCE_CHOICES = "SELECT id, name, db_type FROM instances ORDER BY name"
DATABASE_CHOICES = """
SELECT database_name FROM instance_databases WHERE instance_id = :instance_id ORDER BY database_name
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


def summary(engine: Engine, level: Level, selection: Selection) -> Summary:
    """Return count, total, average and largest size of the newest window that has data."""
    with engine.connect() as connection:
        filtered = _filter(connection, selection, level)
        if filtered is None:
            return EMPTY_SUMMARY
        scope, values = filtered
        newest = _newest(connection, level, scope, values)
        if newest is None:
            return EMPTY_SUMMARY
        statement = _statement(SUMMARIES[level], scope)
        row = connection.execute(statement, values | {"newest": newest}).mappings().one_or_none()
        return EMPTY_SUMMARY if row is None else Summary(period_start=newest, **row)


def top_databases(engine: Engine, selection: Selection, count: int) -> list[DatabaseGrowth]:
    """Return every window of the *count* databases that are largest in the newest one; largest first."""
    with engine.connect() as connection:
        filtered = _filter(connection, selection, Level.DATABASE)
        newest = None if filtered is None else _newest(connection, Level.DATABASE, *filtered)
        if filtered is None or newest is None:
            return []
        scope, values = filtered
        values = values | {"newest": newest, "count": count}
        keys = [tuple(key) for key in connection.execute(_statement(TOP_DATABASES, scope), values)]
        rows = _database_growth(connection, selection, keys, [selection.first, selection.last])
    rank = {key: number for number, key in enumerate(keys)}
    return sorted(rows, key=lambda row: rank[row.instance_id, row.database_name])


def top_instances(engine: Engine, selection: Selection, count: int) -> list[InstanceGrowth]:
    """Return every window of the *count* instances that are largest in the newest one; largest first."""
    with engine.connect() as connection:
        filtered = _filter(connection, selection, Level.INSTANCE)
        newest = None if filtered is None else _newest(connection, Level.INSTANCE, *filtered)
        if filtered is None or newest is None:
            return []
        scope, values = filtered
        values = values | {"newest": newest, "count": count}
        keys = [int(id_) for id_ in connection.execute(_statement(TOP_INSTANCES, scope), values).scalars()]
        rows = _instance_growth(connection, selection, keys, [selection.first, selection.last])
    rank = {key: number for number, key in enumerate(keys)}
    return sorted(rows, key=lambda row: rank[row.instance_id])


def instance_choices(engine: Engine) -> list[InstanceChoice]:
    """Return every instance, by name."""
    with engine.connect() as connection:
        return [InstanceChoice(**row) for row in connection.execute(text(INSTANCE_CHOICES)).mappings()]


def database_choices(engine: Engine, instance_id: int) -> list[str]:
    """Return the databases that an instance has or had, by name."""
    with engine.connect() as connection:
        return list(connection.execute(text(DATABASE_CHOICES), {"instance_id": instance_id}).scalars())


def _filter(connection: Connection, selection: Selection, level: Level) -> tuple[str, dict[str, Any]] | None:
    """Return the condition of *selection* with its values; None when no instance can fulfil it."""
    values: dict[str, Any] = {
        "level": level.value,
        "period_type": selection.period_type.value,
        "first": selection.first,
        "last": selection.last,
    }
    if selection.instance_ids is None and selection.db_types is None and selection.database_name is None:
        return EVERYTHING, values
    wanted = selection.instance_ids
    ids = None if wanted is None else [id_ for id_ in wanted if id_ <= LARGEST_ID]
    if selection.db_types is not None or selection.database_name is not None:
        filters = {
            "instance_ids": ids,
            "db_types": None if selection.db_types is None else list(selection.db_types),
            "database_name": selection.database_name,
        }
        ids = list(connection.execute(_statement(INSTANCE_IDS), filters).scalars())
    if not ids:
        return None
    values |= {"ids": sorted(ids), "database_name": selection.database_name}
    if level is Level.DATABASE and selection.database_name is not None:
        return f"{OF_INSTANCES} AND {OF_NAME}", values
    return OF_INSTANCES, values


def _page(
    connection: Connection, level: Level, selection: Selection, limit: int, offset: int
) -> tuple[list[tuple[Any, ...]], int]:
    """Return the keys of the rows of a page, and how many rows there are up to MOST_ROWS."""
    filtered = _filter(connection, selection, level)
    if filtered is None:
        return [], 0
    scope, values = filtered
    values |= {"limit": limit, "offset": offset, "most": MOST_ROWS}
    rows = connection.execute(_statement(PAGES[level], scope, AGGREGATIONS[level]), values).all()
    if rows:
        return [tuple(row[:-1]) for row in rows], rows[0].total
    # A page behind the last one still says how many rows there are.
    return [], int(connection.execute(_statement(COUNT, scope, AGGREGATIONS[level]), values).scalar_one())


def _newest(connection: Connection, level: Level, scope: str, values: dict[str, Any]) -> date | None:
    statement = _statement(NEWEST_OF_ALL if scope == EVERYTHING else NEWEST, scope, AGGREGATIONS[level])
    newest: date | None = connection.execute(statement, values).scalar()
    return newest


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


@lru_cache(maxsize=64)
def _statement(template: str, scope: str = "", aggregations: str = "") -> TextClause:
    """Return a statement, taken apart once."""
    return text(template.format(scope=scope, aggregations=aggregations))
