"""The database of WhaleFall, read and never written: one connection, one read-only snapshot from first row to last.

The snapshot makes the tables agree with each other while WhaleFall goes on collecting. What bounds the session is set
for its transaction alone, so that a pooler hands nothing of it to the next client.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, BinaryIO

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from pydantic import SecretStr
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError

from whalefall_capacity.errors import MigrationError, MigrationStoppedError, StoreError
from whalefall_capacity.libpq import forget_environment
from whalefall_capacity.printable import printable
from whalefall_capacity.store.moving_in.whalefall_tables import REQUIRED, TablesAndColumns
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.postgres.engine import APPLICATION_NAME

CONNECT_TIMEOUT_SECONDS = 10
# One COPY of a month waits for the store to take its rows; the session is idle while the store merges them. Where the
# tables were never analyzed, a nested loop would look through all instances for each row.
BOUNDS = """
SET LOCAL statement_timeout = '30min';
SET LOCAL lock_timeout = '10s';
SET LOCAL idle_in_transaction_session_timeout = '30min';
SET LOCAL enable_nestloop = off;
SET LOCAL jit = off
"""
PIPE_BUFFER_BYTES = 1 << 20
LONGEST_ERROR = 500
# The columns of each table that this session finds under its bare name.
COLUMNS = """
SELECT wanted.name, array_agg(attname::text) FILTER (WHERE attname IS NOT NULL)
FROM unnest(%(names)s) AS wanted (name)
LEFT JOIN pg_attribute ON attrelid = to_regclass(quote_ident(wanted.name)) AND attnum > 0 AND NOT attisdropped
GROUP BY wanted.name
"""
CREDENTIALS = """
SELECT id, name, credential_type, username, password, description, is_active, deleted_at FROM credentials ORDER BY name
"""
INSTANCES = """
SELECT id, name, db_type, host, port, nullif(database_name, '') AS database_name,
       coalesce(nullif(detailed_version, ''), nullif(main_version, ''), nullif(database_version, '')) AS version,
       description, is_active, last_connected, deleted_at, credential_id
FROM instances ORDER BY name
"""
ALERT_LIMITS = """
SELECT global_enabled AND database_capacity_enabled AS is_enabled, recipients_json AS recipients,
       database_capacity_percent_threshold AS percent, database_capacity_absolute_gb_threshold AS gigabytes
FROM email_alert_settings ORDER BY id LIMIT 1
"""
USERS = "SELECT username, role FROM users WHERE is_active ORDER BY username"
SPAN = """
SELECT min(first), max(last) FROM (
    SELECT min(collected_date) AS first, max(collected_date) AS last FROM database_size_stats
    UNION ALL
    SELECT min(collected_date), max(collected_date) FROM instance_size_stats) AS both_levels
"""
NAMES_AS_BYTES = """
SELECT 'database', convert_to(database_name, 'SQL_ASCII') FROM (
    SELECT database_name FROM instance_databases UNION SELECT DISTINCT database_name FROM database_size_stats) AS names
