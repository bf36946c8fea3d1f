"""The relay between libpq and a server is for this process alone: nobody else of the machine gets through it."""

from __future__ import annotations

import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from fcntl import F_DUPFD, fcntl
from functools import partial
from pathlib import Path

import psutil
import pytest

from whalefall_capacity.collection.postgresql.connection import open_connection
from whalefall_capacity.collection.postgresql.relay import Relay
from whalefall_capacity.collection.sizes import Cutoff, ServerEngine
from whalefall_capacity_tests.collection.support import eventually, peer, stall_after_login, target
from whalefall_capacity_tests.other_account import as_another_account, in_another_process, needs_root
from whalefall_capacity_tests.servers import LIMITS, PostgresqlServer


def answer_of(port: int | str) -> str:
    """Return the first words of whoever listens on a port of this machine; nothing when he hangs up."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        try:
            connection.sendall(b"hello")
            return connection.recv(100).decode()
        except ConnectionError:
            return ""


def ports_listened_on() -> set[int]:
    listening = psutil.Process().net_connections("tcp4")
    return {found.laddr.port for found in listening if found.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize(
    "become",
    [pytest.param(as_another_account, id="another account", marks=needs_root), in_another_process],
)
def test_another_process_that_finds_the_port_is_hung_up_on(become: Callable[[Callable[[], str]], str]) -> None:
    heard: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        heard.append(connection.recv(100))
        connection.sendall(b"welcome")

    with peer(answer) as server:
        relay = Relay(target(ServerEngine.POSTGRESQL, server.port), 5, Cutoff())
        port = relay.parameters["port"]
        assert isinstance(port, int)
        # Before libpq is expected, and while it is.
        assert become(partial(answer_of, port)) == ""
        with relay:
            assert become(partial(answer_of, port)) == ""
            assert heard == []
            # Whoever came first has not taken the way to the server away.
            assert answer_of(port) == "welcome"
            assert server.arrivals == 1


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Allow this process more files than a fleet of 512 visits needs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (6_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("number", [0, 900, 5_500])
def test_our_end_of_a_connection_is_found_however_far_its_descriptor(number: int) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(connection.recv(100).upper())

    with (
        peer(answer) as server,
        Relay(target(ServerEngine.POSTGRESQL, server.port), 5, Cutoff()) as relay,
        socket.socket() as near,
        socket.socket(fileno=fcntl(near.fileno(), F_DUPFD, number)) as far,
    ):
        near.close()
        far.settimeout(10)
        far.connect(("127.0.0.1", relay.parameters["port"]))
        far.sendall(b"hello")
        assert far.recv(100) == b"HELLO"


def echo(connection: socket.socket) -> None:
    while content := connection.recv(100):
        connection.sendall(content.upper())


def assert_passes_on(client: socket.socket) -> None:
    client.sendall(b"hello")
    assert client.recv(100) == b"HELLO"


def connected(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.parameters["port"]), timeout=30)


def test_a_server_that_says_too_much_ends_its_own_visit_alone() -> None:
    def flood(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"x" * 65536)

    flooded = Cutoff()
    with (
        peer(echo) as quiet,
        peer(flood) as loud,
        Relay(target(ServerEngine.POSTGRESQL, quiet.port), 5, Cutoff()) as other,
        connected(other) as client,
    ):
        assert_passes_on(client)
        with Relay(target(ServerEngine.POSTGRESQL, loud.port), 5, flooded) as relay, connected(relay):
            assert eventually(lambda: flooded.is_cut)
            # Its port is no other visit's before libpq has stopped to come.
            assert answer_of(relay.parameters["port"]) == ""
        assert str(flooded.reason).startswith("the server's answers take more than 1 MiB")
        assert_passes_on(client)


def test_a_second_connection_that_nobody_takes_holds_up_no_other_visit() -> None:
    with (
        peer(echo) as server,
        # Takes one connection, and then no more.
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        Relay(target(ServerEngine.POSTGRESQL, server.port), 5, Cutoff()) as other,
        Relay(target(ServerEngine.POSTGRESQL, full.getsockname()[1]), 600, Cutoff()) as relay,
        connected(relay),
        connected(relay),
        connected(other) as client,
    ):
        assert_passes_on(client)


def is_connecting(port: int) -> bool:
    connections = psutil.Process().net_connections("tcp4")
    return any(found.status == psutil.CONN_SYN_SENT and found.raddr.port == port for found in connections)


def test_a_second_connection_that_comes_too_late_is_not_the_one_that_is_cut() -> None:
    cutoff, (ours, theirs) = Cutoff(), socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with (
            Relay(target(ServerEngine.POSTGRESQL, port), 600, cutoff) as relay,
            connected(relay),
            connected(relay),
        ):
            assert eventually(lambda: is_connecting(port))
        cutoff.watch(ours.fileno())
        # Now there is room for it.
        full.settimeout(30)
        for _ in range(2):
            taken, _ = full.accept()
            with taken:
                taken.settimeout(30)
                assert taken.recv(1) == b""
        theirs.settimeout(30)
        cutoff.cut()
        assert theirs.recv(1) == b""


def reason_without_room_for_files(port: int) -> str:
    cutoff = Cutoff()
    with (
        Relay(target(ServerEngine.POSTGRESQL, port), 5, cutoff) as relay,
        socket.socket() as client,
        socket.socket() as last,
    ):
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 1, last.fileno() + 1))
        client.connect(("127.0.0.1", relay.parameters["port"]))
        return cutoff.reason or "" if eventually(lambda: cutoff.is_cut) else "never cut"


def test_an_error_of_the_relay_is_that_of_its_visit() -> None:
    with peer(echo) as server:
        found = in_another_process(partial(reason_without_room_for_files, server.port))
    assert found == "the relay failed: OSError(24, 'Too many open files')"


def test_nobody_listens_any_more_when_the_login_is_over() -> None:
    with peer(stall_after_login) as server:
        before = ports_listened_on()
        to = target(ServerEngine.POSTGRESQL, server.port)
        with closing(open_connection(to, LIMITS, Cutoff())) as connection:
            assert eventually(lambda: ports_listened_on() <= before)
            assert connection.closed == 0


def test_the_folder_of_a_visit_by_socket_is_gone_when_the_login_is_over(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with closing(open_connection(postgresql.target(), LIMITS, Cutoff())) as connection:
            assert list(Path(folder).iterdir()) == []
            assert connection.closed == 0


@pytest.mark.parametrize("name", ["n" * 100, "a,b"])
def test_a_visit_by_socket_minds_no_folder_of_temporary_files(
    postgresql: PostgresqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with closing(open_connection(postgresql.target(), LIMITS, Cutoff())) as connection:
        assert connection.closed == 0
