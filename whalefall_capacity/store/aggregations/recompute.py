"""Recomputation of a sample of rows from their stats, by statements that share nothing with the calculation."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from whalefall_capacity.periods import PeriodType, Window, window_of
from whalefall_capacity.store.aggregations.statements import TABLES, Level, same_key
from whalefall_capacity.store.postgres.engine import again_if_connection_lost
from whalefall_capacity.store.sizes.day_comparison import LATEST_DAY
from whalefall_capacity.store.table_partitions.create import AGGREGATION_TABLES
from whalefall_capacity.store.table_partitions.retired import LostDays, absent_days

RECORDED = """
SELECT source_rows, source_sum_bytes, source_max_updated_at, sealed_at IS NOT NULL AS is_sealed FROM aggregation_windows
WHERE level = :level AND period_type = :period_type AND period_start = :first
"""
EARLIER_WINDOWS = """
SELECT period_start FROM aggregation_windows
WHERE level = :level AND period_type = :period_type AND period_start < :first AND sealed_at IS NULL AND result_rows > 0
ORDER BY period_start
"""
DAYS = (
    "SELECT DISTINCT collected_date FROM instance_size_stats WHERE collected_date BETWEEN :first AND :last ORDER BY 1"
)
STATS_TOTALS = """
SELECT count(*), coalesce(sum({size}), 0), max(updated_at) FROM {stats} WHERE collected_date BETWEEN :first AND :last
"""
# One in a hundred, twenty at least, of the keys that have a row and of those of one day of the window, which should
# have one. The order by a hash is as random as its seed, and the same for the same seed. Each stored row is looked up
# by itself, whatever the planner, which has no statistics of a new table partition, thinks of their number.
SAMPLE = """
WITH keys AS (
    SELECT {key} FROM {aggregations} WHERE period_type = :period_type AND period_start = :first
    UNION
    SELECT {key} FROM {stats} WHERE collected_date = :day
), sample AS (
    SELECT {key} FROM keys AS sample
    ORDER BY hashtextextended({key_text}, :seed), {key_text}
    LIMIT (SELECT greatest(20, ceil(count(*) * 0.01)) FROM keys)
), recomputed AS (
{recompute}
)
SELECT i.name, {key_text}, to_jsonb(stored), to_jsonb(recomputed)
FROM sample
LEFT JOIN LATERAL (
    SELECT * FROM {aggregations} AS row
    WHERE {row_key} AND row.period_type = :period_type AND row.period_start = :first
    LIMIT 1) AS stored ON true
LEFT JOIN recomputed ON {recomputed_key}
LEFT JOIN instances AS i ON i.id = sample.instance_id
ORDER BY sample.instance_id, {key_text}
"""
# Written in another way than the statements of the aggregation, on purpose: both would have to be wrong. OFFSET 0 keeps
# the planner from joining: the days of each key of the sample are looked up in the primary key, where a join would read
# all of the window, which takes longer than to calculate it.
RECOMPUTE_DATABASES = """
    SELECT s.instance_id, s.database_name, CAST(:last AS date) AS period_end,
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
    CROSS JOIN LATERAL (
        SELECT * FROM database_size_stats AS day
        WHERE day.instance_id = sample.instance_id AND day.database_name = sample.database_name
          AND day.collected_date BETWEEN :first AND :last
        OFFSET 0) AS s
    GROUP BY s.instance_id, s.database_name
"""
# Complete days count; only where there is none do the others.
RECOMPUTE_INSTANCES = """
    SELECT s.instance_id, CAST(:last AS date) AS period_end,
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
    CROSS JOIN LATERAL (
        SELECT count(*) AS days, count(nullif(missing_count, 0)) AS partial_days
        FROM instance_size_stats AS day
        WHERE day.instance_id = sample.instance_id AND day.collected_date BETWEEN :first AND :last) AS all_days
    CROSS JOIN LATERAL (
        SELECT * FROM instance_size_stats AS day
        WHERE day.instance_id = sample.instance_id AND day.collected_date BETWEEN :first AND :last
          AND (day.missing_count = 0 OR all_days.partial_days = all_days.days)
        OFFSET 0) AS s
    GROUP BY s.instance_id, all_days.partial_days
