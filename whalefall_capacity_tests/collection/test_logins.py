"""Real servers, over TCP and with TLS: each way to log in, in each mode, has the outcome that docs/servers.md names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from whalefall_capacity.collection.sizes import Cutoff, ServerEngine, Target, Tls, TlsMode
from whalefall_capacity.collection.visit import check
from whalefall_capacity.demo.mysql_family import MariadbServer, MysqlServer
from whalefall_capacity_tests.collection.certificates import Authority
from whalefall_capacity_tests.collection.support import PASSWORD, refusing_port, target
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.servers import (
    LIMITS,
    NO_FILTERS,
    FamilyServer,
    MariadbFleetServer,
    MysqlFleetServer,
    PostgresqlServer,
    require_mysql,
)

MODES: tuple[TlsMode, ...] = ("disable", "prefer", "require", "verify-ca", "verify-full")
POSTGRESQL_METHODS = ("scram-sha-256", "md5", "password", "trust")
NOT_SENT = "the password was not sent"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that signed the servers' certificates, which are for the name localhost."""
    return Authority(tmp_path_factory.mktemp("authority"), "Right CA")


def refusal(to: Target, username: str, password: str = PASSWORD) -> str | None:
    """Return why an account cannot log in, None when it can."""
    return check(
        replace(to, username=username, password=type(to.password)(password)), LIMITS, NO_FILTERS, Cutoff()
    ).error


def in_mode(to: Target, mode: TlsMode) -> Target:
    """Return the target in another mode; the authority is named where it is asked for."""
    return replace(to, tls=replace(to.tls, mode=mode, ca_file=to.tls.ca_file if mode.startswith("verify") else None))


# PostgreSQL


POOLER = """
[databases]
* = host={server} port=5432 user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = hba
auth_hba_file = {folder}/hba
auth_file = {folder}/users
client_tls_sslmode = allow
client_tls_cert_file = {folder}/certificate
client_tls_key_file = {folder}/key
logfile = {folder}/log
"""


@pytest.fixture(scope="module")
def postgresql_on_tcp(authority: Authority, postgresql: PostgresqlServer) -> Iterator[Target]:
    """PostgreSQL behind pgbouncer, which brings the TLS: the PostgreSQL of the wheel is built without.

    For each method there is an account of that name; `encrypted` has to come over TLS.
    """
    with refusing_port() as port:
        pass
    certificate, key = authority.issue("postgresql", "localhost")
    rules = [f"host all {method} 127.0.0.1/32 {method}\n" for method in POSTGRESQL_METHODS]
    users = [f'"{name}" "{PASSWORD}"\n' for name in (*POSTGRESQL_METHODS, "encrypted")]
    with TemporaryDirectory() as folder, _open_folder(postgresql.embedded.socket_dir) as descriptor:
        files = {
            "pgbouncer.ini": POOLER.format(server=f"/proc/self/fd/{descriptor}", port=port, folder=folder),
            "hba": "".join([*rules, "hostssl all encrypted 127.0.0.1/32 scram-sha-256\n"]),
            "users": "".join(users),
            "certificate": certificate.read_text(),
            "key": key.read_text(),
        }
        for name, content in files.items():
            (Path(folder) / name).write_text(content)
        with _pooling(Path(folder), postgresql, descriptor):
            to = target(ServerEngine.POSTGRESQL, port, tls=Tls("verify-full", str(authority.certificate)))
            wait_for(lambda: refusal(replace(to, tls=Tls("disable")), "trust") is None, "pooler on its port")
            yield replace(to, host="localhost")


@contextmanager
def _pooling(folder: Path, server: PostgresqlServer, descriptor: int) -> Iterator[None]:
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    assert program, "scripts/system-packages pgbouncer"
    # It refuses to run as root; the account of the server may enter the server's folder.
    owner = server.embedded.data_dir.stat()
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    with subprocess.Popen(
        [program, "-q", str(folder / "pgbouncer.ini")],
        user=owner.st_uid,
        group=owner.st_gid,
        pass_fds=(descriptor,),
    ) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["scram-sha-256", "md5", "trust"])
