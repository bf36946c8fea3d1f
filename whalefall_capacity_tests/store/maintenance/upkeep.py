"""Maintenance of table partitions as the tests run it, and what they compare before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.settings import Settings, build_settings
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance.plan import MAX_DROPS, ChildOutcome, Outcome, Plan
from whalefall_capacity.store.maintenance.retire import (
    Maintenance,
    allowed_drops,
    archive_children,
    create,
    detach_and_drop,
    finish_leftovers,
    make_plan,
    seal_children,
)
from whalefall_capacity.store.postgres.locks import Patience
from whalefall_capacity.watching import Watcher
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import rows

# Longer than PostgreSQL needs to call its own autovacuum off.
PATIENCE = Patience(lock_timeout_seconds=1.5, pauses_seconds=(0.05, 0.05))
# For whoever is sure to be in the way.
HASTE = Patience(lock_timeout_seconds=0.2, pauses_seconds=(0.05,))
TODAY = date(2026, 5, 20)
JANUARY = date(2025, 1, 1)
STATS = ("database_size_stats", "instance_size_stats")
JANUARY_OF_STATS = tuple(f"{table}_2025_01" for table in STATS)


def settings_for(**overrides: Any) -> Settings:
    """Return settings under which only the stats of January 2025 are past on TODAY, unless told otherwise."""
    return build_settings(**{"start_date": date(2000, 1, 1), "retention_daily_months": 60, **overrides})


class _Calls(Watcher[str, ChildOutcome]):
    """Calls one function before a child is touched, and one with every outcome."""

    def __init__(self, before_child: Callable[[], None], on_outcome: Callable[[ChildOutcome], None]) -> None:
        self._before_child = before_child
        self._on_outcome = on_outcome

    def began(self, child: str) -> None:  # noqa: ARG002
        self._before_child()

    def ended(self, outcome: ChildOutcome) -> None:
        self._on_outcome(outcome)


def upkeep(
    store: Engine,
    day: date = TODAY,
    patience: Patience = PATIENCE,
    max_drops: int = MAX_DROPS,
    confirmed: bool = False,
    on_outcome: Callable[[ChildOutcome], None] = lambda _: None,
    before_child: Callable[[], None] = lambda: None,
    **overrides: Any,
) -> list[ChildOutcome]:
    """Plan and do a whole maintenance; return its outcomes in the order of events."""
    settings = settings_for(**overrides)
    maintenance = Maintenance(store, settings, day, patience, _Calls(before_child, on_outcome))
    return maintain(maintenance, make_plan(store, settings, day, max_drops), confirmed)


def maintain(maintenance: Maintenance, plan: Plan, confirmed: bool) -> list[ChildOutcome]:
    """Do the steps of the job in its order; return the outcomes in the order of events."""
    finish_leftovers(maintenance)
    create(maintenance)
    drops = seal_children(maintenance, allowed_drops(maintenance, plan, confirmed))
    drops, archives = archive_children(maintenance, drops)
    detach_and_drop(maintenance, drops, archives)
    return maintenance.outcomes


def leave_detached(store: Engine, **overrides: Any) -> None:
    """Break a maintenance off between the detach and the drop of its first table partition."""

    def break_off(outcome: ChildOutcome) -> None:
        if outcome.outcome is Outcome.DETACHED:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upkeep(store, on_outcome=break_off, **overrides)


def ends(outcomes: Iterable[ChildOutcome]) -> dict[str, str]:
    """Return what each child ended as, without those that are created ahead."""
    return {o.child: o.outcome.value for o in outcomes if o.outcome not in (Outcome.CREATED, Outcome.EXISTS)}


def reason_of(outcomes: Sequence[ChildOutcome], child: str) -> str:
    """Return why a child ended as it did."""
    return [o.reason for o in outcomes if o.child == child][-1]


def days_of(month: date, step: int = 3) -> list[date]:
    """Return every third day of the first four weeks of *month*."""
    return [month + timedelta(days=offset) for offset in range(0, 28, step)]


def put_month(store: Engine, month: date, size: int = 100) -> None:
    """Store two databases of one instance on some days of *month*."""
    put_sizes(store, [(1, name, day, size + day.day) for name in ("shop", "crm") for day in days_of(month)])


def calculate(store: Engine, days: Iterable[date]) -> None:
    """Aggregate every window that contains any of *days*."""
    days = list(days)
    for level in Level:
        for period_type in PeriodType:
            aggregate(store, level, days_to_windows(days, period_type))


def aggregations(store: Engine) -> list[tuple[Any, ...]]:
    """Return every row of the aggregations without the times of writing."""
    columns = (
        "period_type, period_start, data_count, sum_size_bytes, max_size_bytes, min_size_bytes, closing_size_bytes"
    )
    return rows(
        store,
        f"SELECT 'database', instance_id, database_name, {columns} FROM database_size_aggregations UNION ALL "
        f"SELECT 'instance', instance_id, '', {columns} FROM instance_size_aggregations ORDER BY 1, 2, 3, 4, 5",
    )


def stats(store: Engine) -> list[tuple[Any, ...]]:
    """Return every row of the stats, byte for byte."""
    return rows(
        store,
        "SELECT 'd', s::text FROM database_size_stats AS s UNION ALL SELECT 'i', s::text FROM instance_size_stats AS s "
        "ORDER BY 1, 2",
    )


def tables_like(store: Engine, prefix: str) -> list[str]:
    """Return the names of all tables that begin with *prefix*, attached or not."""
    found = rows(
        store, "SELECT relname FROM pg_class WHERE relkind = 'r' AND starts_with(relname, :p) ORDER BY 1", p=prefix
    )
    return [name for (name,) in found]


def sealed(store: Engine) -> list[tuple[Any, ...]]:
    """Return (level, period type, start) of the sealed windows."""
    return rows(
        store,
        "SELECT level, period_type, period_start FROM aggregation_windows WHERE sealed_at IS NOT NULL ORDER BY 1, 2, 3",
    )
