"""MySQL 5.7 and newer, MariaDB 10.6 and newer: sizes of InnoDB files, and of the tables of other engines.

InnoDB's own views tell the true size of each file and need only PROCESS; `information_schema.TABLES` tells an
estimate, and only of tables on which the account has some privilege: of the others it is silent. A database
of which nothing can be seen is therefore missing, never 0, unless the account may see every table.

Names of directories are encoded (`a-b` is `a@002db`): the server encodes the names that it lists, and those
are compared. https://dev.mysql.com/doc/refman/8.4/en/identifier-mapping.html
"""

from __future__ import annotations

import math
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import pymysql
from pymysql.constants import ER
from pymysql.err import OperationalError

from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.mysql_login import logins
from whalefall_capacity.collection.mysql_wire import metered
from whalefall_capacity.collection.sizes import (
    Capability,
    Cutoff,
    DatabaseSize,
    Findings,
    Limits,
    NameFilter,
    Target,
    Tls,
)
from whalefall_capacity.errors import CollectionError

T = TypeVar("T")

SYSTEM_DATABASES = frozenset({"information_schema", "performance_schema", "mysql", "sys", "#mysql50#lost+found"})
LIST_DATABASES = """
SELECT CAST(SCHEMA_NAME AS BINARY), CAST(CONVERT(SCHEMA_NAME USING filename) AS BINARY)
FROM information_schema.SCHEMATA
WHERE SCHEMA_NAME NOT LIKE '#sql%'
ORDER BY SCHEMA_NAME
"""
# Grouped as bytes: the collation of names would throw `Sales` and `sales` together.
# A page-compressed file allocates less than its length; a file just made may not have been allocated yet.
FILE_SIZES = """
SELECT CAST(SUBSTRING_INDEX(NAME, '/', 1) AS BINARY) AS directory,
       SUM(IF(ALLOCATED_SIZE > 0, LEAST(FILE_SIZE, ALLOCATED_SIZE), FILE_SIZE))
FROM information_schema.{prefix}TABLESPACES
WHERE NAME LIKE '%/%'
GROUP BY directory
"""
# MariaDB opens a table's file when the table is first used (since MDEV-32027), and lists only files that are open:
# after a restart most would be missing. Reading this view opens every one.
OPEN_FILES = "SELECT COUNT(*) FROM information_schema.INNODB_SYS_TABLESTATS"
# Tables without a file of their own (innodb_file_per_table = OFF, general tablespaces). NULL as long as the
# statistics of one of them are not loaded: they would read 0.
SHARED_SIZES = """
SELECT CAST(SUBSTRING_INDEX(t.NAME, '/', 1) AS BINARY) AS directory,
       CASE WHEN MIN(CAST(s.STATS_INITIALIZED AS CHAR) IN ('1', 'Initialized'))
            THEN SUM(s.CLUST_INDEX_SIZE + s.OTHER_INDEX_SIZE) * @@innodb_page_size END
FROM information_schema.{prefix}TABLES AS t
JOIN information_schema.{prefix}TABLESTATS AS s ON s.TABLE_ID = t.TABLE_ID
WHERE t.SPACE_TYPE <> 'Single' AND t.NAME LIKE '%/%'
GROUP BY directory
"""
# Without the lengths: to tell those, the server opens every table.
VISIBLE_ENGINES = """
SELECT CAST(TABLE_SCHEMA AS BINARY) AS name, MAX(ENGINE <> 'InnoDB')
FROM information_schema.TABLES
WHERE ENGINE IS NOT NULL
GROUP BY name
"""
# A MERGE table tells the lengths of the tables that it joins, a MEMORY table tells what it takes of the memory.
TABLE_SIZES = """
SELECT CAST(TABLE_SCHEMA AS BINARY) AS name, SUM(COALESCE(DATA_LENGTH, 0) + COALESCE(INDEX_LENGTH, 0))
FROM information_schema.TABLES
WHERE ENGINE NOT IN ('MRG_MyISAM', 'MEMORY') AND (ENGINE <> 'InnoDB' OR %s)
GROUP BY name
"""
# Any of them shows every table in information_schema.TABLES; SHOW VIEW lets the account read no data.
TABLE_PRIVILEGES = frozenset({"ALL PRIVILEGES", "SELECT", "SHOW VIEW"})
NOT_VISIBLE = "the account cannot see its tables; `fleet check` prints the GRANT that is missing"


