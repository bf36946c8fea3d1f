"""Ranking of databases and instances by what a chart shows: the size, or the largest change of the range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.kept import Kept
from whalefall_capacity.periods import Window, look_back, window_before, window_of
from whalefall_capacity.store.aggregations.latest_sizes import LATEST_SIZES
from whalefall_capacity.store.aggregations.selection import Scope, Selection, newest_window, scope_of
from whalefall_capacity.store.aggregations.statements import Level

# The most that a chart shows.
MOST_RANKED = 20
MOST_KEPT = 5_000

Key = tuple[Any, ...]


class Measure(StrEnum):
    """A measure that a chart shows, and ranks by."""

    SIZE = "size"
    CHANGE = "change"
    PERCENT = "percent"


KEYS = {Level.DATABASE: "instance_id, database_name", Level.INSTANCE: "instance_id"}
BY_SIZE = {
    Level.DATABASE: """
<sizes>
SELECT instance_id, i.name AS instance, largest.database_name, CAST(round(size) AS bigint) AS size_bytes
FROM (SELECT instance_id, database_name, sum_size_bytes / data_count AS size FROM sizes
      ORDER BY size DESC, instance_id, database_name LIMIT :count) AS largest
JOIN instances AS i ON i.id = instance_id
ORDER BY size DESC, instance_id, largest.database_name
""".replace("<sizes>", LATEST_SIZES[Level.DATABASE]),
    Level.INSTANCE: """
<sizes>
SELECT instance_id, i.name AS instance, NULL AS database_name, CAST(round(size) AS bigint) AS size_bytes
FROM (SELECT instance_id, size FROM sizes ORDER BY size DESC, instance_id LIMIT :count) AS largest
JOIN instances AS i ON i.id = instance_id
ORDER BY size DESC, instance_id
""".replace("<sizes>", LATEST_SIZES[Level.INSTANCE]),
}
CALCULATED = """
SELECT period_start, calculated_at FROM aggregation_windows
WHERE level = :level AND period_type = :period_type AND period_start BETWEEN :earliest AND :last AND result_rows > 0
ORDER BY period_start
"""
# Nearly every key has its baseline in the window just before: both windows by their BRIN indexes, joined once. A full
# join is hashed or merged whatever the planner thinks of rows that were written a moment ago. For the others the
# look-back is searched by the primary key. What a chart rounds to no change is not ranked.
LARGEST_CHANGES = """
WITH pairs AS MATERIALIZED (
    SELECT {keys}, a.mean, before.mean AS base
    FROM (SELECT {keys}, CAST(sum_size_bytes AS double precision) / data_count AS mean FROM {{aggregations}}
          WHERE period_type = :period_type AND period_start = :start AND {{scope}}) AS a
    FULL JOIN (SELECT {keys}, CAST(sum_size_bytes AS double precision) / data_count AS mean FROM {{aggregations}}
               WHERE period_type = :period_type AND period_start = :before AND {{scope}}) AS before USING ({keys})
), changes AS MATERIALIZED (
    SELECT {keys}, abs(mean - base) AS change, abs(mean - base) / nullif(base, 0) AS percent FROM pairs
    WHERE mean IS NOT NULL AND base IS NOT NULL
    UNION ALL
    SELECT {pairs_keys}, abs(pairs.mean - older.mean), abs(pairs.mean - older.mean) / nullif(older.mean, 0)
    FROM pairs
    CROSS JOIN LATERAL (
        SELECT CAST(sum_size_bytes AS double precision) / data_count AS mean FROM {{aggregations}} AS earlier
        WHERE ({earlier_keys}) = ({pairs_keys}) AND earlier.period_type = :period_type
          AND earlier.period_start >= :earliest AND earlier.period_start < :before
        ORDER BY earlier.period_start DESC LIMIT 1) AS older
    WHERE pairs.base IS NULL
)
(SELECT 'change' AS measure, change AS value, {keys} FROM changes
 WHERE change >= 0.5 ORDER BY change DESC, {keys} LIMIT :count)
