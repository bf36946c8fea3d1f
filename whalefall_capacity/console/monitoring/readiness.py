"""Is everything there that a day needs: the store, Dagster's daemon, the code location?

The daemon and the code location are asked about through the webserver, the one part of Dagster that the console knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.console.actions.dagster_client import root_cause
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.console.monitoring.looks import Look
from whalefall_capacity.console.monitoring.problems import Component, NotReadyError, Reason
from whalefall_capacity.console.monitoring.webserver import WatchedWebserver
from whalefall_capacity.periods import utc_now
from whalefall_capacity.store.postgres.schema import is_current

# Of everything together; longer than one wait for the webserver, which tells more when it is over.
WAIT_SECONDS = 5.0
# A daemon is heard of every 30 seconds from each of its threads; one that does something long is not heard meanwhile.
NEWEST_HEARTBEAT_SECONDS = 60.0
OLDEST_HEARTBEAT_SECONDS = 600.0
# Through what a component is asked.
TOLD_BY: Mapping[Component, frozenset[Component]] = {
    Component.STORE: frozenset(),
    Component.WEBSERVER: frozenset(),
    Component.DAGSTER_STORAGE: frozenset({Component.WEBSERVER}),
    Component.DAEMON: frozenset({Component.WEBSERVER, Component.DAGSTER_STORAGE}),
    Component.CODE_LOCATION: frozenset({Component.WEBSERVER}),
}

Found = TypeVar("Found")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readiness:
    """Problems, each component at most once, and the age of each daemon's heartbeat as far as it is known."""

    problems: Mapping[Component, Reason]
    heartbeat_seconds: Mapping[str, float]

    def is_ready(self, component: Component) -> bool | None:
        """Tell whether a component is ready; None when what tells of it is not."""
        if any(source in self.problems for source in TOLD_BY[component]):
            return None
        return component not in self.problems


class ReadinessLooks:
    """Looks at every component, all at the same time."""

    def __init__(self, store: Engine, webserver: WatchedWebserver) -> None:
        self._store = Look(lambda: _require_store(store))
        self._heartbeats = Look(webserver.heartbeats)
        self._code_location = Look(webserver.require_code_location)
        self._told: Mapping[Component, Reason] = {}

    async def readiness(self) -> Readiness:
        """Return what is wrong now, or was a second ago; within WAIT_SECONDS, whatever does not answer."""
        looks = await asyncio.gather(
            _outcome(self._store, Component.STORE),
            _outcome(self._heartbeats, Component.DAGSTER_STORAGE),
            _outcome(self._code_location, Component.CODE_LOCATION),
        )
        (_, store), (heartbeats, daemon), (_, code_location) = looks
        now = utc_now().timestamp()
        ages = {name: None if seen is None else now - seen for name, seen in (heartbeats or {}).items()}
        if heartbeats is not None:
            daemon = _of_daemon(ages)
        found = [problem for problem in (store, daemon, code_location) if problem is not None]
        problems = _problems(found)
        self._tell(problems, found)
        return Readiness(problems, {name: age for name, age in ages.items() if age is not None})

    def _tell(self, problems: Mapping[Component, Reason], found: Sequence[NotReadyError]) -> None:
        """Log what is wrong, and why as far as that is known, when it is not what was wrong before."""
        if problems != self._told:
            self._told = problems
            reasons = ", ".join(f"{component}: {reason}" for component, reason in problems.items())
            causes = {str(root_cause(problem)): None for problem in found if problem.__cause__}
            logger.warning("%s", "; ".join([f"not ready: {reasons}", *causes]) if problems else "ready again")


def readiness_of(console: Console) -> ReadinessLooks:
    """Return the looks at the store of *console* and at the webserver of its settings."""
    return ReadinessLooks(console.monitoring, WatchedWebserver(console.settings.dagster_webserver))


async def _outcome(look: Look[Found], component: Component) -> tuple[Found | None, NotReadyError | None]:
    """Return what *look* finds, or what is not ready; *component* is that which does not answer in time."""
    try:
        return await look.found(WAIT_SECONDS), None
    except TimeoutError:
        return None, NotReadyError(component, Reason.TIMEOUT)
    except NotReadyError as problem:
        return None, problem


def _require_store(store: Engine) -> None:
    try:
        current = is_current(store)
    except SQLAlchemyError as error:
        raise NotReadyError(Component.STORE, Reason.UNREACHABLE) from error
    if not current:
        raise NotReadyError(Component.STORE, Reason.NOT_MIGRATED)


def _of_daemon(ages: Mapping[str, float | None]) -> NotReadyError | None:
    """Return what is wrong with the daemon, by the ages of the heartbeats of its threads. Pure."""
    known = [age for age in ages.values() if age is not None]
    if len(known) < len(ages) or not known:
        return NotReadyError(Component.DAEMON, Reason.NO_HEARTBEAT)
    if min(known) > NEWEST_HEARTBEAT_SECONDS or max(known) > OLDEST_HEARTBEAT_SECONDS:
        return NotReadyError(Component.DAEMON, Reason.OLD_HEARTBEAT)
    return None


def _problems(found: Sequence[NotReadyError]) -> dict[Component, Reason]:
    """Return the reason of each component; where the webserver answers nothing, only its own. Pure."""
    problems = {problem.component: problem.reason for problem in found}
    asked = {Component.DAGSTER_STORAGE, Component.CODE_LOCATION}
    if all(problems.get(component) is Reason.TIMEOUT for component in asked):
        problems = {component: reason for component, reason in problems.items() if component not in asked}
        problems[Component.WEBSERVER] = Reason.TIMEOUT
    return problems
