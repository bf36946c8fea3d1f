"""A relay between libpq and a server, which counts what the server says.

libpq reads by itself, keeps whatever a server sends before it says so, and opens its own socket. So it connects to
the relay, on this machine, and the relay to the server; they speak to each other as they would without it, TLS
included.

Over a Unix socket libpq speaks no TLS, so for a server that is reached by TCP the relay listens on a port of 127.0.0.1.
Other accounts may find it: whoever connects and is not this process is hung up on, and after the login nobody listens.
"""

from __future__ import annotations

import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from whalefall_capacity.collection import quick_calls
from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.sizes import Cutoff, Target, open_socket
from whalefall_capacity.errors import CollectionError
from whalefall_capacity.socket_paths import can_be_reached_by_libpq

CHUNK_BYTES = 64 * 1024
# A value of nothing has four bytes on the way and sixteen in the memory of libpq.
LIBPQ_FACTOR = 4
# Until the client is let in, a server has little to say, and libpq takes long to note many parameters.
LOGIN_LIMIT_BYTES = 1024**2
# How long the relay may not notice that it is no longer needed.
LOOK_AGAIN_SECONDS = 0.5
# In which of the next descriptors the socket of libpq is looked for first: others open files at the same time.
NEXT_DESCRIPTORS = 8
# Below which number it is looked for before all descriptors are listed: as many as a process of 512 visits has.
USUAL_DESCRIPTORS = 5_000


class Relay:
    """Takes the connections of libpq and makes one to the server for each, in a thread of its own."""

    def __init__(self, target: Target, timeout_seconds: float, cutoff: Cutoff) -> None:
        """Connect to the server. Raises OSError."""
        self._target = target
        self._timeout_seconds = timeout_seconds
        self._cutoff = cutoff
        self._login_meter, self._meter = Meter(LOGIN_LIMIT_BYTES), Meter()
        self._first: socket.socket | None = self._reach()
        self._folder: Path | None = None
        self.parameters: dict[str, str | int]
        self._listener = self._listen()
        self._pairs: list[_Pair] = []
        self._is_closed = False
        self._expected: list[int] = []
        threading.Thread(target=self._run, name=f"relay-{target.name}", daemon=True).start()

    def __enter__(self) -> Relay:
        """Expect a connection of libpq, which opens its socket next."""
        self._expected = quick_calls.next_descriptors(NEXT_DESCRIPTORS, like=self._listener.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        """Take no more connections, from half a second on; one that there is ends with libpq's end of it."""
        self._is_closed = True
        # At once: when the process ends now, the thread has no time for it.
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def in_words(self, message: str) -> str:
        """Return a message of libpq with the address of the server in place of the relay's."""
        return message.replace(self._own_address, self._server_address)

    def _reach(self) -> socket.socket:
        host, port = self._target.host, self._target.port
        where = f"{host}/.s.PGSQL.{port}" if self._target.is_local else (host, port)
        reached = open_socket(where, self._timeout_seconds)
        self._cutoff.watch(reached.fileno())
        return reached

    def _listen(self) -> socket.socket:
        """Return a listening socket, and note where it is and what libpq calls it in its messages."""
        host, port = self._target.host, self._target.port
        if not self._target.is_local:
            listener = socket.create_server(("127.0.0.1", 0))
            own_host, own_port = listener.getsockname()
            # The name of the host is still that of the server, for TLS.
            self.parameters = {"host": host, "hostaddr": own_host, "port": own_port}
            self._own_address = f'"{own_host}", port {own_port} '
            self._server_address = f'"{host}", port {port} '
            return listener
        # Of this account alone, as `mkdtemp` makes it.
        self._folder = Path(tempfile.mkdtemp(prefix="whalefall-", dir=_temporary_folder()))
        self.parameters = {"host": str(self._folder), "port": port}
        self._own_address, self._server_address = str(self._folder), host
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self._folder / f".s.PGSQL.{port}"))
        listener.listen()
        return listener

    def _run(self) -> None:
        try:
            while self._pairs or not self._is_closed:
                self._step()
        except CollectionError as error:
            self._cutoff.cut(str(error))
        finally:
            for pair in self._pairs:
                pair.close()
            quick_calls.close(self._listener)
            if self._first is not None:
                quick_calls.close(self._first)

    def _step(self) -> None:
        """Wait until something can be done, and do it. Raises CollectionError when the server has said too much."""
        poll = select.poll()
        if self._is_closed:
            quick_calls.close(self._listener)
        else:
            poll.register(self._listener, select.POLLIN)
        for pair in self._pairs:
            pair.register(poll)
        ready = {descriptor for descriptor, _ in poll.poll(LOOK_AGAIN_SECONDS * 1000)}
        for pair in self._pairs:
            meter = self._meter if self._is_closed else self._login_meter
            meter.count(LIBPQ_FACTOR * pair.exchange(ready))
        for pair in [pair for pair in self._pairs if pair.is_over]:
            self._pairs.remove(pair)
            pair.close()
        if self._listener.fileno() in ready:
            self._accept()

    def _accept(self) -> None:
        """Take a connection: libpq makes another when TLS, or going without, is refused."""
        client, _ = self._listener.accept()
        if self._folder is None and not _is_of_this_process(client, self._expected):
            quick_calls.close(client)
            return
        try:
            server = self._first or self._reach()
        except OSError:
            quick_calls.close(client)
            return
        self._first = None
        self._pairs.append(_Pair(client, server))


