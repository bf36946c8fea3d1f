"""Two runs never visit a server at the same time; the second takes its turn, or says that it could not.

However many servers there are, only those whose turn has come are locked.
"""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from sqlalchemy import Engine, NullPool, create_engine, text

from whalefall_capacity.collection.sizes import FailedVisit, Target, Visit
from whalefall_capacity.resources.fleet import Collection, FleetResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.fleet import fleet_ids
from whalefall_capacity.store.sizes.visit_locks import visit_locks
from whalefall_capacity.watching import Watcher
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import MariadbFleetServer, PostgresqlServer
from whalefall_capacity_tests.slow_fleet import gate

DAY = date(2026, 6, 1)
END_LOCKING_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND datname = current_database() AND pid <> pg_backend_pid()
"""
# Copies of the servers that are registered, by turns.
MORE_SERVERS = """
INSERT INTO instances (name, db_type, host, port, credential_id)
SELECT 'copy-' || number, db_type, host, port, credential_id
FROM (SELECT *, row_number() OVER (ORDER BY id) - 1 AS turn, count(*) OVER () AS turns
      FROM instances WHERE name NOT LIKE 'copy-%') AS registered
JOIN generate_series(CAST(:first AS integer), :count) AS number ON number % turns = turn
"""
VISITS_LOCKED = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class StoppedError(Exception):
    """The end of a collection that a test has seen enough of."""


class Diary(Watcher[Target, Visit | FailedVisit]):
    """Remembers who was visited, in order; the first wait is an event."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.waits = threading.Event()

    def began(self, target: Target) -> None:
        self.names.append(f"began {target.name}")

    def progressed(self, done: int, total: int) -> None:  # noqa: ARG002
        self.waits.set()

    def ended(self, outcome: Visit | FailedVisit) -> None:
        self.names.append("ended " + (outcome.target.name if isinstance(outcome, Visit) else outcome.name))


def collect(store: Engine, diary: Diary) -> Collection:
    return FleetResource().collect(store, DAY, fleet_ids(store), False, diary)


@pytest.fixture
def fleet(store: Engine, postgresql: PostgresqlServer, mariadb: MariadbFleetServer) -> dict[str, int]:
    return register(store, entry("shop", postgresql.target()), entry("crm", mariadb.target()))


def test_a_server_that_another_run_visits_is_visited_when_that_is_done(store: Engine, fleet: dict[str, int]) -> None:
    diary = Diary()
    found: list[Collection] = []
    with visit_locks(store) as other:
        assert other.take([fleet["shop"]]) == {fleet["shop"]}
        run = threading.Thread(target=lambda: found.append(collect(store, diary)))
        run.start()
        # Only once everybody who was free has been visited is anybody waited for.
        while "ended crm" not in diary.names:
            assert diary.waits.wait(30)
        assert "began shop" not in diary.names
        other.release([fleet["shop"]])
        run.join(30)
    assert diary.names == ["began crm", "ended crm", "began shop", "ended shop"]
    assert (found[0].measured, found[0].failed) == (2, 0)


def test_a_server_that_stays_busy_is_told_and_costs_nobody_else(store: Engine, fleet: dict[str, int]) -> None:
    os.environ["WHALEFALL_COLLECTION_DEADLINE_SECONDS"] = "1"
    load_settings.cache_clear()
    with visit_locks(store) as other:
        other.take([fleet["shop"]])
        collection = collect(store, Diary())
    assert (collection.measured, collection.failed) == (1, 1)
    (busy,) = collection.first_failed
    assert busy.error == ("shop: another run has been visiting it for 1 s; `whalefall-capacity runs list` shows which")


def test_a_lock_is_free_again_after_the_visit_and_after_a_lost_session(store: Engine, fleet: dict[str, int]) -> None:
    collect(store, Diary())
    with visit_locks(store) as first, visit_locks(store) as second:
        assert first.take(fleet.values()) == set(fleet.values())
        assert second.take(fleet.values()) == set()
        with store.begin() as connection:
            connection.execute(text(END_LOCKING_SESSIONS))
        ids = set(fleet.values())
        wait_for(lambda: second.take(ids) == ids, "free lock")


def test_twenty_thousand_servers_leave_room_for_the_other_sessions_of_a_store_with_default_settings(
    store: Engine, postgresql: PostgresqlServer
) -> None:
    class UntilSeen(Diary):
        def progressed(self, done: int, total: int) -> None:
            assert (done, total) == (0, 20_000)
            if seen.is_set():
                raise StoppedError

    seen = threading.Event()
    with gate(postgresql.embedded.socket_dir / ".s.PGSQL.5432") as closed, ThreadPoolExecutor(1) as run:
        register(store, {**refusing("first"), "port": closed.port})
        with store.begin() as connection:
            connection.execute(text(MORE_SERVERS), {"first": 2, "count": 20_000})
        collection = run.submit(collect, store, UntilSeen())
        try:
            wait_for(lambda: closed.waiting == 32 or collection.done(), "visits of the first servers")
            # Sessions that are new and need locks of their own.
            with ThreadPoolExecutor(20) as others:
                locked = list(others.map(lambda _: _visits_locked(store), range(20)))
        finally:
            seen.set()
        assert isinstance(collection.exception(), StoppedError)
    assert 32 <= locked[0] <= 100


def _visits_locked(store: Engine) -> int:
    engine = create_engine(store.url, poolclass=NullPool)
    with engine.connect() as connection:
        count: int = connection.execute(text(VISITS_LOCKED)).scalar_one()
        return count


class Census(Diary):
    """Counts, at every tenth visit, the servers whose whole description is in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.most_targets = 0

    def began(self, target: Target) -> None:
        super().began(target)
        if len(self.names) % 10 == 0:
            alive = sum(isinstance(found, Target) for found in gc.get_objects())
            self.most_targets = max(self.most_targets, alive)


def test_a_larger_fleet_takes_no_more_memory(store: Engine, postgresql: PostgresqlServer) -> None:
    os.environ["WHALEFALL_COLLECTION_CONCURRENCY"] = "4"
    load_settings.cache_clear()
    # Half of them are measured, half fail: of neither may anything be kept.
    register(store, entry("first", postgresql.target()), refusing("second"))

    def objects_after(count: int) -> int:
        with store.begin() as connection:
            connection.execute(text(MORE_SERVERS), {"first": seen, "count": count})
        census = Census()
        collection = collect(store, census)
        assert collection.visited == count
        # Those that are visited, those whose turn is next, and the outcomes that are handed on together and were last.
        assert 0 < census.most_targets <= 4 + 32 + 2 * 64 + 10
        gc.collect()
        return len(gc.get_objects())

    seen = 3
    # More than are named: what is made once is there.
    before = objects_after(120)
    seen = 121
    assert objects_after(320) - before < 100


def test_a_server_that_leaves_the_fleet_before_its_turn_is_not_visited_and_told(
    store: Engine, fleet: dict[str, int]
) -> None:
    class Leaving(Diary):
        def progressed(self, done: int, total: int) -> None:
            super().progressed(done, total)
            with store.begin() as connection:
                connection.execute(text("UPDATE instances SET is_active = false WHERE name = 'shop'"))
            other.release([fleet["shop"]])

    with visit_locks(store) as other:
        other.take([fleet["shop"]])
        collection = collect(store, Leaving())
    assert (collection.measured, collection.failed) == (1, 1)
    assert collection.first_failed[0].error == "shop: it left the fleet before its turn came"
