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
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from whalefall_capacity.collection import quick_calls
from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.postgresql.loop import Handler, loop_of_this_process
from whalefall_capacity.collection.postgresql.pair import Pair
from whalefall_capacity.collection.sizes import Cutoff, Target, open_socket
from whalefall_capacity.errors import CollectionError
from whalefall_capacity.socket_paths import can_be_reached_by_libpq

# A value of nothing has four bytes on the way and sixteen in the memory of libpq.
LIBPQ_FACTOR = 4
# Until the client is let in, a server has little to say, and libpq takes long to note many parameters.
LOGIN_LIMIT_BYTES = 1024**2
# In which of the next descriptors the socket of libpq is looked for first: others open files at the same time.
NEXT_DESCRIPTORS = 8
# Below which number it is looked for before all descriptors are listed: as many as a process of 512 visits has.
USUAL_DESCRIPTORS = 5_000
# After how many of them others may run: to look at one does not let go of the interpreter.
NUMBERS_OF_A_TURN = 64


class Relay:
    """Takes the connections of libpq, and makes one to the server for each."""

    def __init__(self, target: Target, timeout_seconds: float, cutoff: Cutoff) -> None:
        """Connect to the server. Raises OSError."""
        self._target = target
        self._timeout_seconds = timeout_seconds
        self._cutoff = cutoff
        self._login_meter, self._meter = Meter(LOGIN_LIMIT_BYTES), Meter()
        self._first: socket.socket | None = self._reach()
        cutoff.watch(self._first.fileno())
        self._folder: Path | None = None
        self.parameters: dict[str, str | int]
        self._listener = self._listen()
        self._listener.setblocking(False)
        self._pairs: list[Pair] = []
        self._is_closed = False
        # Between noting that it is closed and watching another connection: whoever closed it may watch one, too.
        self._lock = threading.Lock()
        self._expected: list[int] = []
        # From here on the sockets are for the thread of the loop alone.
        self._loop = loop_of_this_process()
        self._call(self._start)

    def __enter__(self) -> Relay:
        """Expect a connection of libpq, which opens its socket next."""
        self._expected = quick_calls.next_descriptors(NEXT_DESCRIPTORS, like=self._listener.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        """Take no more connections, from a moment later on; one that there is ends with libpq's end of it."""
        with self._lock:
            self._is_closed = True
        self._call(self._stop)
        # At once: when the process ends now, the loop has no time for it.
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def in_words(self, message: str) -> str:
        """Return a message of libpq with the address of the server in place of the relay's."""
        return message.replace(self._own_address, self._server_address)

    def _reach(self) -> socket.socket:
        host, port = self._target.host, self._target.port
        where = f"{host}/.s.PGSQL.{port}" if self._target.is_local else (host, port)
        return open_socket(where, self._timeout_seconds)

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

    def _call(self, handler: Handler) -> None:
        """Call *handler* in the thread of the loop."""
        self._loop.call(partial(self._guarded, handler))

    def _wait_for(self, end: socket.socket, events: int, handler: Handler) -> None:
        self._loop.wait_for(end.fileno(), events, partial(self._guarded, handler))

    def _guarded(self, handler: Handler) -> None:
        """Let an error end this visit, and no other."""
        try:
            handler()
        except Exception as error:
            self._cutoff.cut(str(error) if isinstance(error, CollectionError) else f"the relay failed: {error!r}")
            # It goes on to listen: libpq may still connect to this port, which must not be another visit's by then.
            self._is_closed = True
            while self._pairs:
                self._end(self._pairs[0])

    def _start(self) -> None:
        self._wait_for(self._listener, select.EPOLLIN, self._accept)

    def _stop(self) -> None:
        self._loop.forget(self._listener.fileno())
        quick_calls.close(self._listener)
        if self._first is not None:
            quick_calls.close(self._first)

    def _accept(self) -> None:
        """Take a connection: libpq makes another when TLS, or going without, is refused."""
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            # Whoever it was has left.
            return
        except OSError:
            # It would be tried again and again.
            self._stop()
            raise
        if self._folder is not None or _is_held(client, self._expected):
            self._admit(client)
        else:
            # To look everywhere takes a while, for which the loop cannot wait. One at a time, however many come.
            self._loop.forget(self._listener.fileno())
            threading.Thread(target=self._examine, args=(client,), daemon=True).start()

    def _examine(self, client: socket.socket) -> None:
        is_ours = _is_held(client, _descriptors())
        self._call(partial(self._examined, client, is_ours))

    def _examined(self, client: socket.socket, is_ours: bool) -> None:
        if is_ours:
            self._admit(client)
        else:
            quick_calls.close(client)
        # Unless nobody listens any more.
        if self._listener.fileno() >= 0:
            self._start()

    def _admit(self, client: socket.socket) -> None:
        if self._is_closed:
            quick_calls.close(client)
        elif self._first is not None:
            self._join(client, self._first)
            self._first = None
        else:
            # The loop cannot wait for that either.
            threading.Thread(target=self._reach_again, args=(client,), daemon=True).start()

    def _reach_again(self, client: socket.socket) -> None:
        try:
            server = self._reach()
        except OSError:
            quick_calls.close(client)
        else:
            self._call(partial(self._join_again, client, server))

    def _join_again(self, client: socket.socket, server: socket.socket) -> None:
        with self._lock:
            if not self._is_closed:
                self._cutoff.watch(server.fileno())
                self._join(client, server)
                return
        for end in (client, server):
            quick_calls.close(end)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        pair = Pair(client, server)
        self._pairs.append(pair)
        self._wait(pair)

    def _exchange(self, pair: Pair, end: socket.socket) -> None:
        """Pass on what an end says. Raises CollectionError when the server has said too much."""
        meter = self._meter if self._is_closed else self._login_meter
        meter.count(LIBPQ_FACTOR * pair.exchange(end))
        if pair.is_over:
            self._end(pair)
        else:
            self._wait(pair)

    def _wait(self, pair: Pair) -> None:
        for end, events in pair.wishes():
            if events:
                self._wait_for(end, events, partial(self._exchange, pair, end))
            else:
                self._loop.forget(end.fileno())

    def _end(self, pair: Pair) -> None:
        self._pairs.remove(pair)
        for end, _ in pair.wishes():
            self._loop.forget(end.fileno())
        pair.close()


def _temporary_folder() -> str:
    """Return the folder of temporary files, or /tmp where its path is too long for a socket, or two hosts to libpq."""
    folder = tempfile.gettempdir()
    longest = Path(folder, "whalefall-12345678", ".s.PGSQL.65535")
    return folder if can_be_reached_by_libpq(longest) else "/tmp"  # noqa: S108 - nobody else may enter what we make there


def _is_held(accepted: socket.socket, descriptors: Iterable[int]) -> bool:
    """Tell whether one of the *descriptors* of this process is the other end of a connection over TCP."""
    try:
        ends = quick_calls.own_address(accepted.fileno()), quick_calls.peer_address(accepted.fileno())
    except OSError:
        # Whoever it was has left.
        return False
    return any(quick_calls.leads(descriptor, *ends) for descriptor in descriptors)


def _descriptors() -> Iterator[int]:
    """Yield the descriptors of this process, and numbers that are none.

    They are listed only when all else is exhausted, which newer Pythons would do at once outside a generator: of a
    process that visits hundreds of servers that takes longer than all the rest of a visit, for Python lets the other
    threads run at each of thousands.
    """
    for number in range(USUAL_DESCRIPTORS):
        if number % NUMBERS_OF_A_TURN == 0:
            time.sleep(0)
        yield number
    yield from (int(path.name) for path in Path("/dev/fd").iterdir())
