"""A visit through pgbouncer in transaction mode leaves the pooled connection as it was, for the next program."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from whalefall_capacity.collection.postgresql import PostgresqlSession, connect
from whalefall_capacity.collection.sizes import Cutoff, Findings, Limits, Target
from whalefall_capacity_tests.collection.support import EVERYTHING, eventually, refusing_port
from whalefall_capacity_tests.processes import PATIENCE_SECONDS
from whalefall_capacity_tests.servers import LIMITS, PostgresqlServer

# Settings of its own, other than those that our driver wants.
POOL_USER = """
CREATE ROLE pool LOGIN IN ROLE pg_monitor;
ALTER ROLE pool SET DateStyle = 'German';
ALTER ROLE pool SET client_encoding = 'LATIN1';
ALTER ROLE pool SET standard_conforming_strings = off;
ALTER ROLE pool SET TimeZone = 'Asia/Shanghai';
ALTER ROLE pool SET statement_timeout = '7min';
ALTER ROLE pool SET search_path = app, public;
"""
CONFIGURATION = """
[databases]
* = host={server} port=5432 user=pool pool_size=1

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
logfile = {folder}/log
pidfile = {folder}/pid
"""


@contextmanager
def pgbouncer(server: PostgresqlServer, mode: str) -> Iterator[int]:
    """Hold a pooler in front of *server*, with one connection, always of the role `pool`; yield its port."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    assert program, "scripts/system-packages pgbouncer"
    with refusing_port() as port:
        pass
    # By a descriptor: the folders above the server's own may be closed to its account.
    with TemporaryDirectory() as folder, open_folder(server.embedded.socket_dir) as descriptor:
        configuration = Path(folder) / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(server=f"/proc/self/fd/{descriptor}", port=port, mode=mode, folder=folder)
        )
        # It refuses to run as root; the account of the server may enter the server's folder.
        owner = server.embedded.data_dir.stat()
        for path in (folder, configuration):
            os.chown(path, owner.st_uid, owner.st_gid)
        process = subprocess.Popen(
            [program, "-q", str(configuration)], user=owner.st_uid, group=owner.st_gid, pass_fds=(descriptor,)
        )
        try:
            assert eventually(lambda: answers(port))
            yield port
        finally:
            process.terminate()
            process.wait()


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def answers(port: int) -> bool:
    try:
        Application(port).close()
    except OSError:
        return False
    return True


@pytest.fixture
def shop(postgresql: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """A server with the database and the role of an application that connects through a pooler."""
    with postgresql.database("shop"):
        with postgresql.connect("shop") as cursor:
            cursor.execute(f"{POOL_USER} CREATE SCHEMA app AUTHORIZATION pool; CREATE TABLE app.orders (id int)")
            cursor.execute("GRANT ALL ON app.orders TO pool")
        yield postgresql
    with postgresql.connect() as cursor:
        cursor.execute("DROP ROLE pool")


def pooled(server: PostgresqlServer, port: int) -> Target:
    return replace(server.target(username="whalefall"), host="127.0.0.1", port=port, database="shop")


class Application:
    """A program that says nothing of itself but its name and database, which drivers cannot be made to."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        start = struct.pack("!i", 3 << 16) + b"user\0app\0database\0shop\0\0"
        self._socket.sendall(struct.pack("!i", 4 + len(start)) + start)
        self._rows()

    def query(self, statement: str) -> list[list[str]]:
        text = statement.encode() + b"\0"
        self._socket.sendall(b"Q" + struct.pack("!i", 4 + len(text)) + text)
        return self._rows()

    def close(self) -> None:
        self._socket.close()

    def _rows(self) -> list[list[str]]:
        """Return the rows of the answer, of which every column is text."""
        rows = []
        while (kind := self._read(1)) != b"Z":
            body = self._read(struct.unpack("!i", self._read(4))[0] - 4)
            assert kind != b"E", body
            if kind == b"D":
                row, rest = [], body[2:]
                while rest:
                    length = struct.unpack("!i", rest[:4])[0]
                    row.append(rest[4 : 4 + length].decode())
                    rest = rest[4 + length :]
                rows.append(row)
        self._read(5)
        return rows

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self._socket.recv(count - len(data)) or b"?" * count
        return data


def everything_shown(port: int) -> dict[str, str]:
    """Return every setting that an application sees through the pooler."""
    with closing(Application(port)) as application:
        return {row[0]: row[1] for row in application.query("SHOW ALL")}


def visit(target: Target, limits: Limits = LIMITS) -> Findings:
    findings = Findings()
    with closing(connect(target, limits, Cutoff())) as session:
        assert isinstance(session, PostgresqlSession)
        session.measure(EVERYTHING, findings)
        session.capabilities(EVERYTHING)
    return findings


@pytest.mark.parametrize("mode", ["transaction", "session", "statement"])
def test_the_next_program_finds_every_setting_as_it_was_and_may_write(shop: PostgresqlServer, mode: str) -> None:
    with pgbouncer(shop, mode) as port:
        before = everything_shown(port)
        findings = visit(pooled(shop, port))
        after = everything_shown(port)
        assert after == before
        assert (after["statement_timeout"], after["DateStyle"]) == ("7min", "German, DMY")
        assert (after["client_encoding"], after["application_name"]) == ("LATIN1", "")
        with closing(Application(port)) as application:
            application.query("INSERT INTO orders VALUES (1)")
            assert application.query("SELECT count(*)::text FROM orders") == [["1"]]
    assert all(found.size_bytes for found in findings.measurement("not come to").databases)
    assert findings.measurement("").log_size_bytes


def test_a_program_that_shares_the_only_connection_gets_its_turn_during_a_visit(shop: PostgresqlServer) -> None:
    with pgbouncer(shop, "transaction") as port, closing(connect(pooled(shop, port), LIMITS, Cutoff())) as session:
        findings = Findings()
        session.measure(EVERYTHING, findings)
        # The session is still open; nothing of it holds the pool's only connection.
        assert everything_shown(port)["application_name"] == ""
        session.measure(EVERYTHING, findings)
    assert findings.has_sizes


def test_a_visit_that_reached_a_limit_leaves_the_connection_as_it_was(shop: PostgresqlServer) -> None:
    with shop.connect("shop") as cursor:
        cursor.execute("SET allow_system_table_mods = on")
        cursor.execute("ALTER FUNCTION pg_catalog.pg_database_size(oid) RENAME TO original")
        cursor.execute(
            "CREATE FUNCTION pg_catalog.pg_database_size(oid) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN "
            "IF $1 = (SELECT oid FROM pg_database WHERE datname = 'shop') THEN PERFORM pg_sleep(60); END IF; "
            "RETURN original($1); END $$"
        )
    with pgbouncer(shop, "transaction") as port:
        before = everything_shown(port)
        findings = visit(pooled(shop, port), replace(LIMITS, statement_timeout_seconds=0.5))
        assert {name: value for name, value in everything_shown(port).items() if "plpgsql" not in name} == {
            name: value for name, value in before.items() if "plpgsql" not in name
        }
    assert [found.name for found in findings.measurement("").databases if found.size_bytes is None] == ["shop"]
