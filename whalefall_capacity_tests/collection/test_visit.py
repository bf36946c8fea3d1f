"""A visit that fails says which server, where, as whom and why, and never quotes the password."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pydantic import SecretStr

from whalefall_capacity.collection.postgresql import PostgresqlSession
from whalefall_capacity.collection.sizes import (
    Capability,
    Cutoff,
    DatabaseSize,
    FailedVisit,
    Findings,
    NameFilter,
    ServerEngine,
    Target,
    Tls,
    TlsMode,
    Visit,
)
from whalefall_capacity.collection.visit import Checkup, check, failed, visit, visit_of
from whalefall_capacity.demo.mysql_family import MariadbServer
from whalefall_capacity.errors import CollectionError
from whalefall_capacity_tests.collection.certificates import Authority
from whalefall_capacity_tests.collection.support import (
    ENGINES,
    EVERYTHING,
    PASSWORD,
    eventually,
    garbage,
    half_a_greeting,
    peer,
    refuse_with,
    refusing_port,
    silent,
    target,
)
from whalefall_capacity_tests.processes import PATIENCE_SECONDS
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS, FamilyServer, MariadbFleetServer, PostgresqlServer

POSTGRESQL, MARIADB = ENGINES
HASTY = replace(LIMITS, connect_timeout_seconds=1, statement_timeout_seconds=0.5)
by_engine = pytest.mark.parametrize("engine", ENGINES)


@dataclass(frozen=True)
class Real:
    """A real server, which its administrator may enter without a password."""

    server: PostgresqlServer | FamilyServer

    @property
    def engine(self) -> str:
        return self.server.target().engine

    def run(self, statement: str, *values: str) -> list[tuple[object, ...]]:
        with self.server.connect() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture(params=["postgresql", "mariadb", "mysql"])
def real(request: pytest.FixtureRequest) -> Real:
    """A real server of each engine."""
    return Real(request.getfixturevalue(request.param))


def go(to: Target, excluded: NameFilter = EVERYTHING, cutoff: Cutoff | None = None) -> Visit:
    return visit(to, HASTY, {**NO_FILTERS, to.engine: excluded}, cutoff or Cutoff(), Findings())


def error_of(to: Target, excluded: NameFilter = EVERYTHING) -> str:
    with pytest.raises(CollectionError) as failure:
        go(to, excluded)
    return str(failure.value)


def error_in_time(to: Target) -> str:
    """Return the error of a visit that must not wait for ever."""
    errors: list[str] = []
    thread = threading.Thread(target=lambda: errors.append(error_of(to)), daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert errors, "the visit still waits"
    return errors[0]


def check_up(to: Target, excluded: NameFilter = EVERYTHING) -> Checkup:
    return check(to, HASTY, {**NO_FILTERS, to.engine: excluded}, Cutoff())


def test_a_visit_brings_the_sizes_and_says_when_and_how_long(real: Real) -> None:
    before = datetime.now(timezone.utc)
    found = go(real.server.target())
    assert before <= found.collected_at <= datetime.now(timezone.utc)
    assert found.target == real.server.target()
    assert found.seconds > 0
    assert found.measurement.version


def test_a_visit_leaves_no_connection_behind(real: Real) -> None:
    cutoff = Cutoff()
    go(real.server.target(), cutoff=cutoff)
    assert eventually(lambda: not connections(real))


def connections(real: Real) -> list[object]:
    """Return the ids of the visits' connections."""
    statements: dict[str, str] = {
        POSTGRESQL: "SELECT pid FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        MARIADB: "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'root' AND ID <> CONNECTION_ID()",
    }
    return [row[0] for row in real.run(statements.get(real.engine, statements[MARIADB]))]


def test_a_server_without_databases_is_measured_as_such(real: Real) -> None:
    assert go(real.server.target(), NameFilter(regex="(?s:.*)")).measurement.databases == ()


