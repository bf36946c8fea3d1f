"""The console on a real port: clients that take their time, and proxies that are believed or not."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.console.http.listening import MOST_CONNECTIONS
from whalefall_capacity.store.access import Role, set_user
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity_tests.console.conftest import PASSWORD, copied_store, log_in
from whalefall_capacity_tests.console.serving import Served, served
from whalefall_capacity_tests.processes import PATIENCE_SECONDS, console_answers, wait_for

pytestmark = pytest.mark.slow

HEAD = b"POST /login HTTP/1.1\r\nHost: localhost\r\n"
FORM = HEAD + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nname="
UNREAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


@dataclass
class Dawdler:
    """A client that begins with *sent* and then adds *drip* now and then, for as long as it is let."""

    connection: socket.socket
    drip: bytes = b""
    received: bytes = b""
    is_cut_off: bool = False

    def go_on(self) -> bool:
        """Send a drop, take what has come, and tell whether the server has ended the connection."""
        try:
            if self.drip and not self.is_cut_off:
                self.connection.sendall(self.drip)
            while data := self.connection.recv(65_536):
                self.received += data
            self.is_cut_off = True
        except BlockingIOError:
            pass
        except OSError:
            self.is_cut_off = True
        return self.is_cut_off


@dataclass
class Dawdlers:
    """Many of them at one console."""

    console: Served
    stack: ExitStack
    clients: list[Dawdler] = field(default_factory=list)

    def add(self, sent: bytes = b"", drip: bytes = b"") -> Dawdler:
        connection = self.stack.enter_context(socket.create_connection(("127.0.0.1", self.console.port)))
        connection.sendall(sent)
        connection.setblocking(False)
        self.clients.append(Dawdler(connection, drip))
        return self.clients[-1]

    def all_cut_off(self) -> bool:
        """Let each go on, while others are served; tell whether all have been cut off."""
        assert console_answers(self.console.url)
        left = [client for client in self.clients if not client.go_on()]
        return left == []


@pytest.fixture(scope="module")
def console(store_server: EmbeddedPostgres, past: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A console with its defaults, and a user root."""
    with copied_store(store_server, past) as store:
        set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
        with served(store, tmp_path_factory.mktemp("console")) as running:
            yield running


@pytest.fixture
def dawdlers(console: Served) -> Iterator[Dawdlers]:
    with ExitStack() as stack:
        yield Dawdlers(console, stack)


def test_who_does_not_send_a_request_to_its_end_is_cut_off_while_others_are_served(dawdlers: Dawdlers) -> None:
    dawdlers.add()
    dawdlers.add(HEAD)
    dawdlers.add(HEAD, drip=b"X-Slow: 1\r\n")
    dawdlers.add(UNREAD, drip=b"x")
    silent, dripping = dawdlers.add(FORM), dawdlers.add(FORM, drip=b"x")
    # A connection that was used has no more time for its next request.
    used = dawdlers.add(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEAD, drip=b"X-Slow: 1\r\n")
    wait_for(dawdlers.all_cut_off, "end of every connection")
    for client in (silent, dripping):
        assert client.received.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in client.received.lower()
    assert used.received.startswith(b"HTTP/1.1 200 ")
    assert used.received.count(b"HTTP/1.1") == 1


def test_others_are_served_when_dawdlers_hold_more_connections_than_there_are(dawdlers: Dawdlers) -> None:
    for _ in range(MOST_CONNECTIONS + 100):
        dawdlers.add(HEAD)
    for _ in range(10):
        assert console_answers(dawdlers.console.url)


def test_a_head_that_does_not_end_is_refused(dawdlers: Dawdlers) -> None:
    client = dawdlers.add(HEAD + b"X-Long: " + b"x" * 100_000)
    wait_for(dawdlers.all_cut_off, "end of the connection")
    assert client.received.startswith(b"HTTP/1.1 400 ") or client.received == b""


def test_there_are_no_websockets(dawdlers: Dawdlers) -> None:
    client = dawdlers.add(
        b"GET /api/v1/session HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    wait_for(lambda: client.go_on() or client.received, "answer")
    assert client.received.startswith(b"HTTP/1.1 403 ")


def behind_proxy(console: Served) -> Callable[[str], Any]:
    """Return a function that makes a client of *console* which sends the headers of a proxy."""

    def client(forwarded_for: str) -> Any:
        headers = {"X-Forwarded-For": forwarded_for, "X-Forwarded-Proto": "https"}
        return httpx2.Client(base_url=console.url, headers=headers, timeout=PATIENCE_SECONDS)

    return client


def test_without_a_setting_nobody_says_for_whom_he_speaks(console: Served) -> None:
    client = behind_proxy(console)
    cookie = log_in(client("203.0.113.1"), "root", PASSWORD).headers["set-cookie"]
    assert cookie.startswith("whalefall_session=")
    assert "Secure" not in cookie
    for number in range(10):
        assert log_in(client(f"203.0.113.{number}"), f"user-{number}", "wrong").status_code == 401
    assert log_in(client("203.0.113.99"), "root", PASSWORD).status_code == 429
    assert console.log.read_text().count("WHALEFALL_TRUSTED_PROXIES=127.0.0.1") == 1


def test_a_trusted_proxy_says_who_asks_and_that_it_came_over_tls(store: Engine, tmp_path: Path) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    with served(store, tmp_path, trusted_proxies="10.0.0.7,127.0.0.0/8") as console:
        client = behind_proxy(console)
        form = client("203.0.113.1").get("/login")
        assert form.headers["set-cookie"].startswith("__Host-whalefall_login=")
        assert "Secure" in form.headers["set-cookie"]
        assert form.headers["strict-transport-security"] == "max-age=31536000"
        # What the client wrote into the header itself stands before what the proxy saw.
        statuses = [attempt(client, f"198.51.100.{number}, 203.0.113.1", f"user-{number}") for number in range(10)]
        assert statuses == [401] * 10
        assert attempt(client, "203.0.113.1", "root") == 429
        assert attempt(client, "203.0.113.2", "root") == 303
        assert "WHALEFALL_TRUSTED_PROXIES" not in console.log.read_text()


def attempt(client: Callable[..., Any], forwarded_for: str, user: str) -> int:
    """Log in as a browser does to which the page came over TLS: it would not send the cookie over plain HTTP here."""
    visitor = client(forwarded_for)
    form = visitor.get("/login")
    name, _, value = form.headers["set-cookie"].partition(";")[0].partition("=")
    fields = {"csrf_token": value, "name": user, "password": PASSWORD}
    return int(visitor.post("/login", data=fields, headers={"Cookie": f"{name}={value}"}).status_code)


def test_another_proxy_than_the_trusted_one_is_not_believed(store: Engine, tmp_path: Path) -> None:
    with served(store, tmp_path, trusted_proxies="10.0.0.7") as console:
        request = urllib.request.Request(f"{console.url}/login", headers={"X-Forwarded-Proto": "https"})  # noqa: S310
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - our own server
            assert answer.headers["set-cookie"].startswith("whalefall_login=")
