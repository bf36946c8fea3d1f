"""A proxy before a server that counts how often a client waits for it: latency costs a visit so many times."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass
class RoundTrips:
    """A port of 127.0.0.1, and the round trips of all connections through it; to connect is one."""

    port: int
    count: int = 0


@contextmanager
def counted(where: str | tuple[str, int]) -> Iterator[RoundTrips]:
    """Hold a proxy before the server at *where*, which is a path, or a host and a port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        trips = RoundTrips(listener.getsockname()[1])
        thread = threading.Thread(target=_serve, args=(listener, where, trips), daemon=True)
        thread.start()
        yield trips
        # Whoever waits for a client hears of it.
        listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, where: str | tuple[str, int], trips: RoundTrips) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            trips.count += 1
            threading.Thread(target=_pass_on, args=(client, where, trips), daemon=True).start()


def _pass_on(client: socket.socket, where: str | tuple[str, int], trips: RoundTrips) -> None:
    server = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
    with client, server, suppress(OSError):
        server.connect(where)
        # A round trip ends when the server speaks after the client has.
        last = server
        while True:
            ready, _, _ = select.select([client, server], [], [])
            for source in ready:
                data = source.recv(65_536)
                if not data:
                    return
                if source is server and last is client:
                    trips.count += 1
                last = source
                (server if source is client else client).sendall(data)
