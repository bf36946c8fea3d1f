"""Turns of the fleet's servers: each is locked shortly before its visit, so that no two runs visit it at once.

The locks of a whole fleet would fill the lock table of a store with default settings, which has room for some 15,000,
and keep everybody else from connecting to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from whalefall_capacity.collection.sizes import Target
from whalefall_capacity.store.sizes.visit_locks import VisitLocks

LOCKED_AHEAD = 32
ASK_AGAIN_SECONDS = 1.0


class Turns:
    """Targets in the order in which they may be visited; *busy* are those that another run visits."""

    def __init__(
        self,
        targets: Sequence[Target],
        locks: VisitLocks,
        patience_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.busy: list[Target] = []
        self._targets = targets
        self._locks = locks
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic

    def __iter__(self) -> Iterator[Target | None]:
        """Yield targets, locked; None while all that are left are busy.

        Ends when none of them has become free for the patience given.
        """
        for start in range(0, len(self._targets), LOCKED_AHEAD):
            yield from self._lock(self._targets[start : start + LOCKED_AHEAD])
        gives_up_at = self._monotonic() + self._patience_seconds
        asks_again_at = self._monotonic()
        while self.busy and (now := self._monotonic()) < gives_up_at:
            if now < asks_again_at:
                yield None
                continue
            asked, self.busy = self.busy[:LOCKED_AHEAD], self.busy[LOCKED_AHEAD:]
            if free := self._lock(asked):
                yield from free
                gives_up_at = self._monotonic() + self._patience_seconds
            else:
                asks_again_at = now + ASK_AGAIN_SECONDS

    def _lock(self, targets: Sequence[Target]) -> list[Target]:
        """Lock those of *targets* that are free and return them; the others are busy."""
        free = self._locks.take([target.instance_id for target in targets])
        self.busy += [target for target in targets if target.instance_id not in free]
        return [target for target in targets if target.instance_id in free]
