"""Shared parts of the tests of the collection: servers that misbehave, and the patience to compare two measurements."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from pydantic import SecretStr

from whalefall_capacity.collection.sizes import NameFilter, ServerEngine, Target, Tls
from whalefall_capacity_tests.processes import PATIENCE_SECONDS

T = TypeVar("T")
U = TypeVar("U")

EVERYTHING = NameFilter()
PASSWORD = "correct horse"
ENGINES = (ServerEngine.POSTGRESQL, ServerEngine.MARIADB)


def settled(ask: Callable[[], T], measure: Callable[[], U]) -> tuple[T, U]:
    """Return what *ask* says and what *measure* measured while that did not change.

    A server that works in the background may grow a file between the two questions.
    """
    for _ in range(50):
        before = ask()
        measured = measure()
        if ask() == before:
            return before, measured
    raise AssertionError("the server's files never stood still")


class Peer(socketserver.ThreadingTCPServer):
    """Listens on 127.0.0.1, says to each client what *speak* says, and then waits until the client leaves."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, speak: Callable[[socket.socket], None]) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.port: int = self.server_address[1]
        self.arrivals = 0
        self._speak = speak
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], _: object) -> None:
        assert isinstance(request, socket.socket)
        with self._changed:
            self.arrivals += 1
            self._connections.add(request)
            self._changed.notify_all()
        try:
            self._speak(request)
            while request.recv(4096):
                pass
        except OSError:
            pass
        finally:
            with self._changed:
                self._connections.discard(request)
                self._changed.notify_all()

    def await_connections(self, number: int) -> bool:
        """Wait until *number* clients are connected at once; False when that does not happen."""
        return self._await(lambda: len(self._connections) == number)

    def await_arrivals(self, number: int) -> bool:
        """Wait until *number* clients have come; False when that does not happen."""
        return self._await(lambda: self.arrivals >= number)

    def hang_up(self) -> None:
        """End the connections of the clients that are still there."""
        with self._changed:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _await(self, condition: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, PATIENCE_SECONDS)


@contextmanager
def peer(speak: Callable[[socket.socket], None]) -> Iterator[Peer]:
    """Hold a server that behaves as *speak* does."""
    with Peer(speak) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.hang_up()
            thread.join()


@contextmanager
def refusing_port() -> Iterator[int]:
    """Hold a port of 127.0.0.1 at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def target(engine: str, port: int, name: str = "db-7", instance_id: int = 7, tls: Tls | None = None) -> Target:
    """Return a target on a port of 127.0.0.1."""
    return Target(
        instance_id,
        name,
        engine,
        "127.0.0.1",
        port,
        None,
        "whalefall",
        SecretStr(PASSWORD),
        tls or Tls("disable"),
    )


def silent(_: socket.socket) -> None:
    """Accept, and never speak."""


def garbage(connection: socket.socket) -> None:
    """Speak another protocol, and hang up."""
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    connection.shutdown(socket.SHUT_WR)


def refuse_with(engine: ServerEngine, text: str) -> Callable[[socket.socket], None]:
    """Return the behaviour of a server that refuses every client with the error *text*."""

    def postgresql(connection: socket.socket) -> None:
        connection.recv(4096)
        fields = b"SFATAL\0VFATAL\0C28000\0M" + text.encode() + b"\0\0"
        connection.sendall(b"E" + struct.pack("!i", 4 + len(fields)) + fields)

    def mysql(connection: socket.socket) -> None:
        payload = b"\xff" + struct.pack("<H", 1129) + text.encode()
        connection.sendall(struct.pack("<I", len(payload)) + payload)

    return postgresql if engine is ServerEngine.POSTGRESQL else mysql


def ask_for_kerberos(connection: socket.socket) -> None:
    """Ask a PostgreSQL client to authenticate by GSSAPI."""
    connection.recv(4096)
    connection.sendall(b"R" + struct.pack("!ii", 8, 7))


def let_in_by_an_old_server(connection: socket.socket) -> None:
    """Let a PostgreSQL client in, as a server of version 9.6."""
    connection.recv(4096)
    connection.sendall(greeting(server_version="9.6.24"))


def stall_after_login(connection: socket.socket) -> None:
    """Let a PostgreSQL client in, and never answer what it asks."""
    connection.recv(4096)
    connection.sendall(greeting())


def greeting(**parameters: str) -> bytes:
    """Return what a PostgreSQL server says to a client that it lets in."""
    usual = {"client_encoding": "UTF8", "DateStyle": "ISO, MDY", "standard_conforming_strings": "on"}
    reply = b"R" + struct.pack("!ii", 8, 0)
    for name, value in (usual | parameters).items():
        pair = f"{name}\0{value}\0".encode()
        reply += b"S" + struct.pack("!i", 4 + len(pair)) + pair
    return reply + b"Z" + struct.pack("!i", 5) + b"I"


def half_a_greeting(connection: socket.socket) -> None:
    """Say the first byte, and no more."""
    connection.sendall(b"R")


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until *condition* holds; False when that does not happen."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
