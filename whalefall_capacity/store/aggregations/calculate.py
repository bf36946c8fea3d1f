"""Rolling stats up into windows: one set-based calculation per level, period type and range of windows.

The unit of work is a chunk of instances times a block of windows: one transaction under one advisory lock. It
groups the stats of the chunk, sums up what it saw, writes rows that changed, and removes rows whose sources are gone:
for databases by way of a temporary table (`CREATE TABLE AS` may use parallel workers, `INSERT … SELECT` may not), for
instances, which are few, in one statement. When every chunk is done, `aggregation_windows` records that sum. Sealed
windows are left out of all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Row, text

from whalefall_capacity.periods import PeriodType, Window, adjacent_runs, utc_now, window_of
from whalefall_capacity.store.aggregations.statements import (
    AT_ONCE,
    CREATE_SOURCE,
    REMOVE,
    SOURCE_TOTALS,
    STORED,
    TABLES,
    UPSERT,
    Level,
    composed,
)
from whalefall_capacity.store.postgres.advisory_locks import lock_calculation
from whalefall_capacity.store.postgres.engine import again_if_connection_lost
from whalefall_capacity.store.postgres.one_statement import read_value, write
from whalefall_capacity.store.table_partitions.create import AGGREGATION_TABLES, ensure_children
from whalefall_capacity.watching import Watcher

# An instance has one row a day itself, and one for each of its databases: what a transaction costs whatever it does is
# to be small beside what it does on either level.
CHUNK_INSTANCES = {Level.DATABASE: 500, Level.INSTANCE: 5000}
# Two at a time: while one reads and groups, the other writes.
CONCURRENCY = 2
# Chunks run side by side already. Parallel workers within one would each group every database for themselves, which
# pays only where there are many rows a database: a month takes a third longer with them, a quarter less.
PARALLEL_WINDOW_DAYS = 60
# Windows of one block, and days from its first to its last, unless one window has more: they bound the temporary
# table, and how long a cancel has to wait.
BLOCK_WINDOWS = 31
BLOCK_DAYS = 92


class WindowState(StrEnum):
    """The outcome of a window: calculated, without any stats, or final."""

    DONE = "done"
    SKIPPED = "skipped"
    SEALED = "sealed"


@dataclass
class WindowResult:
    """A window as a calculation saw it, and the rows that it changed; sizes in bytes."""

    window: Window
    state: WindowState = WindowState.SKIPPED
    source_rows: int = 0
    source_sum_bytes: int = 0
    source_max_updated_at: datetime | None = None
    result_rows: int = 0
    instances: int = 0
    closing_size_bytes: int = 0
    rows_written: int = 0
    rows_removed: int = 0

    def add(self, part: WindowResult) -> None:
        """Add what was seen and done in one chunk; sealed for one is sealed for all."""
        if self.state is not WindowState.SEALED and part.state is not WindowState.SKIPPED:
            self.state = part.state
        self.source_rows += part.source_rows
        self.source_sum_bytes += part.source_sum_bytes
        self.source_max_updated_at = max(
            filter(None, (self.source_max_updated_at, part.source_max_updated_at)), default=None
        )
        self.result_rows += part.result_rows
        self.instances += part.instances
        self.closing_size_bytes += part.closing_size_bytes
        self.rows_written += part.rows_written
        self.rows_removed += part.rows_removed


# Shared, so that a window is not sealed while one of its chunks is under way.
SEALED = """
SELECT period_start, sealed_at IS NOT NULL AS is_sealed FROM aggregation_windows
WHERE level = :level AND period_type = :period_type AND period_start = ANY (:starts)
ORDER BY period_start
FOR SHARE
"""
RECORD = """
INSERT INTO aggregation_windows AS recorded (level, period_type, calculated_at, period_start, source_rows,
                                             source_sum_bytes, source_max_updated_at, result_rows, instances)
SELECT :level, :period_type, now(), seen.*
FROM unnest(CAST(:starts AS date[]), CAST(:source_rows AS bigint[]), CAST(:source_sums AS numeric[]),
            CAST(:source_updated_ats AS timestamptz[]), CAST(:result_rows AS bigint[]),
            CAST(:instances AS integer[])) AS seen
ON CONFLICT (level, period_type, period_start) DO UPDATE
SET calculated_at = excluded.calculated_at, source_rows = excluded.source_rows,
    source_sum_bytes = excluded.source_sum_bytes, source_max_updated_at = excluded.source_max_updated_at,
    result_rows = excluded.result_rows, instances = excluded.instances, updated_at = now()
