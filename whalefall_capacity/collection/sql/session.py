"""A session with a server of which only an engine file is known.

Every query is a transaction of its own: the file's settings, the query, a rollback. So each gets what is left of the
time, and an error leaves the next one a clean start. SQLAlchemy finds the driver, and says of an error whether the
connection is lost; nothing is pooled.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import CursorResult
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from whalefall_capacity.collection.answers import words_of
from whalefall_capacity.collection.database_tables import DatabaseTables, largest_first
from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.sizes import Capability, Cutoff, Findings, Limits, NameFilter, Target, TimeLeft
from whalefall_capacity.collection.sql.engine_file import EngineFile, Grant, filled_in, read_engine_file
from whalefall_capacity.collection.sql.rows import Answer, BadValueError, DatabaseRow, databases_of, size_of, tables_of
from whalefall_capacity.errors import CollectionError, EngineFileError
from whalefall_capacity.libpq import forget_environment
from whalefall_capacity.printable import first_of

ROWS_AT_ONCE = 1000
# PEP 249: threads may share connections.
SHARED_CONNECTIONS = 2
PROBLEMS_NAMED = 3


class SqlSession:
    """An open connection to one server."""

    def __init__(self, engine: EngineFile, path: Path, target: Target, limits: Limits, cutoff: Cutoff) -> None:
        """Connect. Raises CollectionError or EngineFileError."""
        self._engine = engine
        self._path = path
        self._target = target
        self._time = TimeLeft(limits)
        self._meter = Meter()
        self._cutoff = cutoff
        self._alchemy = _alchemy_of(engine, lambda: self._open(limits))
        try:
            # Without parameters nothing in a statement stands for one.
            self._connection = self._alchemy.connect().execution_options(no_parameters=True)
            self.version = str(self._ask("queries.version", engine.queries.version).single()).strip()
        except SQLAlchemyError as error:
            self.close()
            raise CollectionError(_words(error)) from None
        except BaseException:
            self.close()
            raise

    def measure(self, excluded: NameFilter, findings: Findings) -> None:
        self._measure_databases(excluded, findings)
        # What is optional costs no size.
        with suppress(CollectionError):
            findings.logs(self._log_size())

    def capabilities(self, excluded: NameFilter) -> list[Capability]:
        found = [self._sizes(excluded)]
        if self._engine.queries.logs is not None:
            found.append(self._logs())
        return found + [self._granted(grant) for grant in self._engine.grants]

    def tables(self, database: str) -> DatabaseTables:  # noqa: ARG002 - it is the one that is connected to
        if self._engine.queries.tables is None:
            raise CollectionError(f"engine {self._engine.name} has no query for tables ({self._path}: queries.tables)")
        return largest_first(tables_of(self._ask("queries.tables", self._engine.queries.tables)))

    def close(self) -> None:
        # The server, or whoever cut the connection, may have ended it.
        with suppress(Exception):
            if hasattr(self, "_connection"):
                self._connection.close()
        self._alchemy.dispose()

    def _open(self, limits: Limits) -> Any:
        """Open the driver's own connection, and let the cutoff end it."""
        # Where the driver is libpq.
        forget_environment()
        waits = (limits.connect_timeout_seconds, self._time.for_statement())
        driver: Any = self._alchemy.dialect.dbapi
        arguments = self._engine.connect_arguments(self._target, *waits)
        try:
            connection = driver.connect(**arguments)
        except TypeError as error:
            raise EngineFileError(f"{self._path}: connection.arguments: {error}") from None
        _watch(connection, getattr(driver, "threadsafety", 0), self._cutoff)
        for name, value in self._engine.attributes(self._target, *waits).items():
            setattr(connection, name, value)
        return connection

    def _measure_databases(self, excluded: NameFilter, findings: Findings) -> list[DatabaseRow]:
        answer = self._ask("queries.databases", self._engine.queries.databases)
        left_out = self._engine.excluded.excludes
        rows = [
            row for row in databases_of(answer) if not excluded.excludes(row.size.name) and not left_out(row.size.name)
        ]
        findings.listed(self.version, [row.size.name for row in rows])
        for row in rows:
            findings.found(row.size)
        return rows

    def _log_size(self) -> int | None:
        if self._engine.queries.logs is None:
            return None
        answer = self._ask("queries.logs", self._engine.queries.logs)
        try:
            return size_of(answer.single())
        except BadValueError as error:
            raise CollectionError(f"{answer.query}: {error}") from None

    def _sizes(self, excluded: NameFilter) -> Capability:
        try:
            rows = self._measure_databases(excluded, Findings())
        except CollectionError as error:
            if self._connection.invalidated:
                raise
            # The probes may tell why.
            return Capability("database sizes", False, required=True, detail=str(error))
        missing = {row.size.name: row.size.reason for row in rows if row.size.size_bytes is None}
        if not missing and (problems := [problem for row in rows for problem in row.problems]):
            detail = f"{len(rows)} of {len(rows)} databases; left out: {first_of(problems, PROBLEMS_NAMED)}"
            return Capability("database sizes", True, required=True, detail=detail)
        return Capability.of_sizes(len(rows), missing, None)

    def _logs(self) -> Capability:
        try:
            size_bytes = self._log_size()
        except CollectionError as error:
            if self._connection.invalidated:
                raise
            return Capability("log size", False, required=False, detail=str(error))
        return Capability("log size", size_bytes is not None, required=False, detail="the query queries.logs")

    def _granted(self, grant: Grant) -> Capability:
        detail = "granted"
        try:
            rows = self._ask(f"grants: {grant.name}", grant.probe).rows
            is_granted = bool(rows) and bool(rows[0][0])
            detail = detail if is_granted else "not granted"
        except CollectionError as error:
            if self._connection.invalidated:
                raise
            is_granted, detail = False, str(error)
        advice = None if is_granted else str(filled_in(grant.grant, {"username": self._target.username}))
        return Capability(grant.name, is_granted, grant.required, detail, advice)

    def _ask(self, field: str, statement: str) -> Answer:
        """Run one query in a transaction of its own. Raises CollectionError, which names the file and the field."""
        if self._connection.invalidated:
            raise CollectionError("the connection is lost")
        if self._cutoff.is_cut:
            raise CollectionError("the visit was given up")
        try:
            seconds = self._time.for_statement()
            for setting in self._engine.session_statements(seconds):
                with self._naming("session", seconds):
                    self._connection.exec_driver_sql(setting)
            with self._naming(field, seconds):
                result = self._connection.exec_driver_sql(statement)
                if not result.returns_rows:
                    raise CollectionError(f"{self._path}: {field}: gave no rows; it must be a query")
                return Answer(f"{self._path}: {field}", list(result.keys()), list(self._counted(result)))
        finally:
            self._roll_back()

    @contextmanager
    def _naming(self, field: str, seconds: float) -> Iterator[None]:
        """Let an error name the file and the field, and the limit where the statement took all of its *seconds*."""
        started = time.monotonic()
        try:
            yield
        except SQLAlchemyError as error:
            words = _words(error)
            if time.monotonic() - started >= seconds:
                words = f"{self._time.limit_reached()} ({words})"
            raise CollectionError(f"{self._path}: {field}: {words}") from None

    def _roll_back(self) -> None:
        """End the transaction. A connection that cannot is lost; pymssql then raises what PEP 249 does not know."""
        try:
            self._connection.rollback()
        except Exception:
            self._connection.invalidate()

    def _counted(self, result: CursorResult[Any]) -> Iterator[tuple[Any, ...]]:
        while batch := result.fetchmany(ROWS_AT_ONCE):
            for row in map(tuple, batch):
                self._meter.count_row(row)
                yield row


