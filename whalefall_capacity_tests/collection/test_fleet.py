"""All servers are visited concurrently, and a server that does not answer costs its own deadline and nobody else's."""

from __future__ import annotations

import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from whalefall_capacity.collection.fleet import check_fleet, visit_fleet
from whalefall_capacity.collection.sizes import FailedVisit, Limits, ServerEngine, Target, Visit
from whalefall_capacity_tests.collection.support import (
    ENGINES,
    eventually,
    garbage,
    peer,
    refusing_port,
    silent,
    stall_after_login,
    target,
)
from whalefall_capacity_tests.processes import PATIENCE_SECONDS
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS, MariadbFleetServer, PostgresqlServer

POSTGRESQL, MARIADB = ENGINES
Outcome = Visit | FailedVisit
LATE = "within the deadline of"
# Only the deadline is short: what ends sooner than the rest was cut.
PATIENT = Limits(connect_timeout_seconds=60, statement_timeout_seconds=60, deadline_seconds=0.5)
ENDLESS = Limits(connect_timeout_seconds=3600, statement_timeout_seconds=3600, deadline_seconds=3600)


def with_deadline(seconds: float) -> Limits:
    return replace(LIMITS, deadline_seconds=seconds)


def name_of(outcome: Outcome) -> str:
    return outcome.target.name if isinstance(outcome, Visit) else outcome.name


def visit_all(targets: Sequence[Target], limits: Limits = LIMITS, concurrency: int = 8) -> list[Outcome]:
    """Return what came of each server, in the order in which it came."""
    return [outcome for batch in visit_fleet(targets, limits, NO_FILTERS, concurrency) for outcome in batch]


def test_an_empty_fleet_yields_nothing() -> None:
    assert list(visit_fleet([], LIMITS, NO_FILTERS, 8)) == []


def test_every_server_is_visited_once(postgresql: PostgresqlServer, mariadb: MariadbFleetServer) -> None:
    targets = [postgresql.target(f"pg-{number}", number) for number in range(10)]
    targets += [mariadb.target(f"maria-{number}", 10 + number) for number in range(10)]
    outcomes = visit_all(targets, concurrency=3)
    assert sorted(map(name_of, outcomes)) == sorted(to.name for to in targets)
    assert all(isinstance(outcome, Visit) for outcome in outcomes)


def test_a_server_that_refuses_is_a_failed_visit_with_its_reason(postgresql: PostgresqlServer) -> None:
    with refusing_port() as port:
        good, bad = sorted(visit_all([target(MARIADB, port), postgresql.target()]), key=name_of, reverse=True)
    assert isinstance(good, Visit)
    assert isinstance(bad, FailedVisit)
    assert bad.instance_id == 7
    assert bad.error.startswith(f"db-7: connecting to 127.0.0.1:{port} as whalefall failed: ")


