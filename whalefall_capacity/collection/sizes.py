"""What a visit to a server needs and what it brings back. Sizes are bytes; None means not known."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import SecretStr


class ServerEngine(StrEnum):
    """Kind of database server."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    MARIADB = "mariadb"

    @property
    def default_port(self) -> int:
        return 5432 if self is ServerEngine.POSTGRESQL else 3306


@dataclass(frozen=True)
class Tls:
    """TLS of one connection. *mode*: disable, prefer, require, verify-ca or verify-full."""

    mode: str = "prefer"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True)
class Target:
    """One server to visit.

    *host* is a name, an address, or the folder (PostgreSQL) or the path (MySQL) of a Unix socket.
    """

    instance_id: int
    name: str
    engine: ServerEngine
    host: str
    port: int
    database: str | None
    username: str
    password: SecretStr = field(repr=False)
    tls: Tls = Tls()


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


@dataclass(frozen=True)
class Measurement:
    """What one server answered. *log_size_bytes*: WAL or binary logs, None when not allowed or not kept."""

    version: str
    databases: tuple[DatabaseSize, ...]
    log_size_bytes: int | None


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


class Cutoff:
    """Lets a coordinator end a visit that waits on its socket, from another thread."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._is_cut = False

    def watch(self, file_descriptor: int) -> None:
        """Remember the connection behind *file_descriptor*, through a duplicate that outlives TLS wrapping."""
        self.release()
        self._socket = socket.socket(fileno=os.dup(file_descriptor))
        # The visit was given up while it was still connecting.
        if self._is_cut:
            self.cut()

    def cut(self) -> None:
        """Shut the connection down, now or as soon as there is one, so that its reader gets an error at once."""
        self._is_cut = True
        # Once: the visit's own thread may release it meanwhile.
        watched = self._socket
        if watched is not None:
            with suppress(OSError):
                watched.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Forget the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Session(Protocol):
    """An open, read-only connection to one server."""

    def measure(self, excluded: NameFilter) -> Measurement:
        """List and measure every database that *excluded* lets through."""
        ...

    def capabilities(self, excluded: NameFilter) -> list[Capability]:
        """Say what can be measured and what cannot."""
        ...

    @property
    def version(self) -> str: ...

    def close(self) -> None: ...
