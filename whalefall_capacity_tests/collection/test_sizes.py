"""Which databases a filter leaves out, and how a visit is cut off from another thread."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr

from whalefall_capacity.collection.sizes import Cutoff, NameFilter, ServerEngine, Target


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


def test_a_target_does_not_show_its_password() -> None:
    target = Target(1, "db-1", ServerEngine.MYSQL, "db-1.example", 3306, None, "app", SecretStr("hush"))
    assert "hush" not in repr(target)


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
