"""A visit to MySQL or MariaDB keeps what it has read, leaves nothing behind, and obeys only its own settings."""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.cursors import Cursor

from whalefall_capacity.collection.sizes import Cutoff, Findings, NameFilter, ServerEngine, Target, Tls, TlsMode, Visit
from whalefall_capacity.collection.visit import check, visit
from whalefall_capacity.demo.mysql_family import MariadbServer, MysqlServer
from whalefall_capacity.errors import CollectionError
from whalefall_capacity_tests.collection.mysql_family import (
    INNODB,
    MYISAM,
    ROWS,
    capabilities,
    databases,
    estimate,
    file_bytes,
    measure,
    measure_sizes,
    run,
    server_setting,
)
from whalefall_capacity_tests.collection.relay import Answer, HangUp, Refused, Silence, relay
from whalefall_capacity_tests.collection.support import peer, refusing_port, settled, target
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.servers import (
    LIMITS,
    NO_FILTERS,
    FamilyServer,
    MariadbFleetServer,
    MysqlFleetServer,
    require_mysql,
)

OURS = NameFilter(regex="(?!audit_).*")
HASTY = replace(LIMITS, statement_timeout_seconds=1)
FILTERS: dict[str, NameFilter] = dict.fromkeys(ServerEngine, OURS)


@contextmanager
def audited(server: FamilyServer) -> Iterator[dict[str, int]]:
    """Hold a database of each kind, and yield the length of their files."""
    with databases(server, "audit_innodb", "audit_myisam") as cursor:
        run(cursor, "audit_innodb", INNODB, ROWS)
        run(cursor, "audit_myisam", MYISAM, ROWS)

        def files() -> dict[str, int]:
            return {name: file_bytes(server, name) for name in ("audit_innodb", "audit_myisam")}

        yield settled(files, lambda: measure_sizes(server.target(), OURS))[0]


def go(to: Target) -> Visit:
    return visit(to, HASTY, FILTERS, Cutoff(), Findings())


def sizes_of(found: Visit) -> dict[str, int | None]:
    return {database.name: database.size_bytes for database in found.measurement.databases}


@pytest.mark.parametrize(
    "answer",
    [
        Refused(1235, "this version does not yet support 'SHOW BINARY LOGS'"),
        Refused(29, "File './binlog.000001' not found (Errcode: 5 Input/output error)"),
        Refused(3024, "Query execution was interrupted, maximum statement execution time exceeded"),
        Refused(1227, "Access denied; you need (at least one of) the SUPER, REPLICATION CLIENT privilege(s)"),
        Silence(),
        HangUp(),
    ],
    ids=lambda answer: getattr(answer, "text", type(answer).__name__)[:20],
)
def test_binary_logs_that_cannot_be_read_cost_no_size(family: FamilyServer, answer: Answer) -> None:
    with audited(family) as files, relay(family, {"SHOW BINARY LOGS": answer}) as way:
        found = go(way.target)
    assert sizes_of(found) == files
    assert found.measurement.log_size_bytes is None


@pytest.mark.parametrize(
    "answer",
    [
        Refused(1109, "Unknown table 'INNODB_TABLESPACES' in information_schema"),
        Refused(1235, "this version does not yet support that"),
        Refused(1969, "Query execution was interrupted (max_statement_time exceeded)"),
    ],
    ids=lambda answer: str(answer.code),
)
def test_without_the_views_of_innodb_sizes_are_estimates(family: FamilyServer, answer: Answer) -> None:
    with audited(family) as files, relay(family, {"TABLESPACES": answer}) as way, family.connect() as cursor:
        found = sizes_of(go(way.target))
        told = capabilities(way.target, OURS)["InnoDB files"]
        assert found == {"audit_innodb": estimate(cursor, "audit_innodb"), "audit_myisam": files["audit_myisam"]}
    assert not told.available
    assert told.detail.startswith("estimates of information_schema.TABLES instead: ")
    # Root has every privilege: none is missing.
    assert told.grant is None


