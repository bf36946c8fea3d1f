"""Sealing the windows of a stats child before it goes: what they were calculated from is what is there.

A window is sealed in a transaction that keeps writers from every child that has a day of it, and looks at the stats
afresh: whatever was committed since the calculation is seen there, and then nothing is sealed. A window that has lost
days with an earlier child was sealed with that one and is final; what a window has lost, the ledger knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from psycopg2 import sql
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.periods import PeriodType, Window, windows_between
from whalefall_capacity.store.aggregations.calculate import aggregate, chunks
from whalefall_capacity.store.aggregations.statements import TABLES, Level
from whalefall_capacity.store.postgres.advisory_locks import lock_all_calculations, lock_child_creation
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.postgres.locks import Patience, limit_waits
from whalefall_capacity.store.table_partitions.catalog import read_children
from whalefall_capacity.store.table_partitions.ledger import LostDays, lost_days

ONE_DAY = timedelta(days=1)
LEVELS = {TABLES[level].stats.name: level for level in Level}
# One scan for all four period types: what they saw adds up from days.
DAYS = sql.SQL(
    "SELECT collected_date, count(*), sum({size}), max(updated_at) FROM {stats} "
    "WHERE collected_date BETWEEN %(first)s AND %(last)s GROUP BY collected_date"
)
RECORDED = """
SELECT period_type, period_start, source_rows, source_sum_bytes, source_max_updated_at, sealed_at IS NOT NULL AS sealed
FROM aggregation_windows
JOIN unnest(CAST(:period_types AS text[]), CAST(:starts AS date[])) AS wanted (period_type, period_start)
     USING (period_type, period_start)
WHERE level = :level
"""
SEAL = """
UPDATE aggregation_windows AS recorded SET sealed_at = now(), updated_at = now()
FROM unnest(CAST(:period_types AS text[]), CAST(:starts AS date[])) AS wanted (period_type, period_start)
WHERE recorded.level = :level AND recorded.period_type = wanted.period_type
  AND recorded.period_start = wanted.period_start AND recorded.sealed_at IS NULL
"""
UNSEAL = """
UPDATE aggregation_windows AS recorded SET sealed_at = NULL, updated_at = now()
FROM unnest(CAST(:period_types AS text[]), CAST(:starts AS date[])) AS wanted (period_type, period_start)
WHERE recorded.level = :level AND recorded.period_type = wanted.period_type
  AND recorded.period_start = wanted.period_start AND recorded.sealed_at IS NOT NULL
