"""Sizes of PostgreSQL databases are those of `pg_database_size`; what the account may not see costs only itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import psycopg2
import psycopg2.errors
import pytest
from psycopg2 import sql

from whalefall_capacity.collection import postgresql
from whalefall_capacity.collection.postgresql import PostgresqlSession
from whalefall_capacity.collection.sizes import (
    Capability,
    Cutoff,
    DatabaseSize,
    Findings,
    Limits,
    Measurement,
    NameFilter,
    Target,
)
from whalefall_capacity_tests.collection.support import EVERYTHING, settled
from whalefall_capacity_tests.servers import LIMITS, PostgresqlServer

AWKWARD_NAMES = [
    "Sales",
    "sales",
    "with space",
    " leading and trailing ",
    'double"quote',
    "apo'strophe",
    "back\\slash",
    "per%cent %s",
    "semi;colon -- comment",
    "new\nline",
    "a/b",
    "*",
    "café_ñ",
    "数据库",
    "🐋",
    "x" * 63,
    "数" * 21,
]
ONLY_OURS = NameFilter(regex="(?!audit_)(?s:.*)")


@pytest.fixture(params=["postgresql", "store_server"], ids=["16", "18"])
def server(request: pytest.FixtureRequest) -> PostgresqlServer:
    """A server of each version there is."""
    started = request.getfixturevalue(request.param)
    return started if isinstance(started, PostgresqlServer) else PostgresqlServer(started)


@contextmanager
def databases(server: PostgresqlServer, *names: str) -> Iterator[None]:
    with server.connect() as cursor:
        try:
            for name in names:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            yield
        finally:
            for name in names:
                cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def account(server: PostgresqlServer, *roles: str, name: str = "visitor") -> Iterator[Target]:
    """Hold an account that is a member of *roles* and may do nothing else."""
    with server.connect() as cursor:
        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        try:
            for role in roles:
                cursor.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name)))
            yield server.target(username=name)
        finally:
            cursor.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def run(server: PostgresqlServer, statement: str, *identifiers: str) -> None:
    with server.connect() as cursor:
        cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, identifiers)))


def open_session(target: Target, limits: Limits = LIMITS) -> closing[PostgresqlSession]:
    return closing(postgresql.connect(target, limits, Cutoff()))


def measure(target: Target, excluded: NameFilter = EVERYTHING) -> Measurement:
    with open_session(target) as session:
        return measured_by(session, excluded)


def measured_by(session: PostgresqlSession, excluded: NameFilter = EVERYTHING) -> Measurement:
    findings = Findings()
    session.measure(excluded, findings)
    return findings.measurement("not come to")


def capabilities(target: Target) -> list[Capability]:
    with open_session(target) as session:
        return session.capabilities(ONLY_OURS)


def found(measurement: Measurement) -> dict[str, DatabaseSize]:
    return {database.name: database for database in measurement.databases}


def sizes_asked_directly(server: PostgresqlServer) -> dict[str, int]:
    with server.connect() as cursor:
        cursor.execute(
            "SELECT datname, pg_database_size(oid) FROM pg_database WHERE datallowconn AND NOT datistemplate"
        )
        return dict(cursor.fetchall())


def test_sizes_are_those_of_pg_database_size_to_the_byte(server: PostgresqlServer) -> None:
    with databases(server, "orders", "empty"), account(server, "pg_monitor") as target:
        with server.connect("orders") as cursor:
            cursor.execute("CREATE TABLE lines AS SELECT generate_series(1, 50000) AS line")
        asked, measurement = settled(lambda: sizes_asked_directly(server), lambda: measure(target))
    assert {database.name: database.size_bytes for database in measurement.databases} == asked
    assert asked["orders"] > asked["empty"] > 1_000_000


def test_names_with_every_awkward_character_are_measured(server: PostgresqlServer) -> None:
    with databases(server, *AWKWARD_NAMES), account(server) as target:
        asked, measurement = settled(lambda: sizes_asked_directly(server), lambda: measure(target))
    measured = found(measurement)
    assert {name: measured[name].size_bytes for name in AWKWARD_NAMES} == {name: asked[name] for name in AWKWARD_NAMES}


@pytest.fixture
def ascii_database(server: PostgresqlServer) -> Iterator[str]:
    """A database of encoding SQL_ASCII, beside one whose name is Latin-1."""
    options = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    with server.connect() as cursor:
        cursor.execute(f"CREATE DATABASE ascii {options}")
    with server.connect("ascii") as cursor:
        cursor.connection.set_client_encoding("SQL_ASCII")
        cursor.execute(b'CREATE DATABASE "caf\xe9"')
        yield "ascii"
        cursor.execute(b'DROP DATABASE "caf\xe9"')
    run(server, "DROP DATABASE ascii")


@pytest.mark.parametrize("listed_from", ["postgres", "ascii"])
def test_a_name_that_is_not_text_is_measured_under_its_escaped_bytes(
    server: PostgresqlServer, ascii_database: str, listed_from: str
) -> None:
    with databases(server, "café"), account(server) as target:
        measured = found(measure(replace(target, database=listed_from)))
    assert {"caf\\xe9", "café", ascii_database} <= {name for name, size in measured.items() if size.size_bytes}


def test_templates_and_databases_that_refuse_connections_are_left_out(server: PostgresqlServer) -> None:
    with databases(server, "ours", "model", "closed"):
        run(server, "ALTER DATABASE model IS_TEMPLATE true")
        run(server, "ALTER DATABASE closed ALLOW_CONNECTIONS false")
        measured = found(measure(server.target()))
        run(server, "ALTER DATABASE model IS_TEMPLATE false")
    assert {"ours", "postgres"} <= measured.keys()
    assert measured.keys().isdisjoint({"template0", "template1", "model", "closed"})


def test_a_database_that_the_filter_excludes_is_not_listed(server: PostgresqlServer) -> None:
    with databases(server, "temp_1", "temperature"):
        measured = found(measure(server.target(), NameFilter(frozenset({"postgres"}), "temp_.*")))
    assert "temperature" in measured
    assert measured.keys().isdisjoint({"temp_1", "postgres"})


def test_without_connect_on_one_database_that_one_alone_is_missing(server: PostgresqlServer) -> None:
    with databases(server, "open", "closed"), account(server) as target:
        run(server, "REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
        measured = found(measure(target))
    assert measured.pop("closed") == DatabaseSize(
        "closed", None, "no CONNECT privilege and not a member of pg_read_all_stats"
    )
    assert {"open", "postgres"} <= measured.keys()
    assert all(database.size_bytes and database.reason is None for database in measured.values())


@pytest.mark.parametrize("role", ["pg_read_all_stats", "pg_monitor"])
def test_a_member_of_the_statistics_roles_needs_no_connect(server: PostgresqlServer, role: str) -> None:
    with databases(server, "closed"), account(server, role) as target:
        run(server, "REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
        assert all(database.size_bytes for database in measure(target).databases)


def test_the_wal_is_the_sum_of_its_files(server: PostgresqlServer) -> None:
    def wal_asked_directly() -> int:
        with server.connect() as cursor:
            cursor.execute("SELECT sum(size)::bigint FROM pg_ls_waldir()")
            return int(cursor.fetchall()[0][0])

    with account(server, "pg_monitor") as target:
        asked, measurement = settled(wal_asked_directly, lambda: measure(target))
    assert measurement.log_size_bytes == asked
    assert asked % 1024**2 == 0


def test_the_wal_is_not_known_without_pg_monitor_and_costs_nothing_else(server: PostgresqlServer) -> None:
    with account(server, "pg_read_all_stats") as target:
        measurement = measure(target)
    assert measurement.log_size_bytes is None
    assert all(database.size_bytes for database in measurement.databases)


class Interrupted(PostgresqlSession):
    """A session in which statements of the server's administrator run between listing and measuring."""

    statements: tuple[str, ...] = ()
    server: PostgresqlServer

    def _list(self) -> list[tuple[int, str, bool]]:
        listed = super()._list()
        for statement in self.statements:
            run(self.server, statement)
        return listed


