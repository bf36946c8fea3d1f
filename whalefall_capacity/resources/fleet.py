"""The fleet as a Dagster resource: visits every server and stores the sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from typing import NamedTuple

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.collection.fleet import visit_fleet
from whalefall_capacity.collection.sizes import FailedVisit, Target, Visit
from whalefall_capacity.periods import utc_now
from whalefall_capacity.resources.turns import Turns
from whalefall_capacity.runtime import collection_limits, name_filters
from whalefall_capacity.settings import Settings, load_settings
from whalefall_capacity.store.fleet import load_roster
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity.store.sizes.visit_locks import visit_locks
from whalefall_capacity.watching import Watcher

# How many failed servers and unmeasured databases are named; the others are only counted.
MOST_NAMED = 100


class MissingDatabase(NamedTuple):
    """A database that its server listed and that was not measured."""

    instance: str
    database: str
    reason: str


@dataclass
class Collection:
    """Outcome of one collection: counts, and the first failures; neither sizes nor all names are kept.

    *started_at*: before the first visit, by the clock that dates the visits.
    """

    started_at: datetime | None = None
    measured: int = 0
    failed: int = 0
    databases: int = 0
    databases_missing: int = 0
    total_size_bytes: int = 0
    first_failed: list[FailedVisit] = field(default_factory=list)
    first_missing: list[MissingDatabase] = field(default_factory=list)

    @property
    def visited(self) -> int:
        return self.measured + self.failed

    def add(self, outcome: Visit | FailedVisit) -> None:
        if isinstance(outcome, Visit):
            self._add_sizes(outcome)
            return
        self.failed += 1
        if len(self.first_failed) < MOST_NAMED:
            self.first_failed.append(outcome)

    def _add_sizes(self, visit: Visit) -> None:
        self.measured += 1
        for database in visit.measurement.databases:
            if database.size_bytes is not None:
                self.databases += 1
                self.total_size_bytes += database.size_bytes
                continue
            self.databases_missing += 1
            if len(self.first_missing) < MOST_NAMED:
                missing = MissingDatabase(visit.target.name, database.name, database.reason or "")
                self.first_missing.append(missing)


class FleetResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Visits the servers of the fleet within the limits of the settings."""

    def collect(
        self,
        engine: Engine,
        day: date,
        instance_ids: Sequence[int],
        accept_empty: bool,
        watcher: Watcher[Target, Visit | FailedVisit],
    ) -> Collection:
        """Measure the servers of *instance_ids* in that order, and store the sizes under *day* as they arrive."""
        settings = load_settings()
        collection = Collection(utc_now())
        load = partial(load_roster, engine, settings.secret_key)

        def note(outcomes: Sequence[Visit | FailedVisit]) -> None:
            for outcome in outcomes:
                collection.add(outcome)
                watcher.ended(outcome)

        with visit_locks(engine) as locks:
            turns = Turns(instance_ids, locks, load, note, settings.collection_deadline_seconds)
            batches = visit_fleet(
                turns,
                collection_limits(settings),
                name_filters(settings),
                settings.collection_concurrency,
                watcher.began,
            )
            for batch in batches:
                watcher.progressed(collection.visited, len(instance_ids))
                visits = [outcome for outcome in batch if isinstance(outcome, Visit)]
                failed = [outcome for outcome in batch if isinstance(outcome, FailedVisit)]
                if visits:
                    note(write_visits(engine, day, visits, accept_empty))
                note(failed)
                locks.release([v.target.instance_id for v in visits] + [f.instance_id for f in failed])
        busy = load(turns.busy)
        note([*busy.unresolved, *(_busy(target, settings) for target in busy.targets)])
        return collection


def _busy(target: Target, settings: Settings) -> FailedVisit:
    seconds = settings.collection_deadline_seconds
    error = (
        f"{target.name}: another run has been visiting it for {seconds:g} s; `whalefall-capacity runs list` shows which"
    )
    return FailedVisit(target.instance_id, target.name, error, seconds)
