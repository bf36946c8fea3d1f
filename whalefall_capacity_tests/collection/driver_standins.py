"""Stand-ins for drivers of servers that are not at hand: modules of PEP 249 that play what a test gives them.

SQLAlchemy's own dialects run on them, with all that they ask when they connect. They look like pymssql 2.4 and
python-oracledb 26 as far as a dialect or a session looks: arguments of `connect`, classes and texts of errors, shape of
rows. Nothing of a protocol, and nothing of what a server would make of a statement, is shown by them.

https://pymssql.readthedocs.io/en/stable/ref/pymssql.html
https://python-oracledb.readthedocs.io/en/latest/api_manual/module.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any, NoReturn

from whalefall_capacity.collection.sql.engine_file import EngineFile
from whalefall_capacity_tests.processes import PATIENCE_SECONDS

ERRORS = {
    "Error": "Exception",
    "InterfaceError": "Error",
    "DatabaseError": "Error",
    "DataError": "DatabaseError",
    "OperationalError": "DatabaseError",
    "IntegrityError": "DatabaseError",
    "InternalError": "DatabaseError",
    "ProgrammingError": "DatabaseError",
    "NotSupportedError": "DatabaseError",
}
# What `connect` of pymssql 2.4 and of python-oracledb 26 takes, of which there is more that nobody needs.
ARGUMENTS = {
    "pymssql": "server user password database timeout login_timeout charset host appname port encryption read_only "
    "conn_properties autocommit tds_version",
    "oracledb": "dsn user password host port protocol service_name sid tcp_connect_timeout retry_count retry_delay "
    "expire_time ssl_server_dn_match ssl_server_cert_dn wallet_location wallet_password program machine disable_oob",
}
ORACLE_TYPES = (
    "STRING NUMBER DATETIME TIMESTAMP NATIVE_FLOAT LOB CLOB NCLOB BLOB NCHAR FIXED_CHAR FIXED_NCHAR DB_TYPE_VARCHAR "
    "DB_TYPE_NVARCHAR DB_TYPE_RAW DB_TYPE_JSON"
)


@dataclass(frozen=True)
class Stall:
    """No answer before the driver's own time-out, or before its statement is cancelled: then *error* is raised."""

    error: Exception


@dataclass(frozen=True)
class Rows:
    """The answer to a statement. *then* is raised where the next row would be, once *rows* are fetched."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    then: Exception | Stall | None = None


Played = Rows | Exception | Stall
NOTHING = Rows((), ())


def value(found: object) -> Rows:
    """Return an answer that is one value."""
    return Rows(("value",), [(found,)])


# By a part of the statement: what SQLAlchemy's dialects ask when they connect.
OF_MSSQL = {
    "select @@version": value("Microsoft SQL Server 2022 (RTM-CU16) - 16.0.4165.4 (X64)"),
    "schema_name()": value("guest"),
    "sys.system_views": value("dm_exec_sessions"),
    "sys.dm_exec_sessions": value("READ COMMITTED"),
    "test max support": value("test max support"),
    "fn_listextendedproperty": value(1),
}
OF_ORACLE = {
    "current_schema": value("WHALEFALL"),
    "dbms_transaction": NOTHING,
    "v$transaction": value("READ COMMITTED"),
    "v$parameter": value("19.0.0"),
    "1.1 from dual": value(Decimal("1.1")),
}


class Server:
    """The server behind a driver: what it answers to the statements of an engine file, and what it heard.

    *answers* are by field (`databases`, `grants: redo logs`); probes that are not among them find their privilege.
    """

    def __init__(self, name: str, engine: EngineFile, answers: Mapping[str, Played]) -> None:
        self.driver = _driver(name, self._connect)
        self.heard: list[str] = []
        self.arguments: Mapping[str, Any] = {}
        self.open_connections = 0
        self.cancelled = threading.Event()
        self.refuses_with: Exception | None = None
        self.fails_to_roll_back_with: Exception | None = None
        self.decimal_sign = "."
        self.keeps_time = True
        self._fields = {query: field for field, query in engine.queries if query is not None}
        self._fields |= {grant.probe: f"grants: {grant.name}" for grant in engine.grants}
        self._answers = {f"grants: {grant.name}": value(1) for grant in engine.grants} | dict(answers)
        self._of_session = {statement.partition("{")[0] for statement in engine.session}
        self._of_dialect = OF_ORACLE if name == "oracledb" else OF_MSSQL

    def playing(self, field: str, answer: Played) -> None:
        """Give another answer to the statement of a field."""
        self._answers[field] = answer

    def answer(self, statement: str) -> Played:
        """Return what is played for *statement*."""
        self.heard.append(statement)
        played = self._answers.get(self._fields.get(statement, ""))
        if played is None and any(statement.startswith(start) for start in self._of_session):
            played = NOTHING
        if played is None:
            words = " ".join(statement.split()).lower()
            played = next((answer for part, answer in self._of_dialect.items() if part in words), None)
        if played is None:
            raise AssertionError(f"nothing is played for: {statement}")
        return played

    def _connect(self, **arguments: Any) -> Connection:
        name = self.driver.__name__
        if unknown := sorted(arguments.keys() - ARGUMENTS[name].split()):
            raise TypeError(f"connect() got an unexpected keyword argument '{unknown[0]}'")
        self.arguments = arguments
        if self.refuses_with is not None:
            raise self.refuses_with
        self.open_connections += 1
        return OracleConnection(self) if name == "oracledb" else PymssqlConnection(self)


class Cursor:
    """A cursor of either driver."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.rowcount = -1
        self.description: list[tuple[Any, ...]] | None = None
        self.outputtypehandler: Callable[..., Any] | None = None
        self._rows: list[Sequence[Any]] = []
        self._then: Exception | Stall | None = None

    def execute(self, statement: str, _parameters: object = None) -> None:
        answer = self.connection.ask(statement)
        self.description = [self.connection.described(name) for name in answer.columns] or None
        self._rows = [self.connection.fetched(self, answer.columns, row) for row in answer.rows]
        self._then = answer.then

    def fetchmany(self, size: int) -> list[Sequence[Any]]:
        if not self._rows and self._then is not None:
            self.connection.fail(self._then)
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchone(self) -> Sequence[Any] | None:
        return next(iter(self.fetchmany(1)), None)

    def var(self, kind: Any, *_: object, outconverter: Callable[[Any], Any] | None = None, **__: object) -> Variable:
        return Variable(kind, outconverter)

    def close(self) -> None:
        self._rows = []

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Connection:
    """A connection of either driver."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._has_failed = False

    @property
    def limit_seconds(self) -> float:
        """The driver's own time-out of a statement, 0 for none."""
        raise NotImplementedError

    def cursor(self) -> Cursor:
        return Cursor(self)

    def ask(self, statement: str) -> Rows:
        answer = self.server.answer(statement)
        return answer if isinstance(answer, Rows) else self.fail(answer)

    def fail(self, with_what: Exception | Stall) -> NoReturn:
        self._has_failed = True
        if isinstance(with_what, Exception):
            raise with_what
        self.server.cancelled.wait(self.limit_seconds if self.server.keeps_time else PATIENCE_SECONDS)
        raise with_what.error

    def described(self, column: str) -> tuple[Any, ...]:
        return (column, None, None, None, None, None, None)

    def fetched(self, _cursor: Cursor, _columns: Sequence[str], row: Sequence[Any]) -> Sequence[Any]:
        return tuple(row)

    def rollback(self) -> None:
        self.server.heard.append("rollback")
        if self._has_failed and self.server.fails_to_roll_back_with is not None:
            raise self.server.fails_to_roll_back_with

    def close(self) -> None:
        self.server.open_connections -= 1