WHERE recorded.sealed_at IS NULL
"""
# Ids begin with 1.
CHUNKS = "SELECT DISTINCT (id - 1) / :size AS chunk FROM instances ORDER BY chunk"
# Nearly every database of the store's stats has an instance total on the same day, and there are few of those.
DAYS_WITH_STATS = """
SELECT DISTINCT collected_date FROM instance_size_stats WHERE collected_date BETWEEN :first AND :last
"""
# One look a window, which ends at its first row: an instance has few rows, and to read all of them for their days would
# take as long as to group them. The day is where most closing values are likely to be; the others are looked up.
WINDOWS_WITH_STATS = """
SELECT period_start, least(period_end, :today) AS closing_day
FROM unnest(CAST(:starts AS date[]), CAST(:ends AS date[])) AS windows (period_start, period_end)
WHERE (SELECT true FROM instance_size_stats
       WHERE collected_date BETWEEN period_start AND period_end AND collected_date BETWEEN :first AND :last LIMIT 1)
"""
CLOSING = """
SELECT sum(closing_size_bytes) FROM {aggregations} WHERE period_type = :period_type AND period_start = :start
"""


def aggregate(
    engine: Engine,
    level: Level,
    windows: Sequence[Window],
    watcher: Watcher[range, range] | None = None,
    concurrency: int = CONCURRENCY,
) -> list[WindowResult]:
    """Calculate *windows*, all of one period type and oldest first, from the stats as they are now.

    *concurrency* is how many chunks are calculated at once, each on a connection of its own.
    *watcher* hears of chunks, as ranges of instance ids, and how many of their blocks are done. When it raises, the
    blocks under way are finished, what is done stays, and the next calculation completes it.
    """
    watcher = watcher or Watcher()
    results = {window.start: WindowResult(window) for window in windows}
    blocks = list(_blocks(windows))
    all_chunks = _read_chunks(engine, level)
    units_left = {chunk: len(blocks) for chunk in all_chunks}
    total = len(blocks) * len(all_chunks)
    watcher.progressed(0, total)

    def calculate(chunk: range, block: Sequence[Window]) -> list[WindowResult]:
        if block is blocks[0]:
            watcher.began(chunk)
        return _calculate(engine, level, chunk, block)

    with ThreadPoolExecutor(concurrency) as pool:
        futures = {pool.submit(calculate, chunk, block): chunk for block in blocks for chunk in all_chunks}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                for result in future.result():
                    results[result.window.start].add(result)
                chunk = futures[future]
                units_left[chunk] -= 1
                if not units_left[chunk]:
                    watcher.ended(chunk)
                watcher.progressed(number, total)
        finally:
            for future in futures:
                future.cancel()
    _record(engine, level, [result for result in results.values() if result.state is not WindowState.SEALED])
    return list(results.values())


def closing_size(engine: Engine, level: Level, window: Window) -> int | None:
    """Return the closing sizes of *window*, in bytes, of everything together; None when it has no row."""
    statement = CLOSING.format(aggregations=TABLES[level].aggregations)
    total = read_value(engine, statement, period_type=window.period_type.value, start=window.start)
    return None if total is None else int(total)


def chunks(connection: Connection, level: Level) -> list[range]:
    """Return the instance ids of each chunk of *level* that has any, in order."""
    size = CHUNK_INSTANCES[level]
    numbers = connection.execute(text(CHUNKS), {"size": size}).scalars()
    return [range(n * size + 1, (n + 1) * size + 1) for n in numbers]


@again_if_connection_lost
def _read_chunks(engine: Engine, level: Level) -> list[range]:
    with engine.connect() as connection:
        return chunks(connection, level)


def _blocks(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Yield blocks of windows, at least one window each."""
    block: list[Window] = []
    for window in windows:
        if block and (len(block) == BLOCK_WINDOWS or (window.end - block[0].start).days >= BLOCK_DAYS):
            yield block
            block = []
        block.append(window)
    if block:
        yield block


@again_if_connection_lost
def _calculate(engine: Engine, level: Level, chunk: range, windows: Sequence[Window]) -> list[WindowResult]:
    """Bring the rows of one chunk up to date, in one transaction, and return what was seen and done."""
    period_type = windows[0].period_type
    with engine.begin() as connection:
        lock_calculation(connection, level.value, period_type, chunk)
        connection.execute(text(_settings(level, windows[0])))
        sealed = _sealed(connection, level, windows)
        results = [WindowResult(window, WindowState.SEALED) for window in windows if window.start in sealed]
        # What sealed windows leave of the block; usually all of it.
        for run in adjacent_runs(window for window in windows if window.start not in sealed):
            results += _calculate_run(connection, level, chunk, run)
    return results


