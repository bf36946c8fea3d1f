"""Seals of the windows of a stats child before it goes: what they were calculated from is what is there.

A window is sealed in a transaction that keeps writers from every child that has a day of it, and looks at the stats
afresh: whatever was committed since the calculation is seen there, and then nothing is sealed. A window that has lost
days with an earlier child was sealed with that one and is final; what a window has lost, the ledger knows. One that has
lost nothing after all, because its child stayed or was empty, is unsealed by a later maintenance.

Every maintenance also looks for open windows that were not calculated from the stats that are there, whatever the
reason: a process may be killed after any commit, and the next one sees in the rows what it left undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import groupby

from psycopg2 import sql
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.periods import PeriodType, Window, days_to_windows, window_of, windows_between
from whalefall_capacity.store.aggregations.calculate import aggregate, chunks
from whalefall_capacity.store.aggregations.statements import TABLES, Level
from whalefall_capacity.store.postgres.advisory_locks import lock_all_calculations, lock_child_creation
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.postgres.locks import Patience, limit_waits
from whalefall_capacity.store.sizes.stats import written_days
from whalefall_capacity.store.table_partitions.catalog import read_children
from whalefall_capacity.store.table_partitions.create import Bounds
from whalefall_capacity.store.table_partitions.retired import LostDays, absent_days, leaving_days, lost_days

ONE_DAY = timedelta(days=1)
LEVELS = {TABLES[level].stats.name: level for level in Level}
# One scan for all four period types: what they saw adds up from days.
DAYS = sql.SQL(
    "SELECT collected_date, count(*), sum({size}), max(updated_at) FROM {stats} "
    "WHERE collected_date = ANY (%(days)s) GROUP BY collected_date"
)
RECORDED = """
SELECT period_type, period_start, source_rows, source_sum_bytes, source_max_updated_at, sealed_at IS NOT NULL AS sealed
FROM aggregation_windows
JOIN unnest(CAST(:period_types AS text[]), CAST(:starts AS date[])) AS wanted (period_type, period_start)
     USING (period_type, period_start)
WHERE level = :level
"""
SEALED = """
SELECT period_type, period_start FROM aggregation_windows
WHERE level = :level AND sealed_at IS NOT NULL
ORDER BY period_type, period_start
"""
# Rows that are as they should be are not written again.
SET_SEAL = """
UPDATE aggregation_windows AS recorded SET sealed_at = CASE WHEN :sealed THEN now() END, updated_at = now()
FROM unnest(CAST(:period_types AS text[]), CAST(:starts AS date[])) AS wanted (period_type, period_start)
WHERE recorded.level = :level AND recorded.period_type = wanted.period_type
  AND recorded.period_start = wanted.period_start AND (recorded.sealed_at IS NOT NULL) <> :sealed
"""
# In the order in which everybody locks these rows: advisory_locks.py tells it.
HOLD = """
SELECT FROM aggregation_windows
JOIN unnest(CAST(:period_types AS text[]), CAST(:starts AS date[])) AS wanted (period_type, period_start)
     USING (period_type, period_start)
