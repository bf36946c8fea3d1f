"""A store that falls silent, as behind a firewall that drops packets: nobody waits for it without end."""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import httpx2
import pytest
from sqlalchemy import Engine, create_engine

from whalefall_capacity.store.access import Role, create_token
from whalefall_capacity_tests.console.serving import served
from whalefall_capacity_tests.processes import PATIENCE_SECONDS, wait_for


class Wire(socketserver.ThreadingTCPServer):
    """A port that leads to the Unix socket of a server; while nothing *flows* it takes everything and says nothing."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.flows = Event()
        self.flows.set()
        self._path = path

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], _: object) -> None:
        assert isinstance(request, socket.socket)
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(self._path)
            answers = Thread(target=self._pass_on, args=(server, request), daemon=True)
            answers.start()
            self._pass_on(request, server)
            answers.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                self.flows.wait()
                sink.sendall(content)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire_to(store: Engine) -> Iterator[tuple[Wire, Engine]]:
    """Hold a wire to the server of *store*, and yield it with an engine that has the address of the store on it."""
    with Wire(f"{store.url.query['host']}/.s.PGSQL.5432") as wire:
        Thread(target=wire.serve_forever, daemon=True).start()
        address = store.url.set(host="127.0.0.1", port=wire.server_address[1], query={})
        yield wire, create_engine(address)
        wire.flows.set()
        wire.shutdown()


@pytest.mark.slow
def test_pages_say_that_the_store_keeps_silent_and_the_console_stays_healthy(store: Engine, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {create_token(store, 'reader', Role.VIEW).get_secret_value()}"}
    with wire_to(store) as (wire, reached), served(reached, tmp_path) as console:

        def ask(path: str) -> tuple[int, str]:
            answer = httpx2.get(console.url + path, headers=headers, timeout=PATIENCE_SECONDS)
            return answer.status_code, answer.text

        assert ask("/instances")[0] == 200
        wire.flows.clear()
        # More than the console has threads.
        with ThreadPoolExecutor(24) as people:
            pages = [people.submit(ask, "/instances") for _ in range(12)]
            programs = [people.submit(ask, "/api/v1/overview") for _ in range(12)]
            assert ask("/healthz") == (200, "ok\n")
            assert ask("/readyz")[0] == 503
            answers = [one.result() for one in pages + programs]
            assert ask("/healthz") == (200, "ok\n")
        assert {status for status, _ in answers} == {503}
        assert all("the store cannot be reached just now" in text for _, text in answers)
        wire.flows.set()
        wait_for(lambda: ask("/instances")[0] == 200, "the page of a store that answers again")
        wait_for(lambda: '"store"' not in ask("/readyz")[1], "a store that is ready again")