def interrupt(monkeypatch: pytest.MonkeyPatch, server: PostgresqlServer, *statements: str) -> None:
    """Run *statements* in every visit of this test, after its databases are listed."""
    monkeypatch.setattr(Interrupted, "server", server, raising=False)
    monkeypatch.setattr(Interrupted, "statements", statements)
    monkeypatch.setattr(postgresql, "PostgresqlSession", Interrupted)


def test_a_database_dropped_in_mid_visit_costs_that_database_alone(
    server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, server, "DROP DATABASE going")
    with databases(server, "going", "staying"), account(server) as target:
        measured = found(measure(target))
    assert measured.pop("going") == DatabaseSize("going", None, "dropped during the visit")
    assert "staying" in measured
    assert all(database.size_bytes and database.reason is None for database in measured.values())


def test_a_privilege_lost_in_mid_visit_costs_that_database_alone(
    server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, server, "REVOKE CONNECT ON DATABASE closing FROM PUBLIC", "DROP DATABASE going")
    with databases(server, "closing", "going", "staying"), account(server) as target:
        measured = found(measure(target))
    assert measured.pop("closing") == DatabaseSize("closing", None, "permission denied for database closing")
    going = measured.pop("going")
    assert going.size_bytes is None
    assert re.fullmatch(r"database with OID \d+ does not exist", str(going.reason))
    assert "staying" in measured
    assert all(database.size_bytes and database.reason is None for database in measured.values())


