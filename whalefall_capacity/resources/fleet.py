"""The fleet as a Dagster resource: visits every server and stores what each visit brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.collection.fleet import visit_fleet
from whalefall_capacity.collection.sizes import FailedVisit, Target, Visit
from whalefall_capacity.runtime import collection_limits, name_filters
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.fleet import load_roster
from whalefall_capacity.store.stats import write_visits


@dataclass
class Collection:
    """What one round over the fleet brought."""

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

    def missing_databases(self) -> list[tuple[str, str, str]]:
        """Return (instance, database, reason) of every database that was listed but not measured."""
        return [
            (visit.target.name, database.name, database.reason or "")
            for visit in self.stored
            for database in visit.measurement.databases
            if database.size_bytes is None
        ]


class CollectionWatcher:
    """What is told how a round over the fleet goes on; any call may raise to stop it."""

    def began(self, target: Target) -> None:
        """Hear that the visit of a server has begun."""

    def waited(self) -> None:
        """Hear, between visits and at least once a second, that the round goes on."""

    def ended(self, outcome: Visit | FailedVisit) -> None:
        """Hear what came of a visit, once its sizes are stored."""


class FleetResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Visits the servers of the fleet, as the settings say."""

    def collect(
        self,
        engine: Engine,
        day: date,
        instance_ids: Sequence[int] | None,
        accept_empty: bool,
        watcher: CollectionWatcher,
    ) -> Collection:
        """Measure the fleet, or *instance_ids* of it, and store the sizes under *day* as they arrive."""
        settings = load_settings()
        roster = load_roster(engine, settings.secret_key, instance_ids)
        collection = Collection()

        def note(outcomes: Sequence[Visit | FailedVisit]) -> None:
            for outcome in outcomes:
                collection.add(outcome)
                watcher.ended(outcome)

        note(roster.unresolved)
        for batch in visit_fleet(
            roster.targets,
            collection_limits(settings),
            name_filters(settings),
            settings.collection_concurrency,
            watcher.began,
        ):
            watcher.waited()
            if not batch:
                continue
            note([outcome for outcome in batch if isinstance(outcome, FailedVisit)])
            visits = [outcome for outcome in batch if isinstance(outcome, Visit)]
            note(write_visits(engine, day, visits, accept_empty))
        return collection
