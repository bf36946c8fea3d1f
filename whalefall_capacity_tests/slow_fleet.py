"""Real servers that answer only when the test lets them, and a store that goes away when the test wants it to."""

from __future__ import annotations

import signal
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from whalefall_capacity.store.postgres.cluster import Cluster
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres

STOP_SECONDS = 30


class Gate(socketserver.ThreadingTCPServer):
    """A port of 127.0.0.1 that leads to a server's Unix socket; clients wait at it until they are let through."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: Path) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.port: int = self.server_address[1]
        self.waiting = 0
        self.served = 0
        self._upstream = upstream
        self._passes = 0.0
        self._changed = threading.Condition()

    def let(self, clients: float) -> None:
        """Let so many clients through, beyond those that were let through before."""
        with self._changed:
            self._passes += clients
            self._changed.notify_all()

    def open(self) -> None:
        """Let everybody through, now and later."""
        self.let(float("inf"))

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], _: object) -> None:
        assert isinstance(request, socket.socket)
        with self._changed:
            self.waiting += 1
            self._changed.wait_for(lambda: self._passes > 0)
            self.waiting -= 1
            self._passes -= 1
        with socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(str(self._upstream))
            answers = threading.Thread(target=_pump, args=(server, request), daemon=True)
            answers.start()
            _pump(request, server)
            answers.join()
        self.served += 1


@contextmanager
def gate(upstream: Path) -> Iterator[Gate]:
    """Hold a gate that is closed; whoever still waits at its end is let through, to find nobody."""
    with Gate(upstream) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.open()
            thread.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def outage(server: EmbeddedPostgres) -> Iterator[None]:
    """Let a server crash, as `pg_ctl stop -m immediate` does, and start it again at the end of the block."""
    cluster = Cluster(server.data_dir, server.version)
    postmaster = cluster.postmaster()
    assert postmaster is not None
    postmaster.process.send_signal(signal.SIGQUIT)
    postmaster.process.wait(STOP_SECONDS)
    try:
        yield
    finally:
        cluster.start()
