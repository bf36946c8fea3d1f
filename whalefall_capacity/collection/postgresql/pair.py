"""A connection of libpq to a relay, and the relay's to the server: what one end says is passed on to the other."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

from whalefall_capacity.collection import quick_calls

CHUNK_BYTES = 64 * 1024


class Pair:
    """Both ends. Of each direction one chunk is on its way, and the next is taken when that has gone."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends = (client, server)
        # By who takes it.
        self._waiting = {client: b"", server: b""}
        self._gone: set[socket.socket] = set()

    @property
    def is_over(self) -> bool:
        """True when one end has gone, and the other has heard all that it said."""
        return any(not self._waiting[self._other(end)] for end in self._gone)

    def wishes(self) -> Iterator[tuple[socket.socket, int]]:
        """Yield each end with the events of epoll that it can be waited for, 0 for none."""
        for end in self._ends:
            yield end, (select.EPOLLIN if self._reads(end) else 0) | (select.EPOLLOUT if self._waiting[end] else 0)

    def exchange(self, end: socket.socket) -> int:
        """Pass on what an end says, and has to hear; return how many bytes the server has sent."""
        received, other = 0, self._other(end)
        if self._reads(end):
            self._waiting[other] = self._take(end)
            received = len(self._waiting[other]) if end is self._ends[1] else 0
            self._send(other)
        self._send(end)
        return received

    def close(self) -> None:
        for end in self._ends:
            quick_calls.hang_up(end)

    def _reads(self, end: socket.socket) -> bool:
        return not self._waiting[self._other(end)] and end not in self._gone

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
            # It hears nothing any more, and may have said something before it left.
            self._waiting[end] = b""