@by_engine
def test_a_server_that_refuses_is_named(engine: ServerEngine) -> None:
    with refusing_port() as port:
        error = error_of(target(engine, port))
    assert error.startswith(f"db-7: connecting to 127.0.0.1:{port} as whalefall failed: ")
    assert "Connection refused" in error


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (POSTGRESQL, "timeout expired"),
        (MARIADB, "the server accepted the connection and sent no greeting within 1 s"),
    ],
)
def test_a_server_that_accepts_and_never_speaks_is_left(engine: ServerEngine, reason: str) -> None:
    with peer(silent) as server:
        error = error_in_time(target(engine, server.port))
        assert server.await_connections(0)
    assert error.startswith(f"db-7: connecting to 127.0.0.1:{server.port} as whalefall failed: ")
    assert reason in error


@by_engine
def test_a_server_that_stops_in_the_middle_of_its_greeting_is_left(engine: ServerEngine) -> None:
    with peer(half_a_greeting) as server:
        error = error_in_time(target(engine, server.port))
        assert server.await_connections(0)
    assert error.startswith(f"db-7: connecting to 127.0.0.1:{server.port} as whalefall failed: ")
    assert "timeout expired" in error or "timed out" in error


@by_engine
def test_a_server_that_speaks_another_protocol_is_named(engine: ServerEngine) -> None:
    with peer(garbage) as server:
        error = error_of(target(engine, server.port))
    assert error.startswith(f"db-7: connecting to 127.0.0.1:{server.port} as whalefall failed: ")


@by_engine
def test_a_failed_connection_is_closed_though_the_cutoff_is_still_held(engine: ServerEngine) -> None:
    cutoff = Cutoff()
    with peer(refuse_with(engine, "not today")) as server:
        with pytest.raises(CollectionError, match="not today"):
            go(target(engine, server.port), cutoff=cutoff)
        assert server.arrivals == 1
        assert server.await_connections(0)


def test_a_visit_that_was_given_up_before_it_connected_ends_there(real: Real) -> None:
    cutoff = Cutoff()
    cutoff.cut()
    with pytest.raises(CollectionError, match=r"connecting to|measuring on"):
        go(real.server.target(), cutoff=cutoff)


def test_an_unknown_database_is_named(real: Real) -> None:
    to = replace(real.server.target(), database="nowhere")
    unknown = "Unknown database 'nowhere'"
    reasons: dict[str, str] = {
        POSTGRESQL: 'database "nowhere" does not exist',
        MARIADB: unknown,
        ServerEngine.MYSQL: unknown,
    }
    error = error_of(to)
    assert error.startswith(f"{to.name}: connecting to {to.address} as {to.username} failed: ")
    assert reasons[to.engine] in error


@contextmanager
def visitor(real: Real, password: str) -> Iterator[Target]:
    """Hold an account with *password*, and without rights."""
    to = replace(real.server.target(), username="visitor", password=SecretStr(password))
    if isinstance(real.server, PostgresqlServer):
        real.run("CREATE ROLE visitor LOGIN PASSWORD %s", password)
        with password_required(real.server, "visitor"):
            yield to
        real.run("DROP ROLE visitor")
    else:
        real.run("CREATE USER visitor@localhost IDENTIFIED BY %s", password)
        yield to
        real.run("DROP USER visitor@localhost")


@contextmanager
def password_required(server: PostgresqlServer, username: str) -> Iterator[None]:
    """Let *username* in with its password only; the other roles of the test's server need none."""
    rules = server.embedded.data_dir / "pg_hba.conf"
    before = rules.read_text()

    def load_time() -> object:
        with server.connect() as cursor:
            cursor.execute("SELECT pg_conf_load_time()")
            return cursor.fetchone()

    def load(text: str) -> bool:
        last = load_time()
        rules.write_text(text)
        with server.connect() as cursor:
            cursor.execute("SELECT pg_reload_conf()")
        return eventually(lambda: load_time() != last)

    assert load(f"local all {username} scram-sha-256\n{before}")
    try:
        yield
    finally:
        assert load(before)


@pytest.mark.parametrize("password", ["wr0ng", ""])
def test_a_wrong_password_is_told_and_not_shown(real: Real, password: str) -> None:
    with visitor(real, PASSWORD) as right:
        error = error_of(replace(right, password=SecretStr(password)))
    assert error.startswith(f"{right.name}: connecting to {right.address} as visitor failed: ")
    assert "password" in error
    assert "wr0ng" not in error


