"""The end of a process by a signal: Ctrl-C, `kill`, a terminal that closes.

A command unwinds, so that everything it holds is released, and exits with 128 + the number of the signal, which is
what shells report. Where it starts or stops a server, a signal is put off until that is done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let each of the signals end the block by SystemExit.

    `nohup` keeps its effect. SIGINT is heard even where the shell started us with it ignored, as it does in the
    background: children inherit that, and could not be stopped.
    """
    heard = [n for n in ENDING if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    with _handled(heard, _end):
        yield


@contextmanager
def put_off() -> Iterator[list[int]]:
    """Yield the signals that came so far; they take effect at the end of the block."""
    came: list[int] = []
    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        # Python runs handlers in the main thread: no other one is disturbed.
        yield came
        return
    try:
        with _handled(heard, lambda number, _: came.append(number)):
            yield came
    finally:
        for number in came[:1]:
            signal.raise_signal(number)


@contextmanager
def handled_by(number: signal.Signals, handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Give a signal to *handler*, which is to end the block; after that, it takes its effect."""
    came: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        came.append(number)
        handler(number, frame)

    if signal.getsignal(number) is signal.SIG_IGN:
        yield
        return
    with _handled([number], hear):
        yield
    if came:
        signal.raise_signal(number)


@contextmanager
def first_of_them() -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the first signal that came during the block, whoever handled it."""

    def first() -> int | None:
        try:
            return os.read(reading, 1)[0]
        except BlockingIOError:
            return None

    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield first
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


@contextmanager
def _handled(numbers: Sequence[signal.Signals], handler: Callable[[int, Any], object]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handlers in before.items():
            # None stands for a handler that is not Python's; there is no way back to it.
            signal.signal(number, signal.SIG_DFL if handlers is None else handlers)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
    raise SystemExit(128 + number)
