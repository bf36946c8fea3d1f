"""The state of all that the figures of some days rest on, in a few numbers: where they are the same, so are those."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import date

from sqlalchemy import Engine, TextClause, text

from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.aggregations.selection import Selection

# Whatever writes or removes the size of a database writes the total of its instance too, and with it a row in another
# place: the sum of the places shows it in whatever order transactions end, where the newest time alone would not. The
# inventory moves with the visits.
FLEET = "SELECT count(*), sum(hashtid(ctid)), max(updated_at) FROM instances"
BASIS = """
SELECT stored.*, windows.*, fleet.*
FROM (SELECT count(*), sum(hashtid(ctid)), max(collected_at), max(updated_at) FROM instance_size_stats
      WHERE {days}) AS stored,
     (SELECT count(*), sum(hashtid(ctid)), max(calculated_at) FROM aggregation_windows
      WHERE period_type = :period_type AND period_start BETWEEN :first AND :last) AS windows,
     (<fleet>) AS fleet
""".replace("<fleet>", FLEET)
DAILY = text(BASIS.format(days="collected_date BETWEEN :first AND :last"))
# A change of an earlier day shows once its window is calculated again.
OF_WINDOWS = text(BASIS.format(days="collected_date >= CAST(:last AS date) - 1"))
# Lists say besides whose newest visit failed: a visit that ends moves the counters of its run.
OF_LISTS = text(
    """
    SELECT windows.*, runs.*
    FROM (<windows>) AS windows,
         (SELECT count(*), sum(hashtid(ctid)), max(updated_at) FROM task_runs
          WHERE created_at > CAST(:last AS date) - :visit_days) AS runs
    """.replace("<windows>", BASIS.format(days="collected_date >= CAST(:last AS date) - 1"))
)


def daily_basis(engine: Engine, first: date, last: date) -> Hashable:
    """Return the state of the sizes and daily aggregations from *first* to *last*, and of the fleet."""
    return _basis(engine, DAILY, PeriodType.DAILY, first, last)


def windows_basis(engine: Engine, selection: Selection) -> Hashable:
    """Return the state of the windows of *selection*, of the newest sizes, and of the fleet."""
    return _basis(engine, OF_WINDOWS, selection.period_type, selection.first, selection.last)


def lists_basis(engine: Engine, first: date, today: date, visit_days: int) -> Hashable:
    """Return the state of the daily windows from *first* on, of the newest sizes and visits, and of the fleet."""
    return _basis(engine, OF_LISTS, PeriodType.DAILY, first, today, visit_days=visit_days)


def fleet_basis(engine: Engine) -> Hashable:
    """Return the state of the fleet."""
    with engine.connect() as connection:
        return tuple(connection.execute(text(FLEET)).one())


def _basis(
    engine: Engine, statement: TextClause, period_type: PeriodType, first: date, last: date, **more: int
) -> Hashable:
    values = {"period_type": period_type.value, "first": first, "last": last, **more}
    with engine.connect() as connection:
        return tuple(connection.execute(statement, values).one())
