"""The list of all databases: each with its own latest size, its changes and its status.

Which databases are on a page is decided first; figures are looked up for those alone. Only an order by a figure, or
a filter by status, has to know that figure of every database: it reads whole days, which lie together on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, Engine, TextClause, text

from whalefall_capacity.store.postgres.tables import LARGEST_ID
from whalefall_capacity.store.sizes.listing import (
    BASELINE,
    FAILED_VISITS,
    IN_FLEET,
    NO_TREND,
    OF_INSTANCES,
    OF_SEARCH,
    OF_STATUSES,
    Listed,
    ListFilter,
    SizeStatus,
    Trend,
    ordered,
    trend_of,
    trend_start,
)

Key = tuple[int, str]
# How long before it was last listed the latest size of a database is looked for: four table partitions at most.
REACH_DAYS = 92

OF_NAMES = "(" + OF_SEARCH.format(name="d.database_name") + " OR " + OF_SEARCH.format(name="i.name") + ")"
# Instances by the index of their names, and the databases of each by the primary key: it ends with the page.
KEYS_BY_NAME = """
SELECT d.instance_id, d.database_name
FROM instances AS i
JOIN instance_databases AS d ON d.instance_id = i.id
WHERE {of_instances} AND {of_names}
ORDER BY {order}
LIMIT :limit OFFSET :offset
"""
COUNT = """
SELECT count(*) FROM instances AS i
JOIN instance_databases AS d ON d.instance_id = i.id
WHERE {of_instances} AND {of_names}
"""
COUNT_ALL = "SELECT count(*) FROM instance_databases"
# By the primary key, ending at the first row.
LAST_TOTAL = """
SELECT {columns} FROM instance_size_stats AS s
WHERE s.instance_id = i.id AND s.collected_date <= :today {of_source}
ORDER BY s.collected_date DESC LIMIT 1
"""
# The last day of each instance, and that of its last visit, which is nearly always the same. An import is none: what it
# leaves out may be there.
PLACES = """
WITH failed AS MATERIALIZED ({failed_visits}), places AS MATERIALIZED (
    SELECT i.id, i.name, i.db_type, {in_fleet} AS in_fleet, failed.instance_id IS NOT NULL AS failed,
           last.collected_date AS last_day,
           CASE WHEN last.source = 'measured' THEN last.collected_date
                ELSE coalesce(({last_visit}), last.collected_date) END AS visited_on
    FROM instances AS i
    LEFT JOIN failed ON failed.instance_id = i.id
    LEFT JOIN LATERAL ({last_total}) AS last ON true
    WHERE {of_instances}
)
"""
# A database of which the newest visit failed, or brought no size, is failed.
STATUS = """
CASE WHEN NOT (i.in_fleet AND d.is_active) THEN 'dropped'
     WHEN i.failed OR latest.collected_date < i.visited_on THEN 'failed'
     WHEN latest.collected_date IS NULL AND i.visited_on IS NOT NULL THEN 'failed'
     WHEN latest.collected_date >= CAST(:today AS date) - :fresh_days THEN 'measured'
     WHEN latest.collected_date IS NULL THEN 'never_measured'
     ELSE 'late' END
"""
# Each look-up goes down the primary key (instance_id, database_name, collected_date), in the table partitions of its
# few days, and ends at its first row.
LATEST = """
SELECT {columns} FROM database_size_stats AS s
WHERE s.instance_id = d.instance_id AND s.database_name = d.database_name AND s.collected_date <= :today
  AND s.collected_date BETWEEN d.last_seen_date - :latest_days AND d.last_seen_date
ORDER BY s.collected_date DESC LIMIT 1
"""
FIGURES = """
{places}
SELECT d.instance_id, i.name AS instance, i.db_type, d.database_name, {status} AS status,
       d.first_seen_date, d.last_seen_date, latest.collected_date AS day, latest.size_bytes,
       latest.size_bytes - week.size_bytes AS change_7_days_bytes,
       latest.size_bytes - month.size_bytes AS change_30_days_bytes
