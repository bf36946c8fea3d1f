"""What a step tells while it works, for whoever listens in the same thread: the terminal, while it waits for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, ParamSpec

from whalefall_capacity.store.maintenance.plan import ChildOutcome

What = ParamSpec("What")


class Announcements(Generic[What]):
    """Something that is told, to one listener or to nobody."""

    def __init__(self, name: str) -> None:
        self._listener: ContextVar[Callable[What, None] | None] = ContextVar(name, default=None)

    @contextmanager
    def heard_by(self, listener: Callable[What, None]) -> Iterator[None]:
        """Call *listener* with what steps that run in this thread tell within the block."""
        token = self._listener.set(listener)
        try:
            yield
        finally:
            self._listener.reset(token)

    def tell(self, *what: What.args, **more: What.kwargs) -> None:
        """Tell the listener, if there is one."""
        listener = self._listener.get()
        if listener is not None:
            listener(*what, **more)


# Units done, and units in all.
PROGRESS: Announcements[[int, int]] = Announcements("progress")
# What became of a table partition.
OUTCOMES: Announcements[[ChildOutcome]] = Announcements("outcomes")
