"""Input and results of a visit to a server. Sizes are bytes; None means not known."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import ConfigDict, Field, SecretStr, with_config

from whalefall_capacity.collection import quick_calls
from whalefall_capacity.collection.database_tables import DatabaseTables
from whalefall_capacity.printable import first_of

STATEMENT_SETTING = "WHALEFALL_STATEMENT_TIMEOUT_SECONDS"
DEADLINE_SETTING = "WHALEFALL_COLLECTION_DEADLINE_SECONDS"
SHARE_OF_WHAT_IS_LEFT = 0.9
DATABASES_NAMED = 10
# Names of engines: those below, those of engine files, and that of servers of which only imported history is known.
ENGINE_NAME = "^[a-z][a-z0-9_]{0,31}$"
UNKNOWN_ENGINE = "unknown"
# Of a database. More than the engines allow (PostgreSQL 63 bytes, which may each need four characters when they are
# not text; MySQL 64 characters), and well within what the keys of the store can hold.
LONGEST_NAME = 256
# An engine file is named after its engine.
ENGINE_FILE_SUFFIX = ".yaml"


class ServerEngine(StrEnum):
    """Kind of database server that has a module of its own here; others have an engine file."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    MARIADB = "mariadb"

    @property
    def default_port(self) -> int:
        return {ServerEngine.POSTGRESQL: 5432, ServerEngine.MYSQL: 3306, ServerEngine.MARIADB: 3306}[self]


# Names that no engine file can have.
TAKEN_NAMES = frozenset({*ServerEngine, UNKNOWN_ENGINE})


def address(host: str, port: int) -> str:
    """Return where a server is, for people: `db.example:5432`, `[::1]:5432`, or a socket, which has no port."""
    if host.startswith(("/", "@")):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# In libpq's words.
TlsMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Tls:
    """TLS of one connection, as a fleet file and the registry have it.

    *server_public_key_file*: the RSA key of a MySQL server, under which it gets the password without TLS; MySQL's
    clients call it server-public-key-path.
    """

    mode: TlsMode = "prefer"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_public_key_file: Annotated[str | None, Field(min_length=1)] = None


@dataclass(frozen=True)
class Target:
    """One server to visit.

    *host* is a name, an address, or the folder (PostgreSQL) or the path (MySQL) of a Unix socket. *engine_file* has the
    queries of an engine that is not a ServerEngine.
    """

    instance_id: int
    name: str
    engine: str
    host: str
    port: int
    database: str | None
    username: str
    password: SecretStr = field(repr=False)
    tls: Tls = Tls()
    engine_file: Path | None = None

    @property
    def address(self) -> str:
        return address(self.host, self.port)

    @property
    def is_local(self) -> bool:
        """True when the server is visited through a Unix socket."""
        return self.host.startswith(("/", "@"))

    @property
    def verifies_server(self) -> bool:
        """True when the server has to show, before it hears anything, that it is the one that was meant."""
        return not self.is_local and self.tls.mode in {"verify-ca", "verify-full"}


@dataclass(frozen=True)
class Limits:
    """Longest waits of one visit, in seconds."""

    connect_timeout_seconds: float
    statement_timeout_seconds: float
    deadline_seconds: float


@dataclass(frozen=True)
class NameFilter:
    """Databases to leave out: exact names, and a regular expression that must match the whole name."""

    names: frozenset[str] = frozenset()
    regex: str | None = None

    def excludes(self, name: str) -> bool:
        return name in self.names or (self.regex is not None and re.fullmatch(self.regex, name) is not None)


@dataclass(frozen=True)
class DatabaseSize:
    """Size of one listed database; when *size_bytes* is None, *reason* says why it could not be measured."""

    name: str
    size_bytes: int | None
    reason: str | None = None
    data_size_bytes: int | None = None
    log_size_bytes: int | None = None


@dataclass(frozen=True)
class Measurement:
    """Sizes that one server reported. *log_size_bytes*: WAL or binary logs, None when not allowed or not kept.

    *caveats*: what is not as sure about some of the sizes as it would be with all privileges, and what mends it.
    """

    version: str
    databases: tuple[DatabaseSize, ...]
    log_size_bytes: int | None
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capability:
    """One thing that can or cannot be measured.

    *required*: without it sizes are missing. *grant*: the SQL that mends it.
    """

    name: str
    available: bool
    required: bool
    detail: str
    grant: str | None = None

    @classmethod
    def of_sizes(cls, listed: int, missing: Mapping[str, str | None], grant: str | None) -> Capability:
        """Say how many of the *listed* databases have a size, and which are *missing*, with the reasons given."""
        detail = f"{listed - len(missing)} of {listed} databases"
        if missing:
            named = [f"{name} ({why})" if why else name for name, why in missing.items()]
            detail += f"; not: {first_of(named, DATABASES_NAMED)}"
        return cls("database sizes", not missing, required=True, detail=detail, grant=grant)


@dataclass(frozen=True)
class Visit:
    """A visit that brought sizes."""

    target: Target
    measurement: Measurement
    collected_at: datetime
    seconds: float


@dataclass(frozen=True)
class FailedVisit:
    """A visit that brought nothing; *error* says why, without secrets."""

    instance_id: int
    name: str
    error: str
    seconds: float


