"""PostgreSQL 10 and newer: sizes by `pg_database_size`, WAL by `pg_ls_waldir`.

Everything that is asked runs in a transaction of its own, whose settings end with it: behind a pooler the
connection belongs to another program a moment later.

`pg_database_size` needs CONNECT on the database or pg_read_all_stats, and one refusal fails the whole
statement: the privilege is asked first. It counts a folder that it cannot open as nothing: whether the folders
are there is asked too. The sizes are copied, because rows of a COPY arrive one by one: when a statement is
ended, what came before is kept, and the others go on with a row for each database; the one at which it ends
again is asked alone.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from psycopg2 import sql

from whalefall_capacity.collection.database_tables import DatabaseTable, DatabaseTables, largest_first
from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.postgresql_connection import open_connection
from whalefall_capacity.collection.sizes import Capability, Cutoff, Findings, Limits, NameFilter, Target, TimeLeft
from whalefall_capacity.errors import CollectionError

# All of a transaction. The isolation, because the account's own may wait for others, and a standby refuses the
# strictest. The path, because the account may have one of its own, on which other functions come first, and because
# temporary tables come first where they are not named. The name, because pgbouncer leaves the one of a start-up message
# to a client that has none.
SETTINGS = """
SET LOCAL transaction_isolation = 'read committed'; SET LOCAL transaction_read_only = on;
SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL client_min_messages = warning;
SET LOCAL application_name = 'whalefall_capacity'; SET LOCAL statement_timeout = {timeout};
"""
# Since 17. When it is over the server ends the connection; the limit of the statement is enough.
NO_TRANSACTION_TIMEOUT = "SET LOCAL transaction_timeout = 0; "
# A name may hold bytes that are not text in the encoding of this database, nor convertible: it is fetched as bytes,
# which are sent as they are to a client of this encoding.
RAW_NAMES = "SET LOCAL client_encoding = 'SQL_ASCII'; "
# Not every server that speaks the protocol has the role, and not every one shows its roles to everybody: their view is
# not asked.
LIST_DATABASES = """
SELECT oid, namesend(datname), dattablespace, datconnlimit = -2 AS invalid,
       has_database_privilege(oid, 'CONNECT') IS NOT FALSE
       OR pg_has_role(CAST(to_regrole('pg_read_all_stats') AS oid), 'USAGE') IS TRUE AS readable
