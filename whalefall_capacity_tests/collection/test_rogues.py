"""A server that is not the one that was meant hears no password, in every mode and method but those that
docs/servers.md names; and what it answers costs its own sizes alone.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from whalefall_capacity.collection.sizes import Cutoff, ServerEngine, Target, Tls, TlsMode
from whalefall_capacity.collection.visit import check
from whalefall_capacity_tests.collection.certificates import Authority
from whalefall_capacity_tests.collection.rogues import (
    MYSQL_METHODS,
    POSTGRESQL_METHODS,
    READY,
    Line,
    Speak,
    message,
    mysql,
    own_key,
    postgresql,
    public_pem,
    rogue,
)
from whalefall_capacity_tests.collection.support import PASSWORD, target
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS

MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
HASTY = replace(LIMITS, connect_timeout_seconds=5, statement_timeout_seconds=2)
# Without a verified certificate the whole password goes to who ends the TLS connection, as MySQL's own clients do it.
OPEN_INSIDE_TLS = {
    (method, mode)
    for method in ("caching_sha2, full", "caching_sha2, full, switched", "sha256", "sha256, switched")
    for mode in ("prefer", "require")
}
# TLS was disabled on purpose: the password goes under whatever key the server gives.
OPEN_WHERE_TLS_IS_DISABLED = {(method, "disable") for method, _ in OPEN_INSIDE_TLS}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the fleet file names."""
    return Authority(tmp_path_factory.mktemp("authority"), "Right CA")


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the rogue."""
    return Authority(tmp_path_factory.mktemp("other"), "Rogue CA")


def server_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", "localhost"))
    return context


def visited(to: Target) -> str:
    """Visit a server as the doctor does, and return what came of it."""
    found = check(to, HASTY, NO_FILTERS, Cutoff())
    return found.error or ""


def heard(engine: ServerEngine, speak: Speak, tls: Tls) -> bytes:
    """Return what a rogue server heard of a visit."""
    with rogue(speak) as server:
        visited(replace(target(engine, server.port, tls=tls), host="localhost"))
        return bytes(server.heard)


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", POSTGRESQL_METHODS)
def test_a_rogue_postgresql_hears_no_password(
    authority: Authority, other_authority: Authority, method: str, mode: TlsMode, with_tls: bool
) -> None:
    context = server_context(other_authority) if with_tls else None
    tls = Tls(mode, str(authority.certificate) if mode.startswith("verify") else None)
    content = heard(ServerEngine.POSTGRESQL, postgresql(method, context), tls)
    assert content or (with_tls and mode.startswith("verify")) or not with_tls
    assert PASSWORD.encode() not in content


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", MYSQL_METHODS)
def test_a_rogue_mysql_hears_the_password_where_the_table_says_so_and_nowhere_else(
    authority: Authority, other_authority: Authority, method: str, mode: TlsMode, with_tls: bool
) -> None:
    context = server_context(other_authority) if with_tls else None
    tls = Tls(mode, str(authority.certificate) if mode.startswith("verify") else None)
    content = heard(ServerEngine.MYSQL, mysql(method, context), tls)
    is_open = (method, mode) in OPEN_WHERE_TLS_IS_DISABLED or (with_tls and (method, mode) in OPEN_INSIDE_TLS)
    assert (PASSWORD.encode() in content) == is_open


@pytest.mark.parametrize("method", ["password", "md5", "scram", "trust"])
def test_a_proof_is_heard_where_it_is_asked_for(method: str) -> None:
    content = heard(ServerEngine.POSTGRESQL, postgresql(method), Tls("prefer"))
    assert (b"md5" in content) == (method == "md5")
    assert (b"SCRAM-SHA-256" in content) == (method == "scram")


def test_a_server_that_only_claims_to_know_the_password_is_left() -> None:
    with rogue(postgresql("scram")) as server:
        assert "incorrect server signature" in visited(target(ServerEngine.POSTGRESQL, server.port))


def test_a_request_for_the_password_itself_is_refused_in_words() -> None:
    with rogue(postgresql("password")) as server:
        error = visited(target(ServerEngine.POSTGRESQL, server.port))
    assert "the password was not sent: let pg_hba.conf ask for scram-sha-256" in error
    assert "tls.mode: verify-full" in error


def complaint(severity: str, code: str, text: str) -> bytes:
    """Return an error of PostgreSQL."""
    return message(b"E", f"S{severity}\0V{severity}\0C{code}\0M{text}\0\0".encode())


def test_a_standby_that_ends_the_connection_after_a_conflict_says_why() -> None:
    # As PostgreSQL 15 does for a lock that is being replayed: it ends the statement, and then the connection.
    def answer(line: Line, _: str) -> None:
        cancelled = complaint("ERROR", "40001", "canceling statement due to conflict with recovery")
        ended = complaint("FATAL", "40001", "terminating connection due to conflict with recovery")
        line.say(cancelled + READY + ended)
        line.connection.shutdown(socket.SHUT_RDWR)

    with rogue(postgresql(answer=answer)) as server:
        error = visited(target(ServerEngine.POSTGRESQL, server.port))
    assert "the server ended the connection: FATAL: terminating connection due to conflict with recovery" in error


@pytest.mark.parametrize(
    ("method", "asked"), [("clear, switched", "mysql_clear_password"), ("dialog", "dialog"), ("old, switched", "old")]
)
def test_a_method_that_is_refused_is_named_with_what_to_do(method: str, asked: str) -> None:
    with rogue(mysql(method)) as server:
        error = visited(target(ServerEngine.MYSQL, server.port, tls=Tls("prefer")))
    assert asked in error
    assert "the password was not sent" in error


@pytest.mark.parametrize("method", ["caching_sha2, full", "sha256", "sha256, switched"])
def test_the_whole_password_without_tls_is_refused_with_what_to_do(method: str) -> None:
    with rogue(mysql(method)) as server:
        error = visited(target(ServerEngine.MYSQL, server.port, tls=Tls("prefer")))
    assert "asks for the whole password on a connection without TLS; it was not sent" in error
    assert "tls.server_public_key_file" in error


@pytest.mark.parametrize("mode", ["disable", "prefer"])
@pytest.mark.parametrize("method", ["caching_sha2, full", "caching_sha2, full, switched", "sha256", "sha256, switched"])
def test_under_a_pinned_key_only_its_owner_reads_the_password(tmp_path: Path, method: str, mode: TlsMode) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    pinned = tmp_path / "server.pem"
    pinned.write_bytes(public_pem(rsa.generate_private_key(65537, 2048)))
    tls = Tls(mode, server_public_key_file=str(pinned))
    assert PASSWORD.encode() not in heard(ServerEngine.MYSQL, mysql(method), tls)


def test_the_owner_of_the_pinned_key_reads_the_password(tmp_path: Path) -> None:
    pinned = tmp_path / "server.pem"
    pinned.write_bytes(public_pem(own_key()))
    tls = Tls("prefer", server_public_key_file=str(pinned))
    assert PASSWORD.encode() in heard(ServerEngine.MYSQL, mysql("sha256"), tls)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read tls.server_public_key_file"),
        ("not a key", "is not a PEM file of an RSA key"),
    ],
)
def test_a_pinned_key_that_cannot_be_used_is_told(tmp_path: Path, content: str | None, reason: str) -> None:
    pinned = tmp_path / "server.pem"
    if content is not None:
        pinned.write_text(content)
    with rogue(mysql("caching_sha2, full")) as server:
        tls = Tls("prefer", server_public_key_file=str(pinned))
        assert reason in visited(target(ServerEngine.MYSQL, server.port, tls=tls))


@pytest.mark.parametrize("method", ["clear, switched", "dialog, switched", "caching_sha2, full", "sha256"])
def test_a_mysql_whose_certificate_is_verified_may_ask_for_the_password(authority: Authority, method: str) -> None:
    tls = Tls("verify-full", str(authority.certificate))
    assert PASSWORD.encode() in heard(ServerEngine.MYSQL, mysql(method, server_context(authority)), tls)


def test_a_postgresql_whose_certificate_is_verified_may_ask_for_the_password(authority: Authority) -> None:
    tls = Tls("verify-full", str(authority.certificate))
    content = heard(ServerEngine.POSTGRESQL, postgresql("password", server_context(authority)), tls)
    assert PASSWORD.encode() in content
