"""One thread that waits for the sockets of all relays of this process.

With a thread for each, those of hundreds of visits would wait for the interpreter at every message of every server. One
turn of this one passes on whatever has arrived for all of them: `python -m benchmarks scale`.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from whalefall_capacity.collection import quick_calls

# All others wait while it runs: it must wait for nothing, and raise nothing.
Handler = Callable[[], object]


class Loop:
    """Waits until something can be done with a descriptor, and calls its handler.

    Only handlers may use it, but for `call`: a descriptor that another thread closes meanwhile may have become that of
    another visit.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._waits: dict[int, tuple[int, Handler]] = {}
        self._calls: deque[Handler] = deque()
        self._bell, self._ear = socket.socketpair()
        self._has_rung = False
        self.wait_for(self._ear.fileno(), select.EPOLLIN, self._answer_bell)
        threading.Thread(target=self._run, name="relays", daemon=True).start()

    def call(self, handler: Handler) -> None:
        """Let *handler* be called soon. Any thread may use this."""
        self._calls.append(handler)
        if not self._has_rung:
            self._has_rung = True
            quick_calls.send(self._bell.fileno(), b"\0")

    def wait_for(self, descriptor: int, events: int, handler: Handler) -> None:
        """Call *handler* whenever one of *events* is there, instead of what was waited for so far."""
        known, _ = self._waits.get(descriptor, (0, None))
        if events != known:
            (self._epoll.modify if known else self._epoll.register)(descriptor, events)
        self._waits[descriptor] = events, handler

    def forget(self, descriptor: int) -> None:
        """Wait for nothing of a descriptor, if anything was waited for; before it is closed, always."""
        if self._waits.pop(descriptor, None) is not None:
            # What is closed already is forgotten.
            with suppress(OSError):
                self._epoll.unregister(descriptor)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                # Unless a handler before it has closed it.
                if descriptor in self._waits:
                    # Held by no name: of the last one all would stay, with its password.
                    self._waits[descriptor][1]()

    def _answer_bell(self) -> None:
        quick_calls.receive(self._ear.fileno(), 1)
        # Before the calls are looked at: one that comes later rings again.
        self._has_rung = False
        while self._calls:
            self._calls.popleft()()


_loops: list[Loop] = []
_lock = threading.Lock()


def loop_of_this_process() -> Loop:
    """Return the loop, which starts when it is first asked for."""
    with _lock:
        if not _loops:
            _loops.append(Loop())
        return _loops[0]


def _begin_anew() -> None:
    """Forget the loop of the process of which this one is a copy, without its threads."""
    _loops.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_begin_anew)