class PymssqlConnection(Connection):
    """A connection of pymssql, whose time-out is an argument of `connect`, in whole seconds."""

    @property
    def limit_seconds(self) -> float:
        return float(self.server.arguments.get("timeout", 0))


@dataclass(frozen=True)
class Variable:
    """What an output type handler wants of a column: the type to fetch it as, and what then converts it."""

    type: Any
    outconverter: Callable[[Any], Any] | None

    def getvalue(self) -> str:
        """Return the id of a transaction, for which alone the dialect has a variable to bind."""
        return "1.2.3"


class OracleConnection(Connection):
    """A connection of python-oracledb in thin mode, whose time-out is an attribute, in milliseconds."""

    version = "19.23.0.0.0"
    thin = True
    autocommit = False
    max_identifier_length = 128
    outputtypehandler: Callable[..., Any] | None = None
    call_timeout = 0

    @property
    def limit_seconds(self) -> float:
        return self.call_timeout / 1000

    def cancel(self) -> None:
        self.server.cancelled.set()

    def described(self, column: str) -> tuple[Any, ...]:
        return super().described(column.upper())

    def fetched(self, cursor: Cursor, columns: Sequence[str], row: Sequence[Any]) -> Sequence[Any]:
        return tuple(self._as_wanted(cursor, name, found) for name, found in zip(columns, row, strict=True))

    def _as_wanted(self, cursor: Cursor, column: str, found: Any) -> Any:
        """Return a number as an output type handler wants it; that of an expression has no precision and no scale."""
        driver = self.server.driver
        handler = cursor.outputtypehandler or self.outputtypehandler
        if not isinstance(found, int | Decimal) or handler is None:
            return found
        wanted = handler(cursor, column, driver.NUMBER, 127, 0, -127)
        if wanted.type is driver.STRING:
            found = str(found).replace(".", self.server.decimal_sign)
        return found if wanted.outconverter is None else wanted.outconverter(found)


def _driver(name: str, connect: Callable[..., Connection]) -> Any:
    """Return a module with the errors that PEP 249 names, and what the dialect looks for in it."""
    module = ModuleType(name)
    classes: dict[str, Any] = {"Exception": Exception}
    for error, base in ERRORS.items():
        classes[error] = type(error, (classes[base],), {"__module__": name})
    vars(module).update(classes, apilevel="2.0", connect=connect)
    if name == "oracledb":
        vars(module).update({kind: type(kind, (), {})() for kind in ORACLE_TYPES.split()})
        vars(module).update(threadsafety=2, paramstyle="named", version="26.1.0")
    else:
        vars(module).update(threadsafety=1, paramstyle="pyformat", __version__="2.4.6")
    return module


@dataclass(frozen=True)
class OracleError:
    """What python-oracledb's errors have as their one argument; those of the driver itself have the code 0."""

    message: str
    code: int = 0

    def __str__(self) -> str:
        return self.message