def test_a_check_up_asks_what_a_visit_asks(family: FamilyServer) -> None:
    def asked(statements: list[str]) -> set[str]:
        # The limit of each statement is that of the time that is left.
        return {re.sub(r"[\d.]+", "N", statement) for statement in statements}

    with audited(family), relay(family) as visited, relay(family) as checked:
        go(visited.target)
        assert check(checked.target, HASTY, FILTERS, Cutoff()).healthy
    assert asked(visited.statements) - asked(checked.statements) == set()


MYISAM_ALONE = b"audit_myisam".hex().upper()
LIST_OF_ALL = r"'sys'\)\s*$"


@pytest.mark.parametrize(
    "spoiled",
    [
        {f"{MYISAM_ALONE}/": Refused(1017, "Can't find file")},
        {
            LIST_OF_ALL: Refused(1018, "Can't read dir"),
            f"= '{MYISAM_ALONE}'": Refused(1018, "Can't find file"),
        },
        {f"{MYISAM_ALONE}/": Refused(3024, "maximum statement execution time exceeded")},
    ],
    ids=["lengths", "list", "time"],
)
def test_what_one_database_does_to_a_catalog_query_costs_that_one_alone(
    family: FamilyServer, spoiled: Mapping[str, Answer]
) -> None:
    with audited(family) as files, databases(family, "audit_other") as cursor, relay(family, spoiled) as way:
        run(cursor, "audit_other", MYISAM)
        other, visit = settled(lambda: file_bytes(family, "audit_other"), lambda: go(way.target))
        found = {database.name: database for database in visit.measurement.databases}
        assert found["audit_innodb"].size_bytes == files["audit_innodb"]
        assert found["audit_other"].size_bytes == other
    assert found["audit_myisam"].size_bytes is None
    assert re.search("Can't find file|statement limit of 1 s", str(found["audit_myisam"].reason))


def test_a_database_with_very_many_tables_costs_neither_itself_nor_others_their_size(family: FamilyServer) -> None:
    def files() -> dict[str, int]:
        return {name: file_bytes(family, name) for name in ("audit_blogs", "audit_shop", "audit_void")}

    with databases(family, "audit_blogs", "audit_shop", "audit_void") as cursor:
        blogs = [MYISAM.replace("items", f"posts_of_the_blog_with_the_number_{number}") for number in range(300)]
        run(cursor, "audit_blogs", *blogs)
        run(cursor, "audit_shop", MYISAM, ROWS)
        # The names of all these tables take twice as much.
        with server_setting(cursor, "max_allowed_packet", "16384"):
            expected, found = settled(files, lambda: visit(family.target(), LIMITS, FILTERS, Cutoff(), Findings()))
    assert sizes_of(found) == expected
    assert expected["audit_blogs"] >= 300 * 1024
    assert found.measurement.log_size_bytes


def test_a_connection_lost_in_mid_visit_keeps_what_was_measured(family: FamilyServer) -> None:
    with audited(family) as files, relay(family, {"DATA_LENGTH": HangUp()}) as way:
        found = go(way.target).measurement
    innodb, myisam = found.databases
    assert (innodb.name, innodb.size_bytes) == ("audit_innodb", files["audit_innodb"])
    assert (myisam.name, myisam.size_bytes) == ("audit_myisam", None)
    assert "the visit ended before it was measured" in str(myisam.reason)


def test_a_connection_lost_among_empty_databases_keeps_those_that_the_server_has_opened(
    mariadb: MariadbFleetServer,
) -> None:
    names = ("audit_1", "audit_2", "audit_3")
    with databases(mariadb, *names), relay(mariadb, {"SHOW TABLES FROM `audit_2`": HangUp()}) as way:
        found = go(way.target).measurement.databases
    sizes = {database.name: database.size_bytes for database in found}
    assert sizes == {"audit_1": 0, "audit_2": None, "audit_3": None}


