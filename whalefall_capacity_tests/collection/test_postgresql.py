"""Sizes of PostgreSQL databases are those of `pg_database_size`; what the account may not see costs only itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg2
import psycopg2.extensions
import pytest
from psycopg2 import sql

from whalefall_capacity.collection import postgresql
from whalefall_capacity.collection.postgresql import PostgresqlSession
from whalefall_capacity.collection.postgresql.server import Server
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
from whalefall_capacity.errors import CollectionError
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


def only(*names: str) -> NameFilter:
    """Return a filter for *names* alone: the server of the tests' stores holds others."""
    return NameFilter(regex=f"(?!({'|'.join(names)})$).*")


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


def session_on(connection: psycopg2.extensions.connection, limits: Limits = LIMITS) -> PostgresqlSession:
    """Return a session on a connection of the test, which cannot open another."""

    def refuse(name: str) -> Server:
        raise CollectionError(f"nothing but the connection of the test is there, not {name}")

    return PostgresqlSession(Server(connection, limits), refuse)


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


NAMES = [b"caf\xe9", "café".encode(), "注文".encode("euc_jp"), b"caf\\xe9", b"\xff\xfe", b"plain"]


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("UTF8", ["caf\\xe9", "café", "\\xc3\\xedʸ", "caf\\xe9", "\\xff\\xfe", "plain"]),
        ("SQL_ASCII", ["caf\\xe9", "café", "\\xc3\\xedʸ", "caf\\xe9", "\\xff\\xfe", "plain"]),
        ("LATIN1", ["café", "cafÃ©", "ÃíÊ\N{CEDILLA}", "caf\\xe9", "ÿþ", "plain"]),
        ("WIN1252", ["café", "cafÃ©", "ÃíÊ\N{CEDILLA}", "caf\\xe9", "ÿþ", "plain"]),
        ("EUC_JP", ["caf\\xe9", "caf辿", "注文", "caf\\xe9", "\\xff\\xfe", "plain"]),
        ("EUC_TW", ["caf\\xe9", "café", "\\xc3\\xedʸ", "caf\\xe9", "\\xff\\xfe", "plain"]),
        ("MULE_INTERNAL", ["caf\\xe9", "café", "\\xc3\\xedʸ", "caf\\xe9", "\\xff\\xfe", "plain"]),
    ],
)
def test_names_that_are_not_text_in_the_servers_encoding_are_all_measured(
    postgresql: PostgresqlServer, encoding: str, names: list[str]
) -> None:
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    with (
        postgresql.database("listing", options),
        postgresql.database("neutral", options.replace(encoding, "SQL_ASCII")),
        postgresql.connect("neutral") as cursor,
    ):
        cursor.connection.set_client_encoding("SQL_ASCII")
        for name in NAMES:
            cursor.execute(b'CREATE DATABASE "' + name + b'"')
        try:
            databases_found, again = (
                measure(replace(postgresql.target(), database="listing")).databases for _ in range(2)
            )
        finally:
            for name in NAMES:
                cursor.execute(b'DROP DATABASE "' + name + b'"')
    listed = {database.name for database in databases_found} - {"postgres", "listing", "neutral"}
    assert len(listed) == len(NAMES)
    # One that would be named like another, which is text, shows all of its bytes.
    assert listed == {*names} | ({"\\x636166e9"} if len({*names}) < len(NAMES) else set())
    assert all(database.size_bytes for database in databases_found)
    assert [database.name for database in again] == [database.name for database in databases_found]


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


@dataclass(frozen=True)
class Meanwhile(NameFilter):
    """A filter that leaves out nothing, and has the administrator run *statements* once the databases are listed."""

    server: PostgresqlServer = field(kw_only=True)
    statements: list[str] = field(kw_only=True)

    def excludes(self, name: str) -> bool:
        while self.statements:
            run(self.server, self.statements.pop(0))
        return super().excludes(name)


class Dropping(Findings):
    """Findings that have the administrator run *statement* once the database `going` is measured."""

    def __init__(self, server: PostgresqlServer, statement: str) -> None:
        super().__init__()
        self._server = server
        self._statement = statement

    def measured(self, name: str, size_bytes: int) -> None:
        super().measured(name, size_bytes)
        if name == "going":
            run(self._server, self._statement)