def test_postgresql_lets_a_proof_of_the_password_in_in_every_mode(
    postgresql_on_tcp: Target, method: str, mode: TlsMode
) -> None:
    assert refusal(in_mode(postgresql_on_tcp, mode), method) is None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["scram-sha-256", "md5"])
def test_postgresql_does_not_take_a_wrong_password(postgresql_on_tcp: Target, method: str, mode: TlsMode) -> None:
    error = str(refusal(in_mode(postgresql_on_tcp, mode), method, "wrong"))
    assert "authentication failed" in error
    # The server is called as the fleet file calls it, though libpq was led to it by another address.
    assert f'connection to server at "localhost", port {postgresql_on_tcp.port} failed' in error


@pytest.mark.parametrize("mode", MODES)
def test_postgresql_gets_the_password_itself_under_a_verified_certificate_alone(
    postgresql_on_tcp: Target, mode: TlsMode
) -> None:
    error = refusal(in_mode(postgresql_on_tcp, mode), "password")
    assert (error is None) == mode.startswith("verify")
    assert error is None or NOT_SENT in error


@pytest.mark.parametrize("mode", MODES)
def test_postgresql_is_visited_over_tls_in_every_mode_but_disable(postgresql_on_tcp: Target, mode: TlsMode) -> None:
    error = refusal(in_mode(postgresql_on_tcp, mode), "encrypted")
    assert (error is None) == (mode != "disable")
    assert error is None or "login rejected" in error


# MySQL and MariaDB


@contextmanager
def on_tcp(server: FamilyServer, authority: Authority) -> Iterator[tuple[Target, FamilyServer]]:
    """Hold a server on a port, with TLS."""
    certificate, key = authority.issue(server.name, "localhost")
    with refusing_port() as port:
        pass
    files = (f"--ssl-ca={authority.certificate}", f"--ssl-cert={certificate}", f"--ssl-key={key}")
    with server.server.running("--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}", *files):
        to = target(server.engine, port, tls=Tls("verify-full", str(authority.certificate)))
        yield replace(to, host="localhost"), server


@pytest.fixture(scope="module")
def mariadb_on_tcp(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """MariaDB with TLS; `native` logs in by mysql_native_password."""
    server = MariadbFleetServer(MariadbServer(tmp_path_factory.mktemp("mariadb")))
    with on_tcp(server, authority) as (to, _):
        with server.connect() as cursor:
            cursor.execute("CREATE USER native IDENTIFIED BY %s", (PASSWORD,))
        yield to


@pytest.fixture(scope="module")
def mysql_on_tcp(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Target, FamilyServer]]:
    """MySQL with TLS; each account logs in by the method of its name."""
    require_mysql()
    server = MysqlFleetServer(MysqlServer(tmp_path_factory.mktemp("mysql")))
    with on_tcp(server, authority) as held:
        with server.connect() as cursor:
            for method in ("caching_sha2_password", "sha256_password"):
                cursor.execute(f"CREATE USER {method} IDENTIFIED WITH {method} BY %s", (PASSWORD,))
        yield held


def forget_proofs(server: FamilyServer) -> None:
    """Let the server forget which proofs it has seen: the next login by caching_sha2_password is a full one."""
    with server.connect() as cursor:
        cursor.execute("FLUSH PRIVILEGES")


@pytest.mark.parametrize("mode", MODES)
def test_mariadb_lets_its_own_method_in_in_every_mode(mariadb_on_tcp: Target, mode: TlsMode) -> None:
    assert refusal(in_mode(mariadb_on_tcp, mode), "native") is None
    assert "Access denied" in str(refusal(in_mode(mariadb_on_tcp, mode), "native", "wrong"))


