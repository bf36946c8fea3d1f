"""A libpq connection whose bytes pass through our hands: counted, and never waited for without end.

libpq keeps whatever a server sends before it says so, and reads by itself. Its connection is therefore asynchronous,
and as soon as it waits for the first answer its socket is exchanged for one end of a pair: the loop that waits for the
server moves the bytes between the pair and the server. Everything else, TLS too, stays libpq's.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import psycopg2
import psycopg2.extensions

from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.sizes import Cutoff

CHUNK_BYTES = 64 * 1024
# A value of nothing has four bytes on the way and sixteen in the memory of libpq.
LIBPQ_FACTOR = 4
# TLS may hold back a piece that no socket tells of: libpq is asked again after this.
LOOK_AGAIN_SECONDS = 1.0


class PostgresqlConnection:
    """An open connection, in autocommit, that runs one statement at a time."""

    def __init__(self, connection: psycopg2.extensions.connection, wire: _Wire) -> None:
        self._connection = connection
        self._wire = wire

    @property
    def driver_connection(self) -> psycopg2.extensions.connection:
        """The connection as the driver knows it, for composing statements."""
        return self._connection

    @property
    def is_closed(self) -> bool:
        return bool(self._connection.closed)

    def parameter(self, name: str) -> str:
        """Return what the server said of itself when the connection was opened; empty when it did not."""
        return self._connection.get_parameter_status(name) or ""

    def complete(self, timeout_seconds: float) -> None:
        """Finish opening. Raises psycopg2.Error, CollectionError or TimeoutError."""
        try:
            self._wire.complete(timeout_seconds)
        except (psycopg2.OperationalError, TimeoutError) as error:
            if self._wire.has_reached_a_server:
                raise
            raise _NotReached(str(error)) from None

    def rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of *statement*, none of one that has none.

        Raises psycopg2.Error, or CollectionError when the server has sent too much.
        """
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            self._wire.complete()
            return list(self._wire.counted(cursor)) if cursor.description is not None else []

    def close(self) -> None:
        self._connection.close()
        self._wire.close()


