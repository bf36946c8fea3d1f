"""A visit goes where the fleet file says: nothing in the environment or the home of the service leads it elsewhere."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest

from whalefall_capacity.collection.sizes import Cutoff, Findings, ServerEngine, Target, Tls
from whalefall_capacity.collection.visit import visit
from whalefall_capacity.errors import CollectionError
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity_tests.collection.support import (
    Peer,
    ask_for_kerberos,
    garbage,
    let_in_by_an_old_server,
    peer,
    refuse_with,
    target,
)
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS, PostgresqlServer

POSTGRESQL = ServerEngine.POSTGRESQL


class Option(ctypes.Structure):
    """`PQconninfoOption` of libpq."""

    _fields_ = [(name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")] + [
        ("dispsize", ctypes.c_int)
    ]


def variables_of_libpq() -> list[str]:
    """Return the variables that the loaded libpq itself says it reads, and those that it reads besides."""
    assert psycopg2.__libpq_version__
    lines = Path("/proc/self/maps").read_text().splitlines()
    libpq = ctypes.CDLL(next(line.split()[-1] for line in lines if "/libpq" in line))
    libpq.PQconndefaults.restype = ctypes.POINTER(Option)
    options = libpq.PQconndefaults()
    names, number = [], 0
    while options[number].keyword:
        names.append(options[number].envvar)
        number += 1
    besides = ["PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGLOCALEDIR", "PGDATESTYLE", "PGTZ", "PGGEQO"]
    return [name.decode() for name in names if name] + besides


def names_of(to: Target) -> set[str]:
    found = visit(to, LIMITS, NO_FILTERS, Cutoff(), Findings()).measurement
    return {database.name for database in found.databases}


def test_no_variable_of_libpq_reaches_a_visit(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    names = variables_of_libpq()
    assert {"PGHOST", "PGHOSTADDR", "PGOPTIONS", "PGTARGETSESSIONATTRS", "PGREQUIREAUTH"} <= {*names}
    with postgresql.database("ours"):
        for name in names:
            os.environ[name] = "192.0.2.1"
            assert "ours" in names_of(postgresql.target()), name
        for name in names:
            os.environ[name] = str(tmp_path / "nowhere")
        assert "ours" in names_of(postgresql.target())


def test_another_server_in_the_environment_is_not_measured_under_the_name_of_ours(
    postgresql: PostgresqlServer, store_server: EmbeddedPostgres
) -> None:
    with postgresql.database("ours"), peer(garbage) as elsewhere:
        os.environ.update(PGHOSTADDR="127.0.0.1", PGPORT=str(elsewhere.port), PGHOST=str(store_server.socket_dir))
        assert "ours" in names_of(postgresql.target())
        assert elsewhere.arrivals == 0


def test_a_variable_that_comes_later_does_not_reach_the_next_visit(postgresql: PostgresqlServer) -> None:
    assert names_of(postgresql.target())
    os.environ["PGOPTIONS"] = "-c search_path=nowhere -c no_such_setting=1"
    assert names_of(postgresql.target())


def test_files_in_the_home_of_the_service_are_not_read(tmp_path: Path) -> None:
    """A wrong authority in the home would be asked of a server that only has to encrypt."""
    os.environ.update(HOME=str(tmp_path), PGPASSWORD="from the environment")
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    for name in ("root.crt", "postgresql.crt", "postgresql.key", "root.crl"):
        (folder / name).write_text("no certificate")
    (tmp_path / ".pg_service.conf").write_text("[elsewhere]\nhost=192.0.2.1\n")
    (tmp_path / ".pgpass").write_text("*:*:*:*:from the home\n")
    (tmp_path / ".pgpass").chmod(0o600)
    heard: list[bytes] = []
    with peer(ask_for_a_password(heard)) as server:
        without_password = replace(target(POSTGRESQL, server.port, tls=Tls("prefer")), password=type(PASSWORD)(""))
        with pytest.raises(CollectionError, match="no password supplied"):
            names_of(without_password)
    assert heard == [b""]


def test_variables_of_our_own_stay_though_they_begin_alike(postgresql: PostgresqlServer) -> None:
    os.environ.update(PG_SHOP_PASSWORD="hush", PGPASSWORD="hush", PGHOSTADDR="192.0.2.1")
    names_of(postgresql.target())
    assert (os.environ["PG_SHOP_PASSWORD"], os.environ["PGPASSWORD"]) == ("hush", "hush")
    assert "PGHOSTADDR" not in os.environ


PASSWORD = target(POSTGRESQL, 5432).password


def ask_for_a_password(heard: list[bytes]) -> Callable[..., None]:
    """Return the behaviour of a server without TLS that asks for a proof of the password."""

    def speak(connection) -> None:  # type: ignore[no-untyped-def]
        if len(connection.recv(4096)) == 8:
            connection.sendall(b"N")
            connection.recv(4096)
        connection.sendall(b"R\0\0\0\x0c\0\0\0\x05salt")
        heard.append(connection.recv(4096))

    return speak


def error_of(server: Peer) -> str:
    with pytest.raises(CollectionError) as failure:
        names_of(target(POSTGRESQL, server.port))
    return str(failure.value)


def test_a_server_that_is_too_old_is_told_by_its_version() -> None:
    with peer(let_in_by_an_old_server) as server:
        assert error_of(server) == (
            f"db-7: connecting to 127.0.0.1:{server.port} as whalefall failed: "
            "PostgreSQL 9.6.24 is older than 10, the oldest version that can be measured"
        )


def test_a_server_that_asks_for_kerberos_is_told_as_such() -> None:
    with peer(ask_for_kerberos) as server:
        assert "the server asks for Kerberos (GSSAPI): give the account a scram-sha-256 line" in error_of(server)


def test_a_server_that_asks_for_a_client_certificate_is_told_as_such() -> None:
    with peer(refuse_with(POSTGRESQL, "connection requires a valid client certificate")) as server:
        assert error_of(server).endswith(
            "the server asks for a client certificate: set tls.cert_file and tls.key_file in the fleet file"
        )
