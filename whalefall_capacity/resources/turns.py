"""Turns of the fleet's servers: each is locked shortly before its visit, so that no two runs visit it at once.

The locks of a whole fleet would fill the lock table of a store with default settings, which has room for some 15,000,
and keep everybody else from connecting to it. Where a server is and its password are read when its turn has come, too:
of all the others only the id is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from whalefall_capacity.collection.sizes import FailedVisit, Target
from whalefall_capacity.store.fleet import Roster
from whalefall_capacity.store.sizes.visit_locks import VisitLocks

LOCKED_AHEAD = 32
ASK_AGAIN_SECONDS = 1.0


class Turns:
    """Targets in the order in which they may be visited; *busy* are the ids of those that another run visits.

    *load* reads servers by their ids; *unresolved* hears of those that cannot be visited.
    """

    def __init__(
        self,
        ids: Sequence[int],
        locks: VisitLocks,
        load: Callable[[Sequence[int]], Roster],
        unresolved: Callable[[Sequence[FailedVisit]], None],
        patience_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.busy: list[int] = []
        self._ids = ids
        self._locks = locks
        self._load = load
        self._unresolved = unresolved
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic

    def __iter__(self) -> Iterator[Target | None]:
        """Yield targets, locked; None while all that are left are busy.

        Ends when none of them has become free for the patience given.
        """
        for start in range(0, len(self._ids), LOCKED_AHEAD):
            yield from self._targets(self._lock(self._ids[start : start + LOCKED_AHEAD]))
        gives_up_at = self._monotonic() + self._patience_seconds
        asks_again_at = self._monotonic()
        while self.busy and (now := self._monotonic()) < gives_up_at:
            if now < asks_again_at:
                yield None
                continue
            asked, self.busy = self.busy[:LOCKED_AHEAD], self.busy[LOCKED_AHEAD:]
            if free := self._lock(asked):
                yield from self._targets(free)
                gives_up_at = self._monotonic() + self._patience_seconds
            else:
                asks_again_at = now + ASK_AGAIN_SECONDS

    def _lock(self, ids: Sequence[int]) -> list[int]:
        """Lock those of *ids* that are free and return them; the others are busy."""
        free = self._locks.take(ids)
        self.busy += [instance_id for instance_id in ids if instance_id not in free]
        return [instance_id for instance_id in ids if instance_id in free]

    def _targets(self, ids: Sequence[int]) -> Sequence[Target]:
        roster = self._load(ids) if ids else Roster()
        if roster.unresolved:
            self._unresolved(roster.unresolved)
            self._locks.release([failed.instance_id for failed in roster.unresolved])
        return roster.targets