def test_a_database_dropped_in_mid_visit_costs_that_database_alone(server: PostgresqlServer) -> None:
    with databases(server, "going", "staying"), account(server) as target:
        measured = found(measure(target, Meanwhile(server=server, statements=["DROP DATABASE going"])))
    assert measured.pop("going") == DatabaseSize("going", None, "dropped during the visit")
    assert "staying" in measured
    assert all(database.size_bytes and database.reason is None for database in measured.values())


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'going'", "invalid: an interrupted DROP DATABASE"),
        ("DROP DATABASE going", "dropped during the visit"),
    ],
)
def test_the_size_of_a_database_is_not_kept_when_its_files_may_have_gone_meanwhile(
    server: PostgresqlServer, statement: str, reason: str
) -> None:
    findings = Dropping(server, statement)
    with databases(server, "going"), open_session(server.target()) as session:
        session.measure(only("going", "postgres"), findings)
    measured = found(findings.measurement("not come to"))
    assert measured["going"].size_bytes is None
    assert str(measured["going"].reason).startswith(reason)
    assert measured["postgres"].size_bytes


def test_a_privilege_lost_in_mid_visit_costs_that_database_alone(server: PostgresqlServer) -> None:
    statements = ["REVOKE CONNECT ON DATABASE closing FROM PUBLIC", "DROP DATABASE going"]
    with databases(server, "closing", "going", "staying"), account(server) as target:
        measured = found(measure(target, Meanwhile(server=server, statements=statements)))
    assert measured.pop("closing") == DatabaseSize("closing", None, "permission denied for database closing")
    assert measured.pop("going") == DatabaseSize("going", None, "dropped during the visit")
    assert "staying" in measured
    assert all(database.size_bytes and database.reason is None for database in measured.values())


def test_a_slow_database_costs_its_own_limit_and_the_others_are_measured_once(server: PostgresqlServer) -> None:
    slow = "IF $1 = (SELECT oid FROM pg_database WHERE datname = 'lake') THEN PERFORM pg_sleep(60); END IF;"
    limits = replace(LIMITS, statement_timeout_seconds=1.5)
    with (
        databases(server, "ab", "lake", "zebra"),
        server.behaving("pg_database_size(oid)", f"{slow} RETURN original($1);") as database,
    ):
        run(server, "ALTER DATABASE {} SET track_functions = 'pl'", database)
        with open_session(replace(server.target(), database=database), limits) as session:
            measured = found(measured_by(session, only("ab", "behaving", "lake", "postgres", "zebra")))
        with server.connect(database) as cursor:
            cursor.execute("SELECT calls FROM pg_stat_user_functions WHERE funcname = 'pg_database_size'")
            asked = cursor.fetchall()
    assert measured.pop("lake") == DatabaseSize(
        "lake",
        None,
        "pg_database_size took longer than the statement limit of 1.5 s; raise WHALEFALL_STATEMENT_TIMEOUT_SECONDS",
    )
    assert measured.keys() == {"ab", "behaving", "postgres", "zebra"}
    assert all(database.size_bytes for database in measured.values())
    # Those that were ended are not counted.
    assert asked == [(4,)]


def test_a_slow_one_of_many_databases_costs_itself_alone(server: PostgresqlServer) -> None:
    names = [f"many_{number:02}" for number in range(20)]
    slow = "IF $1 = (SELECT oid FROM pg_database WHERE datname = 'many_13') THEN PERFORM pg_sleep(60); END IF;"
    limits = replace(LIMITS, statement_timeout_seconds=1.5)
    with (
        databases(server, *names),
        server.behaving("pg_database_size(oid)", f"{slow} RETURN original($1);") as database,
        open_session(replace(server.target(), database=database), limits) as session,
    ):
        measured = found(measured_by(session, only(*names)))
    assert measured.keys() == set(names)
    assert [name for name, database in measured.items() if not database.size_bytes] == ["many_13"]
    assert str(measured["many_13"].reason).startswith("pg_database_size took longer than the statement limit of 1.5 s")


def test_databases_that_are_only_slow_together_are_all_measured(server: PostgresqlServer) -> None:
    names = [f"lake_{number}" for number in range(3)]
    with (
        databases(server, *names),
        server.behaving("pg_database_size(oid)", "PERFORM pg_sleep(0.4); RETURN original($1);") as database,
    ):
        measured = found(measure(replace(server.target(), database=database), only(*names, "behaving", "postgres")))
    assert measured.keys() == {*names, "behaving", "postgres"}
    assert all(database.size_bytes for database in measured.values())