def test_nothing_is_set_in_a_session_that_a_proxy_may_share(family: FamilyServer) -> None:
    with audited(family), relay(family) as way:
        go(way.target)
    alone = [text for text in way.statements if not text.startswith(("START TRANSACTION READ ONLY", "ROLLBACK"))]
    assert (way.statements[0], way.statements[-1]) == ("START TRANSACTION READ ONLY", "ROLLBACK")
    assert alone
    assert [
        text for text in alone if not re.match(r"\s*(SELECT|SHOW|SET STATEMENT .* FOR\s+(SELECT|SHOW))", text)
    ] == []


def test_statements_share_a_transaction_but_for_those_that_ask_the_dictionary_of_mysql(family: FamilyServer) -> None:
    with audited(family), relay(family) as way:
        go(way.target)
    begins = [number for number, text in enumerate(way.statements) if text == "START TRANSACTION READ ONLY"]
    asked = ("SCHEMATA", "information_schema.TABLES", "information_schema.PARTITIONS")
    dictionary = [n for n, text in enumerate(way.statements) if any(name in text for name in asked)]
    expected = [0] if family.name == "maria" else [0, *(number - 1 for number in dictionary[1:])]
    assert len(dictionary) >= 2
    assert begins == expected


def test_what_failed_is_followed_by_a_new_transaction(family: FamilyServer) -> None:
    with audited(family), relay(family, {"TABLESPACES": Refused(1227, "PROCESS is missing")}) as way:
        go(way.target)
    (refused,) = [number for number, text in enumerate(way.statements) if "TABLESPACES" in text]
    assert way.statements[refused + 1] == "START TRANSACTION READ ONLY"


def test_a_statement_that_takes_too_long_is_ended_by_the_server(family: FamilyServer) -> None:
    with audited(family), relay(family) as way:
        go(way.target)
    limited = [text for text in way.statements if "max_statement_time = 1.000 FOR" in text or "TIME(1000)" in text]
    assert len([text for text in way.statements if "information_schema" in text]) == len(
        [text for text in limited if "information_schema" in text]
    )


@pytest.mark.parametrize("statement", ["START TRANSACTION", "SHOW GRANTS", "TABLESPACES"])
def test_a_server_that_goes_on_beyond_the_limit_is_told_with_the_setting_that_raises_it(
    family: FamilyServer, statement: str
) -> None:
    with audited(family), relay(family, {statement: Silence()}) as way, pytest.raises(CollectionError) as failure:
        go(way.target)
    assert str(failure.value).endswith(
        "failed: the server neither answered nor ended a statement that took longer than the statement limit of 1 s; "
        "raise WHALEFALL_STATEMENT_TIMEOUT_SECONDS"
    )


@dataclass(frozen=True)
class Altering(NameFilter):
    """A filter that has a table changed while the visit stands still."""

    server: FamilyServer = field(kw_only=True)

    def excludes(self, name: str) -> bool:
        if name == "audit_innodb":
            with self.server.connect() as cursor:
                cursor.execute("SET SESSION lock_wait_timeout = 2")
                cursor.execute("ALTER TABLE audit_innodb.items ADD COLUMN more INT")
        return not name.startswith("audit_") or name == "audit_innodb"


def test_a_visit_keeps_nobody_from_changing_a_table(family: FamilyServer) -> None:
    with audited(family) as files:
        assert measure_sizes(family.target(), Altering(server=family)) == {"audit_myisam": files["audit_myisam"]}


@pytest.fixture(scope="module")
def disguised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyServer]:
    """A MariaDB server that shows an old version."""
    with MariadbServer(tmp_path_factory.mktemp("old")).running("--version=10.3.39-MariaDB") as server:
        yield MariadbFleetServer(server)


