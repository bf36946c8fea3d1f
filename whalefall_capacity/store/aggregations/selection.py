"""A choice of windows and keys, and the conditions that it becomes: what every query of the console begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, TextClause, text

from whalefall_capacity.periods import PeriodType, window_of
from whalefall_capacity.store.aggregations.growth import EVERYTHING
from whalefall_capacity.store.aggregations.statements import TABLES, Level
from whalefall_capacity.store.postgres.tables import LARGEST_ID


@dataclass(frozen=True)
class Selection:
    """A choice of windows and keys: windows that start on *first* to *last*; None is no filter."""

    period_type: PeriodType
    first: date
    last: date
    instance_ids: Sequence[int] | None = None
    db_types: Sequence[str] | None = None
    database_names: Sequence[str] | None = None


@dataclass(frozen=True)
class Scope:
    """A selection as a query takes it: the condition on the keys, and the values of every parameter."""

    level: Level
    condition: str
    values: dict[str, Any]

    def statement(self, template: str) -> TextClause:
        """Return *template* with the conditions and the table of the level in it."""
        of_instances = EVERYTHING if self.condition == EVERYTHING else OF_INSTANCES
        return _statement(template, self.condition, of_instances, TABLES[self.level].aggregations)


# The filters by type and by name become instance ids, with which the primary keys begin.
INSTANCE_IDS = """
SELECT id FROM instances
WHERE (CAST(:instance_ids AS integer[]) IS NULL OR id = ANY (CAST(:instance_ids AS integer[])))
  AND (CAST(:db_types AS text[]) IS NULL OR db_type = ANY (CAST(:db_types AS text[])))
  AND (CAST(:database_names AS text[]) IS NULL OR id IN (
           SELECT instance_id FROM instance_databases WHERE database_name = ANY (CAST(:database_names AS text[]))))
"""
OF_INSTANCES = "instance_id = ANY (CAST(:ids AS integer[]))"
OF_NAMES = "database_name = ANY (CAST(:database_names AS text[]))"
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


def scope_of(connection: Connection, selection: Selection, level: Level) -> Scope | None:
    """Return the scope of *selection*; None when no instance can fulfil it."""
    values: dict[str, Any] = {
        "level": level.value,
        "period_type": selection.period_type.value,
        "first": selection.first,
        "last": selection.last,
        "last_day": window_of(selection.last, selection.period_type).end,
    }
    if selection.instance_ids is None and selection.db_types is None and selection.database_names is None:
        return Scope(level, EVERYTHING, values)
    ids = _instance_ids(connection, selection)
    if not ids:
        return None
    names = selection.database_names
    values |= {"ids": sorted(ids), "database_names": None if names is None else list(names)}
    if level is Level.DATABASE and names is not None:
        return Scope(level, f"{OF_INSTANCES} AND {OF_NAMES}", values)
    return Scope(level, OF_INSTANCES, values)


def newest_window(connection: Connection, scope: Scope) -> date | None:
    """Return the start of the newest window that has data of the scope."""
    statement = scope.statement(NEWEST_OF_ALL if scope.condition == EVERYTHING else NEWEST)
    newest: date | None = connection.execute(statement, scope.values).scalar()
    return newest


def _instance_ids(connection: Connection, selection: Selection) -> list[int]:
    wanted = selection.instance_ids
    ids = None if wanted is None else [id_ for id_ in wanted if id_ <= LARGEST_ID]
    if selection.db_types is None and selection.database_names is None:
        return ids or []
    filters = {
        "instance_ids": ids,
        "db_types": None if selection.db_types is None else list(selection.db_types),
        "database_names": None if selection.database_names is None else list(selection.database_names),
    }
    return list(connection.execute(text(INSTANCE_IDS), filters).scalars())


@lru_cache(maxsize=64)
def _statement(template: str, scope: str, instance_scope: str, aggregations: str) -> TextClause:
    """Return a statement, taken apart once."""
    return text(template.format(scope=scope, instance_scope=instance_scope, aggregations=aggregations))
