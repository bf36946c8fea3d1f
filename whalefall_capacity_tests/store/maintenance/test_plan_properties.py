"""Three years of daily maintenance, simulated on a real store: random install days, settings, zones, imports.

Every day is asked what there is to do, by the same pure decisions that a maintenance takes, on the children as they
are; days on which nothing has changed and nothing is due are not run. What is checked after each run:

- no row within retention is lost, and no write ever lacks a child;
- no child outlives its retention by more than one maintenance, unless that says why;
- the aggregations of days that are gone are what they were, also when they are calculated again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from whalefall_capacity.periods import Window, add_months, month_start, today
from whalefall_capacity.settings import Settings, build_settings
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance.plan import Outcome, cut_off, plan_drops
from whalefall_capacity.store.maintenance.retire import Maintenance, make_plan
from whalefall_capacity.store.maintenance.seal import windows_of
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.locks import maintenance_lock
from whalefall_capacity.store.table_partitions.catalog import ChildTable, read_children
from whalefall_capacity.store.table_partitions.create import (
    AGGREGATION_TABLES,
    PARTITIONED_TABLES,
    STATS_TABLES,
    ensure_children,
    months_ahead,
)
from whalefall_capacity_tests.conftest import TEMPLATE, _administrator
from whalefall_capacity_tests.store.maintenance.upkeep import PATIENCE, maintain
from whalefall_capacity_tests.store.records import rows

YEARS = 3
ZONES = ("Asia/Shanghai", "America/New_York", "Europe/London", "Pacific/Apia", "Asia/Kathmandu", "UTC")


def retentions(*, stats: int, daily: int, weekly: int, monthly: int, quarterly: int, ahead: int) -> dict[str, int]:
    """Return the settings of a maintenance, all in months."""
    return {
        "retention_stats_months": stats,
        "retention_daily_months": daily,
        "retention_weekly_months": weekly,
        "retention_monthly_months": monthly,
        "retention_quarterly_months": quarterly,
        "create_ahead_months": ahead,
    }


RETENTIONS = st.builds(
    retentions,
    stats=st.integers(4, 14),
    daily=st.integers(1, 14),
    weekly=st.integers(1, 18),
    monthly=st.integers(1, 40),
    quarterly=st.integers(1, 40),
    ahead=st.integers(1, 4),
)
WRITE = """
INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
SELECT 1, 'shop', day, size, 'measured', now()
FROM unnest(CAST(:days AS date[]), CAST(:sizes AS bigint[])) AS s (day, size)
ON CONFLICT (instance_id, database_name, collected_date) DO UPDATE
SET size_bytes = excluded.size_bytes, updated_at = clock_timestamp()
"""
WRITE_TOTALS = """
INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count, source,
                                 collected_at)