def test_a_mariadb_that_is_too_old_says_so(disguised: FamilyServer) -> None:
    with pytest.raises(CollectionError) as failure:
        visit(disguised.target(), LIMITS, NO_FILTERS, Cutoff(), Findings())
    assert str(failure.value).startswith("maria: connecting to ")
    assert "this is MariaDB 10.3.39-MariaDB; the oldest version whose sizes can be measured is MariaDB 10.6" in str(
        failure.value
    )


def test_a_mysql_that_is_too_old_says_so(mysql: MysqlFleetServer) -> None:
    with mysql.connect() as cursor:
        cursor.execute("SELECT VERSION()")
        ((version,),) = cursor.fetchall()
    old = "5.6.51".ljust(len(version), "x")
    with relay(mysql, replaced=(version.encode(), old.encode())) as way, pytest.raises(CollectionError) as failure:
        measure(way.target)
    assert f"this is MySQL {old}; the oldest version whose sizes can be measured is MySQL 5.7" in str(failure.value)


class LowerCaseMysql(MysqlServer):
    """A MySQL server whose dictionary was made for names in small letters."""

    def _install_command(self, program: str, common: list[str]) -> list[str]:
        return [*super()._install_command(program, common), "--lower-case-table-names=1"]


@pytest.mark.parametrize("product", [MariadbServer, LowerCaseMysql])
def test_names_that_the_server_writes_in_small_letters_are_found(
    tmp_path: Path, product: type[MariadbServer | LowerCaseMysql]
) -> None:
    if product is LowerCaseMysql:
        require_mysql()
    server = (MariadbFleetServer if product is MariadbServer else MysqlFleetServer)(product(tmp_path))
    with server.server.running("--lower-case-table-names=1"), databases(server, "Sales-EU") as cursor:
        run(cursor, "Sales-EU", INNODB, MYISAM.replace("items", "More"), ROWS)
        files, sizes = settled(lambda: file_bytes(server, "sales@002deu"), lambda: measure_sizes(server.target()))
    assert sizes == {"sales-eu": files}


class NowhereOnDiskMariadb(MariadbServer):
    """A MariaDB server whose socket has a name, and no file."""

    socket_name = f"whalefall-{os.getpid()}"

    def connect(self) -> pymysql.Connection[Any]:
        return pymysql.connect(unix_socket=f"\0{self.socket_name}", user="root", autocommit=True)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has sockets without a file")
def test_a_socket_that_is_no_file_is_found_by_its_name(tmp_path: Path) -> None:
    server = NowhereOnDiskMariadb(tmp_path)
    with server.running(f"--socket=@{server.socket_name}"):
        assert refusal(replace(MariadbFleetServer(server).target(), host=f"@{server.socket_name}")) is None


@pytest.fixture(scope="module")
def on_tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, Path]]:
    """A MySQL server on a port, with the certificates that it has made itself, and their authority."""
    require_mysql()
    server = MysqlServer(tmp_path_factory.mktemp("tcp"))
    with refusing_port() as port:
        pass
    with server.running("--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}"):
        with MysqlFleetServer(server).connect() as cursor:
            cursor.execute("CREATE USER whalefall@'%' IDENTIFIED BY 'correct horse'")
        yield target(ServerEngine.MYSQL, port, tls=Tls("verify-ca")), server.data_dir / "ca.pem"


def refusal(to: Target) -> str | None:
    return check(to, LIMITS, NO_FILTERS, Cutoff()).error


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca"])
def test_a_password_of_mysqls_own_method_is_accepted(on_tcp: tuple[Target, Path], mode: TlsMode) -> None:
    to, authority = on_tcp
    assert refusal(replace(to, tls=Tls(mode, str(authority)))) is None


def test_a_password_of_mysqls_own_method_is_accepted_on_a_socket(mysql: MysqlFleetServer) -> None:
    with mysql.connect() as cursor:
        cursor.execute("CREATE USER first_time@localhost IDENTIFIED BY 'correct horse'")
        try:
            assert refusal(mysql.target(username="first_time", password="correct horse")) is None
            assert "Access denied" in str(refusal(mysql.target(username="first_time", password="wrong")))
        finally:
            cursor.execute("DROP USER first_time@localhost")


