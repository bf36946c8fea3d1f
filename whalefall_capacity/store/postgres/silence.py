"""Connections that are given up when their server keeps silent, for which libpq would wait without end.

A statement timeout is kept by the server: it is of no use when the server, or a proxy before it, stands still. The
limits of TCP notice only that a machine is gone. So one thread looks after all connections that wait for an answer, and
shuts down the socket of each that has waited too long; its statement fails as if the server had closed the connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socket import SHUT_RDWR, socket
from threading import Event, Lock, Thread
from types import MappingProxyType
from typing import Any

import psycopg2
from psycopg2 import extensions

# Of libpq: a server that does not confirm what it was sent, or is gone without a word, is given up within seconds, and
# not after a quarter of an hour.
GIVEN_UP_SOON: Mapping[str, object] = MappingProxyType(
    {"connect_timeout": 8, "tcp_user_timeout": 5000, "keepalives_idle": 5, "keepalives_interval": 2}
)
LOOK_SECONDS = 1.0
# A failure to connect that took this long is not waited for again by those who want to connect soon after.
SLOW_SECONDS = 2.0
SPARED_SECONDS = 5.0


class Watch:
    """A watch over connections that wait for their server."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._lock = Lock()
        self._some_wait = Event()
        self._waiting: dict[object, tuple[float, extensions.connection]] = {}
        self._thread: Thread | None = None

    @contextmanager
    def over(self, connection: extensions.connection, seconds: float) -> Iterator[None]:
        """Shut *connection* down if the block, which waits for its server, takes longer than *seconds*."""
        wait = object()
        with self._lock:
            self._waiting[wait] = self._clock() + seconds, connection
            self._some_wait.set()
            if self._thread is None:
                self._thread = Thread(target=self._look_after_all, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[wait]

    def _look_after_all(self) -> None:
        while self._some_wait.wait():
            self._sleep(LOOK_SECONDS)
            with self._lock:
                for until, connection in self._waiting.values():
                    if self._clock() >= until:
                        _shut_down(connection)
                if not self._waiting:
                    self._some_wait.clear()


WATCH = Watch()


class WatchedConnection(extensions.connection):
    """A connection of which every wait is watched."""

    seconds: float

    def watched(self) -> Any:
        """Return a context in which the server may keep silent for only so long."""
        return WATCH.over(self, self.seconds)

    def commit(self) -> None:
        with self.watched():
            super().commit()

    def rollback(self) -> None:
        with self.watched():
            super().rollback()


class WatchedCursor(extensions.cursor):
    """A cursor of a watched connection. Answers are read whole: fetching waits for nothing."""

    connection: WatchedConnection

    def execute(self, *args: Any, **kwargs: Any) -> None:
        with self.connection.watched():
            super().execute(*args, **kwargs)

    def copy_expert(self, *args: Any, **kwargs: Any) -> None:
        with self.connection.watched():
            super().copy_expert(*args, **kwargs)


def watched_connections(seconds: float) -> Callable[..., WatchedConnection]:
    """Return a connection factory for psycopg2, of connections that wait *seconds* for an answer."""

    def connect(*args: Any, **kwargs: Any) -> WatchedConnection:
        connection = WatchedConnection(*args, **kwargs)
        connection.seconds = seconds
        connection.cursor_factory = WatchedCursor
        return connection

    return connect


@dataclass
class Connecting:
    """Attempts to connect: where one has just waited in vain for a server, the next ones fail at once."""

    clock: Callable[[], float] = time.monotonic
    _failure: str = ""
    _spared_until: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def attempt(self, connect: Callable[[], Any]) -> Any:
        """Return what *connect* does. Raises OperationalError, at once when it took long to fail a moment ago."""
        started = self.clock()
        with self._lock:
            if started < self._spared_until:
                raise psycopg2.OperationalError(self._failure)
        try:
            return connect()
        except psycopg2.OperationalError as error:
            with self._lock:
                if self.clock() - started >= SLOW_SECONDS:
                    self._failure, self._spared_until = str(error), self.clock() + SPARED_SECONDS
            raise


def _shut_down(connection: extensions.connection) -> None:
    # By the descriptor as it is now; a connection that has just been closed has none.
    with suppress(psycopg2.Error, OSError):
        shared = socket(fileno=connection.fileno())
        try:
            shared.shutdown(SHUT_RDWR)
        finally:
            shared.detach()
