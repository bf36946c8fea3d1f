"""The session that a visit and a check-up use."""

from __future__ import annotations

from dataclasses import replace

import psycopg2.errors

from whalefall_capacity.collection.database_tables import DatabaseTables
from whalefall_capacity.collection.postgresql.connection import open_connection
from whalefall_capacity.collection.postgresql.databases import NO_PRIVILEGE
from whalefall_capacity.collection.postgresql.folders import OpenOther
from whalefall_capacity.collection.postgresql.grants import sizes_grant, wal_grant
from whalefall_capacity.collection.postgresql.server import Server, words
from whalefall_capacity.collection.postgresql.survey import Survey
from whalefall_capacity.collection.postgresql.tables import read_tables
from whalefall_capacity.collection.sizes import Capability, Cutoff, Findings, Limits, NameFilter, Target


class PostgresqlSession:
    """An open connection to one PostgreSQL server."""

    def __init__(self, server: Server, open_other: OpenOther) -> None:
        self._server = server
        self._open_other = open_other

    @property
    def version(self) -> str:
        return self._server.version

    def measure(self, excluded: NameFilter, findings: Findings) -> None:
        log_size = Survey(self._server, excluded, findings, self._open_other).run()
        findings.logs(log_size if isinstance(log_size, int) else None)

    def capabilities(self, excluded: NameFilter) -> list[Capability]:
        """Ask all that a visit asks, and say what came of it."""
        findings = Findings()
        wal_size = Survey(self._server, excluded, findings, self._open_other).run()
        databases = findings.measurement("not asked").databases
        missing = {found.name: found.reason for found in databases if found.size_bytes is None}
        is_denied = isinstance(wal_size, psycopg2.errors.InsufficientPrivilege)
        grant_of_wal = wal_grant(self._server) if is_denied else None
        lacks_connect = NO_PRIVILEGE in missing.values()
        grant_of_sizes = sizes_grant(self._server, grant_of_wal, lacks_connect=lacks_connect) if missing else None
        return [
            Capability.of_sizes(len(databases), missing, grant_of_sizes),
            Capability(
                "WAL size",
                available=isinstance(wal_size, int),
                required=False,
                detail="pg_ls_waldir()" if isinstance(wal_size, int) else f"pg_ls_waldir(): {words(wal_size)}",
                grant=grant_of_wal,
            ),
        ]

    def tables(self, database: str) -> DatabaseTables:  # noqa: ARG002 - it is the one that is connected to
        return read_tables(self._server)

    def close(self) -> None:
        self._server.close()


def connect(target: Target, limits: Limits, cutoff: Cutoff) -> PostgresqlSession:
    """Open a session. Raises psycopg2.Error, OSError or CollectionError."""
    connection = open_connection(target, limits, cutoff)

    def open_other(name: str) -> Server:
        try:
            return Server(open_connection(replace(target, database=name), limits, cutoff), limits)
        finally:
            cutoff.watch(connection.fileno())

    return PostgresqlSession(Server(connection, limits), open_other)