@dataclass(frozen=True)
class InnodbSizes:
    """Sizes by database: of the files of its tables, and of its tables without a file (None where not known)."""

    files: Mapping[bytes, int]
    shared: Mapping[bytes, int | None]


class MysqlSession:
    """An open connection to one MySQL or MariaDB server, in autocommit, read-only."""

    def __init__(self, connection: pymysql.Connection[Any], limits: Limits) -> None:
        self._connection = connection
        self._version = str(self._rows("SELECT VERSION()")[0][0])
        milliseconds = math.ceil(limits.statement_timeout_seconds * 1000)
        self._rows("SET SESSION TRANSACTION READ ONLY")
        if self._is_mariadb:
            self._rows(f"SET SESSION max_statement_time = {milliseconds / 1000}")
        else:
            self._rows(f"SET SESSION max_execution_time = {milliseconds}")
        if self._has_dictionary:
            self._rows("SET SESSION information_schema_stats_expiry = 0")

    @property
    def version(self) -> str:
        return self._version

    def measure(self, excluded: NameFilter, findings: Findings) -> None:
        directories = self._list(excluded)
        if not directories and not self._sees_every_database(self._global_privileges()):
            raise CollectionError(f"the account sees no database at all; run {self._grant('SHOW DATABASES')}")
        findings.listed(self._version, directories)
        sizes = self._sizes(directories)
        databases = tuple(
            DatabaseSize(name, size) if size is not None else DatabaseSize(name, None, NOT_VISIBLE)
            for name, size in sizes.items()
        )
        if any(database.size_bytes == 0 for database in databases):
            databases = self._without_dropped(databases, excluded)
        for database in databases:
            if database.size_bytes is None:
                findings.missing(database.name, database.reason or NOT_VISIBLE)
            else:
                findings.measured(database.name, database.size_bytes)
        logs = self._if_allowed(self._binary_logs)
        findings.logs(sum(logs) if logs else None)

    def capabilities(self, excluded: NameFilter) -> list[Capability]:
        privileges = self._global_privileges()
        sizes = self._sizes(self._list(excluded))
        unseen = [name for name, size in sizes.items() if size is None]
        all_tables = bool(privileges & TABLE_PRIVILEGES)
        all_databases = self._sees_every_database(privileges)
        files = self._if_allowed(self._innodb_sizes) is not None
        logs = self._if_allowed(self._binary_logs) is not None
        return [
            Capability(
                "list of databases",
                all_databases,
                required=True,
                detail="every database" if all_databases else "only those on which the account has a privilege",
                grant=None if all_databases else self._grant("SHOW DATABASES"),
            ),
            Capability(
                "database sizes",
                not unseen,
                required=True,
                detail=f"{len(sizes) - len(unseen)} of {len(sizes)} databases"
                + (f"; not: {', '.join(unseen[:10])}" if unseen else ""),
                grant=self._grant("SHOW VIEW") if unseen else None,
            ),
            Capability(
                "InnoDB files",
                files,
                required=False,
                detail="sizes of the files" if files else "estimates of information_schema.TABLES instead",
                grant=None if files else self._grant("PROCESS"),
            ),
            Capability(
                "tables of other engines",
                all_tables,
                required=False,
                detail="every table" if all_tables else "only tables on which the account has a privilege",
                grant=None if all_tables else self._grant("SHOW VIEW"),
            ),
            Capability(
                "binary log size",
                logs,
                required=False,
                detail="SHOW BINARY LOGS",
                grant=None if logs else self._grant("BINLOG MONITOR" if self._is_mariadb else "REPLICATION CLIENT"),
            ),
        ]

    def close(self) -> None:
        with suppress(pymysql.Error):
            self._connection.close()

    @property
    def _is_mariadb(self) -> bool:
        return "mariadb" in self._version.lower()

    @property
    def _has_dictionary(self) -> bool:
        """Is this MySQL 8 or newer, with its own data dictionary and other names of the InnoDB views?"""
        return not self._is_mariadb and int(self._version.split(".")[0]) >= 8

    def _list(self, excluded: NameFilter) -> dict[str, bytes]:
        """Return the databases to measure, each with the name of its directory."""
        listed = {name.decode("utf-8", "backslashreplace"): directory for name, directory in self._rows(LIST_DATABASES)}
        return {
            name: directory
            for name, directory in listed.items()
            if name.lower() not in SYSTEM_DATABASES and not excluded.excludes(name)
        }

    def _sizes(self, directories: Mapping[str, bytes]) -> dict[str, int | None]:
        """Return the size of each database; None where it is not known."""
        files = self._if_allowed(self._innodb_sizes)
        other_engines = dict(self._rows(VISIBLE_ENGINES))
        if files is None:
            tables = dict(self._rows(TABLE_SIZES, (True,)))
        else:
            tables = dict(self._rows(TABLE_SIZES, (False,))) if any(other_engines.values()) else {}
        sees_all_tables = bool(self._global_privileges() & TABLE_PRIVILEGES)
        sizes: dict[str, int | None] = {}
        for name, directory in directories.items():
            raw_name = name.encode()
            parts = [] if files is None else self._files_of(files, raw_name, directory)
            if raw_name in other_engines or sees_all_tables:
                parts.append(tables.get(raw_name, 0))
            sizes[name] = _sum(parts) if parts else None
        return sizes

    def _files_of(self, innodb: InnodbSizes, name: bytes, directory: bytes) -> list[int | None]:
        # Names such as `con`, which Windows reserves, get a suffix. A directory with an unencoded name is `#mysql50#…`.
        unencoded = name.startswith(b"#mysql50#")
        encoded = {name.removeprefix(b"#mysql50#")} if unencoded else {directory, directory + b"@@@"}
        # The data dictionary keeps names of tablespaces as they are, older versions keep names of files.
        own = {name} if self._has_dictionary and name in innodb.files else encoded
        return [innodb.files[key] for key in own & innodb.files.keys()] + [
            innodb.shared[key] for key in encoded & innodb.shared.keys()
        ]

    def _innodb_sizes(self) -> InnodbSizes:
        """Return what InnoDB keeps for each database; needs the PROCESS privilege."""
        prefix = "INNODB_" if self._has_dictionary else "INNODB_SYS_"
        if self._is_mariadb:
            self._rows(OPEN_FILES)
        shared = dict(self._rows(SHARED_SIZES.format(prefix=prefix)))
        if None in shared.values():
            # Telling the lengths loads the statistics, of the tables that the account may see.
            self._rows(TABLE_SIZES, (True,))
            shared = dict(self._rows(SHARED_SIZES.format(prefix=prefix)))
        return InnodbSizes(dict(self._rows(FILE_SIZES.format(prefix=prefix))), shared)

    def _without_dropped(self, databases: tuple[DatabaseSize, ...], excluded: NameFilter) -> tuple[DatabaseSize, ...]:
        """Mark as missing what measured 0 because it was dropped after it was listed."""
        still_there = self._list(excluded)
        return tuple(
            database
            if database.size_bytes != 0 or database.name in still_there
            else DatabaseSize(database.name, None, "dropped during the visit")
            for database in databases
        )

    def _binary_logs(self) -> list[int]:
        """Return the sizes of the binary logs; none when the server keeps none."""
        try:
            return [int(row[1]) for row in self._rows("SHOW BINARY LOGS")]
        except OperationalError as error:
            if error.args[0] == ER.NO_BINARY_LOGGING:
                return []
            raise

    def _if_allowed(self, ask: Callable[[], T]) -> T | None:
        """Return what *ask* returns, or None when the account has not the privilege for it."""
        try:
            return ask()
        except OperationalError as error:
            if error.args[0] == ER.SPECIFIC_ACCESS_DENIED_ERROR:
                return None
            raise

    def _sees_every_database(self, privileges: frozenset[str]) -> bool:
        return bool(privileges & (TABLE_PRIVILEGES | {"SHOW DATABASES"}))

    def _global_privileges(self) -> frozenset[str]:
        grants = (re.match(r"GRANT (.+?) ON \*\.\* TO ", str(row[0])) for row in self._rows("SHOW GRANTS"))
        return frozenset(privilege for grant in grants if grant for privilege in grant[1].split(", "))

    def _grant(self, privilege: str) -> str:
        user, _, host = str(self._rows("SELECT CURRENT_USER()")[0][0]).rpartition("@")
        return f"GRANT {privilege} ON *.* TO {self._connection.escape(user)}@{self._connection.escape(host)};"

    def _rows(self, statement: str, parameters: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall())


