"""A look at all databases of one server: which there are, what size each has, and why some have none.

`pg_database_size` needs CONNECT on the database or pg_read_all_stats, and one refusal fails the whole statement: the
privilege is asked first. The sizes are copied, because rows of a COPY arrive one by one: when a statement is ended,
what came before is kept, and the others go on with a row for each database; the one at which it ends again is asked
alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg2

from whalefall_capacity.collection.postgresql.databases import (
    LIST_DATABASES,
    LIST_INTACT_DATABASES,
    Database,
    databases_of,
    list_databases,
    why_without_size,
)
from whalefall_capacity.collection.postgresql.folders import (
    LIST_ALL_FOLDERS,
    Folders,
    OpenOther,
    folders_of,
    list_folders,
    unreadable_folders,
)
from whalefall_capacity.collection.postgresql.server import RAW_NAMES, LimitReachedError, Server, words
from whalefall_capacity.collection.sizes import Findings, NameFilter
from whalefall_capacity.errors import CollectionError

# Both in one round trip, for a server with whose folders nothing is wrong.
LIST_WITH_FOLDERS = f"""
SELECT listed.*, NULL::oid, NULL::oid FROM ({LIST_DATABASES}) AS listed
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, folder.* FROM ({LIST_ALL_FOLDERS}) AS folder
"""  # noqa: S608 - constants of ours
MEASURE_ALL = """
COPY (
    SELECT found.*
    FROM unnest(CAST({parts} AS text[])) AS part CROSS JOIN LATERAL (
        SELECT string_agg(CAST(oid AS text), ','), string_agg(coalesce(CAST(size_bytes AS text), ''), ',')
        FROM (SELECT oid, pg_database_size(oid) AS size_bytes FROM unnest(CAST(part AS oid[])) AS oid) AS measured
    ) AS found
) TO STDOUT
"""
# Databases of one row. psycopg2 lets go of the interpreter for each row, and has to win it back from other visits.
MOST_IN_A_ROW = 16
# What has come of a statement that is ended is kept by rows: fewer databases have one each.
FEW_DATABASES = 16
MEASURE_ONE = "SELECT pg_database_size(oid) FROM pg_database WHERE oid = {oid}"
MEASURE_WAL = "SELECT sum(size)::bigint FROM pg_ls_waldir()"
# Both in one round trip, for an account that may list the WAL.
LAST_LOOK = f"""
SELECT intact.oid, NULL::bigint FROM ({LIST_INTACT_DATABASES}) AS intact
UNION ALL
SELECT NULL, wal.* FROM ({MEASURE_WAL}) AS wal
"""  # noqa: S608 - constants of ours
# Short, so that one slow database does not hold up the others; it is then given the whole limit.
QUICK_SECONDS = 1.0


class Survey:
    """Asks a server for all its databases, once."""

    def __init__(self, server: Server, excluded: NameFilter, findings: Findings, open_other: OpenOther) -> None:
        self._server = server
        self._excluded = excluded
        self._findings = findings
        self._open_other = open_other

    def run(self) -> int | Exception:
        """Measure the databases; return the size of the WAL, or what went wrong with that."""
        listed, folders = self._list_with_folders()
        databases = [database for database in listed if not self._excluded.excludes(database.name)]
        self._findings.listed(self._server.version, [database.name for database in databases])
        folders = folders or list_folders(self._server)
        unreadable = unreadable_folders(self._server, databases, folders, self._open_other) if folders else {}
        readable = {}
        for database in databases:
            if reason := database.reason or unreadable.get(database.oid):
                self._findings.missing(database.name, reason)
            else:
                readable[database.oid] = database.name
        for oid in self._measure_together(readable):
            size = self._size(oid)
            if isinstance(size, int):
                self._findings.measured(readable[oid], size)
            else:
                self._findings.missing(readable[oid], size)
        intact, wal_size = self._last_look()
        self._note_dropped(databases, intact)
        return wal_size

    def _list_with_folders(self) -> tuple[list[Database], Folders | None]:
        """List the databases, and look for the folders of all at once: None when anything is wrong with one of them."""
        self._server.taken_notices()
        try:
            rows = self._server.rows(RAW_NAMES + LIST_WITH_FOLDERS, QUICK_SECONDS)
        except (psycopg2.Error, LimitReachedError):
            if not self._server.is_connected:
                raise
            return list_databases(self._server), None
        databases = databases_of(self._server, [row[:5] for row in rows if row[0] is not None])
        return databases, None if self._server.taken_notices() else folders_of(row[-2:] for row in rows)

    def _measure_together(self, names: Mapping[int, str]) -> list[int]:
        """Measure as many databases as give their size quickly; return the others."""
        waiting, others = list(names), []
        in_a_row = 1 if len(names) < FEW_DATABASES else MOST_IN_A_ROW
        while waiting:
            rows = _CopiedRows(names, self._findings)
            try:
                self._server.copy(MEASURE_ALL, rows, QUICK_SECONDS, parts=_arrays(waiting, in_a_row))
            except (psycopg2.Error, LimitReachedError):
                if not self._server.is_connected:
                    raise
            others += [oid for oid, size in rows.sizes.items() if size is None]
            waiting = [oid for oid in waiting if oid not in rows.sizes]
            if in_a_row == 1:
                # The one at which the statement ended.
                others += waiting[:1]
                waiting = waiting[1:]
            in_a_row = 1
        return others

    def _size(self, oid: int) -> int | str:
        """Return the size of one database, or why it has none."""
        try:
            rows = self._server.rows(MEASURE_ONE, oid=oid)
        except LimitReachedError as error:
            return f"pg_database_size {error}"
        except psycopg2.Error as error:
            if not self._server.is_connected:
                raise
            return words(error)
        size: int | None = rows[0][0] if rows else None
        return why_without_size(self._server, oid) if size is None else size

    def _last_look(self) -> tuple[set[int], int | Exception]:
        """Return the databases that are intact, and the size of the WAL, or why that is not known: it costs no size."""
        try:
            rows = self._server.rows(LAST_LOOK)
        except (psycopg2.Error, LimitReachedError) as error:
            if not self._server.is_connected:
                raise
            return {oid for (oid,) in self._server.rows(LIST_INTACT_DATABASES)}, error
        (wal_size,) = [size for oid, size in rows if oid is None]
        intact = {oid for oid, _ in rows if oid is not None}
        return intact, CollectionError("it lists no file") if wal_size is None else wal_size

    def _note_dropped(self, databases: list[Database], intact: set[int]) -> None:
        """Take back the sizes of databases that were dropped meanwhile: files go first, and may have gone uncounted."""
        for database in databases:
            if database.oid not in intact:
                self._findings.missing(database.name, why_without_size(self._server, database.oid))


def _arrays(oids: list[int], length: int) -> list[str]:
    """Return the ids in arrays of *length*, as PostgreSQL writes them."""
    parts = [oids[at : at + length] for at in range(0, len(oids), length)]
    return [f"{{{','.join(map(str, part))}}}" for part in parts]


class _CopiedRows:
    """The file into which psycopg2 writes the rows of a COPY: ids and sizes, noted as they come."""

    def __init__(self, names: Mapping[int, str], findings: Findings) -> None:
        self._names = names
        self._findings = findings
        self._begun = b""
        self.sizes: dict[int, int | None] = {}

    def write(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            oids, sizes = (part.split(b",") for part in line.split(b"\t"))
            for oid, size in zip(oids, sizes, strict=True):
                self._note(int(oid), int(size) if size else None)

    def _note(self, oid: int, size_bytes: int | None) -> None:
        self.sizes[oid] = size_bytes
        if size_bytes is not None:
            self._findings.measured(self._names[oid], size_bytes)
