"""A server that is known by an engine file alone is measured like one that has a module here, and as carefully."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from whalefall_capacity.collection.fleet import visit_fleet
from whalefall_capacity.collection.sizes import (
    Capability,
    Cutoff,
    DatabaseSize,
    FailedVisit,
    Findings,
    Limits,
    NameFilter,
    ServerEngine,
    Target,
    Tls,
    Visit,
)
from whalefall_capacity.collection.visit import check, read_tables, visit
from whalefall_capacity.errors import CollectionError
from whalefall_capacity_tests.collection.engine_files import POSTGRESQL, by_file, with_queries
from whalefall_capacity_tests.collection.rogues import SSL_REQUEST
from whalefall_capacity_tests.collection.support import (
    PASSWORD,
    eventually,
    garbage,
    half_a_greeting,
    peer,
    refuse_with,
    refusing_port,
    settled,
    silent,
    stall_after_login,
    target,
)
from whalefall_capacity_tests.processes import PATIENCE_SECONDS
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS, FamilyServer, PostgresqlServer

ENGINE = ServerEngine.POSTGRESQL
HASTY = replace(LIMITS, connect_timeout_seconds=1, statement_timeout_seconds=0.5)


def go(to: Target, limits: Limits = LIMITS) -> Visit:
    return visit(to, limits, NO_FILTERS, Cutoff(), Findings())


def databases_of(to: Target) -> dict[str, DatabaseSize]:
    return {database.name: database for database in go(to).measurement.databases}


def capabilities_of(to: Target) -> dict[str, Capability]:
    checkup = check(to, LIMITS, NO_FILTERS, Cutoff())
    assert checkup.error is None
    return {capability.name: capability for capability in checkup.capabilities}


def error_of(to: Target, limits: Limits = LIMITS) -> str:
    with pytest.raises(CollectionError) as failure:
        go(to, limits)
    return str(failure.value)


def bad(to: Target, folder: Path, databases: str) -> Target:
    """Return *to* with another query for databases."""
    return by_file(to, folder, **with_queries(databases=databases))


def test_postgresql_is_measured_as_by_its_own_module(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    to = postgresql.target()
    with postgresql.database("shop"), postgresql.connect("shop") as cursor:
        cursor.execute("CREATE TABLE orders AS SELECT n FROM generate_series(1, 100000) AS n; CHECKPOINT")
        own, found = settled(lambda: go(to).measurement, lambda: go(by_file(to, tmp_path)).measurement)
    assert (found.version, found.log_size_bytes) == (own.version, own.log_size_bytes)
    assert sorted(found.databases, key=str) == sorted(own.databases, key=str)
    assert {database.name for database in found.databases} == {"postgres", "shop"}


@contextmanager
def two_databases(family: FamilyServer) -> Iterator[None]:
    """Hold two databases with a table each."""
    with family.connect() as cursor:
        for name in ("crm", "shop"):
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"CREATE TABLE {name}.orders (n INT PRIMARY KEY, t LONGTEXT) ENGINE = InnoDB")
            cursor.execute(f"INSERT INTO {name}.orders SELECT 1, repeat('x', 3000000)")
        try:
            yield
        finally:
            cursor.execute("DROP DATABASE crm")
            cursor.execute("DROP DATABASE shop")


def test_mariadb_and_mysql_are_measured_as_by_their_own_module(family: FamilyServer, tmp_path: Path) -> None:
    to = family.target()
    with two_databases(family):
        own, found = settled(lambda: databases_of(to), lambda: databases_of(by_file(to, tmp_path)))
    assert found == own
    assert found["shop"].size_bytes is not None
    assert found["shop"].size_bytes > 3_000_000


@pytest.mark.slow
def test_a_hundred_visits_with_mute_refusing_slow_and_dying_servers_cost_only_those(
    postgresql: PostgresqlServer, mariadb: FamilyServer, tmp_path: Path
) -> None:
    kinds = {"mute": silent, "refuses": refuse_with(ENGINE, "go away"), "slow": stall_after_login}
    kinds |= {"dying": half_a_greeting, "no server": garbage}
    limits = Limits(connect_timeout_seconds=5, statement_timeout_seconds=5, deadline_seconds=10)
    real = {"pg": postgresql.target(), "maria": mariadb.target()}
    with ExitStack() as servers:
        ports = {kind: servers.enter_context(peer(speak)).port for kind, speak in kinds.items()}
        ports["nobody"] = servers.enter_context(refusing_port())
        servers.enter_context(two_databases(mariadb))
        fleet = {f"{kind} {n}": target(ENGINE, port) for kind, port in ports.items() for n in range(10)}
        fleet |= {f"{kind} {n}": to for kind, to in real.items() for n in range(20)}
        numbered = [
            by_file(replace(to, name=name, instance_id=number), tmp_path)
            for number, (name, to) in enumerate(sorted(fleet.items(), key=lambda named: named[0].split()[-1]))
        ]
        own, outcomes = settled(
            lambda: {kind: databases_of(to) for kind, to in real.items()},
            lambda: [one for batch in visit_fleet(numbered, limits, NO_FILTERS, 20) for one in batch],
        )
    assert len(outcomes) == 100
    good = [outcome for outcome in outcomes if isinstance(outcome, Visit)]
    assert Counter(visit.target.name.split()[0] for visit in good) == {"pg": 20, "maria": 20}
    for found in good:
        by_name = {database.name: database for database in found.measurement.databases}
        assert by_name == own[found.target.name.split()[0]]
    failed = [outcome for outcome in outcomes if isinstance(outcome, FailedVisit)]
    assert Counter(outcome.name.rpartition(" ")[0] for outcome in failed) == dict.fromkeys(ports, 10)
    reasons = {outcome.name.rpartition(" ")[0]: outcome.error for outcome in failed}
    assert "Connection refused" in reasons["nobody"]
    assert "go away" in reasons["refuses"]
    assert "within the deadline of 10 s" in reasons["slow"]


def test_a_database_without_a_size_is_missing_with_the_reason_of_the_query(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    with postgresql.database("hidden"), postgresql.connect() as cursor:
        cursor.execute("REVOKE CONNECT ON DATABASE hidden FROM PUBLIC; CREATE ROLE guest LOGIN")
        try:
            found = databases_of(by_file(postgresql.target(username="guest"), tmp_path))
        finally:
            cursor.execute("DROP ROLE guest")
    assert found["hidden"] == DatabaseSize("hidden", None, "no CONNECT, 100 % of it")
    assert found["postgres"].size_bytes is not None


def test_the_check_advises_the_grants_whose_probes_fail(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    with postgresql.connect() as cursor:
        cursor.execute("CREATE ROLE guest LOGIN")
        try:
            found = capabilities_of(by_file(postgresql.target(username="guest"), tmp_path))
        finally:
            cursor.execute("DROP ROLE guest")
    assert found["database sizes"].detail == "1 of 1 databases"
    every, wal = found["sizes of every database"], found["WAL"]
    assert (every.available, every.required, every.grant) == (False, True, "GRANT pg_read_all_stats TO guest")
    assert (wal.available, wal.required, wal.grant) == (False, False, "GRANT pg_monitor TO guest")
    assert "permission denied for function pg_ls_waldir" in wal.detail
    assert not found["log size"].available


def test_a_check_advises_nothing_where_nothing_is_missing(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    checkup = check(by_file(postgresql.target(), tmp_path), LIMITS, NO_FILTERS, Cutoff())
    assert checkup.healthy
    assert [capability.grant for capability in checkup.capabilities if capability.grant] == []


def test_databases_that_the_file_excludes_are_left_out(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    with postgresql.database("left_out"), postgresql.database("scratch_1"), postgresql.database("scratch"):
        assert set(databases_of(by_file(postgresql.target(), tmp_path))) == {"postgres", "scratch"}


def test_so_are_those_that_a_filter_excludes(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    to = by_file(postgresql.target(), tmp_path)
    filters = {"elephant": NameFilter(frozenset({"postgres"}))}
    assert visit(to, LIMITS, filters, Cutoff(), Findings()).measurement.databases == ()


def test_sizes_of_data_and_logs_come_along(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    query = "SELECT 'shop' AS NAME, 30 AS size_bytes, 20 AS data_size_bytes, 10.0 AS log_size_bytes"
    found = databases_of(bad(postgresql.target(), tmp_path, query))
    assert found == {"shop": DatabaseSize("shop", 30, None, 20, 10)}


def test_what_is_optional_costs_no_size(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    query = "SELECT 'shop' AS name, 30 AS size_bytes, 'much' AS data_size_bytes"
    to = by_file(postgresql.target(), tmp_path, **with_queries(databases=query, logs="SELECT 1 / 0"))
    found = go(to).measurement
    assert found.databases == (DatabaseSize("shop", 30),)
    assert found.log_size_bytes is None
    assert capabilities_of(to)["database sizes"].detail == (
        f"1 of 1 databases; left out: {to.engine_file}: queries.databases: data_size_bytes: 'much' is no number but str"
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("-5", "size_bytes: -5 bytes cannot be"),
        ("9007199254740992", "size_bytes: 9007199254740992 bytes cannot be"),
        ("CAST('NaN' AS float8)", "size_bytes: nan bytes cannot be"),
        ("1.5", "size_bytes: Decimal('1.5') is not a whole number"),
    ],
)
def test_a_size_that_cannot_be_costs_its_database_alone(
    value: str, reason: str, postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    query = f"SELECT 'bad' AS name, {value} AS size_bytes UNION ALL SELECT 'good', 7"
    to = bad(postgresql.target(), tmp_path, query)
    assert databases_of(to) == {
        "bad": DatabaseSize("bad", None, f"{to.engine_file}: queries.databases: {reason}"),
        "good": DatabaseSize("good", 7),
    }


@pytest.mark.parametrize("value", ["'much'", "true", "ARRAY[7]"])
def test_a_query_that_gives_no_numbers_for_sizes_is_named_with_its_file(
    value: str, postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    to = bad(postgresql.target(), tmp_path, f"SELECT 'shop' AS name, {value} AS size_bytes")
    error = error_of(to)
    assert error.startswith("pg: none of its 1 databases could be measured: ")
    assert f"{to.engine_file}: queries.databases: size_bytes: " in error
    assert " is no number but " in error


def test_a_name_that_is_listed_twice_has_no_size(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    query = "SELECT name, 1 AS size_bytes FROM unnest(ARRAY['twice', 'once', 'twice']) AS name"
    to = bad(postgresql.target(), tmp_path, query)
    reason = f"{to.engine_file}: queries.databases: name: listed more than once"
    assert databases_of(to) == {"twice": DatabaseSize("twice", None, reason), "once": DatabaseSize("once", 1)}


@pytest.mark.parametrize(
    ("queries", "problem"),
    [
        (
            {"databases": "SELECT datname AS name, 1 AS size FROM pg_database"},
            "queries.databases: has no column size_bytes; its columns are name, size, and may be name, size_bytes, "
            "data_size_bytes, log_size_bytes, reason",
        ),
        (
            {"databases": "SELECT 'shop' AS name, 1 AS size_bytes, 2 AS comment"},
            "queries.databases: has a column comment that means nothing; its columns are name, size_bytes, comment, "
            "and may be",
        ),
        (
            {"databases": "SELECT 'shop' AS name, 1 AS size_bytes, 2 AS Size_Bytes"},
            "queries.databases: has two columns size_bytes; ",
        ),
        ({"databases": "SELECT * FROM nowhere"}, 'queries.databases: relation "nowhere" does not exist'),
        ({"databases": "SET LOCAL work_mem = '4MB'"}, "queries.databases: gave no rows; it must be a query"),
        ({"version": "SELECT 1, 2"}, "queries.version: gave 1 rows of 2 columns; it must give one value"),
        ({"version": "SELECT 1 WHERE false"}, "queries.version: gave 0 rows of 1 columns; it must give one value"),
    ],
)
def test_a_query_that_does_not_give_what_it_is_for_is_named_with_its_file(
    queries: dict[str, str], problem: str, postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    to = by_file(postgresql.target(), tmp_path, **with_queries(**queries))
    assert f"{to.engine_file}: {problem}" in error_of(to)


def test_a_setting_that_the_server_refuses_is_named_with_its_file(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    to = by_file(postgresql.target(), tmp_path, session=["SET LOCAL no_such_thing = 1"])
    assert f"{to.engine_file}: session: unrecognized configuration parameter" in error_of(to)


def test_a_session_only_reads(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    query = "WITH made AS (SELECT lo_create(0) AS oid) SELECT 'shop' AS name, oid AS size_bytes FROM made"
    to = bad(postgresql.target(), tmp_path, query)
    assert "read-only transaction" in error_of(to)


def test_a_query_that_takes_too_long_is_ended_and_the_setting_named(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    query = "SELECT 'shop' AS name, 1 AS size_bytes FROM pg_sleep(3600)"
    error = error_of(bad(postgresql.target(), tmp_path, query), HASTY)
    assert "queries.databases: took longer than the statement limit of 0.5 s; raise WHALEFALL_STATEMENT" in error


def test_a_driver_that_is_not_installed_is_named_with_what_installs_it(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    to = by_file(postgresql.target(), tmp_path, driver="psycopg9", install="acme-driver[nine]")
    error = error_of(to)
    assert "the driver postgresql+psycopg9 of engine elephant cannot be loaded" in error
    assert error.endswith("pip install 'acme-driver[nine]'")
    to = by_file(postgresql.target(), tmp_path, driver="pg8000")
    assert "pip install 'psycopg2-binary'" in error_of(to)


def test_an_argument_that_the_driver_does_not_know_is_named(mariadb: FamilyServer, tmp_path: Path) -> None:
    to = by_file(mariadb.target(), tmp_path, connection={"arguments": {"hots": "{host}"}})
    assert f"{to.engine_file}: connection.arguments: " in error_of(to)
    assert "hots" in error_of(to)


def test_a_bad_file_costs_the_servers_of_its_engine_alone(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    broken = by_file(postgresql.target("broken", 2), tmp_path, default_port=0)
    outcomes = [one for batch in visit_fleet([broken, postgresql.target()], LIMITS, NO_FILTERS, 2) for one in batch]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["FailedVisit", "Visit"]
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, FailedVisit)]
    assert f"{broken.engine_file}: line " in failed.error
    assert "default_port: Input should be greater than or equal to 1" in failed.error


def test_a_tls_mode_that_the_file_does_not_have_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    with peer(silent) as server:
        to = by_file(target(ENGINE, server.port, tls=Tls("require")), tmp_path)
        assert "tls.mode is require, and engine elephant has no such mode; it has disable, verify-full" in error_of(to)
        assert server.arrivals == 0


def test_a_tls_mode_of_the_file_reaches_the_driver(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def refuse_tls(connection: socket.socket) -> None:
        heard.append(connection.recv(8))
        connection.sendall(b"N")

    with peer(refuse_tls) as server:
        error = error_of(by_file(target(ENGINE, server.port, tls=Tls("verify-full")), tmp_path))
    assert "server does not support SSL, but SSL was required" in error
    assert heard == [SSL_REQUEST]


def test_a_password_is_blotted_out_of_whatever_the_server_says(tmp_path: Path) -> None:
    with peer(refuse_with(ENGINE, f"no entry with {PASSWORD}")) as server:
        error = error_of(by_file(target(ENGINE, server.port), tmp_path))
    assert PASSWORD not in error
    assert "no entry with ********" in error


def test_a_visit_that_is_given_up_leaves_its_server(tmp_path: Path) -> None:
    limits = Limits(connect_timeout_seconds=60, statement_timeout_seconds=60, deadline_seconds=1)
    with peer(stall_after_login) as server:
        to = by_file(target(ENGINE, server.port), tmp_path)
        (outcome,) = [one for batch in visit_fleet([to], limits, NO_FILTERS, 1) for one in batch]
        assert isinstance(outcome, FailedVisit)
        assert server.await_connections(0)


def test_a_visit_leaves_no_connection_behind(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    go(by_file(postgresql.target(), tmp_path))

    def connections() -> int:
        with postgresql.connect() as cursor:
            cursor.execute("SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND query ~ 'pg_ls'")
            return cursor.rowcount - 1

    assert eventually(lambda: connections() <= 0)


def test_a_server_that_says_too_much_is_left(tmp_path: Path, postgresql: PostgresqlServer) -> None:
    query = "SELECT repeat('n', 200) || n AS name, 1 AS size_bytes FROM generate_series(1, 1000000) AS n"
    error = error_of(bad(postgresql.target(), tmp_path, query))
    assert "the server's answers take more than 128 MiB" in error


def test_tables_are_read_in_their_database(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    with postgresql.database("shop"), postgresql.connect("shop") as cursor:
        cursor.execute("CREATE TABLE orders AS SELECT n FROM generate_series(1, 10000) AS n; CREATE TABLE empty ()")
        found = read_tables(by_file(postgresql.target(), tmp_path), "shop", LIMITS, Cutoff())
        own = read_tables(postgresql.target(), "shop", LIMITS, Cutoff())
    assert [(table.schema_name, table.name, table.size_bytes) for table in found.tables] == [
        (table.schema_name, table.name, table.size_bytes) for table in own.tables if table.schema_name == "public"
    ]
    assert found.total == 2


def test_an_engine_without_a_query_for_tables_says_so(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    to = by_file(postgresql.target(), tmp_path, **with_queries(tables=None))
    with pytest.raises(CollectionError, match="engine elephant has no query for tables"):
        read_tables(to, "postgres", LIMITS, Cutoff())


def test_a_session_whose_driver_shows_no_socket_is_ended_by_closing_it() -> None:
    closed = threading.Event()
    cutoff = Cutoff()
    cutoff.call(closed.set)
    cutoff.cut()
    assert closed.wait(PATIENCE_SECONDS)


def test_a_session_that_is_over_is_not_closed_again() -> None:
    cutoff = Cutoff()
    cutoff.call(lambda: pytest.fail("closed"))
    cutoff.release()
    cutoff.cut()


def test_an_engine_file_is_read_again_when_it_has_changed(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    to = postgresql.target(password="")
    assert "postgres" in databases_of(by_file(to, tmp_path))
    assert databases_of(by_file(to, tmp_path, exclude=["postgres"])) == {}


def test_the_password_is_an_argument_of_its_own(tmp_path: Path) -> None:
    to = replace(target(ENGINE, 1), password=SecretStr("x;host=elsewhere"))
    assert "127.0.0.1" in error_of(by_file(to, tmp_path, POSTGRESQL))