UNION ALL SELECT 'instance', convert_to(name, 'SQL_ASCII') FROM instances
UNION ALL SELECT 'credential', convert_to(name, 'SQL_ASCII') FROM credentials
"""


@dataclass(frozen=True)
class SourceCredential:
    """A credential of WhaleFall; *password* is a Fernet token in standard base64."""

    id: int
    name: str
    credential_type: str
    username: str
    password: SecretStr
    description: str | None
    is_active: bool
    deleted_at: datetime | None


@dataclass(frozen=True)
class SourceInstance:
    """An instance of WhaleFall."""

    id: int
    name: str
    db_type: str
    host: str
    port: int
    database_name: str | None
    version: str | None
    description: str | None
    is_active: bool
    last_connected: datetime | None
    deleted_at: datetime | None
    credential_id: int | None


@dataclass(frozen=True)
class AlertLimits:
    """The limits beyond which WhaleFall mails about a database, and whom."""

    is_enabled: bool
    recipients: Sequence[str]
    percent: int
    gigabytes: int


@dataclass(frozen=True)
class SourceUser:
    """Somebody who logs in to WhaleFall."""

    username: str
    role: str


@dataclass(frozen=True)
class Source:
    """An open snapshot of WhaleFall's database."""

    connection: psycopg2.extensions.connection

    def has(self, tables: TablesAndColumns) -> bool:
        """Tell whether all of *tables* are there, with their columns."""
        return not self._missing(tables)

    def require(self, tables: TablesAndColumns) -> None:
        """Raise MigrationError that names what is missing of *tables*."""
        if missing := self._missing(tables):
            raise MigrationError(
                f"the database is not WhaleFall's: {', '.join(missing)} missing; give the URL of the database that "
                "WhaleFall writes to, with the schema in its search_path"
            )

    def credentials(self) -> list[SourceCredential]:
        return [
            SourceCredential(**row | {"password": SecretStr(row["password"] or "")}) for row in self.rows(CREDENTIALS)
        ]

    def instances(self) -> list[SourceInstance]:
        return [SourceInstance(**row) for row in self.rows(INSTANCES)]

    def users(self) -> list[SourceUser]:
        return [SourceUser(**row) for row in self.rows(USERS)]

    def alert_limits(self) -> AlertLimits | None:
        """Return the limits of alerts; None when nobody has set any."""
        return next((AlertLimits(**row) for row in self.rows(ALERT_LIMITS)), None)

    def days(self) -> tuple[date, date] | None:
        """Return the first and the last day of which it has a size; None when it has none."""
        with self.connection.cursor() as cursor:
            cursor.execute(SPAN)
            ((first, last),) = cursor.fetchall()
        return None if first is None else (first, last)

    def rows(self, query: str | sql.Composable, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of *query* by the names of their columns."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, values)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def copy_into(self, connection: Connection, query: sql.Composable, table: str) -> None:
        """COPY the rows of *query* into *table* of the store, in the transaction of *connection*.

        They flow through a pipe, read and written at once and never held: the memory that it takes does not depend on
        their number.
        """
        out = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)
        into = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(sql.Identifier(table))
        with raw_cursor(connection) as cursor, self._flowing(out) as stream:
            try:
                cursor.copy_expert(into, stream, size=PIPE_BUFFER_BYTES)
            except psycopg2.Error as error:
                raise StoreError(f"the store does not take the rows of WhaleFall: {_one_line(error)}") from None

    @contextmanager
    def _flowing(self, statement: sql.Composable) -> Iterator[BinaryIO]:
        """Yield what a COPY writes while it writes; its error, when it has one, is raised at the end."""
        reading, writing = os.pipe()
        errors: list[psycopg2.Error] = []

        def pump() -> None:
            # The reader may have gone: then it has an error of its own to tell.
            try:
                with os.fdopen(writing, "wb", buffering=PIPE_BUFFER_BYTES) as sink, self.connection.cursor() as cursor:
                    cursor.copy_expert(statement, sink)
            except BrokenPipeError:
                pass
            except psycopg2.Error as error:
                errors.append(error)

        thread = threading.Thread(target=pump, name="copy-out", daemon=True)
        thread.start()
        try:
            with os.fdopen(reading, "rb", buffering=PIPE_BUFFER_BYTES) as stream:
                yield stream
        except StoreError:
            # Where both have one, the error of the side that sends is the cause.
            thread.join()
            if errors:
                raise errors[0] from None
            raise
        thread.join()
        if errors:
            raise errors[0]

    def _missing(self, tables: TablesAndColumns) -> list[str]:
        with self.connection.cursor() as cursor:
            cursor.execute(COLUMNS, {"names": list(tables)})
            found = {name: set(columns or ()) for name, columns in cursor}
        return [
            f"table {table}" if not found[table] else f"column {table}.{column}"
            for table, columns in tables.items()
            for column in (columns if found[table] else columns[:1])
            if column not in found[table]
        ]


@contextmanager
def open_source(url: SecretStr) -> Iterator[Source]:
    """Yield a snapshot of WhaleFall's database. Its errors never have the password.

    Raises MigrationError for what cannot be moved, MigrationStoppedError when the connection is lost.
    """
    try:
        with closing(_connect(url)) as connection:
            source = Source(connection)
            with connection.cursor() as cursor:
                cursor.execute(BOUNDS)
            source.require(REQUIRED)
            _refuse_unreadable_names(source)
            yield source
    except psycopg2.Error as error:
        raise MigrationStoppedError(
            f"WhaleFall's database: {_one_line(error)}; what was committed before stays, and the same command goes on "
            "from there"
        ) from None


def _connect(url: SecretStr) -> psycopg2.extensions.connection:
    try:
        parts = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        parts = None
    if parts is None or parts.get_backend_name() not in ("postgresql", "postgres"):
        raise MigrationError("the URL of WhaleFall's database must be like postgresql://user@host:5432/whalefall")
    forget_environment()
    address = parts.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection: psycopg2.extensions.connection = psycopg2.connect(
            address,
            application_name=APPLICATION_NAME,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            client_encoding="UTF8",
        )
    except psycopg2.Error as error:
        raise MigrationError(f"WhaleFall's database cannot be reached: {_one_line(error)}") from None
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    return connection


def _refuse_unreadable_names(source: Source) -> None:
    """Raise MigrationError for names that are not UTF-8: only a database of the encoding SQL_ASCII may have any."""
    if source.connection.get_parameter_status("server_encoding") != "SQL_ASCII":
        return
    with source.connection.cursor() as cursor:
        cursor.execute(NAMES_AS_BYTES)
        unreadable = [f"{kind} {bytes(name)!r}" for kind, name in cursor if not _is_utf8(bytes(name))]
    if unreadable:
        raise MigrationError([f"{name}: the name is not UTF-8 and cannot be kept" for name in unreadable])


def _one_line(error: psycopg2.Error) -> str:
    return printable(" ".join(str(error).split()), LONGEST_ERROR)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
