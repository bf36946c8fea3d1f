"""One server: statements that it answers within a limit, each in a transaction of its own that only reads.

The settings of a transaction end with it: behind a pooler the connection belongs to another program a moment later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from psycopg2 import sql

from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.postgresql.names import decode
from whalefall_capacity.collection.sizes import Limits, TimeLeft
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


class LimitReachedError(CollectionError):
    """A statement was ended because its time was up."""


class Writable(Protocol):
    """A file into which rows are copied."""

    def write(self, data: bytes, /) -> object: ...


class Server:
    """An open connection to one PostgreSQL server, in autocommit."""

    def __init__(self, connection: psycopg2.extensions.connection, limits: Limits) -> None:
        self._connection = connection
        self._meter = Meter()
        self._time = TimeLeft(limits)

    @property
    def version(self) -> str:
        return str(self._connection.get_parameter_status("server_version"))

    @property
    def version_number(self) -> int:
        """As the server counts: 160004 for 16.4."""
        return self._connection.server_version

    @property
    def encoding(self) -> str | None:
        """The encoding of the database that is connected to, as Python calls it; None when Python has none such."""
        return psycopg2.extensions.encodings.get(str(self._connection.get_parameter_status("server_encoding")))

    @property
    def is_connected(self) -> bool:
        """Can the server still be asked?"""
        return not self._connection.closed

    def rows(self, statement: str, at_most_seconds: float = math.inf, **values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a statement in which *values* stand by name.

        Raises psycopg2.Error, LimitReachedError, and CollectionError when the connection was ended or too much came.
        """
        rows: list[tuple[Any, ...]] = []

        def run(cursor: psycopg2.extensions.cursor, text: sql.Composable) -> None:
            cursor.execute(text)
            for row in cursor:
                self._meter.count_row(row)
                rows.append(row)

        self._in_transaction(_composed(statement, values), min(self._time.for_statement(), at_most_seconds), run)
        return rows

    def copy(self, statement: str, into: Writable, at_most_seconds: float, **values: object) -> None:
        """Copy the rows of a COPY, in which *values* stand by name, as they come. Raises like `rows`."""
        seconds = min(self._time.for_statement(), at_most_seconds)
        self._in_transaction(_composed(statement, values), seconds, lambda cursor, text: cursor.copy_expert(text, into))

    def account(self) -> str:
        """Return the account as a GRANT names it."""
        raw_name = bytes(self.rows(RAW_NAMES + "SELECT namesend(current_user)")[0][0])
        return sql.Identifier(decode(raw_name, "utf-8")).as_string(self._connection)

    def close(self) -> None:
        self._connection.close()

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
                last_words = self.taken_notices()[-1:] if self._connection.closed else []
                if not last_words or error.pgcode is not None:
                    raise
                raise CollectionError(f"the server ended the connection: {last_words[0].strip()}") from None

    def taken_notices(self) -> list[str]:
        """Return what the server has remarked since this was last asked."""
        notices = list(self._connection.notices)
        self._connection.notices.clear()
        return notices


def _composed(statement: str, values: Mapping[str, object]) -> sql.Composed:
    return sql.SQL(statement).format(**{name: sql.Literal(value) for name, value in values.items()})


def words(error: Exception) -> str:
    """Return what an error says, without where in the statement it happened."""
    primary = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
    return primary or str(error).strip()
