"""Filters of databases, and visits that are cut off from another thread."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr

from whalefall_capacity.collection.sizes import (
    Cutoff,
    DatabaseSize,
    Findings,
    Limits,
    Measurement,
    NameFilter,
    ServerEngine,
    Target,
    TimeLeft,
)


@pytest.mark.parametrize(
    ("regex", "left_out", "kept"),
    [
        ("temp_.*", ["temp_1", "temp_", "temp_orders"], ["temperature", "temp", "my_temp_1", "TEMP_1"]),
        ("pg_.*", ["pg_stats"], ["pgbench", "pg", "app_pg_stats"]),
        ("tmp_.*", ["tmp_2026"], ["tmpfile", "tmp"]),
        ("temp_.*|pg_.*|tmp_.*", ["temp_1", "pg_1", "tmp_1"], ["temperature", "pgbench", "tmpfile"]),
        (".*_old", ["orders_old"], ["orders_older", "orders-old"]),
    ],
)
def test_a_regular_expression_matches_the_whole_name(regex: str, left_out: list[str], kept: list[str]) -> None:
    excluded = NameFilter(regex=regex)
    assert [name for name in left_out + kept if excluded.excludes(name)] == left_out


def test_a_name_is_matched_exactly_and_its_underscore_is_a_letter() -> None:
    excluded = NameFilter(names=frozenset({"temp_", "Sales", "tmp_*"}))
    names = ["temp_", "tempX", "temp", "temperature", "Sales", "sales", "tmp_*", "tmp_1"]
    assert [name for name in names if excluded.excludes(name)] == ["temp_", "Sales", "tmp_*"]


def test_names_and_the_regular_expression_are_both_applied() -> None:
    excluded = NameFilter(names=frozenset({"scratch"}), regex="temp_.*")
    assert [name for name in ("scratch", "temp_1", "orders") if excluded.excludes(name)] == ["scratch", "temp_1"]


def test_nothing_is_left_out_unless_asked() -> None:
    assert not NameFilter().excludes("")
    assert not NameFilter().excludes("temp_1")


@pytest.mark.parametrize(
    ("engine", "port"), [(ServerEngine.POSTGRESQL, 5432), (ServerEngine.MYSQL, 3306), (ServerEngine.MARIADB, 3306)]
)
def test_every_engine_has_its_default_port(engine: ServerEngine, port: int) -> None:
    assert engine.default_port == port


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("db.example", "db.example:5432"),
        ("10.0.0.7", "10.0.0.7:5432"),
        ("::1", "[::1]:5432"),
        ("/run/postgresql", "/run/postgresql"),
        ("/run/mysqld/mysqld.sock", "/run/mysqld/mysqld.sock"),
        ("@abstract", "@abstract"),
    ],
)
def test_an_address_is_shown_as_people_write_it(host: str, shown: str) -> None:
    assert Target(1, "db-1", ServerEngine.POSTGRESQL, host, 5432, None, "app", SecretStr("")).address == shown


def test_a_target_does_not_show_its_password() -> None:
    target = Target(1, "db-1", ServerEngine.MYSQL, "db-1.example", 3306, None, "app", SecretStr("hush"))
    assert "hush" not in repr(target)


def test_what_a_visit_did_not_come_to_is_missing_and_what_it_measured_is_kept() -> None:
    findings = Findings()
    findings.listed("16.4", ["orders", "users", "logs"])
    findings.measured("orders", 100)
    findings.missing("users", "permission denied")
    assert findings.measurement("the connection was lost") == Measurement(
        "16.4",
        (
            DatabaseSize("orders", 100),
            DatabaseSize("users", None, "permission denied"),
            DatabaseSize("logs", None, "the connection was lost"),
        ),
        None,
    )


def test_findings_have_sizes_from_the_first_that_is_measured() -> None:
    findings = Findings()
    findings.listed("16.4", ["orders", "empty"])
    findings.missing("orders", "permission denied")
    assert not findings.has_sizes
    findings.measured("empty", 0)
    assert findings.has_sizes


def test_a_measurement_taken_does_not_change_with_what_is_found_later() -> None:
    findings = Findings()
    findings.listed("16.4", ["orders"])
    taken = findings.measurement("late")
    findings.measured("orders", 100)
    findings.logs(16)
    assert taken == Measurement("16.4", (DatabaseSize("orders", None, "late"),), None)
    assert findings.measurement("late") == Measurement("16.4", (DatabaseSize("orders", 100),), 16)


@pytest.mark.parametrize(
    ("deadline_seconds", "at_most", "ended_by"),
    [
        (3600.0, 20.0, "took longer than the statement limit of 20 s; raise WHALEFALL_STATEMENT_TIMEOUT_SECONDS"),
        (10, 9.0, "took longer than was left of the deadline of 10 s; raise WHALEFALL_COLLECTION_DEADLINE_SECONDS"),
        (0, 0.001, "took longer than was left of the deadline of 0 s; raise WHALEFALL_COLLECTION_DEADLINE_SECONDS"),
    ],
)
def test_a_statement_ends_with_its_limit_or_before_the_deadline_and_the_limit_is_named(
    deadline_seconds: float, at_most: float, ended_by: str
) -> None:
    left = TimeLeft(Limits(5, 20, deadline_seconds))
    assert 0 < left.for_statement() <= at_most
    assert left.limit_reached() == ended_by


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        theirs.settimeout(5)
        yield ours, theirs


def test_cutting_ends_the_wait_of_both_sides() -> None:
    with connection() as (ours, theirs):
        cutoff = Cutoff()
        cutoff.watch(ours.fileno())
        cutoff.cut()
        assert ours.recv(1) == b""
        assert theirs.recv(1) == b""
        cutoff.release()


def test_a_connection_that_comes_after_the_cut_is_cut_at_once() -> None:
    with connection() as (ours, theirs):
        cutoff = Cutoff()
        cutoff.cut()
        cutoff.watch(ours.fileno())
        assert theirs.recv(1) == b""
        cutoff.release()


def test_a_released_connection_is_left_alone() -> None:
    with connection() as (ours, theirs):
        cutoff = Cutoff()
        cutoff.watch(ours.fileno())
        cutoff.release()
        cutoff.cut()
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"