def connect(target: Target, path: Path, limits: Limits, cutoff: Cutoff) -> SqlSession:
    """Open a session by the engine file *path*. Raises CollectionError, EngineFileError, or an error of the driver."""
    return SqlSession(read_engine_file(path), path, target, limits, cutoff)


def driver_problem(engine: EngineFile) -> str | None:
    """Return why the driver of an engine cannot be loaded, and what installs it; None when it can."""
    try:
        _alchemy_of(engine, lambda: None).dispose()
    except EngineFileError as error:
        return str(error)
    return None


def _alchemy_of(engine: EngineFile, creator: Callable[[], Any]) -> sqlalchemy.Engine:
    try:
        return sqlalchemy.create_engine(f"{engine.driver_name}://", creator=creator, poolclass=NullPool)
    except (ImportError, NoSuchModuleError) as error:
        raise EngineFileError(
            f"the driver {engine.driver_name} of engine {engine.name} cannot be loaded ({error}): "
            f"pip install '{engine.install}'"
        ) from None


def _watch(connection: Any, threadsafety: int, cutoff: Cutoff) -> None:
    """Let *cutoff* end what the connection waits for: by its socket where the driver shows one, else by the driver."""
    if (descriptor := _descriptor_of(connection)) is not None:
        cutoff.watch(descriptor)
    elif threadsafety >= SHARED_CONNECTIONS:
        # python-oracledb closes no connection before the statement on it has ended.
        cutoff.call(getattr(connection, "cancel", connection.close))
    # A driver that forbids this may crash: its own time-outs, which the engine file sets, have to end it.


def _descriptor_of(connection: Any) -> int | None:
    if callable(getattr(connection, "fileno", None)):
        return int(connection.fileno())
    held = [value for value in getattr(connection, "__dict__", {}).values() if isinstance(value, socket.socket)]
    return held[0].fileno() if held else None


def _words(error: SQLAlchemyError) -> str:
    """Return what the driver says; SQLAlchemy would quote the statement."""
    original = error.orig if isinstance(error, DBAPIError) else None
    if original is None:
        return str(error)
    return words_of(original)