class Crowd:
    """The behaviour of a server that holds each client until *size* of them are there, and lets those go together."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._together = threading.Barrier(size)
        self._lock = threading.Lock()
        self._one_too_many = threading.Event()
        self._inside = 0
        self.most = 0

    def __call__(self, connection: socket.socket) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
            if self._inside > self._size:
                self._one_too_many.set()
        self._together.wait(PATIENCE_SECONDS)
        # Time for one too many to come.
        self._one_too_many.wait(0.05)
        with self._lock:
            self._inside -= 1
        garbage(connection)


@pytest.mark.parametrize("concurrency", [1, 3, 6])
def test_as_many_servers_as_allowed_are_visited_at_once_and_no_more(concurrency: int) -> None:
    crowd = Crowd(concurrency)
    with peer(crowd) as server:
        outcomes = visit_all([target(MARIADB, server.port, f"db-{n}", n) for n in range(12)], concurrency=concurrency)
    assert crowd.most == concurrency
    assert sorted(map(name_of, outcomes)) == sorted(f"db-{n}" for n in range(12))


def test_more_servers_are_visited_at_once_than_the_process_has_had_files_for() -> None:
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    crowd = Crowd(100)
    with peer(crowd) as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 50, most))
        try:
            targets = [target(MARIADB, server.port, f"db-{n}", n) for n in range(100)]
            outcomes = visit_all(targets, concurrency=100)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    assert crowd.most == 100
    assert sorted(map(name_of, outcomes)) == sorted(f"db-{n}" for n in range(100))


def test_what_came_of_a_server_is_yielded_while_another_is_still_visited() -> None:
    answer = threading.Event()

    def hesitate(connection: socket.socket) -> None:
        answer.wait(PATIENCE_SECONDS)
        garbage(connection)

    with peer(hesitate) as slow, peer(garbage) as fast:
        targets = [target(MARIADB, slow.port, "slow", 1), target(MARIADB, fast.port, "fast", 2)]
        batches = visit_fleet(targets, LIMITS, NO_FILTERS, 2)
        assert [name_of(outcome) for outcome in next(batches)] == ["fast"]
        answer.set()
        assert [name_of(outcome) for batch in batches for outcome in batch] == ["slow"]


def test_whatever_ended_meanwhile_comes_in_one_batch() -> None:
    with peer(garbage) as server:
        batches = visit_fleet([target(MARIADB, server.port, f"db-{n}", n) for n in range(8)], LIMITS, NO_FILTERS, 8)
        first = next(batches)
        assert eventually(no_visit_runs)
        second = next(batches, [])
    assert len(first) + len(second) == 8
    assert list(batches) == []


def no_visit_runs() -> bool:
    return not any(thread.name.startswith("visit-") for thread in threading.enumerate())


def test_a_server_that_never_answers_costs_its_own_deadline_and_nobody_elses(postgresql: PostgresqlServer) -> None:
    with peer(silent) as server:
        targets = [target(engine, server.port, f"silent {engine.value}", 90 + n) for n, engine in enumerate(ENGINES)]
        targets += [postgresql.target(f"pg-{n}", n) for n in range(10)]
        outcomes = visit_all(targets, replace(PATIENT, deadline_seconds=5), concurrency=3)
    assert [type(outcome) for outcome in outcomes] == [Visit] * 10 + [FailedVisit] * 2
    failures = {outcome.name: outcome for outcome in outcomes if isinstance(outcome, FailedVisit)}
    assert failures.keys() == {"silent postgresql", "silent mariadb"}
    assert all(failure.seconds >= 5 for failure in failures.values())
    assert failures["silent mariadb"].error == (
        f"silent mariadb: no answer from 127.0.0.1:{server.port} within the deadline of 5 s; "
        "look at the server's load, or raise WHALEFALL_COLLECTION_DEADLINE_SECONDS"
    )


def test_what_was_measured_before_the_deadline_is_kept(postgresql: PostgresqlServer) -> None:
    slow = "IF $1 = (SELECT oid FROM pg_database WHERE datname = 'lake') THEN PERFORM pg_sleep(60); END IF;"
    with (
        postgresql.database("ab"),
        postgresql.database("lake"),
        postgresql.database("zebra"),
        postgresql.behaving("pg_database_size(oid)", f"{slow} RETURN original($1);") as database,
    ):
        limits = replace(LIMITS, statement_timeout_seconds=60, deadline_seconds=4)
        (outcome,) = visit_all([replace(postgresql.target(), database=database)], limits)
    assert isinstance(outcome, Visit)
    reasons = {found.name: found.reason for found in outcome.measurement.databases}
    assert "deadline of 4 s" in str(reasons["lake"])
    assert "raise WHALEFALL_COLLECTION_DEADLINE_SECONDS" in str(reasons.pop("lake"))
    assert reasons == dict.fromkeys(["ab", "behaving", "postgres", "zebra"])


def test_a_server_given_up_keeps_what_it_measured_though_it_never_answers_again(postgresql: PostgresqlServer) -> None:
    """The log is asked last, by a function that does not hear that its time is up."""
    deaf = "LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;"
    with postgresql.behaving("pg_ls_waldir()", deaf) as database:
        (outcome,) = visit_all([replace(postgresql.target(), database=database)], with_deadline(3))
        with postgresql.connect() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'whalefall_capacity'"
            )
    assert isinstance(outcome, Visit)
    assert outcome.seconds >= 3
    assert {found.name for found in outcome.measurement.databases if found.size_bytes} >= {"postgres", database}
    assert outcome.measurement.log_size_bytes is None


def test_the_place_of_a_server_given_up_goes_to_the_next_at_once() -> None:
    """Two places: one is taken by a silent server, later the other by one that ends only when a third is visited."""

    def let_half_the_deadline_pass(connection: socket.socket) -> None:
        time.sleep(1)
        garbage(connection)

    def until_the_third_is_visited(connection: socket.socket) -> None:
        third.await_arrivals(1)
        garbage(connection)

    with (
        peer(silent) as dead,
        peer(let_half_the_deadline_pass) as first,
        peer(until_the_third_is_visited) as second,
        peer(garbage) as third,
    ):
        targets = [
            target(POSTGRESQL, dead.port, "dead", 0),
            target(MARIADB, first.port, "first", 1),
            target(MARIADB, second.port, "second", 2),
            target(MARIADB, third.port, "third", 3),
        ]
        outcomes = visit_all(targets, with_deadline(2), concurrency=2)
    late = [name_of(outcome) for outcome in outcomes if isinstance(outcome, FailedVisit) and LATE in outcome.error]
    assert late == ["dead"]
    assert [name_of(outcome) for outcome in outcomes[:2]] == ["first", "dead"]


def test_what_ended_in_time_is_told_though_nobody_could_hear_of_it_before_the_deadline(
    postgresql: PostgresqlServer,
) -> None:
    began = time.monotonic()

    def coming() -> Iterator[Target]:
        yield from (postgresql.target("pg", 1), target(MARIADB, port, "refusing", 2))
        # As the store does it, which locks each server before its visit.
        assert eventually(lambda: no_visit_runs() and time.monotonic() > began + 3)

    with refusing_port() as port:
        batches = visit_fleet(coming(), with_deadline(3), NO_FILTERS, 3)
        outcomes = {name_of(outcome): outcome for batch in batches for outcome in batch}
    assert isinstance(outcomes["pg"], Visit)
    refused = outcomes["refusing"]
    assert isinstance(refused, FailedVisit)
    assert "Connection refused" in refused.error
    assert refused.seconds < 3


@pytest.mark.parametrize(("engine", "behaviour"), [(POSTGRESQL, stall_after_login), (MARIADB, silent)])
def test_a_visit_that_is_given_up_is_cut(engine: ServerEngine, behaviour: Callable[[socket.socket], None]) -> None:
    with peer(behaviour) as server:
        (outcome,) = visit_all([target(engine, server.port)], PATIENT)
        assert isinstance(outcome, FailedVisit)
        assert LATE in outcome.error
        assert server.arrivals == 1
        assert server.await_connections(0)
        assert eventually(no_visit_runs)


def test_a_generator_closed_early_cuts_what_runs_and_starts_nothing_more() -> None:
    with peer(silent) as dead, peer(garbage) as fast:
        targets = [target(MARIADB, fast.port, "fast", 0)]
        targets += [target(MARIADB, dead.port, f"dead-{n}", n) for n in range(1, 10)]
        with closing(visit_fleet(targets, replace(PATIENT, deadline_seconds=60), NO_FILTERS, 3)) as batches:
            assert [name_of(outcome) for outcome in next(batches)] == ["fast"]
            assert dead.await_connections(3)
        assert dead.await_connections(0)
        assert eventually(no_visit_runs)
        assert dead.arrivals == 3


def test_a_check_up_of_the_fleet_keeps_the_order_of_its_servers(
    postgresql: PostgresqlServer, mariadb: MariadbFleetServer
) -> None:
    with peer(silent) as dead, refusing_port() as port:
        targets = [
            target(MARIADB, dead.port, "silent", 4),
            mariadb.target("maria", 3),
            target(POSTGRESQL, port, "refusing", 2),
            postgresql.target("pg", 1),
        ]
        found = check_fleet(targets, with_deadline(1), NO_FILTERS, 4)
    assert [(checkup.name, checkup.healthy) for checkup in found] == [
        ("silent", False),
        ("maria", True),
        ("refusing", False),
        ("pg", True),
    ]
    assert LATE in str(found[0].error)
    assert "Connection refused" in str(found[2].error)


def test_a_check_up_of_an_empty_fleet_finds_nothing() -> None:
    assert check_fleet([], LIMITS, NO_FILTERS, 4) == []


@pytest.mark.slow
def test_fifteen_bad_servers_of_two_hundred_hold_up_none_of_the_others(
    postgresql: PostgresqlServer, mariadb: MariadbFleetServer
) -> None:
    servers = (postgresql, mariadb)
    good = [servers[n % 2].target(f"good-{n}", n) for n in range(185)]
    with peer(silent) as dead, refusing_port() as port:
        mute = [target(ENGINES[n % 2], dead.port, f"silent-{n}", 200 + n) for n in range(10)]
        refusing = [target(ENGINES[n % 2], port, f"refusing-{n}", 300 + n) for n in range(5)]
        mixed = random.Random(7).sample(good + mute + refusing, 200)  # noqa: S311 - an order, not a secret
        outcomes: list[Outcome] = []
        # No limit is reached: the silent ones are there until the end, and all others are visited beside them.
        with closing(visit_fleet(mixed, ENDLESS, NO_FILTERS, 32)) as batches:
            while len(outcomes) < 190:
                outcomes += next(batches)
    assert {name_of(outcome) for outcome in outcomes if isinstance(outcome, Visit)} == {to.name for to in good}
    errors = {outcome.name: outcome.error for outcome in outcomes if isinstance(outcome, FailedVisit)}
    assert errors.keys() == {to.name for to in refusing}
    assert all("Connection refused" in error for error in errors.values())