def connect(target: Target, limits: Limits, cutoff: Cutoff) -> MysqlSession:
    """Open a read-only session. Raises pymysql.Error or OSError."""
    local = target.is_local
    meter = Meter()
    opened = metered(socket.socket, meter)(fileno=_open_socket(target, limits.connect_timeout_seconds).detach())
    opened.settimeout(limits.connect_timeout_seconds)
    cutoff.watch(opened.fileno())
    try:
        _await_greeting(opened, limits.connect_timeout_seconds)
        connection = pymysql.connect(
            host=target.host,
            user=target.username,
            # As bytes: the driver would encode text as Latin-1.
            password=target.password.get_secret_value().encode(),
            database=target.database,
            charset="utf8mb4",
            # The server ends a statement that takes too long; this is for a server that no longer answers.
            read_timeout=limits.statement_timeout_seconds + 1,
            write_timeout=limits.statement_timeout_seconds + 1,
            autocommit=True,
            program_name="whalefall_capacity",
            ssl_disabled=local or target.tls.mode == "disable",
            ssl=None if local else _ssl_context(target.tls),
            auth_plugin_map=logins(target),
            defer_connect=True,
        )
        if connection.ssl:
            connection.ctx.sslsocket_class = metered(ssl.SSLSocket, meter)  # type: ignore[attr-defined]
        connection.connect(opened)
        return MysqlSession(connection, limits)
    except BaseException:
        opened.close()
        raise