def test_an_invalid_database_is_told_from_one_that_was_dropped(server: PostgresqlServer) -> None:
    with databases(server, "half_gone"):
        run(server, "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_gone'")
        measured = found(measure(server.target()))
    assert measured["half_gone"] == DatabaseSize(
        "half_gone", None, "invalid: an interrupted DROP DATABASE; drop it again"
    )


@contextmanager
def tablespace(server: PostgresqlServer, folder: Path) -> Iterator[None]:
    """Hold a tablespace `disk` in *folder*."""
    folder.mkdir()
    folder.parent.chmod(0o755)
    owner = server.embedded.data_dir.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    with server.connect() as cursor:
        cursor.execute("CREATE TABLESPACE disk LOCATION %s", (str(folder),))
        yield
        cursor.execute("DROP TABLESPACE disk")


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Take the rights to *path* from everybody, the server included."""
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(mode)


@contextmanager
def lost(path: Path) -> Iterator[None]:
    """Let *path* not be where it was."""
    elsewhere = path.rename(path.with_name(f"elsewhere-{path.name}"))
    try:
        yield
    finally:
        elsewhere.rename(path)


def folder_of(server: PostgresqlServer, name: str) -> Path:
    with server.connect() as cursor:
        cursor.execute("SELECT oid FROM pg_database WHERE datname = %s", (name,))
        return server.embedded.data_dir / "base" / str(cursor.fetchall()[0][0])


@pytest.mark.parametrize("trouble", [unreadable, lost])
def test_a_database_whose_folder_the_server_cannot_read_is_missing_and_not_smaller(
    server: PostgresqlServer, shared_path: Path, trouble: Callable[[Path], AbstractContextManager[None]]
) -> None:
    with tablespace(server, shared_path / "disk"), databases(server, "orders", "users"):
        with server.connect("orders") as cursor:
            cursor.execute("CREATE TABLE lines TABLESPACE disk AS SELECT generate_series(1, 1000) AS line")
        with trouble(folder_of(server, "orders")):
            measured = found(measure(server.target()))
    assert measured["orders"].size_bytes is None
    assert "could not open directory" in str(measured["orders"].reason) or measured["orders"].reason == (
        "pg_database_size found none of its files: its folder is lost, or the server cannot read it"
    )
    assert measured["users"].size_bytes


@pytest.mark.parametrize(
    ("trouble", "what"),
    [
        (lost, "the folder of tablespace disk is lost"),
        (unreadable, "the folder of tablespace disk cannot be read (could not open directory "),
    ],
)
def test_a_tablespace_in_trouble_costs_the_databases_that_have_something_in_it(
    server: PostgresqlServer,
    shared_path: Path,
    trouble: Callable[[Path], AbstractContextManager[None]],
    what: str,
) -> None:
    disk = shared_path / "disk"
    with (
        tablespace(server, disk),
        databases(server, "audit_orders", "audit_users"),
        server.database("audit_archive", "TABLESPACE disk"),
    ):
        with server.connect("audit_orders") as cursor:
            cursor.execute("CREATE TABLE lines TABLESPACE disk AS SELECT generate_series(1, 1000) AS line")
        with account(server, "pg_monitor") as visitor:
            run(server, "REVOKE CONNECT ON DATABASE audit_users FROM PUBLIC")
            with trouble(disk):
                measured = found(measure(server.target(), ONLY_OURS))
                by_visitor = found(measure(visitor, ONLY_OURS))
                [sizes, _] = capabilities(server.target())
        whole = found(measure(server.target(), ONLY_OURS))
    reasons = {name: str(database.reason) for name, database in measured.items() if database.size_bytes is None}
    assert reasons.keys() == {"audit_orders", "audit_archive"}
    assert all(reason.startswith(what) for reason in reasons.values())
    assert reasons["audit_orders"].endswith(", and with it a part of the database")
    assert reasons["audit_archive"].endswith(", in which the database is")
    assert measured["audit_users"].size_bytes == whole["audit_users"].size_bytes
    # It cannot be asked what it has there.
    assert by_visitor["audit_users"].size_bytes is None
    assert str(by_visitor["audit_users"].reason).endswith(", and with it perhaps a part of the database")
    assert all(f"{name} ({reason})" in sizes.detail for name, reason in reasons.items())
    assert all(database.size_bytes for database in whole.values())


@pytest.mark.parametrize(
    "message",
    [
        "impossible d'ouvrir le répertoire « pg_tblspc/1663/PG_16_1 » : Permission non accordée",
        "konnte Verzeichnis „base“ nicht öffnen: Keine Berechtigung",
        '不能打开目录 "base": 权限不够',
    ],
)
def test_a_folder_that_the_server_cannot_open_is_known_in_any_language(server: PostgresqlServer, message: str) -> None:
    body = f"RAISE insufficient_privilege USING MESSAGE = $message${message}$message$;"
    with server.behaving("pg_tablespace_databases(oid)", body) as name:
        measured = found(measure(replace(server.target(), database=name), only(name, "postgres")))
    assert {database.size_bytes for database in measured.values()} == {None}
    assert all(message in str(database.reason) for database in measured.values())


@pytest.mark.parametrize(
    "body", ["RAISE EXCEPTION 'not supported here';", "PERFORM pg_sleep(60);", "RETURN;"], ids=["no", "slow", "none"]
)
def test_a_server_that_does_not_tell_its_folders_is_measured_without_them(server: PostgresqlServer, body: str) -> None:
    limits = replace(LIMITS, statement_timeout_seconds=0.5)
    with (
        server.behaving("pg_tablespace_databases(oid)", body) as name,
        open_session(replace(server.target(), database=name), limits) as session,
    ):
        measured = found(measured_by(session))
    assert all(database.size_bytes for database in measured.values())


@pytest.fixture
def shared_path() -> Iterator[Path]:
    """A folder that the account of the server may enter, which pytest's own are not."""
    with TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("RAISE EXCEPTION 'not supported here';", "pg_ls_waldir(): not supported here"),
        ("RAISE io_error USING MESSAGE = 'could not stat file';", "pg_ls_waldir(): could not stat file"),
        (
            "PERFORM pg_sleep(60);",
            "pg_ls_waldir(): took longer than the statement limit of 0.5 s; raise WHALEFALL_STATEMENT_TIMEOUT_SECONDS",
        ),
        ("RETURN;", "pg_ls_waldir(): it lists no file"),
    ],
)
def test_whatever_is_wrong_with_the_wal_costs_no_size_and_is_told_by_the_check(
    server: PostgresqlServer, body: str, detail: str
) -> None:
    with server.behaving("pg_ls_waldir()", body) as database, account(server, "pg_monitor") as target:
        limits = replace(LIMITS, statement_timeout_seconds=0.5)
        with open_session(replace(target, database=database), limits) as session:
            measurement = measured_by(session)
            wal = session.capabilities(EVERYTHING)[1]
    assert measurement.log_size_bytes is None
    assert all(found.size_bytes for found in measurement.databases)
    assert (wal.available, wal.required) == (False, False)
    assert wal.detail.startswith(detail)
    # The account has pg_monitor, and may call the function.
    assert wal.grant is None