class Findings:
    """Findings of a visit so far: written by the visit, and read by whoever ends it before it is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = ""
        self._names: list[str] = []
        self._databases: dict[str, DatabaseSize] = {}
        self._log_size_bytes: int | None = None
        self._caveats: list[str] = []

    def listed(self, version: str, names: Iterable[str]) -> None:
        """Note the whole list of databases to measure; a list cut short must never get here."""
        with self._lock:
            self._version, self._names, self._databases = version, list(names), {}

    def measured(self, name: str, size_bytes: int) -> None:
        """Note the size of a listed database."""
        self.found(DatabaseSize(name, size_bytes))

    def missing(self, name: str, reason: str) -> None:
        """Note why a listed database has no size."""
        self.found(DatabaseSize(name, None, reason))

    def found(self, database: DatabaseSize) -> None:
        """Note a listed database, with its size or without."""
        with self._lock:
            self._databases[database.name] = database

    def logs(self, size_bytes: int | None) -> None:
        """Note the size of the instance's own logs."""
        with self._lock:
            self._log_size_bytes = size_bytes

    def caveat(self, text: str) -> None:
        """Note what is not sure about sizes that were found."""
        with self._lock:
            self._caveats.append(text)

    @property
    def has_sizes(self) -> bool:
        with self._lock:
            return any(found.size_bytes is not None for found in self._databases.values())

    def measurement(self, reason_for_the_rest: str) -> Measurement:
        """Return what was found; databases that were not come to are missing with *reason_for_the_rest*.

        A name that was listed twice is there twice: `credible` knows that neither can be told from the other.
        """
        with self._lock:
            databases = tuple(
                self._databases.get(name) or DatabaseSize(name, None, reason_for_the_rest) for name in self._names
            )
            return Measurement(self._version, databases, self._log_size_bytes, tuple(self._caveats))


class TimeLeft:
    """Time that a visit has left, from the moment at which this is made."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ends_at = time.monotonic() + limits.deadline_seconds
        self._ended_by = ""

    def for_statement(self) -> float:
        """Return how many seconds the next statement may take: its limit, and never beyond the deadline.

        It ends before the deadline does, so that its answer still arrives. Never 0, which to a server means no
        limit at all.
        """
        limit = self._limits.statement_timeout_seconds
        before_the_deadline = SHARE_OF_WHAT_IS_LEFT * (self._ends_at - time.monotonic())
        self._ended_by = (
            f"took longer than the statement limit of {limit:g} s; raise {STATEMENT_SETTING}"
            if limit <= before_the_deadline
            else f"took longer than was left of the deadline of {self._limits.deadline_seconds:g} s; "
            f"raise {DEADLINE_SETTING}"
        )
        return max(min(limit, before_the_deadline), 0.001)

    def limit_reached(self) -> str:
        """Say which limit ended the last statement that was given all of `for_statement`, and what raises it."""
        return self._ended_by


def deadline_reached(seconds: float) -> str:
    """Return the reason of a database to which its visit did not come in time."""
    return f"the deadline of {seconds:g} s was reached before it was measured; raise {DEADLINE_SETTING}"


class Cutoff:
    """Lets a coordinator end a visit that waits on its socket, from another thread."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._end: Callable[[], object] | None = None
        self._is_cut = False
        # Why the visit ended its own connection, which its driver cannot know.
        self.reason: str | None = None

    @property
    def is_cut(self) -> bool:
        """True when nobody waits for the visit any more."""
        return self._is_cut

    def watch(self, file_descriptor: int) -> None:
        """Remember the connection behind *file_descriptor*, through a duplicate that outlives TLS wrapping."""
        self.release()
        self._socket = quick_calls.duplicate(file_descriptor)
        # The visit was given up while it was still connecting.
        if self._is_cut:
            self.cut()

    def call(self, end: Callable[[], object]) -> None:
        """Remember what ends a connection whose driver does not show its socket."""
        self.release()
        self._end = end
        if self._is_cut:
            self.cut()

    def cut(self, reason: str | None = None) -> None:
        """Shut the connection down, now or as soon as there is one, so that its reader gets an error at once."""
        self.reason = self.reason or reason
        self._is_cut = True
        # Once: the visit's own thread may release it meanwhile.
        watched = self._socket
        if watched is not None:
            with suppress(OSError):
                watched.shutdown(socket.SHUT_RDWR)
        if (end := self._end) is not None:
            # It may wait for the server, and its error interests nobody.
            threading.Thread(target=_without_error, args=(end,), daemon=True).start()

    def release(self) -> None:
        """Forget the connection."""
        self._end = None
        if self._socket is not None:
            quick_calls.close(self._socket)
            self._socket = None


def _without_error(call: Callable[[], object]) -> None:
    with suppress(Exception):
        call()


def open_socket(where: str | tuple[str, int], timeout_seconds: float) -> socket.socket:
    """Connect to a host and port, or to a Unix socket by its path, or by its name after an @. Raises OSError."""
    if isinstance(where, tuple):
        opened = socket.create_connection(where, timeout_seconds)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.settimeout(timeout_seconds)
    try:
        # A socket with a name and no file, as Linux has them.
        opened.connect(f"\0{where[1:]}" if where.startswith("@") else where)
    except OSError:
        opened.close()
        raise
    return opened


class Session(Protocol):
    """An open, read-only connection to one server."""

    def measure(self, excluded: NameFilter, findings: Findings) -> None:
        """List and measure every database that *excluded* lets through, and note each in *findings* at once."""
        ...

    def capabilities(self, excluded: NameFilter) -> list[Capability]:
        """Say what can be measured and what cannot."""
        ...

    def tables(self, database: str) -> DatabaseTables:
        """Return the tables of *database*, to which a session of PostgreSQL has to be connected."""
        ...

    @property
    def version(self) -> str: ...

    def close(self) -> None: ...
