"""Asset checks that failed, as Dagster has them: asked for now and then, whoever looks how often."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Annotated

from pydantic import Field

from whalefall_capacity.errors import DagsterError


@dataclass(frozen=True)
class DagsterCheck:
    """An asset check whose newest execution, for the latest materialization, did not pass."""

    asset: str
    check: str
    severity: Annotated[str | None, Field(description="WARN or ERROR; null when the check itself could not run.")]
    description: str | None
    run_id: str
    executed_at: datetime


@dataclass(frozen=True)
class DagsterChecks:
    """The asset checks that failed; or *unknown*, the reason why Dagster did not tell."""

    failed: Sequence[DagsterCheck]
    unknown: Annotated[str | None, Field(description="Why Dagster could not be asked; null when it was.")] = None


@dataclass
class CheckMemory:
    """Answer that Dagster gave a moment ago: a page that refreshes itself does not ask it each time.

    One caller asks at a time, and the others are told what it was told; a webserver that is away or slow costs one of
    them its timeout.
    """

    seconds: float = 20.0
    clock: Callable[[], float] = time.monotonic
    _lock: Lock = field(default_factory=Lock)
    _until: float = 0.0
    _told: DagsterChecks | None = None

    def checks(self, ask: Callable[[], Sequence[DagsterCheck]]) -> DagsterChecks:
        """Return what Dagster tells, or told within the last seconds."""
        with self._lock:
            if self._told is None or self._until <= self.clock():
                self._told = _ask(ask)
                self._until = self.clock() + self.seconds
            return self._told


def _ask(ask: Callable[[], Sequence[DagsterCheck]]) -> DagsterChecks:
    try:
        return DagsterChecks(ask())
    except DagsterError as error:
        return DagsterChecks((), error.args[0])