def test_a_server_without_the_function_for_the_wal_keeps_its_sizes(server: PostgresqlServer) -> None:
    with server.behaving("pg_ls_waldir()", "RETURN;") as database, account(server, "pg_monitor") as target:
        with server.connect(database) as cursor:
            cursor.execute("SET allow_system_table_mods = on; DROP FUNCTION pg_catalog.pg_ls_waldir()")
        measurement = measure(replace(target, database=database))
    assert measurement.log_size_bytes is None
    assert all(found.size_bytes for found in measurement.databases)


def test_a_database_that_the_filter_excludes_may_be_unreadable(server: PostgresqlServer) -> None:
    with databases(server, "closed"), account(server) as target:
        run(server, "REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
        measurement = measure(target, NameFilter(frozenset({"closed"})))
    assert all(database.size_bytes for database in measurement.databases)


def test_what_is_asked_is_named_for_the_server_to_see(server: PostgresqlServer) -> None:
    body = "RAISE EXCEPTION 'asked by %', current_setting('application_name');"
    with server.behaving("pg_database_size(oid)", body) as database:
        measured = found(measure(replace(server.target(), database=database)))
    assert measured["postgres"].reason == "asked by whalefall_capacity"


def settings_of(connection: psycopg2.extensions.connection) -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SHOW ALL")
        return {name: value for name, value, _ in cursor.fetchall()}


@contextmanager
def own_connection(
    server: PostgresqlServer, database: str, kind: type[psycopg2.extensions.connection]
) -> Iterator[psycopg2.extensions.connection]:
    connection = psycopg2.connect(host=server.target().host, user="postgres", dbname=database, connection_factory=kind)
    connection.autocommit = True
    with closing(connection):
        with connection.cursor() as cursor:
            # Which brings settings of its own when it is first used.
            cursor.execute("LOAD 'plpgsql'")
        yield connection


class OlderConnection(psycopg2.extensions.connection):
    """A connection that says it leads to PostgreSQL 10, in which a timeout set in a message comes too late for it."""

    server_version = 100_023


@pytest.mark.parametrize("kind", [psycopg2.extensions.connection, OlderConnection], ids=["now", "10"])
def test_a_visit_leaves_no_setting_and_no_transaction_in_its_connection(
    server: PostgresqlServer, kind: type[psycopg2.extensions.connection]
) -> None:
    with (
        server.behaving("pg_ls_waldir()", "RAISE EXCEPTION 'no';") as name,
        own_connection(server, name, kind) as ours,
    ):
        before = settings_of(ours)
        session = session_on(ours)
        measurement = measured_by(session)
        session.capabilities(EVERYTHING)
        assert settings_of(ours) == before
        assert ours.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
        with ours.cursor() as cursor:
            cursor.execute("CREATE TABLE written AS SELECT 1 AS one")
    assert all(found.size_bytes for found in measurement.databases)


def test_what_is_asked_cannot_write(server: PostgresqlServer) -> None:
    body = "CREATE TABLE written AS SELECT 1 AS one; RETURN 1;"
    with server.behaving("pg_database_size(oid)", body) as database:
        measured = found(measure(replace(server.target(), database=database)))
    assert {size.reason for size in measured.values()} == {"cannot execute CREATE TABLE AS in a read-only transaction"}


@pytest.mark.parametrize("kind", [psycopg2.extensions.connection, OlderConnection], ids=["now", "10"])
def test_a_statement_that_takes_too_long_is_ended_by_the_server(
    server: PostgresqlServer, kind: type[psycopg2.extensions.connection]
) -> None:
    limits = replace(LIMITS, statement_timeout_seconds=0.2)
    with (
        server.behaving("has_database_privilege(oid, text)", "PERFORM pg_sleep(60); RETURN true;") as name,
        own_connection(server, name, kind) as ours,
    ):
        session = session_on(ours, limits)
        with pytest.raises(CollectionError) as failure:
            measured_by(session)
    assert str(failure.value) == (
        "listing its databases took longer than the statement limit of 0.2 s; raise WHALEFALL_STATEMENT_TIMEOUT_SECONDS"
    )


def test_functions_of_the_accounts_own_path_are_not_called(server: PostgresqlServer) -> None:
    with databases(server, "ours"), account(server) as target:
        with server.connect("ours") as cursor:
            cursor.execute("CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC")
            cursor.execute(
                "CREATE FUNCTION trap.pg_database_size(oid) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'"
            )
            cursor.execute("ALTER ROLE visitor SET search_path = trap, pg_catalog")
        measured = found(measure(replace(target, database="ours")))
    assert all(int(database.size_bytes or 0) > 1_000_000 for database in measured.values())


def test_temporary_tables_of_the_session_are_not_taken_for_the_catalog(server: PostgresqlServer) -> None:
    with databases(server, "ours"), server.connect("ours") as cursor:
        cursor.execute("CREATE TEMPORARY TABLE pg_database AS SELECT * FROM pg_catalog.pg_database LIMIT 0")
        findings = Findings()
        session_on(cursor.connection).measure(only("ours"), findings)
    assert found(findings.measurement("not come to"))["ours"].size_bytes


def test_the_accounts_own_isolation_and_timeouts_do_not_matter(server: PostgresqlServer) -> None:
    # A standby refuses it, and a deferrable transaction waits for those of others.
    body = (
        "IF current_setting('transaction_isolation') = 'serializable' THEN RAISE 'serializable'; END IF; "
        "PERFORM pg_sleep(0.2); RETURN original($1);"
    )
    settings = ["default_transaction_isolation = serializable", "default_transaction_deferrable = on"]
    settings += ["statement_timeout = 50", *(["transaction_timeout = 50"] if server.embedded.version >= 17 else [])]
    with account(server, "pg_monitor") as target:
        for setting in settings:
            run(server, f"ALTER ROLE visitor SET {setting}")
        with server.behaving("pg_database_size(oid)", body) as name:
            measured = found(measure(replace(target, database=name), only(name, "postgres")))
    assert measured.keys() == {"behaving", "postgres"}
    assert all(database.size_bytes for database in measured.values())


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
                "1 of 2 databases; not: audit_closed (no CONNECT privilege and not a member of pg_read_all_stats)",
                'GRANT pg_monitor TO "visitor";',
            ),
            Capability(
                "WAL size",
                False,
                False,
                "pg_ls_waldir(): permission denied for function pg_ls_waldir",
                'GRANT pg_monitor TO "visitor";',
            ),
        ]