@pytest.mark.parametrize("mode", MODES)
def test_mysql_lets_a_full_login_and_a_fast_one_in_in_every_mode(
    mysql_on_tcp: tuple[Target, FamilyServer], mode: TlsMode
) -> None:
    to, server = mysql_on_tcp
    forget_proofs(server)
    assert refusal(in_mode(to, mode), "caching_sha2_password") is None
    assert refusal(in_mode(to, mode), "caching_sha2_password") is None
    assert "Access denied" in str(refusal(in_mode(to, mode), "caching_sha2_password", "wrong"))


@pytest.mark.parametrize("mode", MODES)
def test_mysql_lets_the_older_sha2_method_in_in_every_mode(
    mysql_on_tcp: tuple[Target, FamilyServer], mode: TlsMode
) -> None:
    to, _ = mysql_on_tcp
    assert refusal(in_mode(to, mode), "sha256_password") is None


@pytest.mark.parametrize("username", ["caching_sha2_password", "sha256_password"])
def test_mysql_gets_the_password_under_its_pinned_key_and_under_no_other(
    mysql_on_tcp: tuple[Target, FamilyServer], username: str, tmp_path: Path
) -> None:
    to, server = mysql_on_tcp
    pinned = replace(to, tls=Tls("disable", server_public_key_file=str(server.server.data_dir / "public_key.pem")))
    forget_proofs(server)
    assert refusal(pinned, username) is None
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(other_key())
    forget_proofs(server)
    assert refusal(replace(to, tls=Tls("disable", server_public_key_file=str(wrong))), username) is not None


def other_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa

    from whalefall_capacity_tests.collection.rogues import public_pem

    return public_pem(rsa.generate_private_key(65537, 2048))


# All of them


@pytest.mark.parametrize("server", ["postgresql_on_tcp", "mariadb_on_tcp", "mysql_on_tcp"])
def test_under_another_name_a_server_is_not_entered_in_full_verification_alone(
    request: pytest.FixtureRequest, server: str
) -> None:
    held = request.getfixturevalue(server)
    to = replace(held if isinstance(held, Target) else held[0], host="127.0.0.1")
    username = {"postgresql_on_tcp": "md5", "mariadb_on_tcp": "native"}.get(server, "caching_sha2_password")
    assert {mode: refusal(in_mode(to, mode), username) is None for mode in MODES} == {
        "disable": True,
        "prefer": True,
        "require": True,
        "verify-ca": True,
        "verify-full": False,
    }


@pytest.mark.parametrize("server", ["postgresql_on_tcp", "mariadb_on_tcp", "mysql_on_tcp"])
@pytest.mark.parametrize(
    ("mode", "is_known", "detail"),
    [
        ("disable", False, "tls.mode is disable; set verify-full, and ca_file, in the fleet file to have it verified"),
        ("prefer", False, "tls.mode is prefer; set verify-full, and ca_file, in the fleet file to have it verified"),
        ("require", False, "tls.mode is require; set verify-full, and ca_file, in the fleet file to have it verified"),
        ("verify-ca", True, "its certificate is verified (verify-ca)"),
        ("verify-full", True, "its certificate is verified (verify-full)"),
    ],
)
def test_the_doctor_says_whether_it_is_known_who_answers(
    request: pytest.FixtureRequest, server: str, mode: TlsMode, is_known: bool, detail: str
) -> None:
    held = request.getfixturevalue(server)
    username = {"postgresql_on_tcp": "md5", "mariadb_on_tcp": "native"}.get(server, "caching_sha2_password")
    to = replace(in_mode(held if isinstance(held, Target) else held[0], mode), username=username)
    assert who_answers(to) == (is_known, detail)


def who_answers(to: Target) -> tuple[bool, str]:
    """Return what the doctor says of who answers; it never makes a server unhealthy."""
    found = check(to, LIMITS, NO_FILTERS, Cutoff())
    (said,) = [capability for capability in found.capabilities if capability.name == "who answers"]
    assert not said.required
    return said.available, said.detail


def test_the_doctor_says_that_a_socket_is_whose_path_it_is(postgresql: PostgresqlServer, family: FamilyServer) -> None:
    for server in (postgresql, family):
        assert who_answers(server.target()) == (True, "whoever may listen at that path")