SELECT 1, day, size, 1, 0, 'measured', now()
FROM unnest(CAST(:days AS date[]), CAST(:sizes AS bigint[])) AS s (day, size)
ON CONFLICT (instance_id, collected_date) DO UPDATE
SET total_size_bytes = excluded.total_size_bytes, updated_at = clock_timestamp()
"""
STORED = """
SELECT 'database', collected_date, size_bytes FROM database_size_stats
UNION ALL
SELECT 'instance', collected_date, total_size_bytes FROM instance_size_stats
"""
FIGURES = """
SELECT 'database', period_type, period_start, data_count, sum_size_bytes, max_size_bytes, min_size_bytes
FROM database_size_aggregations
UNION ALL
SELECT 'instance', period_type, period_start, data_count, sum_size_bytes, max_size_bytes, min_size_bytes
FROM instance_size_aggregations
"""
Key = tuple[Level, Window]
_numbers = count(1)


@dataclass
class Simulation:
    """A store, and what has to be in it.

    *written* are the rows of the children that are still there, *final* the windows that have lost days, *truth* what
    those were made of for as long as their own aggregation child is there, *retired* the aggregation children that are
    gone.
    """

    store: Engine
    zone: ZoneInfo
    written: dict[Level, dict[date, int]] = field(default_factory=lambda: {level: {} for level in Level})
    final: set[Key] = field(default_factory=set)
    truth: dict[Key, tuple[int, int, int, int]] = field(default_factory=dict)
    retired: list[ChildTable] = field(default_factory=list)
    children: list[ChildTable] = field(default_factory=list)
    excused: set[int] = field(default_factory=set)
    overdue: set[int] = field(default_factory=set)
    changed: bool = True
    runs: int = 0

    def write(self, days: Iterable[date], seed: int) -> None:
        """Store a size for each of *days*, as a collection or an import does."""
        sizes = {day: (day.toordinal() * 7919 + seed * 104_729) % 10**9 for day in days}
        with self.store.begin() as connection:
            ensure_children(connection, STATS_TABLES, sizes)
            for statement in (WRITE, WRITE_TOTALS):
                connection.execute(text(statement), {"days": list(sizes), "sizes": list(sizes.values())})
        for days_written in self.written.values():
            days_written |= sizes
        self.changed = True

    def due(self, settings: Settings, day: date) -> bool:
        """Has a maintenance on *day* anything to do that the last one has not done or declined already?"""
        plan = plan_drops(self.children, settings, day, {}, last_time=10**6)
        missing = any(
            not any(child.table == table and child.bounds.hold(month) for child in self.children)
            for table in PARTITIONED_TABLES
            for month in months_ahead(table, settings, day)
        )
        return missing or any(drop.oid not in self.excused or self.changed for drop in plan.drops)

    def maintain(self, settings: Settings, day: date) -> None:
        """Run a maintenance and check what it left."""
        self.runs += 1
        before = {child.oid: child for child in self._read()}
        with maintenance_lock(self.store):
            maintenance = Maintenance(self.store, settings, day, PATIENCE)
            outcomes = maintain(maintenance, make_plan(self.store, settings, day), confirmed=True)
        assert [o for o in outcomes if o.outcome is Outcome.FAILED] == []
        self.children = self._read()
        self.changed = False
        reported = {o.child for o in outcomes if o.outcome in (Outcome.KEPT, Outcome.CONTENDED)}
        past = {
            child.oid
            for child in self.children
            if child.span[1] <= cut_off(child.table, settings, day) and child.name not in reported
        }
        assert not past & self.overdue, "a child has outlived its retention by more than one maintenance"
        self.overdue = past
        self.excused = {child.oid for child in self.children if child.name in reported}
        now = {child.oid for child in self.children}
        for child in before.values():
            if child.oid not in now and child.table in STATS_TABLES:
                self._seal(child)
            elif child.oid not in now:
                # Gone by its own retention; where that is made longer later, what is gone does not come back.
                self.retired.append(child)
                self.truth = {key: figures for key, figures in self.truth.items() if not _lies_in(key, child)}
        gone = cut_off(STATS_TABLES[0], settings, day)
        must = {
            (level.value, written, size)
            for level in Level
            for written, size in self.written[level].items()
            if add_months(month_start(written), 1) > gone
        }
        assert must <= set(rows(self.store, STORED)), "rows within retention were lost"
        self._check_aggregations()

    def recalculate(self, keys: Iterable[Key]) -> None:
        """Materialize windows of days that are gone again; their rows must not change."""
        before = self._figures()
        for level, window in keys:
            aggregate(self.store, level, [window])
        assert self._figures() == before

    def _read(self) -> list[ChildTable]:
        with self.store.connect() as connection:
            return read_children(connection)

    def _seal(self, child: ChildTable) -> None:
        """Note what the windows of a child that has just gone were made of; an empty one took nothing from them."""
        level = Level.DATABASE if child.table.name.startswith("database") else Level.INSTANCE
        written = self.written[level]
        lost = [day for day in written if child.bounds.hold(day)]
        for window in windows_of(*child.span) if lost else ():
            key = (level, window)
            sizes = [size for day, size in written.items() if window.start <= day <= window.end]
            has_home = any(_lies_in(key, home) for home in self.children)
            if sizes and has_home and key not in self.final and not any(_lies_in(key, gone) for gone in self.retired):
                self.truth[key] = (len(sizes), sum(sizes), max(sizes), min(sizes))
            self.final.add(key)
        for day in lost:
            del written[day]

    def _check_aggregations(self) -> None:
        """Compare every sealed window whose aggregation child is still there with what it was made of."""
        found = self._figures()
        for (level, window), figures in self.truth.items():
            key = (level.value, window.period_type.value, window.start)
            assert found.get(key) == figures, (key, found.get(key), figures)

    def _figures(self) -> Mapping[tuple[Any, ...], tuple[Any, ...]]:
        return {row[:3]: tuple(map(int, row[3:])) for row in rows(self.store, FIGURES)}


def _lies_in(key: Key, child: ChildTable) -> bool:
    """Is the aggregation row of a window in *child*?"""
    level, window = key
    return child.table == AGGREGATION_TABLES[level.value, window.period_type] and child.bounds.hold(window.start)


@contextmanager
def fresh_store(server: EmbeddedPostgres) -> Iterator[Engine]:
    name = f"years_{next(_numbers)}"
    with _administrator(server) as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
        connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    engine = create_store_engine(server.url(name))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO instances (id, name, db_type) VALUES (1, 'one', 'postgresql')"))
    yield engine
    engine.dispose()
    with _administrator(server) as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.mark.slow
@hypothesis_settings(
    # Each history takes half a minute, and every run of the suite lives through another one.
    max_examples=1,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # To shrink an example of three years would take hours.
    phases=(Phase.explicit, Phase.generate),
)
# An import into the quarter of a child that went empty: the quarter has lost nothing and is calculated again.
@example(
    installed=date(2021, 3, 23),
    zone="Pacific/Apia",
    clock=time(22, 50),
    first=retentions(stats=4, daily=3, weekly=13, monthly=23, quarterly=39, ahead=4),
    second=retentions(stats=8, daily=14, weekly=14, monthly=21, quarterly=25, ahead=1),
    changed_after=333,
    imports={144: 346, 110: 242, 123: 85},
)
# A quarter's row went by its own retention, which is made longer while the days are still there: it does not come back.
@example(
    installed=date(2023, 9, 27),
    zone="Europe/London",
    clock=time(12, 47),
    first=retentions(stats=13, daily=2, weekly=1, monthly=14, quarterly=4, ahead=1),
    second=retentions(stats=11, daily=1, weekly=5, monthly=7, quarterly=23, ahead=1),
    changed_after=401,
    imports={996: 479, 140: 14},
)
@given(
    installed=st.dates(date(2019, 11, 1), date(2024, 3, 31)),
    zone=st.sampled_from(ZONES),
    clock=st.times(),
    first=RETENTIONS,
    second=RETENTIONS,
    changed_after=st.integers(300, 900),
    imports=st.dictionaries(st.integers(0, 365 * YEARS), st.integers(1, 700), max_size=4),
)
def test_three_years_of_maintenance_lose_nothing_and_leave_nothing(
    store_server: EmbeddedPostgres,
    installed: date,
    zone: str,
    clock: time,
    first: dict[str, int],
    second: dict[str, int],
    changed_after: int,
    imports: dict[int, int],
) -> None:
    simulate(store_server, installed, zone, clock, first, second, changed_after, imports)


def simulate(
    server: EmbeddedPostgres,
    installed: date,
    zone: str,
    clock: time,
    first: dict[str, int],
    second: dict[str, int],
    changed_after: int,
    imports: dict[int, int],
) -> int:
    """Live through the years; return how many days were run."""
    # As they are kept: 29 February and the ends of months are days like others here.
    both = [build_settings(start_date=date(2000, 1, 1), **given) for given in (first, second)]
    with fresh_store(server) as store:
        simulation = Simulation(store, ZoneInfo(zone))
        for number in range(365 * YEARS + 1):
            local = datetime.combine(installed + timedelta(days=number), clock, tzinfo=simulation.zone)
            day = today(simulation.zone, local.astimezone(timezone.utc))
            settings = both[number >= changed_after]
            if number in imports:
                simulation.write([day - timedelta(days=imports[number] + back) for back in (0, 1, 40)], number)
            if day.day in (1, 15) or (day + timedelta(days=1)).day == 1:
                simulation.write([day], 0)
            if simulation.due(settings, day):
                simulation.maintain(settings, day)
        last = sorted(simulation.truth, key=lambda key: key[1].start)
        simulation.recalculate(last[-40:] + last[:10])
        return simulation.runs
