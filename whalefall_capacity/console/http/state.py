"""The state that requests share, made once: store, settings, Dagster, callers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from threading import BoundedSemaphore
from typing import Protocol

from sqlalchemy import Engine

from whalefall_capacity.console.http.login_limits import LoginLimiter
from whalefall_capacity.console.http.principals import Credential, PrincipalCache
from whalefall_capacity.periods import today
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.aggregations.ranking import ChangeRankings

MOST_LIVE_READS = 2


class Launcher(Protocol):
    """The Dagster webserver, or what stands for it in a test."""

    def launch(
        self, job: str, run_config: Mapping[str, object], tags: Mapping[str, str], credential: Credential
    ) -> str:
        """Start a run of *job* for whoever sent *credential*, and return its id. Raises DagsterError."""
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
    dagster: Launcher
    limiter: LoginLimiter
    principals: PrincipalCache
    rankings: ChangeRankings = field(default_factory=ChangeRankings)
    # Each of them has a thread of the console for as long as a server takes to answer.
    live_reads: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(MOST_LIVE_READS))

    def today(self) -> date:
        """Return the day it is in the configured zone."""
        return today(self.settings.zone)
