"""Locks that meet: a seal and a calculation wait for each other, and nobody types a key of his own."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

import whalefall_capacity
from whalefall_capacity.periods import PeriodType, windows_between
from whalefall_capacity.store.aggregations.calculate import WindowState, aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance.seal import seal
from whalefall_capacity.store.postgres.locks import Patience, is_contention
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.store.maintenance.upkeep import JANUARY, aggregations, calculate, ends, put_month, upkeep
from whalefall_capacity_tests.store.maintenance.upkeep import sealed as sealed_windows
from whalefall_capacity_tests.store.records import rows

FEBRUARY, APRIL = date(2025, 2, 1), date(2025, 4, 1)
DAYS = [month + timedelta(days=n) for month in (JANUARY, APRIL) for n in range(31)]
# A calculation of April waits for this while it has its lock; nothing of January does.
RECORDS_OF_APRIL = "SELECT FROM aggregation_windows WHERE period_start >= '2025-04-01' FOR UPDATE"
WRITING_JANUARY = "LOCK TABLE database_size_stats_2025_01 IN ROW EXCLUSIVE MODE"
AT_ONCE = Patience(lock_timeout_seconds=0.2, pauses_seconds=())
LONG = Patience(lock_timeout_seconds=120, pauses_seconds=())
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def store(either_store: Engine) -> Engine:
    """Two months of stats, all windows calculated."""
    for month in (JANUARY, APRIL):
        put_month(either_store, month)
    calculate(either_store, DAYS)
    return either_store


@contextmanager
def holding(store: Engine, statement: str) -> Iterator[None]:
    """Hold the locks of *statement* in a session of its own."""
    with store.begin() as connection:
        connection.execute(text(statement))
        yield


def wait_for_sessions(store: Engine, number: int) -> None:
    """Wait until *number* sessions wait for a lock."""
    wait_for(lambda: rows(store, WAITING) == [(number,)], f"{number} waiting sessions")


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("period_type", PeriodType)
def test_nothing_is_sealed_while_a_calculation_is_under_way(
    store: Engine, level: Level, period_type: PeriodType
) -> None:
    calculated = windows_between(date(2025, 4, 7), date(2025, 4, 30), period_type)
    bounds = (f"{level.value}_size_stats", JANUARY, FEBRUARY)
    with ThreadPoolExecutor(1) as threads:
        with holding(store, RECORDS_OF_APRIL):
            calculation = threads.submit(aggregate, store, level, calculated)
            wait_for_sessions(store, 1)
            with pytest.raises(DBAPIError) as refused:
                seal(store, *bounds, AT_ONCE)
            assert is_contention(refused.value)
            assert sealed_windows(store) == []
        calculation.result(timeout=120)
    seal(store, *bounds, AT_ONCE)
    assert len(sealed_windows(store)) == 38


def test_a_calculation_waits_for_the_seal_under_way_and_then_leaves_the_sealed_windows_alone(store: Engine) -> None:
    # Its child is gone, so that a calculation takes every lock there is.
    with store.begin() as connection:
        connection.execute(text("DROP TABLE database_size_aggregations_daily_2025_01"))
    days = windows_between(JANUARY, date(2025, 1, 31), PeriodType.DAILY)
    with ThreadPoolExecutor(2) as threads:
        with holding(store, WRITING_JANUARY):
            sealing = threads.submit(seal, store, "database_size_stats", JANUARY, FEBRUARY, LONG)
            wait_for_sessions(store, 1)
            calculation = threads.submit(aggregate, store, Level.DATABASE, days)
            wait_for_sessions(store, 2)
        sealing.result(timeout=120)
        assert len(sealed_windows(store)) == 38
        assert {result.state for result in calculation.result(timeout=120)} == {WindowState.SEALED}


def test_a_maintenance_beside_calculations_of_the_same_months_drops_what_is_past_and_nobody_fails(
    store: Engine,
) -> None:
    before = aggregations(store)
    ended = threading.Event()

    def calculate_again_and_again() -> int:
        times = 0
        while not ended.is_set():
            calculate(store, DAYS)
            times += 1
        return times

    with ThreadPoolExecutor(1) as threads:
        calculations = threads.submit(calculate_again_and_again)
        try:
            outcomes = upkeep(store, date(2026, 8, 20), LONG)
        finally:
            ended.set()
        assert calculations.result(timeout=120) > 0
    dropped = [f"{level}_size_stats_2025_{month}" for level in ("database", "instance") for month in ("01", "04")]
    assert ends(outcomes) == dict.fromkeys(dropped, "dropped")
    assert aggregations(store) == before


def test_one_module_makes_the_keys_of_all_advisory_locks() -> None:
    package = Path(whalefall_capacity.__file__).parent
    speaks_of_them = re.compile(r"pg_(try_)?advisory|hashtext|'advisory'")
    files = [*package.rglob("*.py"), *package.rglob("*.sql")]
    found = {str(file.relative_to(package)) for file in files if speaks_of_them.search(file.read_text())}
    # The checks draw their samples by a hash of the key, and a digest tells whether the fleet is as it was.
    others = {"store/aggregations/recompute.py", "store/insight/read.py"}
    assert found == {"store/postgres/advisory_locks.py", *others}
    assert [file for file in sorted(others) if "lock" in (package / file).read_text().lower()] == []