"""
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
    """The stats that the calculation of a window saw, and whether it is final."""

    seen: StatsTotals
    sealed: bool


@dataclass(frozen=True)
class Verdict:
    """The obstacles between the windows of a table partition and their seal.

    *behind* have to be calculated again, *final* have lost days before and are left as they are; *refusal* is why the
    child has to stay, None when it may go.
    """

    behind: tuple[Window, ...]
    final: tuple[Window, ...]
    refusal: str | None


def windows_of(lower: date, upper: date) -> list[Window]:
    """Return the windows of every period type that contain a day of lower <= day < upper."""
    return [window for period_type in PeriodType for window in windows_between(lower, upper - ONE_DAY, period_type)]


def together(days: Mapping[date, StatsTotals], window: Window) -> StatsTotals:
    """Return what there is of *window*."""
    inside = [seen for day, seen in days.items() if window.start <= day <= window.end]
    return StatsTotals(
        sum(seen.rows for seen in inside),
        sum((seen.sum_bytes for seen in inside), Decimal(0)),
        max((seen.newest for seen in inside if seen.newest is not None), default=None),
    )


def judge(
    lower: date,
    upper: date,
    days: Mapping[date, StatsTotals],
    recorded: Mapping[Window, Recorded],
    lost: Sequence[LostDays],
) -> Verdict:
    """Compare the windows of a child with what their calculations saw."""
    behind, final = [], []
    late = sum(seen.rows for day, seen in days.items() if lower <= day < upper)
    for gone in lost:
        if gone.lower < upper and lower < gone.upper and late:
            reason = (
                f"{late} rows came after these days were retired on {gone.retired_on}; their windows are final, and no "
                "aggregation has these rows: restore the archive and bring them again, or drop the table by hand"
            )
            return Verdict((), (), reason)
    for window in windows_of(lower, upper):
        known = recorded.get(window)
        if any(gone.lower <= window.end and window.start < gone.upper for gone in lost):
            if known is None or not known.sealed:
                reason = f"the {window.period_type.value} window {window.start} has lost days and is not sealed"
                return Verdict((), (), reason)
            final.append(window)
        elif known is None or known.seen != together(days, window):
            behind.append(window)
    return Verdict(tuple(behind), tuple(final), None)


def seal(engine: Engine, table: str, lower: date, upper: date, patience: Patience) -> int:
    """Seal every window that contains a day of the child of *table* with these bounds; return how many there are.

    Calculates first what is not up to date. Raises SealError when the child has to stay, and the database's own
    error when somebody holds a lock for longer than *patience* allows.
    """
    level = LEVELS[table]
    windows = windows_of(lower, upper)
    with engine.begin() as connection:
        verdict = _look(connection, table, lower, upper)
        # Sealed by a retirement that was broken off before anything went, and rows came since.
        _hold(connection, level, verdict.behind)
        _set_seal(connection, UNSEAL, level, verdict.behind)
    if verdict.refusal is not None:
        raise SealError(verdict.refusal)
    for period_type in PeriodType:
        behind = sorted(window for window in verdict.behind if window.period_type is period_type)
        if behind:
            aggregate(engine, level, behind)
    with engine.begin() as connection:
        limit_waits(connection, patience)
        # No calculation is under way when all are ours, and the next one sees what is sealed.
        lock_all_calculations(connection, level.value, chunks(connection))
        _hold(connection, level, windows)
        _keep_writers_out(connection, table, windows)
        verdict = _look(connection, table, lower, upper)
        if verdict.refusal is not None:
            raise SealError(verdict.refusal)
        if verdict.behind:
            first = verdict.behind[0]
            raise SealError(
                f"stats changed while {len(verdict.behind)} windows were being sealed, among them the "
                f"{first.period_type.value} one of {first.start}; the next maintenance tries again"
            )
        _set_seal(connection, SEAL, level, windows)
    return len(windows)


def is_as_sealed(connection: Connection, table: str, lower: date, upper: date, place: sql.Composable) -> bool:
    """Are the rows at *place*, of a child that was taken out of *table*, the ones that its sealed days were made of?"""
    level = LEVELS[table]
    days = [window for window in windows_of(lower, upper) if window.period_type is PeriodType.DAILY]
    recorded = _recorded(connection, level, days)
    seen = _days(connection, level, place, lower, upper - ONE_DAY)
    return all(
        day in recorded and recorded[day].sealed and recorded[day].seen == seen.get(day.start, StatsTotals())
        for day in days
    )


def hold_windows(connection: Connection, table: str, lower: date, upper: date) -> None:
    """Keep calculations of the windows with days of a child waiting until the end of the transaction."""
    _hold(connection, LEVELS[table], windows_of(lower, upper))


def unseal_whole(connection: Connection, table: str, lower: date, upper: date) -> tuple[int, int]:
    """Open the windows with days of a restored child; return how many are open again, and how many stay sealed.

    A window that still lacks days of another child stays as it is: calculated from what is there it would be wrong.
    """
    level = LEVELS[table]
    lost = lost_days(connection, table)
    windows = windows_of(lower, upper)
    whole = [w for w in windows if not any(gone.lower <= w.end and w.start < gone.upper for gone in lost)]
    return _set_seal(connection, UNSEAL, level, whole), len(windows) - len(whole)


def _look(connection: Connection, table: str, lower: date, upper: date) -> Verdict:
    level = LEVELS[table]
    windows = windows_of(lower, upper)
    first, last = min(window.start for window in windows), max(window.end for window in windows)
    days = _days(connection, level, sql.Identifier(table), first, last)
    return judge(lower, upper, days, _recorded(connection, level, windows), lost_days(connection, table))


def _days(
    connection: Connection, level: Level, stats: sql.Composable, first: date, last: date
) -> dict[date, StatsTotals]:
    statement = DAYS.format(size=sql.Identifier(TABLES[level].size), stats=stats)
    with raw_cursor(connection) as cursor:
        cursor.execute(statement, {"first": first, "last": last})
        return {day: StatsTotals(rows, Decimal(total), newest) for day, rows, total, newest in cursor.fetchall()}


def _recorded(connection: Connection, level: Level, windows: Sequence[Window]) -> dict[Window, Recorded]:
    by_key = {(window.period_type.value, window.start): window for window in windows}
    return {
        by_key[row.period_type, row.period_start]: Recorded(
            StatsTotals(row.source_rows, row.source_sum_bytes, row.source_max_updated_at), row.sealed
        )
        for row in connection.execute(text(RECORDED), _keys(level, windows))
    }


def _set_seal(connection: Connection, statement: str, level: Level, windows: Iterable[Window]) -> int:
    return connection.execute(text(statement), _keys(level, list(windows))).rowcount


def _keys(level: Level, windows: Sequence[Window]) -> dict[str, object]:
    return {
        "level": level.value,
        "period_types": [window.period_type.value for window in windows],
        "starts": [window.start for window in windows],
    }


def _hold(connection: Connection, level: Level, windows: Sequence[Window]) -> None:
    """Lock what is recorded of *windows*, in the order in which everybody does, until the end of the transaction."""
    connection.execute(text(HOLD), _keys(level, windows))


def _keep_writers_out(connection: Connection, table: str, windows: Sequence[Window]) -> None:
    """Wait for those who write days of *windows*, and let nobody begin to until the end of the transaction."""
    lock_child_creation(connection)
    children = [
        sql.Identifier(child.schema, child.name)
        for child in read_children(connection)
        if child.table.name == table and any(_overlap(child.bounds.lower, child.bounds.upper, w) for w in windows)
    ]
    if children:
        with raw_cursor(connection) as cursor:
            cursor.execute(LOCK_CHILDREN.format(children=sql.SQL(", ").join(children)))


def _overlap(lower: date | None, upper: date | None, window: Window) -> bool:
    return (lower is None or lower <= window.end) and (upper is None or window.start < upper)
