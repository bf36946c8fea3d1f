"""One server: what it is, and statements that it answers within a limit, in a transaction that only reads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
from pymysql.constants import ER
from pymysql.cursors import Cursor

from whalefall_capacity.collection.mysql.connection import PlainConnection
from whalefall_capacity.collection.sizes import TimeLeft
from whalefall_capacity.errors import CollectionError

Row = tuple[Any, ...]

# An old server, or one with an init_connect, may answer in another character set than the client asked for.
IN_UTF8 = "character_set_results = utf8mb4"
# The first comment is a part of the statement for MariaDB alone, which may be told to show the version of a MySQL; the
# second for MySQL 8.0.16 and newer, which have the variable. As bytes, for it is not known yet how to ask for another
# character set. https://mariadb.com/docs/server/reference/sql-statements/comment-syntax
VERSION = """
SELECT CAST(VERSION() AS BINARY), CAST(@@lower_case_table_names AS BINARY), CAST(0 /*M! + 1 */ AS BINARY),
       CAST(0 /*!80016 + @@partial_revokes */ AS BINARY), CAST(@@max_allowed_packet AS BINARY)
"""
# More rows than there can be, instead of the session's sql_select_limit, which cuts answers short without a word.
ALL_ROWS = 2**64 - 1
OLDEST_MYSQL = (5, 7)
OLDEST_MARIADB = (10, 6)
TIMED_OUT = {ER.QUERY_TIMEOUT, ER.STATEMENT_TIMEOUT}
# How long a statement waits for the lock on a table, where it could do without that table.
LOCK_WAIT_SECONDS = 3
LOCKED = "a table stayed locked; `Waiting for table metadata lock` in SHOW PROCESSLIST leads to its holder"
# Of one of its users, or a statement, a database, a table, a column, a function.
DENIED = {1044, 1045, 1142, 1143, 1227, 1370}


class Server:
    """An open connection to one MySQL or MariaDB server.

    Nothing is set in the session, which a proxy may hand to somebody else: a limit belongs to its statement, and each
    statement to a transaction that only reads. They share one, for to begin it takes a round trip: but for what reads
    MySQL's dictionary, which one for all would show as it was at first, and for what comes after an error.
    """

    def __init__(self, connection: PlainConnection, time_left: TimeLeft) -> None:
        self._connection = connection
        self._time_left = time_left
        self._has_begun = False
        self._has_read_dictionary = False
        self.is_mariadb = False
        self.version = ""
        ((version, case_rule, by_comment, partial_revokes, longest_statement),) = self.rows(VERSION)
        self.version = text(version)
        self.is_mariadb = "mariadb" in self.version.lower() or bool(int(by_comment))
        # A file system that does not care for the case of names: there InnoDB keeps them in small letters.
        self.folds_case = int(case_rule) == 2
        # https://dev.mysql.com/doc/refman/8.4/en/partial-revokes.html
        self.grants_take_wildcards = not int(partial_revokes)
        # To a longer one, the server's answer is to close the connection.
        self.longest_statement_bytes = int(longest_statement)
        self._refuse_older()

    @property
    def has_dictionary(self) -> bool:
        """Is this MySQL 8 or newer, with its own data dictionary and other names of the InnoDB views?"""
        return not self.is_mariadb and self._numbers >= (8, 0)

    @property
    def is_connected(self) -> bool:
        """Can the server still be asked?"""
        return self._connection.open

    def rows(self, statement: str, parameters: tuple[Any, ...] = (), waits_for_locks: bool = True) -> list[Row]:
        """Run a statement, which begins with SELECT or SHOW when the server is to limit its time.

        One that does not wait for locks goes on without a locked table after LOCK_WAIT_SECONDS (MariaDB), or fails.
        """
        limited = self._limited(statement, waits_for_locks)
        with self._connection.cursor() as cursor, self._dropped_when_useless():
            if not self._has_begun:
                self._begin(cursor)
            self._has_begun = False
            cursor.execute(limited, parameters or None)
            found = list(self._counted(cursor))
            self._has_begun = True
            return found

    def current_rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Row]:
        """Run a statement that waits for no lock like `rows`, and see what MySQL's dictionary holds now."""
        if self._has_read_dictionary:
            self._has_begun = False
        self._has_read_dictionary = self.has_dictionary
        return self.rows(statement, parameters, waits_for_locks=False)

    def _begin(self, cursor: Cursor) -> None:
        """Begin a transaction, which ends the one before."""
        cursor.execute("START TRANSACTION READ ONLY")
        if cursor.description is not None:
            raise CollectionError("the server answered with rows to a statement that has none")

    def warnings(self) -> frozenset[str]:
        """Return the texts of the warnings of the last statement."""
        with self._connection.cursor() as cursor, self._dropped_when_useless():
            cursor.execute("SHOW WARNINGS")
            return frozenset(text(row[2]) for row in self._counted(cursor))

    def _counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self._connection.meter.count_row(row)
            yield row

    @contextmanager
    def _dropped_when_useless(self) -> Iterator[None]:
        try:
            yield
        except CollectionError:
            self._connection.drop()
            raise
        except pymysql.OperationalError as error:
            # The driver's limit, which is later than that of the statement: the server is gone, stuck in its files, or
            # has no limit for such a statement, as MySQL for SHOW.
            if not isinstance(error.__context__, TimeoutError):
                raise
            self._connection.drop()
            reached = self._time_left.limit_reached()
            raise CollectionError(f"the server neither answered nor ended a statement that {reached}") from None

    def explain(self, error: pymysql.Error) -> str:
        """Return an error of a statement in words."""
        if is_timed_out(error):
            return self._time_left.limit_reached()
        if error.args and error.args[0] == ER.LOCK_WAIT_TIMEOUT:
            return LOCKED
        return " ".join(str(part) for part in error.args)

    def account(self) -> str:
        """Return the account as a GRANT names it."""
        user, _, host = text(self.rows("SELECT CAST(CURRENT_USER() AS BINARY)")[0][0]).rpartition("@")
        return f"{self._connection.escape(user)}@{self._connection.escape(host)}"

    def close(self) -> None:
        """Leave, and leave nothing behind."""
        with suppress(pymysql.Error):
            if self.is_connected:
                # Waited for: a server that finds nobody left to answer notes a connection that was cut off.
                self._connection.rollback()
            self._connection.close()

    @property
    def _numbers(self) -> tuple[int, int]:
        found = re.search(r"(\d+)\.(\d+)\.\d+-mariadb", self.version.lower()) or re.match(r"(\d+)\.(\d+)", self.version)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def _refuse_older(self) -> None:
        # MariaDB that shows the version of a MySQL does not say how old it is.
        disguised = self.is_mariadb and "mariadb" not in self.version.lower()
        product, oldest = ("MariaDB", OLDEST_MARIADB) if self.is_mariadb else ("MySQL", OLDEST_MYSQL)
        if self._numbers < oldest and not (disguised and self._numbers >= OLDEST_MYSQL):
            raise CollectionError(
                f"this is {product} {self.version}; the oldest version whose sizes can be measured is "
                f"{product} {oldest[0]}.{oldest[1]}: upgrade the server, or let it be inactive in the fleet file"
            )

    def _limited(self, statement: str, waits_for_locks: bool) -> str:
        seconds = self._time_left.for_statement()
        statement = statement.strip()
        if self.is_mariadb and statement.startswith(("SELECT", "SHOW")):
            # The server counts microseconds, and 0 is no limit.
            lock_limit = "" if waits_for_locks else f"lock_wait_timeout = {LOCK_WAIT_SECONDS}, "
            return (
                f"SET STATEMENT {IN_UTF8}, {lock_limit}sql_select_limit = {ALL_ROWS}, sql_big_selects = 1, "
                f"max_statement_time = {max(seconds, 0.001):.3f} FOR {statement}"
            )
        if not statement.startswith("SELECT"):
            return statement
        limit = f"MAX_EXECUTION_TIME({math.ceil(seconds * 1000)})"
        if self.has_dictionary:
            hints = f"{limit} SET_VAR(sql_select_limit = {ALL_ROWS}) SET_VAR(sql_big_selects = 1)"
            if not waits_for_locks:
                hints += f" SET_VAR(lock_wait_timeout = {LOCK_WAIT_SECONDS})"
            return statement.replace("SELECT", f"SELECT /*+ {hints} */", 1)
        # An older server knows no other hint.
        return statement.replace("SELECT", f"SELECT /*+ {limit} */", 1) + f" LIMIT {ALL_ROWS}"


def is_timed_out(error: pymysql.Error) -> bool:
    """Is this what a server says when it has ended a statement because its time was up?"""
    return bool(error.args) and error.args[0] in TIMED_OUT


def is_denied(error: pymysql.Error) -> bool:
    """Is this what a server says when a privilege is missing?"""
    return bool(error.args) and error.args[0] in DENIED


def text(raw: bytes) -> str:
    """Return a text of the server, of which some bytes may be text in no character set or in another one."""
    return raw.decode("utf-8", "backslashreplace")