def _sum(sizes: Iterable[int | None]) -> int | None:
    """Return the sum of *sizes*, None when one of them is not known."""
    total = 0
    for size in sizes:
        if size is None:
            return None
        total += int(size)
    return total


def _open_socket(target: Target, timeout_seconds: float) -> socket.socket:
    if not target.is_local:
        opened = socket.create_connection((target.host, target.port), timeout_seconds)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.settimeout(timeout_seconds)
    try:
        opened.connect(target.host)
    except OSError:
        opened.close()
        raise
    return opened


def _await_greeting(opened: socket.socket, timeout_seconds: float) -> None:
    """Wait for the first byte, which is the server's to send; the driver itself would wait for ever."""
    try:
        opened.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        raise TimeoutError(
            f"the server accepted the connection and sent no greeting within {timeout_seconds:g} s"
        ) from None


def _ssl_context(tls: Tls) -> ssl.SSLContext | None:
    """Return the context for libpq's *mode*; None leaves it to the driver, which then prefers TLS."""
    if tls.mode in {"disable", "prefer"}:
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:
        files = ", ".join(file for file in (tls.ca_file, tls.cert_file, tls.key_file) if file)
        raise CollectionError(f"cannot use the TLS files {files}: {error}") from None
    # The authorities that MySQL makes for itself do not meet what Python 3.13 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = tls.mode == "verify-full"
    if tls.mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context