def _temporary_folder() -> str:
    """Return the folder of temporary files, or /tmp where its path is too long for a socket, or two hosts to libpq."""
    folder = tempfile.gettempdir()
    longest = Path(folder, "whalefall-12345678", ".s.PGSQL.65535")
    return folder if can_be_reached_by_libpq(longest) else "/tmp"  # noqa: S108 - nobody else may enter what we make there


def _is_of_this_process(accepted: socket.socket, expected: Iterable[int]) -> bool:
    """Tell whether this process holds the other end of a connection over TCP, mostly at an *expected* number."""
    try:
        ends = quick_calls.own_address(accepted.fileno()), quick_calls.peer_address(accepted.fileno())
    except OSError:
        # Whoever it was has left.
        return False
    return any(quick_calls.leads(descriptor, *ends) for descriptor in _descriptors(expected))


def _descriptors(expected: Iterable[int]) -> Iterator[int]:
    """Yield the descriptors of this process, the *expected* ones first, and numbers that are none.

    They are listed only when all else is exhausted, which newer Pythons would do at once outside a generator: of a
    process that visits hundreds of servers that takes longer than all the rest of a visit, for Python lets the other
    threads run at each of thousands.
    """
    yield from expected
    yield from range(USUAL_DESCRIPTORS)
    yield from (int(path.name) for path in Path("/dev/fd").iterdir())


class _Pair:
    """A connection of libpq and the one to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends = (client, server)
        # By who takes it: of each direction one chunk is on its way, and the next is taken when that has gone.
        self._waiting = {client: b"", server: b""}
        self._gone: set[socket.socket] = set()

    @property
    def is_over(self) -> bool:
        """True when one end has gone, and the other has heard all that it said."""
        return any(not self._waiting[self._other(end)] for end in self._gone)

    def register(self, poll: select.poll) -> None:
        """Say what each end can be waited for."""
        for end in self._ends:
            reads = not self._waiting[self._other(end)] and end not in self._gone
            wish = (select.POLLIN if reads else 0) | (select.POLLOUT if self._waiting[end] else 0)
            if wish:
                poll.register(end, wish)

    def exchange(self, ready: set[int]) -> int:
        """Pass on what there is; return how many bytes the server has sent."""
        received = 0
        for end in self._ends:
            other = self._other(end)
            if end.fileno() in ready and not self._waiting[other] and end not in self._gone:
                self._waiting[other] = self._take(end)
                received += len(self._waiting[other]) if end is self._ends[1] else 0
        for end in self._ends:
            self._send(end)
        return received

    def close(self) -> None:
        for end in self._ends:
            quick_calls.hang_up(end)

    def _other(self, end: socket.socket) -> socket.socket:
        client, server = self._ends
        return server if end is client else client

    def _take(self, end: socket.socket) -> bytes:
        try:
            content = quick_calls.receive(end.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            content = b""
        if not content:
            self._gone.add(end)
        return content

    def _send(self, end: socket.socket) -> None:
        if not self._waiting[end]:
            return
        try:
            self._waiting[end] = self._waiting[end][quick_calls.send(end.fileno(), self._waiting[end]) :]
        except BlockingIOError:
            return
        except OSError:
            self._gone.add(end)
            self._waiting[end] = b""