class _Wire:
    """The way between libpq and the server."""

    def __init__(self, connection: psycopg2.extensions.connection, cutoff: Cutoff, meter: Meter) -> None:
        self._connection = connection
        self._cutoff = cutoff
        self._meter = meter
        self._ends: _Ends | None = None

    @property
    def has_reached_a_server(self) -> bool:
        return self._ends is not None

    def complete(self, timeout_seconds: float | None = None) -> None:
        """Move bytes until libpq has what it waits for. Raises psycopg2.Error, CollectionError or TimeoutError."""
        ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (state := self._connection.poll()) != psycopg2.extensions.POLL_OK:
            patience = LOOK_AGAIN_SECONDS if ends_at is None else min(LOOK_AGAIN_SECONDS, ends_at - time.monotonic())
            if patience <= 0:
                raise TimeoutError("timeout expired")
            descriptor = self._connection.fileno()
            if self._ends is not None and self._ends.are_of(descriptor):
                # libpq may write at once, unless what it has written before still waits for the server.
                may_write = state == psycopg2.extensions.POLL_WRITE and not self._ends.is_congested
                self._meter.count(LIBPQ_FACTOR * self._ends.exchange(0 if may_write else patience))
            elif state == psycopg2.extensions.POLL_WRITE:
                _ready({descriptor: select.POLLOUT}, patience)
            else:
                # A new connection, which has asked for TLS or for entry: libpq makes another when that is refused.
                self._cutoff.watch(descriptor)
                self.close()
                self._ends = _Ends(descriptor)

    def counted(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for row in rows:
            self._meter.count_row(row)
            yield row

    def close(self) -> None:
        if self._ends is not None:
            self._ends.close()


class _Ends:
    """What was libpq's socket to the server, and a pair of which libpq holds the other end in its place."""

    def __init__(self, descriptor: int) -> None:
        self._server = socket.socket(fileno=os.dup(descriptor))
        self._libpq, inner = socket.socketpair()
        with inner:
            for end in (self._server, self._libpq, inner):
                end.setblocking(False)
            self._descriptor = descriptor
            self._identity = _identity(inner.fileno())
            os.dup2(inner.fileno(), descriptor, inheritable=False)
        self._to_libpq = self._to_server = b""
        self._server_has_left = False

    def are_of(self, descriptor: int) -> bool:
        """Tell whether libpq still holds the other end, as *descriptor*."""
        return _identity(descriptor) == self._identity

    @property
    def is_congested(self) -> bool:
        """Whether the server has not taken yet what libpq wrote."""
        return bool(self._to_server)

    def exchange(self, patience_seconds: float) -> int:
        """Wait until a side has something or can take something, and pass it on; return what the server has sent."""
        server, libpq = self._server.fileno(), self._libpq.fileno()
        # Of each direction one chunk is on its way; the next is taken when that has gone.
        wishes = {libpq: 0 if self._to_server else select.POLLIN, server: select.POLLOUT if self._to_server else 0}
        # libpq reads a part at a time: what it has not read yet is not waited with.
        wishes[self._descriptor] = select.POLLIN
        if self._to_libpq:
            wishes[libpq] |= select.POLLOUT
        elif not self._server_has_left:
            wishes[server] |= select.POLLIN
        ready = _ready({descriptor: wish for descriptor, wish in wishes.items() if wish}, patience_seconds)
        received = 0
        if ready.get(server) and not self._to_libpq and not self._server_has_left:
            self._to_libpq = self._receive()
            received = len(self._to_libpq)
        if ready.get(libpq) and not self._to_server:
            self._to_server = _take(self._libpq) or b""
        self._to_libpq = _send(self._libpq, self._to_libpq)
        self._to_server = _send(self._server, self._to_server)
        return received

    def close(self) -> None:
        self._server.close()
        self._libpq.close()

    def _receive(self) -> bytes:
        """Return what the server has sent; when it has left, libpq sees that it has."""
        received = _take(self._server)
        if received == b"":
            self._server_has_left = True
            self._libpq.shutdown(socket.SHUT_WR)
        return received or b""


class _NotReached(psycopg2.OperationalError):
    """An address at which no server took the connection."""


def connect(
    parameters: Mapping[str, Any], timeout_seconds: float, cutoff: Cutoff, meter: Meter
) -> PostgresqlConnection:
    """Open a connection, to the first address of the host that can be reached.

    Raises psycopg2.Error, CollectionError or TimeoutError.
    """
    host = str(parameters["host"])
    addresses = [None] if host.startswith("/") else _addresses(host)
    for address in addresses[:-1]:
        with suppress(_NotReached):
            return _open({**parameters, "hostaddr": address}, timeout_seconds, cutoff, meter)
    return _open({**parameters, "hostaddr": addresses[-1]}, timeout_seconds, cutoff, meter)


def _open(parameters: Mapping[str, Any], timeout_seconds: float, cutoff: Cutoff, meter: Meter) -> PostgresqlConnection:
    try:
        connection = psycopg2.connect(**parameters, async_=True)
    except psycopg2.OperationalError as error:
        raise _NotReached(str(error)) from None
    opened = PostgresqlConnection(connection, _Wire(connection, cutoff, meter))
    try:
        opened.complete(timeout_seconds)
    except BaseException:
        opened.close()
        raise
    return opened


def _addresses(host: str) -> list[str | None]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise psycopg2.OperationalError(f'cannot find the address of "{host}": {error.strerror}') from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _ready(wishes: Mapping[int, int], patience_seconds: float) -> dict[int, int]:
    """Wait until one of the descriptors can do what is wished of it; return what each can do."""
    poll = select.poll()
    for descriptor, wish in wishes.items():
        poll.register(descriptor, wish)
    return dict(poll.poll(patience_seconds * 1000))


def _take(of: socket.socket) -> bytes | None:
    """Return what has arrived, nothing from one that has gone, and None when there is nothing yet."""
    try:
        return of.recv(CHUNK_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _send(to: socket.socket, content: bytes) -> bytes:
    """Send what *to* takes, and return the rest; nothing is left for one that has gone."""
    try:
        return content[to.send(content) :] if content else b""
    except BlockingIOError:
        return content
    except OSError:
        return b""