def _settings(level: Level, window: Window) -> str:
    settings = ["jit = off", "work_mem = '128MB'"]
    if (window.end - window.start).days < PARALLEL_WINDOW_DAYS:
        settings.append("max_parallel_workers_per_gather = 0")
    if level is Level.INSTANCE:
        # The rows of a window may have been written a moment ago: the planner takes them for few.
        settings.append("enable_nestloop = off")
    return "; ".join(f"SET LOCAL {setting}" for setting in settings)


def _sealed(connection: Connection, level: Level, windows: Sequence[Window]) -> set[date]:
    """Return the starts of the windows that are final; none of the others becomes so in this transaction."""
    values = {
        "level": level.value,
        "period_type": windows[0].period_type.value,
        "starts": [window.start for window in windows],
    }
    return {row.period_start for row in connection.execute(text(SEALED), values) if row.is_sealed}


def _calculate_run(connection: Connection, level: Level, chunk: range, windows: Sequence[Window]) -> list[WindowResult]:
    values: dict[str, Any] = {
        "first": windows[0].start,
        "last": windows[-1].end,
        "low": chunk.start,
        "high": chunk.stop - 1,
        "period_type": windows[0].period_type.value,
        "starts": [window.start for window in windows],
        "ends": [window.end for window in windows],
    }
    days = _days_with_stats(connection, windows) if level is Level.DATABASE else _likely_days(connection, values)
    aggregations = AGGREGATION_TABLES[level.value, windows[0].period_type]
    ensure_children(connection, [aggregations], list(days))
    values["closing_days"] = list(days.values())

    def run(statement: str) -> CursorResult[*tuple[Any, ...]]:
        return connection.execute(composed(statement, level, windows), values)

    if level is Level.INSTANCE:
        return [_result(row, windows[0].period_type) for row in run(AT_ONCE)]
    results = {window.start: WindowResult(window) for window in windows}
    run(CREATE_SOURCE)
    for row in run(SOURCE_TOTALS):
        results[row.period_start] = _seen(results[row.period_start].window, row)
    # Sizes without a total on any of their days: of the two archives of a month only theirs was restored.
    unforeseen = [start for start, result in results.items() if result.source_rows and start not in days]
    if unforeseen:
        ensure_children(connection, [aggregations], unforeseen)
    for start, count in run(UPSERT):
        results[start].rows_written = count
    # Every source row has its row now; only when there are more of them has one lost its source.
    if run(STORED).scalar_one() != sum(result.result_rows for result in results.values()):
        for start, count in run(REMOVE):
            results[start].rows_removed = count
    run("DROP TABLE source")
    return list(results.values())


def _result(row: Row[*tuple[Any, ...]], period_type: PeriodType) -> WindowResult:
    """Return what AT_ONCE tells of a window."""
    window = window_of(row.period_start, period_type)
    result = WindowResult(window) if row.source_rows is None else _seen(window, row)
    result.rows_written, result.rows_removed = row.rows_written, row.rows_removed
    return result


def _seen(window: Window, row: Row[*tuple[Any, ...]]) -> WindowResult:
    """Return what SOURCE_TOTALS tells of *window*."""
    return WindowResult(
        window,
        WindowState.DONE,
        source_rows=int(row.source_rows),
        source_sum_bytes=int(row.source_sum_bytes),
        source_max_updated_at=row.source_max_updated_at,
        result_rows=int(row.result_rows),
        instances=row.instances,
        closing_size_bytes=int(row.closing_size_bytes),
    )


def _days_with_stats(connection: Connection, windows: Sequence[Window]) -> dict[date, date]:
    """Return the last day with stats of each window that has any, by the start of the window."""
    span = {"first": windows[0].start, "last": windows[-1].end}
    # Oldest first, so that the last day of a window stays.
    days = connection.execute(text(DAYS_WITH_STATS), span).scalars()
    return {window_of(day, windows[0].period_type).start: day for day in sorted(days)}


def _likely_days(connection: Connection, values: Mapping[str, Any]) -> dict[date, date]:
    """Return the likely last day with stats of each window that has any, by the start of the window."""
    # In whichever zone: a day that is not the last one is looked up.
    found = connection.execute(text(WINDOWS_WITH_STATS), {**values, "today": utc_now().date()})
    return {row.period_start: row.closing_day for row in found}


@again_if_connection_lost
def _record(engine: Engine, level: Level, results: Sequence[WindowResult]) -> None:
    if not results:
        return
    write(
        engine,
        RECORD,
        level=level.value,
        period_type=results[0].window.period_type.value,
        starts=[result.window.start for result in results],
        source_rows=[result.source_rows for result in results],
        source_sums=[result.source_sum_bytes for result in results],
        source_updated_ats=[result.source_max_updated_at for result in results],
        result_rows=[result.result_rows for result in results],
        instances=[result.instances for result in results],
    )
