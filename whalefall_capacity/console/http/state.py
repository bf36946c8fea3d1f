"""The state that requests share, made once: store, settings, Dagster, callers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Protocol

from markupsafe import Markup
from sqlalchemy import Engine

from whalefall_capacity.console.http.dagster_checks import CheckMemory, DagsterCheck
from whalefall_capacity.console.http.login_limits import LoginLimiter
from whalefall_capacity.console.http.principals import Credential, PrincipalCache
from whalefall_capacity.kept import Kept
from whalefall_capacity.periods import today
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.aggregations.ranking import ChangeRankings
from whalefall_capacity.store.aggregations.summaries import Summary
from whalefall_capacity.store.sizes.database_list import ListedDatabase
from whalefall_capacity.store.sizes.fleet_watch import WatchedFleet
from whalefall_capacity.store.sizes.instance_list import ListedInstance
from whalefall_capacity.store.sizes.listing import Listed

if TYPE_CHECKING:
    from whalefall_capacity.console.http.overview import OverviewSizes

MOST_LIVE_READS = 2
# Of the overview, one a length that is asked for.
MOST_OVERVIEWS = 8
MOST_SUMMARIES = 200
# Pages of 50 rows, or of 200 at most.
MOST_LISTS = 50
# Of each figure with a sample an instance, in the formats that are asked for.
MOST_METRIC_TEXTS = 8
# CSV files of all databases: 5 MiB for 50,000 of them.
MOST_FILES = 2


class Dagster(Protocol):
    """The Dagster webserver, or what stands for it in a test."""

    def launch(
        self, job: str, run_config: Mapping[str, object], tags: Mapping[str, str], credential: Credential
    ) -> str:
        """Start a run of *job* for whoever sent *credential*, and return its id. Raises DagsterError."""
        ...

    def failed_checks(self, credential: Credential) -> Sequence[DagsterCheck]:
        """Return the asset checks that failed, told to whoever sent *credential*. Raises DagsterError."""
        ...


@dataclass(frozen=True)
class Console:
    """The store, the settings, Dagster, and the callers known so far.

    *reading* is for queries of their own, *monitoring* for those that watch the store.
    """

    engine: Engine
    reading: Engine
    monitoring: Engine
    settings: Settings
    dagster: Dagster
    limiter: LoginLimiter
    principals: PrincipalCache
    checks: CheckMemory = field(default_factory=CheckMemory)
    rankings: ChangeRankings = field(default_factory=ChangeRankings)
    summaries: Kept[Summary] = field(default_factory=lambda: Kept(MOST_SUMMARIES))
    overview_sizes: Kept[OverviewSizes] = field(default_factory=lambda: Kept(MOST_OVERVIEWS))
    database_lists: Kept[Listed[ListedDatabase]] = field(default_factory=lambda: Kept(MOST_LISTS))
    instance_lists: Kept[Listed[ListedInstance]] = field(default_factory=lambda: Kept(MOST_LISTS))
    database_files: Kept[Sequence[str]] = field(default_factory=lambda: Kept(MOST_FILES))
    # The options of the whole fleet, which are most of a page.
    instance_options: Kept[Markup] = field(default_factory=lambda: Kept(1))
    watched_fleet: Kept[WatchedFleet] = field(default_factory=lambda: Kept(1))
    metric_texts: Kept[bytes] = field(default_factory=lambda: Kept(MOST_METRIC_TEXTS))
    # Each of them has a thread of the console for as long as a server takes to answer.
    live_reads: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(MOST_LIVE_READS))

    def today(self) -> date:
        """Return the day it is in the configured zone."""
        return today(self.settings.zone)
