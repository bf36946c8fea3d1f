"""Watching work: one protocol for the visits of a fleet, the calculation of windows and the maintenance of tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class Watcher(Generic[Unit, Result]):
    """A listener to work on units, such as servers; any call may raise to stop the work."""

    def began(self, unit: Unit) -> None:
        """Hear that work on a unit begins, in the thread that does it."""

    def progressed(self, done: int, total: int) -> None:
        """Hear how many units are done: before the first, after each, and now and then while one is waited for."""

    def ended(self, outcome: Result) -> None:
        """Hear the outcome of a unit, once it is stored."""


# Steps of a run of the command line work in its thread: their progress reaches the terminal this way.
_TERMINAL: ContextVar[Watcher[Any, Any]] = ContextVar("terminal", default=Watcher())  # noqa: B039 - it has no state


def terminal() -> Watcher[Any, Any]:
    """Return the watcher of the terminal that waits for this work; one that ignores everything where none waits."""
    return _TERMINAL.get()


@contextmanager
def shown_by(watcher: Watcher[Any, Any]) -> Iterator[None]:
    """Make *watcher* the terminal's for steps that run in this thread within the block."""
    token = _TERMINAL.set(watcher)
    try:
        yield
    finally:
        _TERMINAL.reset(token)