def test_the_environment_decides_nothing(
    on_tcp: tuple[Target, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, authority = on_tcp
    (tmp_path / ".my.cnf").write_text("[client]\nhost = 192.0.2.1\nuser = somebody\npassword = wrong\nport = 1\n")
    variables = {
        "HOME": str(tmp_path),
        "USER": "somebody",
        "LOGNAME": "somebody",
        "MYSQL_HOST": "192.0.2.1",
        "MYSQL_PWD": "wrong",
        "MYSQL_TCP_PORT": "1",
        "MYSQL_UNIX_PORT": "/nowhere",
        "MYSQL_TEST_LOGIN_FILE": str(tmp_path / ".my.cnf"),
        "SSL_CERT_FILE": str(authority),
        "SSL_CERT_DIR": str(authority.parent),
        "SSLKEYLOGFILE": str(tmp_path / "keys"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for mode in ("prefer", "require"):
        assert refusal(replace(to, tls=Tls(mode))) is None
    assert refusal(replace(to, tls=Tls("verify-ca", str(authority)))) is None
    # Nobody but the settings says whom to trust, and where the keys of the session go.
    assert "certificate verify failed" in str(refusal(to))
    assert not (tmp_path / "keys").exists()


def wants_login_by(method: str) -> bytes:
    """Return the packet with which a server asks for another login."""
    payload = b"\xfe" + method.encode() + b"\0" + b"x" * 32
    return struct.pack("<I", len(payload))[:3] + b"\x02" + payload


@pytest.mark.parametrize(
    ("method", "advice"),
    [
        ("client_ed25519", "install PyNaCl beside this program (pip install pynacl)"),
        ("auth_gssapi_client", "auth_gssapi_client"),
        ("parsec", "give the account one of mysql_native_password, caching_sha2_password, ed25519"),
    ],
)
def test_a_login_that_the_driver_cannot_do_is_told_with_what_to_do(method: str, advice: str) -> None:
    def speak(connection: socket.socket) -> None:
        greeting = b"\x0a10.11.6-MariaDB\0" + b"\x01\0\0\0" + b"a" * 8 + b"\0" + struct.pack("<H", 0xF7FE)
        greeting += b"\x2d\x02\0" + struct.pack("<H", 0x81FF) + b"\x15" + b"\0" * 10 + b"b" * 12 + b"\0"
        greeting += b"mysql_native_password\0"
        # No TLS.
        greeting = greeting.replace(struct.pack("<H", 0xF7FE), struct.pack("<H", 0xF7FE & ~0x0800), 1)
        connection.sendall(struct.pack("<I", len(greeting))[:3] + b"\0" + greeting)
        connection.recv(4096)
        connection.sendall(wants_login_by(method))

    with peer(speak) as server:
        error = refusal(target(ServerEngine.MARIADB, server.port))
    assert advice in str(error)
    assert method in str(error)


def test_what_takes_too_long_together_is_asked_in_parts(family: FamilyServer) -> None:
    too_long = Refused(1969, "Query execution was interrupted (max_statement_time exceeded)")
    with audited(family) as files, relay(family, {"UNION ALL": too_long}) as way:
        found = go(way.target)
    assert sum("UNION ALL" in text for text in way.statements) == 2
    assert sizes_of(found) == files


def test_a_server_counts_no_visit_as_a_client_that_was_cut_off(family: FamilyServer) -> None:
    def status(cursor: Cursor, name: str) -> int:
        cursor.execute("SHOW GLOBAL STATUS LIKE %s", (name,))
        return int(cursor.fetchall()[0][1])

    with family.connect() as cursor:
        before = status(cursor, "Aborted_clients")
        for _ in range(20):
            go(family.target())
        wait_for(lambda: status(cursor, "Threads_connected") == 1, "end of all connections")
        assert status(cursor, "Aborted_clients") == before