def test_a_password_may_hold_any_character(real: Real) -> None:
    with visitor(real, "pässwörd 密码 %s \\ \"'`") as to:
        assert check_up(to).error is None


@by_engine
@pytest.mark.parametrize(
    "password", [PASSWORD, "two  blanks", " at the ends ", "per%cent", "new\nline", "密码", "a'b\"c\\d"]
)
def test_the_password_never_appears_though_the_server_echoes_it(engine: ServerEngine, password: str) -> None:
    with peer(refuse_with(engine, f"no entry with [{password}] here")) as server:
        error = error_of(replace(target(engine, server.port), password=SecretStr(password)))
    assert "no entry with [********] here" in error


def test_the_password_never_appears_in_an_error_of_measuring(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quote(_: PostgresqlSession, __: NameFilter, ___: Findings) -> None:
        raise ValueError(f"cannot use {PASSWORD} here")

    monkeypatch.setattr(PostgresqlSession, "measure", quote)
    to = postgresql.target(password=PASSWORD)
    assert error_of(to) == f"pg: measuring on {to.host} as postgres failed: cannot use ******** here"


def test_the_password_never_appears_in_a_failed_visit() -> None:
    assert failed(target(MARIADB, 3306), f"lost: {PASSWORD}", 1.5) == FailedVisit(7, "db-7", "lost: ********", 1.5)


def test_an_account_without_a_password_has_nothing_to_hide() -> None:
    to = replace(target(MARIADB, 3306), password=SecretStr(""))
    assert failed(to, "lost", 1.5) == FailedVisit(7, "db-7", "lost", 1.5)


@dataclass(frozen=True)
class Disconnecting(NameFilter):
    """A filter that has the visit's connection ended by the server as soon as the databases are listed."""

    real: Real = field(kw_only=True)

    def excludes(self, name: str) -> bool:
        for connection in connections(self.real):
            if self.real.engine is POSTGRESQL:
                self.real.run("SELECT pg_terminate_backend(%s::int, 5000)", str(connection))
            else:
                self.real.run(f"KILL {connection}")
        return super().excludes(name)


@pytest.fixture
def watched(real: Real) -> Iterator[Target]:
    """A server with a database."""
    real.run("CREATE DATABASE watched")
    yield real.server.target()
    real.run("DROP DATABASE watched")


def test_a_connection_lost_in_mid_visit_is_told(real: Real, watched: Target) -> None:
    error = error_of(watched, Disconnecting(real=real))
    assert error.startswith(f"{watched.name}: measuring on {watched.address} as {watched.username} failed: ")


def test_a_connection_lost_after_sizes_were_read_costs_only_what_was_not_read(postgresql: PostgresqlServer) -> None:
    with postgresql.behaving("pg_ls_waldir()", "PERFORM pg_terminate_backend(pg_backend_pid());") as database:
        found = go(replace(postgresql.target(), database=database)).measurement
    assert {size.name for size in found.databases if size.size_bytes} >= {"postgres", database}
    assert found.log_size_bytes is None


def test_a_connection_lost_in_a_check_up_is_told(real: Real, watched: Target) -> None:
    found = check_up(watched, Disconnecting(real=real))
    assert not found.healthy
    assert str(found.error).startswith(f"{watched.name}: checking on {watched.address} as {watched.username} failed: ")


def test_a_server_of_which_nothing_can_be_measured_fails(mariadb: MariadbFleetServer) -> None:
    real = Real(mariadb)
    with ExitStack() as stack:
        for name in ("audit_1", "audit_2"):
            real.run(f"CREATE DATABASE {name}")
            stack.callback(real.run, f"DROP DATABASE {name}")
        to = stack.enter_context(visitor(real, PASSWORD))
        real.run("GRANT SHOW DATABASES ON *.* TO visitor@localhost")
        error = error_of(to, NameFilter(regex="(?!audit_).*"))
    assert error.startswith("maria: none of its 2 databases could be measured: the account cannot see its tables")
    assert error.endswith("`whalefall-capacity fleet check` prints the GRANT that is missing")


SOME_TARGET = Target(1, "shop", ServerEngine.MYSQL, "shop.example", 3306, None, "app", SecretStr("hush"))


def findings_of(databases: dict[str, int], log_size_bytes: int | None = None) -> Findings:
    findings = Findings()
    findings.listed("9.1", databases)
    for name, size_bytes in databases.items():
        findings.measured(name, size_bytes)
    findings.logs(log_size_bytes)
    return findings


@pytest.mark.parametrize("impossible", [-1, 2**63])
def test_a_size_that_no_database_can_have_is_a_missing_one_with_a_reason(impossible: int) -> None:
    found = visit_of(SOME_TARGET, findings_of({"orders": 100, "odd": impossible}), "not come to", 0.1).measurement
    assert found.databases == (
        DatabaseSize("orders", 100),
        DatabaseSize("odd", None, f"the server reported {impossible} bytes"),
    )


def test_logs_of_a_size_that_cannot_be_cost_no_size() -> None:
    found = visit_of(SOME_TARGET, findings_of({"orders": 100}, log_size_bytes=2**63), "not come to", 0.1).measurement
    assert (found.databases, found.log_size_bytes) == ((DatabaseSize("orders", 100),), None)


def test_a_visit_cut_short_without_any_size_that_can_be_fails() -> None:
    findings = Findings()
    findings.listed("9.1", ["orders", "users"])
    findings.measured("orders", -1)
    with pytest.raises(CollectionError, match=r"^shop: none of its 2 databases could be measured: the server reported"):
        visit_of(SOME_TARGET, findings, "not come to", 0.1)


def test_of_several_reasons_the_most_frequent_is_told() -> None:
    findings = Findings()
    findings.listed("18.1", ["going", "orders", "users"])
    findings.missing("going", "dropped during the visit")
    for name in ("orders", "users"):
        findings.missing(name, "permission denied for function pg_database_size")
    with pytest.raises(CollectionError, match=r"could be measured: permission denied for function pg_database_size; "):
        visit_of(SOME_TARGET, findings, "not come to", 0.1)


def test_a_check_up_tells_the_version_and_every_capability(real: Real) -> None:
    found = check_up(real.server.target())
    assert found.name == real.server.target().name
    assert found.version == go(real.server.target()).measurement.version
    assert all(capability.available for capability in found.capabilities)
    assert "database sizes" in [capability.name for capability in found.capabilities]
    assert found.healthy


@by_engine
def test_a_server_that_cannot_be_reached_is_a_finding_of_its_check_up(engine: ServerEngine) -> None:
    with refusing_port() as port:
        found = check_up(target(engine, port))
    assert (found.name, found.version, found.capabilities, found.healthy) == ("db-7", None, (), False)
    assert str(found.error).startswith(f"db-7: connecting to 127.0.0.1:{port} as whalefall failed: ")


@pytest.mark.parametrize(
    ("available", "required", "healthy"),
    [(True, True, True), (True, False, True), (False, False, True), (False, True, False)],
)
def test_a_server_is_healthy_when_nothing_required_is_missing(available: bool, required: bool, healthy: bool) -> None:
    found = Capability("database sizes", True, True, ""), Capability("other", available, required, "")
    assert Checkup("db-7", "16.4", found, None).healthy is healthy


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that signed the servers' certificates, which are for the name localhost."""
    return Authority(tmp_path_factory.mktemp("authority"), "Right CA")


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signed nothing."""
    return Authority(tmp_path_factory.mktemp("other"), "Wrong CA")


@dataclass(frozen=True)
class TlsServer:
    """A server that lets `whalefall` in over TLS only, and one that wants a certificate of its clients too."""

    engine: ServerEngine
    port: int
    certified: Target

    def refusal(self, tls: Tls, host: str = "127.0.0.1") -> str | None:
        return refusal(replace(target(self.engine, self.port), host=host, tls=tls))


ADMITTED = "this is as far as the played server goes"


def refusal(to: Target) -> str | None:
    """Return why *to* cannot be entered, None when it can."""
    error = check_up(to).error
    return None if error is None or ADMITTED in error else error


@pytest.fixture(scope="module", params=ENGINES)
def tls_server(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsServer]:
    """A server with TLS, of each engine."""
    if request.param is POSTGRESQL:
        with (
            peer(postgresql_with_tls(authority, ssl.CERT_NONE)) as server,
            peer(postgresql_with_tls(authority, ssl.CERT_REQUIRED)) as strict,
        ):
            yield TlsServer(POSTGRESQL, server.port, target(POSTGRESQL, strict.port))
    else:
        certificate, key = authority.issue("mariadb", "localhost")
        options = [f"--ssl-ca={authority.certificate}", f"--ssl-cert={certificate}", f"--ssl-key={key}"]
        with mariadb_on_tcp(MariadbServer(tmp_path_factory.mktemp("mariadb_tls")), *options) as port:
            yield TlsServer(MARIADB, port, replace(target(MARIADB, port), username="certified"))


def postgresql_with_tls(authority: Authority, client_certificates: ssl.VerifyMode) -> Callable[[socket.socket], None]:
    """Return the behaviour of a PostgreSQL server with TLS, as far as the start-up message."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("postgresql", "localhost"))
    context.load_verify_locations(authority.certificate)
    context.verify_mode = client_certificates

    def speak(connection: socket.socket) -> None:
        if connection.recv(8, socket.MSG_PEEK) != SSL_REQUEST:
            refuse_with(POSTGRESQL, "no entry without encryption")(connection)
            return
        connection.recv(8)
        connection.sendall(b"S")
        with context.wrap_socket(connection, server_side=True) as encrypted:
            refuse_with(POSTGRESQL, ADMITTED)(encrypted)

    return speak


SSL_REQUEST = bytes.fromhex("00000008 04d2162f")


def postgresql_without_tls(connection: socket.socket) -> None:
    """Decline TLS as a PostgreSQL server does that has none."""
    if connection.recv(8, socket.MSG_PEEK) == SSL_REQUEST:
        connection.recv(8)
        connection.sendall(b"N")
    refuse_with(POSTGRESQL, ADMITTED)(connection)


@contextmanager
def mariadb_on_tcp(server: MariadbServer, *options: str) -> Iterator[int]:
    """Hold a MariaDB server on a port of 127.0.0.1, with an account of each kind."""
    with refusing_port() as port:
        pass
    with server.running(
        "--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve", *options
    ):
        with MariadbFleetServer(server).connect() as cursor:
            for name, requirement in (("plain", "NONE"), ("whalefall", "SSL"), ("certified", "X509")):
                statement = f"CREATE USER {name}@127.0.0.1 IDENTIFIED BY %s REQUIRE {requirement}"
                cursor.execute(statement, (PASSWORD,))
        yield port


@pytest.mark.parametrize("mode", ["prefer", "require"])
def test_tls_is_used_without_asking_who_answers(tls_server: TlsServer, mode: TlsMode) -> None:
    assert tls_server.refusal(Tls(mode)) is None


def test_tls_is_not_used_when_disabled(tls_server: TlsServer) -> None:
    error = str(tls_server.refusal(Tls("disable")))
    assert "no entry without encryption" in error or "Access denied" in error


@pytest.mark.parametrize(("mode", "host"), [("verify-ca", "127.0.0.1"), ("verify-full", "localhost")])
def test_a_certificate_of_the_right_authority_is_trusted(
    tls_server: TlsServer, authority: Authority, mode: TlsMode, host: str
) -> None:
    assert tls_server.refusal(Tls(mode, str(authority.certificate)), host) is None


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_a_certificate_of_another_authority_is_not_trusted(
    tls_server: TlsServer, other_authority: Authority, mode: TlsMode
) -> None:
    error = str(tls_server.refusal(Tls(mode, str(other_authority.certificate)), "localhost"))
    assert "connecting to localhost" in error
    assert "certificate verify failed" in error


def test_the_name_of_the_host_is_verified_in_full_only(tls_server: TlsServer, authority: Authority) -> None:
    error = str(tls_server.refusal(Tls("verify-full", str(authority.certificate)), "127.0.0.1"))
    assert "mismatch" in error or "does not match" in error


def test_an_authority_that_is_not_there_is_told(tls_server: TlsServer, tmp_path: Path) -> None:
    error = str(tls_server.refusal(Tls("verify-full", str(tmp_path / "ca.pem")), "localhost"))
    assert "connecting to localhost" in error
    assert "ca.pem" in error


def test_an_authority_that_was_replaced_is_noticed_by_the_process_that_read_the_old_one(
    tls_server: TlsServer, authority: Authority, other_authority: Authority, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    for content, is_trusted in ((other_authority, False), (authority, True), (other_authority, False)):
        ca_file.write_bytes(content.certificate.read_bytes())
        assert (tls_server.refusal(Tls("verify-ca", str(ca_file))) is None) == is_trusted


def test_a_client_certificate_is_shown_when_there_is_one(tls_server: TlsServer, authority: Authority) -> None:
    certificate, key = authority.issue("client", "whalefall")
    ca_file = str(authority.certificate)
    with_certificate = Tls("verify-ca", ca_file, str(certificate), str(key))
    assert refusal(replace(tls_server.certified, tls=with_certificate)) is None
    assert refusal(replace(tls_server.certified, tls=Tls("verify-ca", ca_file))) is not None


@pytest.fixture(scope="module", params=ENGINES)
def plain_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server without TLS, of each engine."""
    if request.param is POSTGRESQL:
        with peer(postgresql_without_tls) as server:
            yield target(POSTGRESQL, server.port)
    else:
        with mariadb_on_tcp(MariadbServer(tmp_path_factory.mktemp("mariadb_plain")), "--skip-ssl") as port:
            yield replace(target(MARIADB, port), username="plain")


@pytest.mark.parametrize("mode", ["disable", "prefer"])
def test_a_server_without_tls_is_visited_in_plain_text_when_that_is_allowed(
    plain_server: Target, mode: TlsMode
) -> None:
    assert refusal(replace(plain_server, tls=Tls(mode))) is None


class OutdatedMariadb(MariadbServer):
    """A server whose TLS no driver of today speaks."""

    def connect(self) -> pymysql.Connection[Any]:
        return pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True, ssl_disabled=True)


@pytest.fixture(scope="module")
def outdated(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server whose TLS is older than what is spoken here, as that of MySQL 5.7 may be."""
    certificate, key = authority.issue("outdated", "localhost")
    options = [f"--ssl-cert={certificate}", f"--ssl-key={key}", "--tls-version=TLSv1.1"]
    with mariadb_on_tcp(OutdatedMariadb(tmp_path_factory.mktemp("outdated")), *options) as port:
        yield replace(target(MARIADB, port), username="plain")


def test_a_server_whose_tls_is_too_old_is_visited_in_plain_text_when_that_is_allowed(outdated: Target) -> None:
    assert refusal(replace(outdated, tls=Tls("prefer"))) is None


def test_who_is_refused_in_plain_text_after_tls_has_failed_is_told_both(outdated: Target) -> None:
    error = str(refusal(replace(outdated, username="whalefall", tls=Tls("prefer"))))
    assert "Access denied for user 'whalefall'@'127.0.0.1'" in error
    assert "TLS had failed before: 2003 Can't connect to MySQL server on '127.0.0.1' ([SSL" in error


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_required_tls_that_is_too_old_fails_and_says_what_to_do(
    outdated: Target, authority: Authority, mode: TlsMode
) -> None:
    error = str(refusal(replace(outdated, tls=Tls(mode, str(authority.certificate)))))
    assert "[SSL" in error
    assert error.endswith(
        "TLS 1.2 is the oldest spoken here: enable it on the server, or allow plain text by tls.mode: prefer"
    )


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_required_tls_never_falls_back_to_plain_text(plain_server: Target, authority: Authority, mode: TlsMode) -> None:
    error = str(refusal(replace(plain_server, tls=Tls(mode, str(authority.certificate)))))
    assert "SSL" in error
    assert "doesn't support it" in error or "does not support SSL" in error
