"""Maintenance beside readers, writers and a backup: it takes turns, says what is contended, and goes on next time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date

import pytest
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.store.maintenance.plan import Outcome
from whalefall_capacity.store.postgres.locks import maintenance_lock
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.store.maintenance.upkeep import (
    HASTE,
    JANUARY,
    JANUARY_OF_STATS,
    aggregations,
    ends,
    put_month,
    reason_of,
    stats,
    tables_like,
    upkeep,
)
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import rows

FEBRUARY = date(2025, 2, 1)
INSERT = """
INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
VALUES (1, 'orders', :day, 7, 'measured', now())
"""
PENDING = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def store(either_store: Engine) -> Engine:
    return either_store


@contextmanager
def reader(store: Engine) -> Iterator[Connection]:
    """Hold a transaction that has read the stats, as a chart or a report does."""
    with store.begin() as connection:
        connection.execute(text("SELECT count(*) FROM database_size_stats"))
        yield connection


@contextmanager
def backup(store: Engine) -> Iterator[Connection]:
    """Hold what pg_dump holds: one snapshot, and a lock on every table and child."""
    with store.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        tables = connection.execute(
            text(
                "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class "
                "WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
            )
        ).scalar_one()
        connection.execute(text(f"LOCK TABLE {tables} IN ACCESS SHARE MODE"))
        yield connection


def test_with_an_open_reader_the_detach_is_contended_and_the_next_maintenance_completes_it(store: Engine) -> None:
    put_month(store, JANUARY)
    put_month(store, FEBRUARY)
    with reader(store):
        outcomes = upkeep(store, patience=HASTE)
        assert ends(outcomes) == {
            "database_size_stats_2025_01": "contended",
            "instance_size_stats_2025_01": "dropped",
            "database_size_stats_2025_02": "contended",
            "instance_size_stats_2025_02": "dropped",
        }
    assert reason_of(outcomes, "database_size_stats_2025_02").startswith(
        "another table partition of its table is still"
    )
    # Hidden, not lost; and the windows were sealed before.
    assert rows(store, PENDING) == [("database_size_stats_2025_01",)]
    assert rows(store, "SELECT count(*) FROM database_size_stats_2025_01") == [(20,)]
    assert rows(store, "SELECT count(*) FROM database_size_stats WHERE collected_date < '2025-02-01'") == [(0,)]
    outcomes = upkeep(store)
    assert ends(outcomes) == {"database_size_stats_2025_01": "dropped", "database_size_stats_2025_02": "dropped"}
    assert Outcome.FINALIZED in [o.outcome for o in outcomes if o.child == "database_size_stats_2025_01"]


def test_a_window_keeps_all_its_days_while_one_of_its_months_is_being_detached_for_nights(store: Engine) -> None:
    put_month(store, JANUARY)
    put_month(store, FEBRUARY)
    with reader(store):
        upkeep(store, patience=HASTE)
        before = aggregations(store)
        outcomes = upkeep(store, patience=HASTE)
        assert aggregations(store) == before
        assert ends(outcomes) == {"database_size_stats_2025_01": "contended", "database_size_stats_2025_02": "kept"}
        assert reason_of(outcomes, "database_size_stats_2025_02") == (
            "another month of its windows is still being detached; the next maintenance tries again"
        )
    assert ends(upkeep(store)) == {"database_size_stats_2025_01": "dropped", "database_size_stats_2025_02": "dropped"}
    assert aggregations(store) == before
    # (days, sum) of the two databases and their instance: ten days of each month.
    assert [row[5:7] for row in before if row[3] == "quarterly"] == [(20, 2290), (20, 2290), (20, 4580)]


def test_a_month_whose_detach_is_pending_comes_back_when_the_retention_is_longer_again(store: Engine) -> None:
    put_month(store, JANUARY)
    with reader(store):
        upkeep(store, patience=HASTE)
    outcomes = upkeep(store, retention_stats_months=24)
    assert [(o.outcome.value, o.reason) for o in outcomes if o.child == "database_size_stats_2025_01"] == [
        ("finalized", "its detach was broken off"),
        ("kept", "is within retention again"),
    ]
    assert rows(store, "SELECT count(*) FROM database_size_stats") == [(20,)]


def test_a_detach_waits_for_a_reader_that_ends_in_time(store: Engine) -> None:
    put_month(store, JANUARY)
    with ThreadPoolExecutor(1) as threads:
        with reader(store):
            running = threads.submit(upkeep, store)
            wait_for(lambda: rows(store, WAITING) != [(0,)], "waiting detach")
        assert ends(running.result(timeout=60)) == dict.fromkeys(JANUARY_OF_STATS, "dropped")


def test_an_open_writer_of_the_month_keeps_it_from_being_sealed(store: Engine) -> None:
    put_month(store, JANUARY)
    with store.begin() as writer:
        writer.execute(text(INSERT), {"day": JANUARY})
        outcomes = upkeep(store, patience=HASTE)
        assert ends(outcomes) == {"database_size_stats_2025_01": "contended", "instance_size_stats_2025_01": "dropped"}
    assert ends(upkeep(store)) == {"database_size_stats_2025_01": "dropped"}
    assert rows(store, "SELECT max(sum_size_bytes) FROM database_size_aggregations WHERE database_name = 'orders'") == [
        (7,)
    ]


def test_an_open_writer_of_today_is_in_nobodys_way_and_is_not_held_up(store: Engine) -> None:
    put_sizes(store, [(1, "shop", date(2026, 5, 20), 100)])
    put_month(store, JANUARY)
    with store.begin() as writer:
        writer.execute(text(INSERT), {"day": date(2026, 5, 20)})
        outcomes = upkeep(store, patience=HASTE)
        assert "database_size_stats_2026_08" in [o.child for o in outcomes if o.outcome is Outcome.CREATED]
        # It has no lock on that month, and sees it no more.
        assert ends(outcomes)["database_size_stats_2025_01"] == "dropped"
        writer.execute(text("SET LOCAL lock_timeout = '1ms'"))
        writer.execute(text(INSERT), {"day": date(2026, 5, 21)})
    assert len(stats(store)) == 2 + 2


def test_with_a_backup_under_way_children_are_created_nothing_is_lost_and_the_next_maintenance_ends_it(
    store: Engine,
) -> None:
    put_month(store, JANUARY)
    before = stats(store)
    with backup(store) as connection:
        outcomes = upkeep(store, patience=HASTE)
        assert ends(outcomes) == dict.fromkeys(JANUARY_OF_STATS, "contended")
        assert len([o for o in outcomes if o.outcome is Outcome.CREATED]) == 8 * 5 + 4
        for name in JANUARY_OF_STATS:
            connection.execute(text(f"SELECT count(*) FROM {name}"))
        # Again and again, as on the following days.
        assert ends(upkeep(store, patience=HASTE)) == dict.fromkeys(JANUARY_OF_STATS, "contended")
    assert len(before) == 30
    assert ends(upkeep(store)) == dict.fromkeys(JANUARY_OF_STATS, "dropped")
    assert tables_like(store, "database_size_stats_2025") == []


def test_writers_of_today_are_not_held_up_whatever_a_maintenance_waits_for(store: Engine) -> None:
    put_month(store, JANUARY)
    put_sizes(store, [(1, "shop", date(2026, 5, 20), 100)])
    with ThreadPoolExecutor(1) as threads, backup(store):
        running = threads.submit(upkeep, store, patience=HASTE)
        written = 0
        while not running.done():
            with store.begin() as writer:
                # The backup does not end before the maintenance: behind a lock that waits for it, this would fail.
                writer.execute(text("SET LOCAL lock_timeout = '60s'"))
                writer.execute(text(INSERT.replace("'orders'", f"'d{written}'")), {"day": date(2026, 5, 20)})
            written += 1
        assert ends(running.result()) == dict.fromkeys(JANUARY_OF_STATS, "contended")
    assert rows(store, "SELECT count(*) FROM database_size_stats WHERE size_bytes = 7") == [(written,)]


def test_a_write_for_a_month_whose_detach_is_pending_completes_the_detach_and_gets_a_new_child(store: Engine) -> None:
    put_month(store, JANUARY)
    with reader(store):
        upkeep(store, patience=HASTE)
    assert rows(store, PENDING) == [("database_size_stats_2025_01",)]
    put_sizes(store, [(1, "shop", JANUARY, 1)])
    assert rows(store, "SELECT size_bytes FROM database_size_stats") == [(1,)]
    outcomes = upkeep(store)
    assert "dropped" in [o.outcome.value for o in outcomes if o.child == "database_size_stats_2025_01"]
    assert ends(outcomes)["database_size_stats_2025_01"] == "kept"
    assert tables_like(store, "database_size_stats_2025") == ["database_size_stats_2025_01"]


def test_of_two_maintenances_one_works_and_the_other_is_told_so(store: Engine) -> None:
    with (
        maintenance_lock(store),
        pytest.raises(StoreError, match="another maintenance of the table partitions, or a restore, is under way"),
        maintenance_lock(store, wait_seconds=0.1),
    ):
        pytest.fail("two have the lock")


def test_the_lock_of_the_maintenance_is_free_again_when_its_block_ends(store: Engine) -> None:
    for _ in range(2):
        with maintenance_lock(store, wait_seconds=0.1):
            pass
