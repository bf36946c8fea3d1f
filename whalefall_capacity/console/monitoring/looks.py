"""Looks at something that may not answer: shared by all who want one at the same time, and waited for only so long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Found = TypeVar("Found", covariant=True)

# Whoever asks within this time after a look gets what it found.
FRESH_SECONDS = 1.0


class Look(Generic[Found]):
    """A function that looks, of which one call at most is under way, in a thread of its own.

    A thread that hangs would otherwise be joined by another one with each request, and hold up the end of the process.
    """

    def __init__(self, look: Callable[[], Found], clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: Future[Found] | None = None
        self._fresh_until = 0.0

    async def found(self, wait_seconds: float) -> Found:
        """Return what the look finds, or raise what it raises. Raises TimeoutError when that takes too long."""
        future = asyncio.wrap_future(self._current())
        done, _ = await asyncio.wait({future}, timeout=wait_seconds)
        if not done:
            # Only this wait; what comes of the look is for whoever asks next.
            future.cancel()
            raise TimeoutError
        return future.result()

    def _current(self) -> Future[Found]:
        """Return the look that is under way, or has just ended; else begin one."""
        with self._lock:
            if self._latest is None or (self._latest.done() and self._clock() >= self._fresh_until):
                self._latest = Future()
                # From here on nobody can cancel it.
                self._latest.set_running_or_notify_cancel()
                threading.Thread(target=self._work, args=(self._latest,), daemon=True).start()
            return self._latest

    def _work(self, future: Future[Found]) -> None:
        try:
            found = self._look()
        except Exception as error:
            self._fresh_until = self._clock() + FRESH_SECONDS
            future.set_exception(error)
        else:
            self._fresh_until = self._clock() + FRESH_SECONDS
            future.set_result(found)