"""
RECOMPUTE = {Level.DATABASE: RECOMPUTE_DATABASES, Level.INSTANCE: RECOMPUTE_INSTANCES}


@dataclass(frozen=True)
class Difference:
    """A measure of a row that is not what its stats give; None stands for NULL and for a row that is not there."""

    key: str
    measure: str
    stored: Any
    recomputed: Any


@dataclass(frozen=True)
class Recomputation:
    """The comparison of a sample of a window with its stats.

    *behind* says how the stats differ from those that the last calculation saw; None when they do not.
    """

    window: Window
    behind: str | None
    keys: int
    differences: Sequence[Difference]


@again_if_connection_lost
def recompute(engine: Engine, level: Level, period_type: PeriodType, seed: int) -> list[Recomputation]:
    """Compare a sample of the window of the latest day, and of one earlier window, with what their stats give.

    The sample is one in a hundred keys of a window, twenty at least; *seed* decides which, and which earlier window.
    Sealed windows are final and left out, and so are those whose rows went with their table partition. Everything is
    read from one snapshot.
    """
    chooser = random.Random(seed)  # noqa: S311 - a sample, not a secret
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"))
        latest_day = connection.execute(text(LATEST_DAY)).scalar_one()
        if latest_day is None:
            return []
        latest = window_of(latest_day, period_type)
        values = {"level": level.value, "period_type": period_type.value, "first": latest.start}
        starts = connection.execute(text(EARLIER_WINDOWS), values).scalars()
        retired = _retired_days(connection, level, period_type)
        earlier = [start for start in starts if not any(days.overlap(start, start) for days in retired)]
        windows = [window_of(start, period_type) for start in chooser.sample(earlier, min(1, len(earlier)))]
        if not any(days.overlap(latest.start, latest.start) for days in retired):
            windows.insert(0, latest)
        found = [_recompute(connection, level, window, seed, chooser) for window in windows]
    return [recomputation for recomputation in found if recomputation is not None]


def _retired_days(connection: Connection, level: Level, period_type: PeriodType) -> list[LostDays]:
    """Return the starts of windows whose rows went by their own retention, although their stats may be there."""
    return absent_days(connection, AGGREGATION_TABLES[level.value, period_type].name)


def _recompute(
    connection: Connection, level: Level, window: Window, seed: int, chooser: random.Random
) -> Recomputation | None:
    values = {
        "level": level.value,
        "period_type": window.period_type.value,
        "first": window.start,
        "last": window.end,
        "seed": seed,
    }
    recorded = connection.execute(text(RECORDED), values).one_or_none()
    if recorded is not None and recorded.is_sealed:
        return None
    totals = STATS_TOTALS.format(size=TABLES[level].size, stats=TABLES[level].stats)
    seen = tuple(connection.execute(text(totals), values).one())
    behind = None
    if recorded is None:
        behind = f"{seen[0]} rows of stats, and no calculation yet"
    elif tuple(recorded)[:3] != seen:
        behind = (
            f"{seen[0]} rows of stats, the newest of {seen[2]}; its calculation saw {recorded.source_rows}, the newest "
            f"of {recorded.source_max_updated_at}"
        )
    days = connection.execute(text(DAYS), values).scalars().all()
    sample = _sample(connection, level, values | {"day": chooser.choice(days) if days else window.start})
    differences = [
        difference for key, stored, recomputed in sample for difference in _differences(key, stored, recomputed)
    ]
    return Recomputation(window, behind, len(sample), differences)


def _sample(
    connection: Connection, level: Level, values: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any] | None, dict[str, Any] | None]]:
    """Return (key, stored row, recomputed row) of every key of the sample."""
    tables = TABLES[level]
    statement = SAMPLE.format(
        key=", ".join(tables.key),
        # The name of a database follows the id of its instance.
        key_text=" || ' ' || ".join(f"sample.{column}::text" for column in tables.key),
        aggregations=tables.aggregations,
        stats=tables.stats,
        recompute=RECOMPUTE[level],
        row_key=same_key("row", "sample", tables.key),
        recomputed_key=same_key("recomputed", "sample", tables.key),
    )
    return [
        (f"{name} {key.partition(' ')[2]}".strip(), stored, recomputed)
        for name, key, stored, recomputed in connection.execute(text(statement), values)
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
