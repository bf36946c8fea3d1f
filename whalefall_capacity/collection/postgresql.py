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
import psycopg2.extensions
from psycopg2 import sql

from whalefall_capacity.collection.sizes import (
    Capability,
    Cutoff,
    DatabaseSize,
    Limits,
    Measurement,
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
NO_PRIVILEGE = "no CONNECT privilege and not a member of pg_read_all_stats"


class PostgresqlSession:
    """An open connection to one PostgreSQL server, in autocommit, read-only."""

    def __init__(self, connection: psycopg2.extensions.connection) -> None:
        self._connection = connection

    @property
    def version(self) -> str:
        return str(self._connection.get_parameter_status("server_version"))

    def measure(self, excluded: NameFilter) -> Measurement:
        names: dict[int, str] = {}
        readable: list[int] = []
        for oid, name, may_read in self._list():
            if not excluded.excludes(name):
                names[oid] = name
                if may_read:
                    readable.append(oid)
        sizes = self._sizes(readable)
        missing = dict.fromkeys(names, NO_PRIVILEGE) | dict.fromkeys(readable, "dropped during the visit")
        databases = tuple(
            DatabaseSize(name, size, None)
            if isinstance(size := sizes.get(oid), int)
            # An error text stands where a size could not be had.
            else DatabaseSize(name, None, size or missing[oid])
            for oid, name in names.items()
        )
        return Measurement(self.version, databases, self._wal_size())

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
        return statement.as_string(self._connection).replace(f'"{role}"', role)

    def _list(self) -> list[tuple[int, str, bool]]:
        # Such a server does not know the encoding of its names, and would refuse to send one that is not UTF-8.
        knows_no_encoding = self._connection.get_parameter_status("server_encoding") == "SQL_ASCII"
        if knows_no_encoding:
            self._connection.set_client_encoding("SQL_ASCII")
        listed = self._rows(LIST_DATABASES)
        if knows_no_encoding:
            self._connection.set_client_encoding("UTF8")
        return [(oid, _decode(bytes(raw_name)), readable) for oid, raw_name, readable in listed]

    def _sizes(self, oids: list[int]) -> dict[int, int | str]:
        """Return the size of each database, or the text of the error where one could not be measured."""
        try:
            return {oid: size for oid, size in self._rows(MEASURE_ALL, (oids,)) if size is not None}
        except psycopg2.Error:
            if self._connection.closed:
                raise
            return dict(self._measure_one_by_one(oids))

    def _measure_one_by_one(self, oids: list[int]) -> Iterable[tuple[int, int | str]]:
        for oid in oids:
            try:
                size = self._rows(MEASURE_ONE, (oid,))[0][0]
            except psycopg2.Error as error:
                if self._connection.closed:
                    raise
                yield oid, str(error).strip()
            else:
                if size is not None:
                    yield oid, size

    def _may_list_wal(self) -> bool:
        allowed: bool = self._rows(MAY_LIST_WAL)[0][0]
        return allowed

    def _wal_size(self) -> int | None:
        size: int | None = self._rows(MEASURE_WAL)[0][0] if self._may_list_wal() else None
        return size

    def _rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()


def connect(target: Target, limits: Limits, cutoff: Cutoff) -> PostgresqlSession:
    """Open a read-only session. Raises psycopg2.Error."""
    connection = psycopg2.connect(
        host=target.host,
        port=target.port,
        dbname=target.database or "postgres",
        user=target.username,
        password=target.password.get_secret_value(),
        application_name="whalefall_capacity",
        client_encoding="UTF8",
        # libpq counts whole seconds and rounds one up to two.
        connect_timeout=math.ceil(limits.connect_timeout_seconds),
        sslmode=target.tls.mode,
        sslrootcert=target.tls.ca_file,
        sslcert=target.tls.cert_file,
        sslkey=target.tls.key_file,
    )
    connection.autocommit = True
    cutoff.watch(connection.fileno())
    with connection.cursor() as cursor:
        # Not as start-up options: a connection pooler in between would refuse those.
        cursor.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('default_transaction_read_only', 'on', false)",
            (f"{math.ceil(limits.statement_timeout_seconds * 1000)}ms",),
        )
    return PostgresqlSession(connection)


def _decode(raw_name: bytes) -> str:
    return raw_name.decode("utf-8", errors="backslashreplace")
