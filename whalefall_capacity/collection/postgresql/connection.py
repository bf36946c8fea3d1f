"""Connections to PostgreSQL servers of the fleet: where they go and how is what the fleet file says, and nothing else.

libpq fills in what it is not told from the environment and from files in the home of the account. The
variables are removed; the files are overruled, each by a path at which there cannot be a file.
"""

from __future__ import annotations

import math
import ssl
from typing import Any

import psycopg2
import psycopg2.extensions

from whalefall_capacity.collection.postgresql.relay import Relay
from whalefall_capacity.collection.sizes import Cutoff, Limits, Target, Tls
from whalefall_capacity.errors import CollectionError
from whalefall_capacity.libpq import forget_environment

OLDEST_VERSION = 100_000
# libpq takes a file below something that is no folder for one that is not there, and no program can put one there.
NO_FILE = "/dev/null/none"
# Methods by which the password is proved and not sent, and none at all. A server whose certificate was verified may ask
# for the password itself. https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-REQUIRE-AUTH
PROOFS = "scram-sha-256,md5,none"
# By what libpq or the server says in any language: names of methods and parameters are not translated.
HINTS = (
    (
        ("GSS", "SSPI", "Kerberos"),
        "the server asks for Kerberos (GSSAPI): give the account a scram-sha-256 line in pg_hba.conf, or run the "
        "service with a Kerberos ticket for it",
    ),
    (
        ("client certificate", "certificate required"),
        "the server asks for a client certificate: set tls.cert_file and tls.key_file in the fleet file",
    ),
    (
        ("authentication method requirement",),
        "the password was not sent: let pg_hba.conf ask for scram-sha-256, or set tls.mode: verify-full and "
        "tls.ca_file in the fleet file, for a server whose certificate is verified may ask for the password itself",
    ),
    (
        ("CONNECT",),
        "let the account into the database: GRANT CONNECT ON DATABASE … TO …",
    ),
)


def open_connection(target: Target, limits: Limits, cutoff: Cutoff) -> psycopg2.extensions.connection:
    """Open a connection in autocommit. Raises psycopg2.Error, OSError, or CollectionError that says what to do."""
    forget_environment()
    with Relay(target, limits.connect_timeout_seconds, cutoff) as relay:
        try:
            connection = _connect(_parameters(target, limits) | relay.parameters)
        except (psycopg2.OperationalError, CollectionError) as error:
            raise type(error)(relay.in_words(str(error))) from None
    connection.autocommit = True
    cutoff.watch(connection.fileno())
    if 0 < connection.server_version < OLDEST_VERSION:
        version = connection.get_parameter_status("server_version")
        connection.close()
        raise CollectionError(f"PostgreSQL {version} is older than 10, the oldest version that can be measured")
    return connection


def _connect(parameters: dict[str, Any]) -> psycopg2.extensions.connection:
    try:
        connection: psycopg2.extensions.connection = psycopg2.connect(**parameters)
    except psycopg2.OperationalError as error:
        message = str(error)
        # The one encoding of a server that is not converted to UTF-8; to this one, nothing has to be converted.
        if "MULE_INTERNAL" in message and parameters["client_encoding"] != "SQL_ASCII":
            return _connect({**parameters, "client_encoding": "SQL_ASCII"})
        hints = [hint for marks, hint in HINTS if any(mark in message for mark in marks)]
        if not hints:
            raise
        raise CollectionError(f"{message.strip()}; {hints[0]}") from None
    return connection


def _parameters(target: Target, limits: Limits) -> dict[str, Any]:
    """Return all that libpq is told; nothing that a pooler would refuse, or keep for its next client."""
    tls = target.tls
    return {
        "host": target.host,
        "port": target.port,
        "dbname": target.database or "postgres",
        "user": target.username,
        "password": target.password.get_secret_value(),
        "passfile": NO_FILE,
        "client_encoding": "UTF8",
        # libpq counts whole seconds and rounds one up to two.
        "connect_timeout": math.ceil(limits.connect_timeout_seconds),
        # A ticket of the service's account would decide how the connection is encrypted.
        "gssencmode": "disable",
        "sslmode": tls.mode,
        "sslrootcert": _authorities(tls),
        "sslcert": tls.cert_file or NO_FILE,
        "sslkey": tls.key_file or NO_FILE,
        "sslcrl": NO_FILE,
        "require_auth": None if target.verifies_server else PROOFS,
    }


def _authorities(tls: Tls) -> str:
    """Return the file of the trusted authorities: the machine's own where a check is asked for and none is named."""
    if tls.ca_file is not None:
        return tls.ca_file
    return ssl.get_default_verify_paths().cafile or "system" if tls.mode.startswith("verify") else NO_FILE