def test_databases_that_take_too_long_together_are_measured_one_by_one(
    server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "MEASURE_ALL", f"{postgresql.MEASURE_ALL} AND pg_sleep(60) IS NOT NULL")
    limits = replace(LIMITS, statement_timeout_seconds=0.5)
    with databases(server, "ours"), open_session(server.target(), limits) as session:
        measured = found(measured_by(session))
    assert {"ours", "postgres"} <= {name for name, database in measured.items() if database.size_bytes}


def test_a_database_that_the_filter_excludes_may_be_unreadable(server: PostgresqlServer) -> None:
    with databases(server, "closed"), account(server) as target:
        run(server, "REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
        measurement = measure(target, NameFilter(frozenset({"closed"})))
    assert all(database.size_bytes for database in measurement.databases)


def test_the_session_is_named_for_the_server_to_see(server: PostgresqlServer) -> None:
    with account(server) as target, open_session(target), server.connect() as cursor:
        cursor.execute("SELECT application_name FROM pg_stat_activity WHERE usename = %s", (target.username,))
        assert cursor.fetchall() == [("whalefall_capacity",)]


def test_the_session_cannot_write(server: PostgresqlServer) -> None:
    with open_session(server.target()) as session, pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        session._rows("CREATE TABLE written AS SELECT 1 AS one")


def test_a_statement_that_takes_too_long_is_ended_by_the_server(server: PostgresqlServer) -> None:
    limits = replace(LIMITS, statement_timeout_seconds=0.1)
    with open_session(server.target(), limits) as session:
        assert session._rows("SHOW statement_timeout") == [("100ms",)]
        with pytest.raises(psycopg2.errors.QueryCanceled, match="statement timeout"):
            session._rows("SELECT pg_sleep(60)")


def test_the_version_is_the_servers(server: PostgresqlServer) -> None:
    with server.connect() as cursor:
        cursor.execute("SHOW server_version")
        version = cursor.fetchall()[0][0]
    assert measure(server.target()).version == version
    assert version.split(".")[0] == str(server.embedded.version)


def test_an_account_that_may_see_everything_needs_no_grant(server: PostgresqlServer) -> None:
    with databases(server, "audit_1", "audit_2"), account(server, "pg_monitor") as target:
        assert capabilities(target) == [
            Capability("database sizes", True, True, "2 of 2 databases", None),
            Capability("WAL size", True, False, "pg_ls_waldir()", None),
        ]


def test_what_cannot_be_measured_is_told_with_the_grant_that_is_missing(server: PostgresqlServer) -> None:
    with databases(server, "audit_open", "audit_closed"), account(server) as target:
        run(server, "REVOKE CONNECT ON DATABASE audit_closed FROM PUBLIC")
        assert capabilities(target) == [
            Capability(
                "database sizes",
                False,
                True,
                "1 of 2 databases; not: audit_closed",
                'GRANT pg_read_all_stats TO "visitor";',
            ),
            Capability("WAL size", False, False, "pg_ls_waldir()", 'GRANT pg_monitor TO "visitor";'),
        ]


@pytest.mark.parametrize("name", ["visitor", 'o\'Neil "DBA" %s', "müller"])
def test_running_the_grant_mends_what_is_missing(server: PostgresqlServer, name: str) -> None:
    with databases(server, "audit_closed"), account(server, name=name) as target:
        run(server, "REVOKE CONNECT ON DATABASE audit_closed FROM PUBLIC")
        for number, mended in enumerate(("database sizes", "WAL size")):
            before = capabilities(target)[number]
            assert (before.name, before.available) == (mended, False)
            with server.connect() as cursor:
                cursor.execute(str(before.grant))
            after = capabilities(target)[number]
            assert (after.name, after.available, after.grant) == (mended, True, None)
        measurement = measure(target)
    assert found(measurement)["audit_closed"].size_bytes
    assert measurement.log_size_bytes