def test_a_grant_that_the_account_has_is_not_advised(server: PostgresqlServer) -> None:
    with databases(server, "audit_closed"), account(server, "pg_monitor") as target:
        run(server, "REVOKE CONNECT ON DATABASE audit_closed FROM PUBLIC")
        run(server, "REVOKE EXECUTE ON FUNCTION pg_ls_waldir() FROM pg_monitor")
        sizes, wal = capabilities(target)
        run(server, "GRANT EXECUTE ON FUNCTION pg_ls_waldir() TO pg_monitor")
    assert (sizes.available, sizes.grant) == (True, None)
    assert wal.grant == 'GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO "visitor";'


def test_an_account_that_may_not_call_the_function_for_sizes_hears_which_grant_is_missing(
    server: PostgresqlServer,
) -> None:
    with databases(server, "audit_open"), account(server, "pg_monitor") as target:
        run(server, "REVOKE EXECUTE ON FUNCTION pg_database_size(oid) FROM PUBLIC")
        try:
            before, _ = capabilities(target)
            run(server, str(before.grant))
            after, _ = capabilities(target)
            run(server, "REVOKE EXECUTE ON FUNCTION pg_database_size(oid) FROM visitor")
        finally:
            run(server, "GRANT EXECUTE ON FUNCTION pg_database_size(oid) TO PUBLIC")
    assert before.grant == 'GRANT EXECUTE ON FUNCTION pg_catalog.pg_database_size(oid) TO "visitor";'
    assert (after.available, after.grant) == (True, None)