FROM unnest(CAST(:ids AS integer[]), CAST(:names AS text[])) WITH ORDINALITY AS wanted (instance_id, name, place)
JOIN places AS i ON i.id = wanted.instance_id
JOIN instance_databases AS d ON d.instance_id = wanted.instance_id AND d.database_name = wanted.name
LEFT JOIN LATERAL ({latest}) AS latest ON true
LEFT JOIN LATERAL ({week}) AS week ON true
LEFT JOIN LATERAL ({month}) AS month ON true
ORDER BY place
"""
# The newest day on which at least half as many instances were measured as on any day of the week.
COMMON_DAY = """
WITH days AS (
    SELECT collected_date AS day, count(*) AS instances FROM instance_size_stats
    WHERE collected_date BETWEEN CAST(:today AS date) - :week_days AND :today GROUP BY 1
)
SELECT max(day) FROM days WHERE 2 * instances >= (SELECT max(instances) FROM days)
"""
# The sizes of a whole day, by its BRIN index: nearly every database has its latest size there, and only the others
# are looked up. Likewise what they are compared with. What a statement does not ask of these is not calculated.
KNOWN = """
{places}, known AS (
    SELECT d.instance_id, i.name AS instance, i.db_type, d.database_name, {status} AS status,
           d.first_seen_date, d.last_seen_date, latest.collected_date AS day, latest.size_bytes,
           {week_change} AS change_7_days_bytes, {month_change} AS change_30_days_bytes
    FROM places AS i
    JOIN instance_databases AS d ON d.instance_id = i.id
    LEFT JOIN database_size_stats AS common
        ON common.instance_id = d.instance_id AND common.database_name = d.database_name
       AND common.collected_date = :common_day AND i.last_day <= :common_day AND d.last_seen_date >= :common_day
       AND {of_ids}
    {earlier}
    CROSS JOIN LATERAL (
        SELECT CASE WHEN common.size_bytes IS NOT NULL THEN :common_day ELSE ({latest_day}) END AS collected_date,
               CASE WHEN common.size_bytes IS NOT NULL THEN common.size_bytes ELSE ({latest_size}) END AS size_bytes
    ) AS latest
    WHERE {of_names}
)
"""
KEYS_BY_FIGURE = """
SELECT instance_id, database_name FROM known WHERE {of_statuses} ORDER BY {order} LIMIT :limit OFFSET :offset
"""
COUNT_KNOWN = "SELECT count(*) FROM known WHERE {of_statuses}"
# Lines of a CSV file, made where the rows are: to make objects of 50,000 rows takes longer than to find them. A name
# that a spreadsheet would take for a formula gets an apostrophe, one with a comma quotes.
LINES = """
SELECT string_agg(concat({cells}, E'\\r\\n'), '' ORDER BY place)
FROM (SELECT *, row_number() OVER (ORDER BY {order}) AS place FROM known WHERE {of_statuses}) AS ordered
GROUP BY place / 2000 ORDER BY place / 2000
"""
HARMLESS = "(CASE WHEN strpos(:formula_signs, left({name}, 1)) > 0 THEN '''' ELSE '' END || {name})"
QUOTED = """
CASE WHEN translate({name}, E'",\\r\\n', '') = {name} THEN {harmless}
     ELSE '"' || replace({harmless}, '"', '""') || '"' END
"""
NAMES = ("instance", "database_name")
EARLIER = """
LEFT JOIN database_size_stats AS {alias}
    ON {alias}.instance_id = d.instance_id AND {alias}.database_name = d.database_name
   AND {alias}.collected_date = CAST(:common_day AS date) - {days} AND common.size_bytes IS NOT NULL AND {of_ids}
