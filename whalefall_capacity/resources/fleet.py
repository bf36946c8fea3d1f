"""The fleet as a Dagster resource: visits every server and stores the sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.collection.fleet import LISTEN_SECONDS, visit_fleet
from whalefall_capacity.collection.sizes import FailedVisit, Target, Visit
from whalefall_capacity.runtime import collection_limits, name_filters
from whalefall_capacity.settings import Settings, load_settings
from whalefall_capacity.store.fleet import load_roster
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity.store.sizes.visit_locks import VisitLocks, visit_locks
from whalefall_capacity.watching import Watcher

# How many unmeasured databases are named; the others are only counted.
MOST_NAMED = 100


@dataclass
class Collection:
    """The visits of one collection."""

    stored: list[Visit] = field(default_factory=list)
    failed: list[FailedVisit] = field(default_factory=list)

    def add(self, outcome: Visit | FailedVisit) -> None:
        if isinstance(outcome, Visit):
            self.stored.append(outcome)
        else:
            self.failed.append(outcome)

    @property
    def visited(self) -> int:
        return len(self.stored) + len(self.failed)

    @property
    def visited_ids(self) -> set[int]:
        return {visit.target.instance_id for visit in self.stored} | {visit.instance_id for visit in self.failed}

    def missing_databases(self) -> list[tuple[str, str, str]]:
        """Return (instance, database, reason) for every database that was listed but not measured."""
        return [
            (visit.target.name, database.name, database.reason or "")
            for visit in self.stored
            for database in visit.measurement.databases
            if database.size_bytes is None
        ]


class FleetResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Visits the servers of the fleet within the limits of the settings."""

    def collect(
        self,
        engine: Engine,
        day: date,
        instance_ids: Sequence[int] | None,
        accept_empty: bool,
        watcher: Watcher[Target, Visit | FailedVisit],
    ) -> Collection:
        """Measure the fleet, or only *instance_ids*, and store the sizes under *day* as they arrive."""
        settings = load_settings()
        roster = load_roster(engine, settings.secret_key, instance_ids)
        collection = Collection()

        def note(outcomes: Sequence[Visit | FailedVisit]) -> None:
            for outcome in outcomes:
                collection.add(outcome)
                watcher.ended(outcome)

        def progressed() -> None:
            watcher.progressed(collection.visited, len(roster.unresolved) + len(roster.targets))

        note(roster.unresolved)
        with visit_locks(engine) as locks:
            for targets in _when_free(roster.targets, locks, settings.collection_deadline_seconds, progressed):
                batches = visit_fleet(
                    targets,
                    collection_limits(settings),
                    name_filters(settings),
                    settings.collection_concurrency,
                    watcher.began,
                )
                for batch in batches:
                    progressed()
                    visits = [outcome for outcome in batch if isinstance(outcome, Visit)]
                    failed = [outcome for outcome in batch if isinstance(outcome, FailedVisit)]
                    if visits:
                        note(write_visits(engine, day, visits, accept_empty))
                    note(failed)
                    locks.release([v.target.instance_id for v in visits] + [f.instance_id for f in failed])
            visited = collection.visited_ids
            note([_busy(target, settings) for target in roster.targets if target.instance_id not in visited])
        return collection


def _when_free(
    targets: Sequence[Target], locks: VisitLocks, patience_seconds: float, while_waiting: Callable[[], None]
) -> Iterator[list[Target]]:
    """Yield targets, locked, as soon as no other run visits them; ends when none became free for *patience_seconds*."""
    waiting = {target.instance_id: target for target in targets}
    deadline = time.monotonic() + patience_seconds
    while waiting and time.monotonic() < deadline:
        if free := locks.take(waiting):
            yield [waiting.pop(instance_id) for instance_id in list(waiting) if instance_id in free]
            deadline = time.monotonic() + patience_seconds
        else:
            while_waiting()
            time.sleep(LISTEN_SECONDS)


def _busy(target: Target, settings: Settings) -> FailedVisit:
    seconds = settings.collection_deadline_seconds
    error = (
        f"{target.name}: another run has been visiting it for {seconds:g} s; `whalefall-capacity runs list` shows which"
    )
    return FailedVisit(target.instance_id, target.name, error, seconds)