WHERE level = :level
ORDER BY period_type, period_start
FOR UPDATE OF aggregation_windows
"""
LOCK_CHILDREN = sql.SQL("LOCK TABLE {children} IN SHARE MODE")


class SealError(StoreError):
    """The windows of a child cannot be sealed; it has to stay. The message is the reason."""


@dataclass(frozen=True)
class StatsTotals:
    """The stats of a day or a window in sum; sizes in bytes."""

    rows: int = 0
    sum_bytes: Decimal = Decimal(0)
    newest: datetime | None = None


@dataclass(frozen=True)
class Recorded:
    """The record of a window: the stats that its calculation saw, and whether it is sealed."""

    seen: StatsTotals
    sealed: bool


def windows_of(lower: date, upper: date) -> list[Window]:
    """Return the windows of every period type that contain a day of lower <= day < upper."""
    return [window for period_type in PeriodType for window in windows_between(lower, upper - ONE_DAY, period_type)]


def totals_of(days: Mapping[date, StatsTotals], window: Window) -> StatsTotals:
    """Return the stats of *window* in sum."""
    inside = [seen for day, seen in days.items() if window.start <= day <= window.end]
    return StatsTotals(
        sum(seen.rows for seen in inside),
        sum((seen.sum_bytes for seen in inside), Decimal(0)),
        max((seen.newest for seen in inside if seen.newest is not None), default=None),
    )


def windows_behind(
    lower: date,
    upper: date,
    days: Mapping[date, StatsTotals],
    recorded: Mapping[Window, Recorded],
    lost: Sequence[LostDays],
) -> list[Window]:
    """Return the windows of a child that have to be calculated again, by what their calculations saw.

    A window that has lost days with an earlier child is left as it is. Raises SealError when the child has to stay.
    """
    behind = []
    late = sum(seen.rows for day, seen in days.items() if lower <= day < upper)
    for gone in lost:
        if late and gone.overlap(lower, upper - ONE_DAY):
            raise SealError(
                f"{late} rows came after these days were retired on {gone.retired_on}; their windows are final, and no "
                "aggregation has these rows: restore the archive and bring them again, or drop the table by hand"
            )
    for window in windows_of(lower, upper):
        known = recorded.get(window)
        if any(gone.overlap(window.start, window.end) for gone in lost):
            if known is None or not known.sealed:
                raise SealError(f"the {window.period_type.value} window {window.start} has lost days and is not sealed")
        elif known is None or known.seen != totals_of(days, window):
            behind.append(window)
    return behind


def seal(engine: Engine, table: str, lower: date, upper: date, patience: Patience) -> None:
    """Seal every window that contains a day of the child of *table* with these bounds.

    Calculates first what is not up to date. Raises SealError when the child has to stay, and the database's own
    error when somebody holds a lock for longer than *patience* allows.
    """
    level = LEVELS[table]
    windows = windows_of(lower, upper)
    with engine.begin() as connection:
        _refuse_while_another_leaves(connection, table, windows)
        behind = _windows_behind(connection, level, lower, upper)
        # Sealed by a retirement that was broken off before anything went, and rows came since.
        hold_windows(connection, level, behind)
        _set_seal(connection, level, behind, sealed=False)
    calculate_behind(engine, level, behind)
    with engine.begin() as connection:
        limit_waits(connection, patience)
        # No calculation is under way when all are ours, and the next one sees what is sealed.
        lock_all_calculations(connection, level.value, chunks(connection, level))
        hold_windows(connection, level, windows)
        _keep_writers_out(connection, table, windows)
        behind = _windows_behind(connection, level, lower, upper)
        if behind:
            first = behind[0]
            raise SealError(
                f"stats changed while {len(behind)} windows were being sealed, among them the "
                f"{first.period_type.value} one of {first.start}; the next maintenance tries again"
            )
        _set_seal(connection, level, windows, sealed=True)


def is_as_sealed(connection: Connection, table: str, lower: date, upper: date, place: sql.Composable) -> bool:
    """Tell whether the rows at *place*, of a child detached from *table*, are those its sealed days were made of."""
    days = _days_beside_records(connection, table, lower, upper, place)
    return all(known is not None and known.sealed and known.seen == seen for known, seen in days)


def has_its_sealed_rows(connection: Connection, table: str, lower: date, upper: date) -> bool:
    """Tell whether *table* has, on every day of lower <= day < upper, the rows that its sealed day was made of."""
    days = _days_beside_records(connection, table, lower, upper, sql.Identifier(table))
    return all(known is not None and _has_its_rows(known, seen) for known, seen in days)


def hold_windows(connection: Connection, level: Level, windows: Sequence[Window]) -> None:
    """Keep calculations of *windows* waiting until the end of the transaction."""
    connection.execute(text(HOLD), _keys(level, windows))


def unseal_whole(connection: Connection, level: Level, lower: date, upper: date) -> tuple[int, int]:
    """Unseal the windows with days of a restored child; return how many are open again, and how many stay sealed.

    A window that still lacks days of another child stays as it is: calculated from what is there it would be wrong.
    """
    windows = windows_of(lower, upper)
    whole = _without(absent_days(connection, TABLES[level].stats.name), windows)
    return _set_seal(connection, level, whole, sealed=False), len(windows) - len(whole)


def unseal_what_lost_nothing(engine: Engine, table: str, limit: date, patience: Patience) -> None:
    """Unseal the windows of *table* whose days are all there; `windows_left_behind` finds those to calculate again.

    Windows with days of a child that is past, all before *limit*, stay as they are: its seal looks at them afresh.
    """
    level = LEVELS[table]
    with engine.begin() as connection:
        limit_waits(connection, patience)
        windows = _sealed_without_reason(connection, level, limit)
        if not windows:
            return
        hold_windows(connection, level, windows)
        days = _days(connection, level, sql.Identifier(table), windows)
        recorded = _recorded(connection, level, windows)
        whole = [window for window in windows if _has_its_rows(recorded.get(window), totals_of(days, window))]
        _set_seal(connection, level, whole, sealed=False)


def windows_left_behind(engine: Engine, table: str, limit: date, today: date) -> list[Window]:
    """Return the open windows of *table* that ended before *today* and were not calculated from its stats as they are.

    Windows with days that are gone, hidden, or in a child that is past, all before *limit*, are left out. Looks only at
    the sizes of windows with a total that was written since: there is one row of those an instance and day.
    """
    level = LEVELS[table]
    written = written_days(engine)
    with engine.connect() as connection:
        over = [
            window
            for period_type in PeriodType
            for window in days_to_windows(written, period_type)
            if window.end < today
        ]
        windows = _without(_final_days(connection, level, limit), over)
        recorded = _recorded(connection, level, windows)
        touched = [window for window in windows if _may_be_behind(recorded.get(window), window, written)]
        days = _days(connection, level, sql.Identifier(table), touched)
    return [
        window
        for window in touched
        if _is_behind(recorded.get(window), seen := totals_of(days, window))
        and _has_its_rows(recorded.get(window), seen)
    ]


def calculate_behind(engine: Engine, level: Level, behind: Sequence[Window]) -> None:
    """Calculate windows that come period type by period type, oldest first."""
    for _, of_one_type in groupby(behind, lambda window: window.period_type):
        aggregate(engine, level, list(of_one_type))


def _may_be_behind(known: Recorded | None, window: Window, written: Mapping[date, datetime]) -> bool:
    """Tell whether totals of *window* were *written* after the newest row that its calculation saw."""
    if known is None or known.seen.newest is None:
        return True
    newest = known.seen.newest
    return any(at > newest for day, at in written.items() if window.start <= day <= window.end)


def _is_behind(known: Recorded | None, seen: StatsTotals) -> bool:
    if known is None:
        # There may be totals of instances alone, which have no database.
        return seen.rows > 0
    return not known.sealed and known.seen != seen


def _has_its_rows(known: Recorded | None, seen: StatsTotals) -> bool:
    """Tell whether no fewer rows are there than were calculated: others went in a way that the ledger does not know."""
    return known is None or seen.rows >= known.seen.rows


def _sealed_without_reason(connection: Connection, level: Level, limit: date) -> list[Window]:
    """Return the sealed windows without a day that was lost, is hidden, or is in a child that is past."""
    rows = connection.execute(text(SEALED), {"level": level.value})
    windows = [window_of(row.period_start, PeriodType(row.period_type)) for row in rows]
    return _without(_final_days(connection, level, limit), windows)


def _without(days: Sequence[LostDays | Bounds], windows: Sequence[Window]) -> list[Window]:
    """Return the *windows* that contain none of these *days*."""
    return [window for window in windows if not any(some.overlap(window.start, window.end) for some in days)]


def _final_days(connection: Connection, level: Level, limit: date) -> list[LostDays | Bounds]:
    """Return the days that were lost, are hidden, or are in a child that is past."""
    stats = TABLES[level].stats.name
    past = [
        child.bounds
        for child in read_children(connection)
        if child.table.name == stats and child.bounds.upper is not None and child.bounds.upper <= limit
    ]
    return [*absent_days(connection, stats), *past]


def _refuse_while_another_leaves(connection: Connection, table: str, windows: Sequence[Window]) -> None:
    """Raise SealError while rows of *windows* are hidden: they would look behind, and be calculated without these."""
    leaving = leaving_days(connection, table)
    if any(gone.overlap(window.start, window.end) for gone in leaving for window in windows):
        raise SealError("another month of its windows is still being detached; the next maintenance tries again")


def _windows_behind(connection: Connection, level: Level, lower: date, upper: date) -> list[Window]:
    stats = TABLES[level].stats.name
    windows = windows_of(lower, upper)
    days = _days(connection, level, sql.Identifier(stats), windows)
    return windows_behind(lower, upper, days, _recorded(connection, level, windows), lost_days(connection, stats))


def _days(
    connection: Connection, level: Level, stats: sql.Composable, windows: Sequence[Window]
) -> dict[date, StatsTotals]:
    """Return the stats of each day of *windows* that has any."""
    days = {day.start for window in windows for day in windows_between(window.start, window.end, PeriodType.DAILY)}
    statement = DAYS.format(size=sql.Identifier(TABLES[level].size), stats=stats)
    with raw_cursor(connection) as cursor:
        cursor.execute(statement, {"days": sorted(days)})
        return {day: StatsTotals(rows, Decimal(total), newest) for day, rows, total, newest in cursor.fetchall()}


def _days_beside_records(
    connection: Connection, table: str, lower: date, upper: date, place: sql.Composable
) -> list[tuple[Recorded | None, StatsTotals]]:
    """Return, for each day of lower <= day < upper, its record as a window of *table*, and the rows at *place*."""
    level = LEVELS[table]
    windows = windows_between(lower, upper - ONE_DAY, PeriodType.DAILY)
    recorded = _recorded(connection, level, windows)
    seen = _days(connection, level, place, windows)
    return [(recorded.get(window), seen.get(window.start, StatsTotals())) for window in windows]


def _recorded(connection: Connection, level: Level, windows: Sequence[Window]) -> dict[Window, Recorded]:
    by_key = {(window.period_type.value, window.start): window for window in windows}
    return {
        by_key[row.period_type, row.period_start]: Recorded(
            StatsTotals(row.source_rows, row.source_sum_bytes, row.source_max_updated_at), row.sealed
        )
        for row in connection.execute(text(RECORDED), _keys(level, windows))
    }


def _set_seal(connection: Connection, level: Level, windows: Sequence[Window], *, sealed: bool) -> int:
    return connection.execute(text(SET_SEAL), {**_keys(level, windows), "sealed": sealed}).rowcount


def _keys(level: Level, windows: Sequence[Window]) -> dict[str, object]:
    return {
        "level": level.value,
        "period_types": [window.period_type.value for window in windows],
        "starts": [window.start for window in windows],
    }


def _keep_writers_out(connection: Connection, table: str, windows: Sequence[Window]) -> None:
    """Wait for the writers of days of *windows*, and keep others out until the end of the transaction."""
    lock_child_creation(connection)
    children = [
        sql.Identifier(child.schema, child.name)
        for child in read_children(connection)
        if child.table.name == table and any(child.bounds.overlap(window.start, window.end) for window in windows)
    ]
    if children:
        with raw_cursor(connection) as cursor:
            cursor.execute(LOCK_CHILDREN.format(children=sql.SQL(", ").join(children)))
