"""PostgreSQL 10 and newer: sizes by `pg_database_size`, WAL by `pg_ls_waldir`.

`pg_database_size` needs CONNECT on the database or pg_read_all_stats, and one refusal fails the whole
statement: the privilege is asked first. A database dropped between listing and measuring gives NULL up
to PostgreSQL 17 and an error from 18 on; after an error each database is measured by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import psycopg2
from psycopg2 import sql

from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.postgresql_wire import PostgresqlConnection
from whalefall_capacity.collection.postgresql_wire import connect as open_connection
from whalefall_capacity.collection.sizes import (
    Capability,
    Cutoff,
    Findings,
    Limits,
    NameFilter,
    Target,
)

# A name may hold bytes that are not text in the encoding of the connection: it is fetched as bytes.
# The oid goes along, because a name that was not decodable could not be looked up again.
LIST_DATABASES = """
SELECT oid, namesend(datname),
       has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE') AS readable
FROM pg_database
WHERE datallowconn AND NOT datistemplate
ORDER BY datname
"""
MEASURE_ALL = "SELECT oid, pg_database_size(oid) FROM pg_database WHERE oid = ANY(%s::oid[])"
MEASURE_ONE = "SELECT pg_database_size(%s::oid)"
# Two statements: a function that may not be executed is refused even in a branch that is not taken.
MAY_LIST_WAL = "SELECT has_function_privilege('pg_ls_waldir()', 'EXECUTE')"
MEASURE_WAL = "SELECT sum(size)::bigint FROM pg_ls_waldir()"
# Methods by which the password is proved and not sent, and none at all. A server whose certificate was verified may ask
# for the password itself too. https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-REQUIRE-AUTH
PROOFS = "scram-sha-256,md5,none"
NO_PRIVILEGE = "no CONNECT privilege and not a member of pg_read_all_stats"
DROPPED = "dropped during the visit"


class PostgresqlSession:
    """An open connection to one PostgreSQL server, in autocommit, read-only."""

    def __init__(self, connection: PostgresqlConnection) -> None:
        self._connection = connection

    @property
    def version(self) -> str:
        return self._connection.parameter("server_version")

    def measure(self, excluded: NameFilter, findings: Findings) -> None:
        listed = [row for row in self._list() if not excluded.excludes(row[1])]
        findings.listed(self.version, [name for _, name, _ in listed])
        for _, name, readable in listed:
            if not readable:
                findings.missing(name, NO_PRIVILEGE)
        names = {oid: name for oid, name, readable in listed if readable}
        for oid, size in self._sizes(list(names)):
            if isinstance(size, int):
                findings.measured(names[oid], size)
            else:
                findings.missing(names[oid], size)
        findings.logs(self._wal_size())

    def capabilities(self, excluded: NameFilter) -> list[Capability]:
        watched = [(name, readable) for _, name, readable in self._list() if not excluded.excludes(name)]
        unreadable = [name for name, readable in watched if not readable]
        wal = self._may_list_wal()
        return [
            Capability(
                name="database sizes",
                available=not unreadable,
                required=True,
                detail=f"{len(watched) - len(unreadable)} of {len(watched)} databases"
                + (f"; not: {', '.join(unreadable[:10])}" if unreadable else ""),
                grant=self._grant("pg_read_all_stats") if unreadable else None,
            ),
            Capability(
                name="WAL size",
                available=wal,
                required=False,
                detail="pg_ls_waldir()",
                grant=None if wal else self._grant("pg_monitor"),
            ),
        ]

    def close(self) -> None:
        self._connection.close()

    def _grant(self, role: str) -> str:
        user = self._rows("SELECT current_user::text")[0][0]
        statement = sql.SQL("GRANT {} TO {};").format(sql.Identifier(role), sql.Identifier(user))
        return statement.as_string(self._connection.driver_connection).replace(f'"{role}"', role)

    def _list(self) -> list[tuple[int, str, bool]]:
        # Such a server does not know the encoding of its names, and would refuse to send one that is not UTF-8.
        knows_no_encoding = self._connection.parameter("server_encoding") == "SQL_ASCII"
        if knows_no_encoding:
            self._rows("SET client_encoding = 'SQL_ASCII'")
        listed = self._rows(LIST_DATABASES)
        if knows_no_encoding:
            self._rows("SET client_encoding = 'UTF8'")
        return [(oid, _decode(bytes(raw_name)), readable) for oid, raw_name, readable in listed]

    def _sizes(self, oids: list[int]) -> Iterable[tuple[int, int | str]]:
        """Yield the size of each database, or why it could not be measured."""
        try:
            sizes = dict(self._rows(MEASURE_ALL, (oids,)))
        except psycopg2.Error:
            if self._connection.is_closed:
                raise
            yield from ((oid, self._size(oid)) for oid in oids)
        else:
            yield from ((oid, DROPPED if (size := sizes.get(oid)) is None else size) for oid in oids)

    def _size(self, oid: int) -> int | str:
        try:
            size: int | None = self._rows(MEASURE_ONE, (oid,))[0][0]
        except psycopg2.Error as error:
            if self._connection.is_closed:
                raise
            return str(error).strip()
        return DROPPED if size is None else size

    def _may_list_wal(self) -> bool:
        allowed: bool = self._rows(MAY_LIST_WAL)[0][0]
        return allowed

    def _wal_size(self) -> int | None:
        size: int | None = self._rows(MEASURE_WAL)[0][0] if self._may_list_wal() else None
        return size

    def _rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._connection.rows(statement, parameters)


def connect(target: Target, limits: Limits, cutoff: Cutoff) -> PostgresqlSession:
    """Open a read-only session. Raises psycopg2.Error, CollectionError or TimeoutError."""
    parameters = {
        "host": target.host,
        "port": target.port,
        "dbname": target.database or "postgres",
        "user": target.username,
        "password": target.password.get_secret_value(),
        "application_name": "whalefall_capacity",
        "client_encoding": "UTF8",
        "sslmode": target.tls.mode,
        "sslrootcert": target.tls.ca_file,
        "sslcert": target.tls.cert_file,
        "sslkey": target.tls.key_file,
        "gssencmode": "disable",
        "require_auth": None if target.verifies_server else PROOFS,
    }
    connection = open_connection(parameters, limits.connect_timeout_seconds, cutoff, Meter())
    # Not as start-up options: a connection pooler in between would refuse those.
    connection.rows(
        "SELECT set_config('statement_timeout', %s, false), set_config('default_transaction_read_only', 'on', false)",
        (f"{math.ceil(limits.statement_timeout_seconds * 1000)}ms",),
    )
    return PostgresqlSession(connection)


def _decode(raw_name: bytes) -> str:
    return raw_name.decode("utf-8", errors="backslashreplace")