"""
CHANGE = """
latest.size_bytes - CASE WHEN {alias}.size_bytes IS NOT NULL THEN {alias}.size_bytes ELSE ({baseline}) END
"""
OF_IDS = "(CAST(:instance_ids AS integer[]) IS NULL OR {table}.instance_id = ANY (CAST(:instance_ids AS integer[])))"
# An array a row: thirty times as many rows take longer to be read than to be found.
TRENDS = """
SELECT s.instance_id, s.database_name, array_agg(s.collected_date - CAST(:first AS date)), array_agg(s.size_bytes)
FROM unnest(CAST(:ids AS integer[]), CAST(:names AS text[])) AS wanted (instance_id, name)
JOIN database_size_stats AS s ON s.instance_id = wanted.instance_id AND s.database_name = wanted.name
WHERE s.collected_date BETWEEN :first AND :today
GROUP BY s.instance_id, s.database_name
"""
NAME_ORDERS = {"instance": "i.name, d.database_name", "database": "d.database_name, i.name"}
FIGURE_ORDERS = {
    "size": "size_bytes, instance, database_name",
    "day": "day, instance, database_name",
    "change_7_days": "change_7_days_bytes, instance, database_name",
    "change_30_days": "change_30_days_bytes, instance, database_name",
    "status": "status, instance, database_name",
}
KNOWN_ORDERS = {"instance": "instance, database_name", "database": "database_name, instance"}
ORDERS = (*NAME_ORDERS, *FIGURE_ORDERS)
WEEK, MONTH = "change_7_days", "change_30_days"
BASELINES = {WEEK: ":week_days", MONTH: ":month_days"}


@dataclass(frozen=True)
class ListedDatabase:
    """One database with its latest size."""

    instance_id: int
    instance: str
    db_type: str
    database_name: str
    status: SizeStatus
    first_seen_date: date
    last_seen_date: date
    day: Annotated[
        date | None,
        Field(description=f"The day of the latest size, of the {REACH_DAYS} days before the database was last seen."),
    ]
    size_bytes: int | None
    change_7_days_bytes: int | None
    change_30_days_bytes: int | None
    trend: Trend


def list_databases(
    engine: Engine, wanted: ListFilter, today: date, sort: str, limit: int, offset: int = 0
) -> Listed[ListedDatabase]:
    """Return databases in the order of *sort*, one of ORDERS with a minus before it when the largest come first."""
    with engine.connect() as connection:
        keys, total = _keys(connection, wanted, today, sort, limit, offset)
        rows = _figures(connection, keys, today)
        trends = _trends(connection, keys, today)
    return Listed([_listed(row, trends) for row in rows], total)


def database_lines(
    engine: Engine, wanted: ListFilter, today: date, sort: str, columns: Sequence[str], formula_signs: str
) -> list[str]:
    """Return all databases that *wanted* lets through as parts of a CSV file, in the order of *sort*.

    *columns* are fields of ListedDatabase without the trend; *formula_signs* begin a formula in a spreadsheet. The rows
    are read at once: a transaction that lasted as long as somebody reads them would hold maintenance up.
    """
    cells = ", ',', ".join(_cell(column) for column in columns)
    statement = _known(WEEK, MONTH) + LINES.format(cells=cells, of_statuses=OF_STATUSES, order=_order(sort))
    with engine.connect() as connection:
        more = {"latest_days": REACH_DAYS, "common_day": _common_day(connection, today), "formula_signs": formula_signs}
        return list(connection.execute(text(statement), wanted.values(today) | more).scalars())


def _cell(column: str) -> str:
    return QUOTED.format(name=column, harmless=HARMLESS.format(name=column)) if column in NAMES else column


def get_database(engine: Engine, instance_id: int, database_name: str, today: date) -> ListedDatabase | None:
    """Return one database, which may have been dropped."""
    if instance_id > LARGEST_ID:
        return None
    keys = [(instance_id, database_name)]
    with engine.connect() as connection:
        rows = _figures(connection, keys, today)
        trends = _trends(connection, keys, today)
    return _listed(rows[0], trends) if rows else None


def _keys(
    connection: Connection, wanted: ListFilter, today: date, sort: str, limit: int | None, offset: int
) -> tuple[list[Key], int]:
    """Return the keys of the rows from *offset* on, and how many there are in all."""
    values = wanted.values(today) | {"limit": limit, "offset": offset, "latest_days": REACH_DAYS}
    by_name = wanted.statuses is None and sort.removeprefix("-") in NAME_ORDERS
    if not by_name:
        values["common_day"] = _common_day(connection, today)
    rows = connection.execute(_keys_by_name(sort) if by_name else _keys_by_figure(sort), values)
    keys = [(row.instance_id, row.database_name) for row in rows]
    return keys, connection.execute(_count(wanted == ListFilter(), wanted.statuses is not None), values).scalar_one()


@cache
def _keys_by_name(sort: str) -> TextClause:
    return text(KEYS_BY_NAME.format(of_instances=OF_INSTANCES, of_names=OF_NAMES, order=ordered(NAME_ORDERS, sort)))


@cache
def _keys_by_figure(sort: str) -> TextClause:
    known = _known(sort.removeprefix("-"))
    return text(known + KEYS_BY_FIGURE.format(of_statuses=OF_STATUSES, order=_order(sort)))


@cache
def _count(everything: bool, by_status: bool) -> TextClause:
    """Return the statement that counts the rows; without a filter by status it needs no figure."""
    if everything:
        return text(COUNT_ALL)
    if by_status:
        return text(_known() + COUNT_KNOWN.format(of_statuses=OF_STATUSES))
    return text(COUNT.format(of_instances=OF_INSTANCES, of_names=OF_NAMES))


def _common_day(connection: Connection, today: date) -> date | None:
    day: date | None = connection.execute(text(COMMON_DAY), ListFilter().values(today)).scalar_one()
    return day


def _order(sort: str) -> str:
    return ordered(KNOWN_ORDERS | FIGURE_ORDERS, sort)


def _known(*changes: str) -> str:
    """Return the statement that begins with `known`: all databases with their figures, and those of *changes*."""
    joins = [
        EARLIER.format(alias=key, days=BASELINES[key], of_ids=OF_IDS.format(table=key))
        for key in changes
        if key in BASELINES
    ]
    figures = {
        key: CHANGE.format(alias=key, baseline=_baseline(days)) if key in changes else "NULL::bigint"
        for key, days in BASELINES.items()
    }
    return KNOWN.format(
        places=_places(),
        of_ids=OF_IDS.format(table="common"),
        earlier="".join(joins),
        week_change=figures[WEEK],
        month_change=figures[MONTH],
        status=STATUS,
        latest_day=LATEST.format(columns="collected_date"),
        latest_size=LATEST.format(columns="size_bytes"),
        of_names=OF_NAMES,
    )


def _baseline(days: str) -> str:
    key = "s.instance_id = d.instance_id AND s.database_name = d.database_name"
    return BASELINE.format(table="database_size_stats", size="size_bytes", key=key, days=days)


def _places() -> str:
    return PLACES.format(
        failed_visits=FAILED_VISITS,
        in_fleet=IN_FLEET,
        last_total=LAST_TOTAL.format(columns="collected_date, source", of_source=""),
        last_visit=LAST_TOTAL.format(columns="collected_date", of_source="AND s.source = 'measured'"),
        of_instances=OF_INSTANCES,
    )


def _figures(connection: Connection, keys: Sequence[Key], today: date) -> list[dict[str, Any]]:
    """Return the figures of *keys*, in their order."""
    if not keys:
        return []
    of_keys = ListFilter(instance_ids=sorted({instance_id for instance_id, _ in keys})).values(today)
    values = of_keys | _key_values(keys) | {"latest_days": REACH_DAYS}
    return [dict(row) for row in connection.execute(_figures_statement(), values).mappings()]


@lru_cache(maxsize=1)
def _figures_statement() -> TextClause:
    return text(
        FIGURES.format(
            places=_places(),
            status=STATUS,
            latest=LATEST.format(columns="collected_date, size_bytes"),
            week=_baseline(":week_days"),
            month=_baseline(":month_days"),
        )
    )


def _trends(connection: Connection, keys: Sequence[Key], today: date) -> dict[Key, Trend]:
    """Return the trend of each of *keys* that has one."""
    values = _key_values(keys) | {"first": trend_start(today), "today": today}
    rows = connection.execute(text(TRENDS), values) if keys else ()
    return {(instance_id, name): trend_of(days, sizes) for instance_id, name, days, sizes in rows}


def _key_values(keys: Sequence[Key]) -> dict[str, Any]:
    return {"ids": [instance_id for instance_id, _ in keys], "names": [name for _, name in keys]}


def _listed(row: Mapping[str, Any], trends: Mapping[Key, Trend]) -> ListedDatabase:
    trend = trends.get((row["instance_id"], row["database_name"]), NO_TREND)
    return ListedDatabase(**{**row, "status": SizeStatus(row["status"]), "trend": trend})