FROM pg_database
WHERE datallowconn AND NOT datistemplate
"""
LIST_TABLESPACES = "SELECT oid, namesend(spcname) FROM pg_tablespace WHERE spcname <> 'pg_global' ORDER BY oid"
# It tells which databases have files in a tablespace, fails at a folder that it cannot open, and warns when the
# tablespace has no folder. src/backend/utils/adt/misc.c
LIST_FOLDERS = "SELECT pg_tablespace_databases({tablespace})"
# The same of all at once, where nothing is wrong with any of them.
LIST_ALL_FOLDERS = """
SELECT t.oid, d.oid FROM pg_tablespace AS t LEFT JOIN LATERAL pg_tablespace_databases(t.oid) AS d (oid) ON true
WHERE t.spcname <> 'pg_global'
"""
# Both in one round trip, for a server with whose folders nothing is wrong.
LIST_WITH_FOLDERS = f"""
SELECT listed.*, NULL::oid, NULL::oid FROM ({LIST_DATABASES}) AS listed
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, folder.* FROM ({LIST_ALL_FOLDERS}) AS folder
"""  # noqa: S608 - constants of ours
# Where tables of the connection's own database are that are not where most of them are.
LIST_USED_TABLESPACES = "SELECT DISTINCT reltablespace FROM pg_class WHERE reltablespace <> 0"
# The folder at which the server failed, in a message of any language: of a database, whose id is in it, or of all.
FOLDER = re.compile(r'\bpg_tblspc/\d+(?:/PG_\w+(?:/(\d+))?)?|\bbase/(\d+)|["«„“「]\s?base\s?["»“”」]')
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
MOST_IN_A_ROW = 8
MEASURE_ONE = "SELECT pg_database_size(oid) FROM pg_database WHERE oid = {oid}"
LIST_INTACT_DATABASES = "SELECT oid FROM pg_database WHERE datconnlimit <> -2"
# Nobody needs a privilege on a table to ask for its size, which waits for whoever has locked it or one of its indexes:
# such a table is not asked for. Partitioned tables are empty; their partitions are tables.
# https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-DBSIZE
LIST_TABLES = """
WITH locked AS (
    SELECT coalesce(index.indrelid, lock.relation) AS oid
    FROM pg_locks AS lock LEFT JOIN pg_index AS index ON index.indexrelid = lock.relation
    WHERE lock.mode = 'AccessExclusiveLock' AND lock.locktype = 'relation'
      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT namesend(n.nspname), namesend(c.relname), c.oid IN (SELECT oid FROM locked) AS is_locked,
       CASE WHEN c.oid NOT IN (SELECT oid FROM locked) THEN pg_table_size(c.oid) END,
       CASE WHEN c.oid NOT IN (SELECT oid FROM locked) THEN pg_indexes_size(c.oid) END,
       CASE WHEN c.reltuples > 0 OR c.reltuples = 0 AND c.relpages > 0 THEN CAST(c.reltuples AS bigint) END
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm')
  AND (n.nspname NOT IN ('pg_catalog', 'information_schema') OR c.relname = 'pg_largeobject')
"""
MEASURE_WAL = "SELECT sum(size)::bigint FROM pg_ls_waldir()"
SIZE_FUNCTION = "pg_database_size(oid)"
WAL_FUNCTION = "pg_ls_waldir()"
# NULL where there is no such function.
MAY_CALL = "SELECT has_function_privilege(CAST(to_regprocedure({function}) AS oid), 'EXECUTE')"
# 2: the account has the use of the role, 1: it is a member that does not inherit. No row: there is no such role.
MEMBERSHIP = """
SELECT CASE WHEN pg_has_role(role, 'USAGE') THEN 2 WHEN pg_has_role(role, 'MEMBER') THEN 1 ELSE 0 END
FROM CAST(to_regrole({role}) AS oid) AS role WHERE role IS NOT NULL
"""
# Both in one round trip, for an account that may list the WAL.
LAST_LOOK = f"""
SELECT intact.oid, NULL::bigint FROM ({LIST_INTACT_DATABASES}) AS intact
UNION ALL
SELECT NULL, wal.* FROM ({MEASURE_WAL}) AS wal
"""  # noqa: S608 - constants of ours
# Short, so that one slow database does not hold up the others; it is then given the whole limit.
QUICK_SECONDS = 1.0
# A look at one entry of each folder, or into each database; what takes longer is left to the sizes themselves.
FOLDERS_SECONDS = 10.0
NO_PRIVILEGE = "no CONNECT privilege and not a member of pg_read_all_stats"
DROPPED = "dropped during the visit"
INVALID = "invalid: an interrupted DROP DATABASE; drop it again"
NO_FILES = "pg_database_size found none of its files: its folder is lost, or the server cannot read it"


class LimitReachedError(CollectionError):
    """A statement was ended because its time was up."""


@dataclass(frozen=True)
class Database:
    """A listed database; *reason*: why it is known beforehand that it cannot be measured."""

    oid: int
    name: str
    tablespace: int
    reason: str | None


@dataclass(frozen=True)
class Folders:
    """Databases with files in each tablespace, why some databases cannot be read, and why some tablespaces cannot."""

    databases: dict[int, set[int]]
    unreadable: dict[int, str]
    troubles: dict[int, str]


class PostgresqlSession:
    """An open connection to one PostgreSQL server, in autocommit."""

    def __init__(
        self,
        connection: psycopg2.extensions.connection,
        limits: Limits,
        open_other: Callable[[str], psycopg2.extensions.connection] | None = None,
    ) -> None:
        """*open_other* connects to another database of the same server."""
        self._connection = connection
        self._limits = limits
        self._open_other = open_other
        self._meter = Meter()
        self._time = TimeLeft(limits)

    @property
    def version(self) -> str:
        return str(self._connection.get_parameter_status("server_version"))

    def measure(self, excluded: NameFilter, findings: Findings) -> None:
        log_size = self._measure_all(excluded, findings)
        findings.logs(log_size if isinstance(log_size, int) else None)

    def capabilities(self, excluded: NameFilter) -> list[Capability]:
        findings = Findings()
        wal_size = self._measure_all(excluded, findings)
        databases = findings.measurement("not asked").databases
        missing = {found.name: found.reason for found in databases if found.size_bytes is None}
        wal_grant = self._wal_grant() if isinstance(wal_size, psycopg2.errors.InsufficientPrivilege) else None
        return [
            Capability.of_sizes(len(databases), missing, self._sizes_grant(missing.values(), wal_grant)),
            Capability(
                "WAL size",
                available=isinstance(wal_size, int),
                required=False,
                detail="pg_ls_waldir()" if isinstance(wal_size, int) else f"pg_ls_waldir(): {_words(wal_size)}",
                grant=wal_grant,
            ),
        ]

    def tables(self, database: str) -> DatabaseTables:  # noqa: ARG002 - it is the one that is connected to
        try:
            rows = self._rows(RAW_NAMES + LIST_TABLES)
        except LimitReachedError as error:
            raise CollectionError(f"the sizes of its tables {error}") from None
        encoding = psycopg2.extensions.encodings.get(str(self._connection.get_parameter_status("server_encoding")))
        return largest_first(_table(row, encoding or "ascii") for row in rows)

    def close(self) -> None:
        self._connection.close()

    def _measure_all(self, excluded: NameFilter, findings: Findings) -> int | Exception:
        """Measure the databases; return the size of the WAL, or what went wrong with that."""
        listed, folders = self._list_with_folders()
        databases = [database for database in listed if not excluded.excludes(database.name)]
        findings.listed(self.version, [database.name for database in databases])
        unreadable = self._unreadable_folders(databases, folders)
        readable = {}
        for database in databases:
            if reason := database.reason or unreadable.get(database.oid):
                findings.missing(database.name, reason)
            else:
                readable[database.oid] = database.name
        for oid in self._measure_together(readable, findings):
            size = self._size(oid)
            if isinstance(size, int):
                findings.measured(readable[oid], size)
            else:
                findings.missing(readable[oid], size)
        intact, wal_size = self._last_look()
        self._note_dropped(databases, intact, findings)
        return wal_size

    def _list_with_folders(self) -> tuple[list[Database], Folders | None]:
        """List the databases, and look for the folders of all at once: None when anything is wrong with one of them."""
        self._connection.notices.clear()
        try:
            rows = self._rows(RAW_NAMES + LIST_WITH_FOLDERS, QUICK_SECONDS)
        except (psycopg2.Error, LimitReachedError):
            if self._connection.closed:
                raise
            return self._list(), None
        databases = self._databases(row[:5] for row in rows if row[0] is not None)
        if self._taken_notices():
            return databases, None
        found: dict[int, set[int]] = {}
        for *_, tablespace, oid in rows:
            if tablespace is not None:
                found.setdefault(tablespace, set()).update(() if oid is None else (oid,))
        return databases, Folders(found, {}, {})

    def _list(self) -> list[Database]:
        try:
            return self._databases(self._rows(RAW_NAMES + LIST_DATABASES))
        except LimitReachedError as error:
            raise CollectionError(f"listing its databases {error}") from None

    def _databases(self, rows: Iterable[tuple[Any, ...]]) -> list[Database]:
        """Return the databases in the order of their names as the server has them."""
        rows = sorted(rows, key=lambda row: bytes(row[1]))
        server_encoding = str(self._connection.get_parameter_status("server_encoding"))
        names = distinct_names([bytes(row[1]) for row in rows], psycopg2.extensions.encodings.get(server_encoding))
        return [
            Database(oid, name, tablespace, INVALID if invalid else None if readable else NO_PRIVILEGE)
            for name, (oid, _, tablespace, invalid, readable) in zip(names, rows, strict=True)
        ]

    def _unreadable_folders(self, databases: list[Database], folders: Folders | None) -> dict[int, str]:
        """Return why the sizes of some databases would be too small: pg_database_size says nothing of lost folders."""
        try:
            folders = folders or self._folders_one_by_one()
        except (psycopg2.Error, LimitReachedError):
            if self._connection.closed:
                raise
            return {}
        if not any(folders.databases.values()) and not folders.troubles:
            # A server that keeps its databases elsewhere, as some clouds do.
            return {}
        ends_at = time.monotonic() + FOLDERS_SECONDS
        reasons: dict[int, str] = {}
        for database in databases:
            if database.reason is not None:
                continue
            listed = folders.databases.get(database.tablespace)
            if database.oid in folders.unreadable:
                reasons[database.oid] = folders.unreadable[database.oid]
            elif listed is not None and database.oid not in listed:
                reasons[database.oid] = self._looked_at_again(database.oid)
            elif folders.troubles and (lost := self._lost_part(database, folders.troubles, ends_at)):
                reasons[database.oid] = lost
        return reasons

    def _folders_one_by_one(self) -> Folders:
        """Look for the folders of each tablespace. Raises psycopg2.Error or LimitReachedError when none are told."""
        found = Folders({}, {}, {})
        for tablespace, raw_name in self._rows(RAW_NAMES + LIST_TABLESPACES):
            name = _decode(bytes(raw_name), "utf-8")
            self._connection.notices.clear()
            try:
                rows = self._rows(LIST_FOLDERS, FOLDERS_SECONDS, tablespace=tablespace)
            except psycopg2.Error as error:
                folder = FOLDER.search(_words(error))
                if self._connection.closed or folder is None:
                    raise
                if oid := folder[1] or folder[2]:
                    found.unreadable[int(oid)] = _words(error)
                else:
                    found.troubles[tablespace] = f"the folder of tablespace {name} cannot be read ({_words(error)})"
                continue
            if any(re.search(rf"\b{tablespace}\b", notice) for notice in self._taken_notices()):
                found.troubles[tablespace] = f"the folder of tablespace {name} is lost"
            else:
                found.databases[tablespace] = {oid for (oid,) in rows}
        return found

    def _lost_part(self, database: Database, troubles: Mapping[int, str], ends_at: float) -> str | None:
        """Say in which of the tablespaces with *troubles* there is something of *database*; only that one knows."""
        if trouble := troubles.get(database.tablespace):
            return f"{trouble}, in which the database is"
        try:
            used = self._used_tablespaces(database.name) if time.monotonic() < ends_at else None
        except (psycopg2.Error, OSError, CollectionError):
            used = None
        if used is None:
            return f"{next(iter(troubles.values()))}, and with it perhaps a part of the database"
        return next((f"{troubles[one]}, and with it a part of the database" for one in used if one in troubles), None)

    def _used_tablespaces(self, name: str) -> list[int] | None:
        """Ask a database which tablespaces it uses. Raises psycopg2.Error, OSError or CollectionError."""
        if self._open_other is None:
            return None
        with closing(PostgresqlSession(self._open_other(name), self._limits)) as other:
            return [oid for (oid,) in other._rows(LIST_USED_TABLESPACES)]

    def _measure_together(self, names: Mapping[int, str], findings: Findings) -> list[int]:
        """Measure as many databases as give their size quickly; return the others."""
        waiting, others = list(names), []
        # What has come is kept by rows: few databases have one each from the start.
        in_a_row = min(max(len(names) // MOST_IN_A_ROW, 1), MOST_IN_A_ROW)
        while waiting:
            rows = _CopiedRows(names, findings)
            try:
                self._copy(_composed(MEASURE_ALL, {"parts": _arrays(waiting, in_a_row)}), rows)
            except (psycopg2.Error, LimitReachedError):
                if self._connection.closed:
                    raise
            others += [oid for oid, size in rows.sizes.items() if size is None]
            waiting = [oid for oid in waiting if oid not in rows.sizes]
            if in_a_row == 1:
                # The one at which the statement ended.
                others += waiting[:1]
                waiting = waiting[1:]
            in_a_row = 1
        return others

    def _last_look(self) -> tuple[set[int], int | Exception]:
        """Return the databases that are intact, and the size of the WAL, or why that is not known: it costs no size."""
        try:
            rows = self._rows(LAST_LOOK)
        except (psycopg2.Error, LimitReachedError) as error:
            if self._connection.closed:
                raise
            return {oid for (oid,) in self._rows(LIST_INTACT_DATABASES)}, error
        (wal_size,) = [size for oid, size in rows if oid is None]
        intact = {oid for oid, _ in rows if oid is not None}
        return intact, CollectionError("it lists no file") if wal_size is None else wal_size

    def _note_dropped(self, databases: list[Database], intact: set[int], findings: Findings) -> None:
        """Take back the sizes of databases that were dropped meanwhile: files go first, and may have gone uncounted."""
        for database in databases:
            if database.oid not in intact:
                findings.missing(database.name, self._looked_at_again(database.oid))

    def _size(self, oid: int) -> int | str:
        """Return the size of one database, or why it has none."""
        try:
            rows = self._rows(MEASURE_ONE, oid=oid)
        except LimitReachedError as error:
            return f"pg_database_size {error}"
        except psycopg2.Error as error:
            if self._connection.closed:
                raise
            return _words(error)
        size: int | None = rows[0][0] if rows else None
        return self._looked_at_again(oid) if size is None else size

    def _looked_at_again(self, oid: int) -> str:
        """Say why a database has no size though nothing failed."""
        rows = self._rows("SELECT datconnlimit FROM pg_database WHERE oid = {oid}", oid=oid)
        if not rows:
            return DROPPED
        return INVALID if rows[0][0] == -2 else NO_FILES

    def _sizes_grant(self, reasons: Collection[str | None], wal_grant: str | None) -> str | None:
        """Return what gives databases that are missing for *reasons* a size; None when no privilege would."""
        if reasons and (grant := self._function_grant(SIZE_FUNCTION)):
            return grant
        if NO_PRIVILEGE not in reasons:
            return None
        # Whoever gets the one for the WAL needs no other.
        return wal_grant if wal_grant and "pg_monitor" in wal_grant else self._grant("pg_read_all_stats")

    def _wal_grant(self) -> str | None:
        """Return what lets the account list the WAL; None when it already may, and the refusal was another's."""
        return self._grant("pg_monitor") or self._function_grant(WAL_FUNCTION)

    def _function_grant(self, function: str) -> str | None:
        """Return what lets the account call *function*; None when it already may, or there is no such function."""
        ((is_allowed,),) = self._rows(MAY_CALL, function=function)
        if is_allowed is not False:
            return None
        return f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {self._account()};"

    def _grant(self, role: str) -> str | None:
        """Return what gives the account the use of *role*; None when it has it, or there is no such role."""
        rows = self._rows(MEMBERSHIP, role=role)
        if not rows or rows[0][0] == 2:
            return None
        if rows[0][0] == 0:
            return f"GRANT {role} TO {self._account()};"
        if self._connection.server_version >= 160_000:
            return f"GRANT {role} TO {self._account()} WITH INHERIT TRUE;"
        return f"ALTER ROLE {self._account()} INHERIT;"

    def _account(self) -> str:
        raw_name = bytes(self._rows(RAW_NAMES + "SELECT namesend(current_user)")[0][0])
        return sql.Identifier(_decode(raw_name, "utf-8")).as_string(self._connection)

    def _rows(self, statement: str, at_most_seconds: float = math.inf, **values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a statement in which *values* stand by name."""
        rows: list[tuple[Any, ...]] = []

        def run(cursor: psycopg2.extensions.cursor, text: sql.Composable) -> None:
            cursor.execute(text)
            for row in cursor:
                self._meter.count_row(row)
                rows.append(row)

        self._in_transaction(_composed(statement, values), min(self._time.for_statement(), at_most_seconds), run)
        return rows

    def _copy(self, statement: sql.Composable, rows: _CopiedRows) -> None:
        seconds = min(QUICK_SECONDS, self._time.for_statement())
        self._in_transaction(statement, seconds, lambda cursor, text: cursor.copy_expert(text, rows))

    def _in_transaction(
        self,
        statement: sql.Composable,
        seconds: float,
        run: Callable[[psycopg2.extensions.cursor, sql.Composable], None],
    ) -> None:
        """Run *statement* in a read-only transaction. Raises LimitReachedError when *seconds* are over."""
        own_timeout = NO_TRANSACTION_TIMEOUT if self._connection.server_version >= 170_000 else ""
        settings = _composed(own_timeout + SETTINGS, {"timeout": f"{math.ceil(seconds * 1000)}ms"})
        started = time.monotonic()
        with self._connection.cursor() as cursor:
            try:
                # One message is one transaction, of which nothing can remain open.
                if self._connection.server_version >= 110_000:
                    run(cursor, settings + statement)
                    return
                # Before 11, its timeout would begin with the message, which does not know it yet.
                cursor.execute(sql.SQL("BEGIN;") + settings)
                try:
                    run(cursor, statement)
                finally:
                    if not self._connection.closed:
                        cursor.execute("ROLLBACK")
            except psycopg2.errors.QueryCanceled:
                # Earlier, it was the server's administrator.
                if time.monotonic() - started < seconds:
                    raise
                raise LimitReachedError(self._time.limit_reached()) from None
            except psycopg2.OperationalError as error:
                # Why a server ends a connection in which nothing runs, as a standby may after a conflict with recovery,
                # comes as a notice; the driver itself supposes a crash.
                last_words = self._taken_notices()[-1:] if self._connection.closed else []
                if not last_words or error.pgcode is not None:
                    raise
                raise CollectionError(f"the server ended the connection: {last_words[0].strip()}") from None

    def _taken_notices(self) -> list[str]:
        """Return what the server has remarked since this was last asked."""
        notices = list(self._connection.notices)
        self._connection.notices.clear()
        return notices


def _composed(statement: str, values: Mapping[str, object]) -> sql.Composed:
    return sql.SQL(statement).format(**{name: sql.Literal(value) for name, value in values.items()})


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


def connect(target: Target, limits: Limits, cutoff: Cutoff) -> PostgresqlSession:
    """Open a session. Raises psycopg2.Error, OSError or CollectionError."""
    connection = open_connection(target, limits, cutoff)

    def open_other(name: str) -> psycopg2.extensions.connection:
        try:
            return open_connection(replace(target, database=name), limits, cutoff)
        finally:
            cutoff.watch(connection.fileno())

    return PostgresqlSession(connection, limits, open_other)


def distinct_names(raw_names: Iterable[bytes], encoding: str | None) -> list[str]:
    """Return names as text, in their order, no two alike.

    The bytes of a name are in the encoding of the database in which it was given, which nobody knows. They are
    read as the server would read them, in the *encoding* of the database that lists them; then as UTF-8; and what
    is neither shows its bytes.
    """
    raw_names = list(raw_names)
    texts = {raw_name: _decode(raw_name, encoding or "ascii") for raw_name in raw_names}
    taken: dict[str, bytes] = {}
    # Those that are text come first, and keep their names.
    for raw_name in sorted(raw_names, key=lambda raw_name: (not _is_text(raw_name, encoding), raw_name)):
        if taken.setdefault(texts[raw_name], raw_name) != raw_name:
            texts[raw_name] = rf"\x{raw_name.hex()}"
    return [texts[raw_name] for raw_name in raw_names]


def _decode(raw_name: bytes, encoding: str) -> str:
    for candidate in (encoding, "utf-8"):
        if _is_text(raw_name, candidate):
            return raw_name.decode(candidate)
    return raw_name.decode("utf-8", errors="backslashreplace")


def _is_text(raw_name: bytes, encoding: str | None) -> bool:
    try:
        raw_name.decode(encoding or "ascii")
    except UnicodeDecodeError:
        return False
    return True


def _table(row: tuple[Any, ...], encoding: str) -> DatabaseTable:
    raw_schema, raw_name, is_locked, data, index, rows = row
    size = None if data is None or index is None else data + index
    reason = None
    if size is None:
        reason = "it is locked, and its size would wait" if is_locked else "dropped meanwhile"
    return DatabaseTable(
        schema_name=_decode(bytes(raw_schema), encoding),
        name=_decode(bytes(raw_name), encoding),
        engine=None,
        size_bytes=size,
        data_size_bytes=data,
        index_size_bytes=index,
        rows=rows,
        reason=reason,
    )


def _words(error: Exception) -> str:
    """Return what an error says, without where in the statement it happened."""
    primary = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
    return primary or str(error).strip()