def test_a_server_that_hides_its_roles_is_measured_and_advised(server: PostgresqlServer) -> None:
    with databases(server, "audit_closed"), account(server) as target:
        run(server, "REVOKE CONNECT ON DATABASE audit_closed FROM PUBLIC")
        run(server, "REVOKE SELECT ON pg_roles FROM PUBLIC")
        try:
            before = capabilities(target)
            run(server, "GRANT pg_read_all_stats TO visitor")
            measured = found(measure(target, only("audit_closed")))
        finally:
            run(server, "GRANT SELECT ON pg_roles TO PUBLIC")
    assert [capability.grant for capability in before] == ['GRANT pg_monitor TO "visitor";'] * 2
    assert measured["audit_closed"].size_bytes is not None


def test_an_account_that_does_not_inherit_is_told_to(server: PostgresqlServer) -> None:
    with databases(server, "audit_closed"), account(server) as target:
        run(server, "REVOKE CONNECT ON DATABASE audit_closed FROM PUBLIC")
        run(server, "ALTER ROLE visitor NOINHERIT")
        run(server, "GRANT pg_monitor TO visitor")
        before = capabilities(target)
        assert [capability.grant for capability in before] == ['GRANT pg_monitor TO "visitor" WITH INHERIT TRUE;'] * 2
        run(server, str(before[0].grant))
        assert [capability.available for capability in capabilities(target)] == [True, True]


@pytest.mark.parametrize("name", ["visitor", 'o\'Neil "DBA" %s', "müller"])
def test_running_the_grant_mends_what_is_missing(server: PostgresqlServer, name: str) -> None:
    with databases(server, "audit_closed"), account(server, name=name) as target:
        run(server, "REVOKE CONNECT ON DATABASE audit_closed FROM PUBLIC")
        before = capabilities(target)
        assert [(ability.available, ability.grant is None) for ability in before] == [(False, False)] * 2
        with server.connect() as cursor:
            cursor.execute(str(before[0].grant))
        assert [(ability.available, ability.grant) for ability in capabilities(target)] == [(True, None)] * 2
        measurement = measure(target)
    assert found(measurement)["audit_closed"].size_bytes
    assert measurement.log_size_bytes