UNION ALL
(SELECT 'percent', percent, {keys} FROM changes WHERE percent >= 0.00005 ORDER BY percent DESC, {keys} LIMIT :count)
"""


def _largest_changes(level: Level) -> str:
    columns = KEYS[level].split(", ")
    return LARGEST_CHANGES.format(
        keys=KEYS[level],
        pairs_keys=", ".join(f"pairs.{column}" for column in columns),
        earlier_keys=", ".join(f"earlier.{column}" for column in columns),
    )


BY_CHANGE = {level: _largest_changes(level) for level in Level}
CHANGES = (Measure.CHANGE, Measure.PERCENT)
# The largest changes of a window by measure, largest first, each with its key.
WindowChanges = dict[Measure, list[tuple[float, Key]]]


@dataclass(frozen=True)
class LargestKey:
    """An instance or a database with its latest size."""

    instance_id: int
    instance: str
    database_name: Annotated[str | None, Field(description="null: the instance as a whole.")]
    size_bytes: int

    @property
    def key(self) -> Key:
        return (self.instance_id,) if self.database_name is None else (self.instance_id, self.database_name)


@dataclass
class ChangeRankings:
    """The largest changes of every window that was asked for, kept until it, or its baseline, is calculated again.

    The largest of a range are among the largest of its windows, so that a range needs no more than those.
    """

    _kept: Kept[WindowChanges] = field(default_factory=lambda: Kept(MOST_KEPT))

    def of_range(self, connection: Connection, scope: Scope, selection: Selection) -> list[WindowChanges]:
        """Return the largest changes of each window of *selection* that has data."""
        earliest = look_back(selection.first, selection.period_type)
        rows = connection.execute(text(CALCULATED), scope.values | {"earliest": earliest}).all()
        calculated = {row.period_start: row.calculated_at for row in rows}
        starts = [start for start in calculated if start >= selection.first]
        return [self._of_window(connection, scope, window_of(s, selection.period_type), calculated) for s in starts]

    def _of_window(
        self, connection: Connection, scope: Scope, window: Window, calculated: dict[date, datetime]
    ) -> WindowChanges:
        earliest = look_back(window.start, window.period_type)
        basis = tuple(when for start, when in calculated.items() if earliest <= start <= window.start)
        names = tuple(scope.values.get("database_names") or ())
        question = (scope.level, window, scope.condition, tuple(scope.values.get("ids", ())), names)
        return self._kept.get(question, basis, lambda: _changes_of(connection, scope, window))


def ranked(
    connection: Connection, rankings: ChangeRankings, scope: Scope, selection: Selection, count: int
) -> dict[Measure, list[Key]]:
    """Return for each measure the *count* keys that are largest by it, largest first."""
    changes = rankings.of_range(connection, scope, selection)
    return {
        Measure.SIZE: [one.key for one in _by_size(connection, scope, selection, count)],
        **{measure: _largest((window[measure] for window in changes), count) for measure in CHANGES},
    }


def largest_keys(engine: Engine, level: Level, selection: Selection, count: int) -> list[LargestKey]:
    """Return the *count* instances (databases) that are largest by their own latest size, largest first."""
    with engine.connect() as connection:
        scope = scope_of(connection, selection, level)
        return [] if scope is None else _by_size(connection, scope, selection, count)


def _by_size(connection: Connection, scope: Scope, selection: Selection, count: int) -> list[LargestKey]:
    newest = newest_window(connection, scope)
    if newest is None:
        return []
    values = {"newest": newest, "newest_end": window_of(newest, selection.period_type).end, "count": count}
    rows = connection.execute(scope.statement(BY_SIZE[scope.level]), scope.values | values)
    return [LargestKey(*row) for row in rows]


def _changes_of(connection: Connection, scope: Scope, window: Window) -> WindowChanges:
    values = {
        "start": window.start,
        "before": window_before(window).start,
        "earliest": look_back(window.start, window.period_type),
        "count": MOST_RANKED,
    }
    found: WindowChanges = {measure: [] for measure in CHANGES}
    for measure, value, *key in connection.execute(scope.statement(BY_CHANGE[scope.level]), scope.values | values):
        found[Measure(measure)].append((value, tuple(key)))
    return found


def _largest(windows: Iterable[Sequence[tuple[float, Key]]], count: int) -> list[Key]:
    """Return the keys with the largest value in any window. Pure."""
    largest: dict[Key, float] = {}
    for window in windows:
        for value, key in window:
            largest[key] = max(value, largest.get(key, 0))
    return sorted(largest, key=lambda key: (-largest[key], key))[:count]
