"""Asking the Dagster webserver how its daemon and its code location are: GraphQL over HTTP, without a login."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

from whalefall_capacity.console.http.dagster_webserver import ask_webserver, data_of
from whalefall_capacity.console.monitoring.problems import Component, NotReadyError, Reason
from whalefall_capacity.readiness_queries import CODE_LOCATION, DAEMONS, GRAPHQL_PATH

# Of one wait on the network; the code server is waited for, too.
WAIT_SECONDS = 4.0


@dataclass(frozen=True)
class WatchedWebserver:
    """The webserver at *url*."""

    url: str

    def heartbeats(self) -> Mapping[str, float | None]:
        """Return, by the name of each required daemon, when it was last heard of, in seconds since 1970; None: never.

        Raises NotReadyError when the webserver, or the storage of Dagster, does not say.
        """
        data = self._ask(DAEMONS)
        if data is None or data.get("instance") is None:
            raise NotReadyError(Component.DAGSTER_STORAGE, Reason.UNREACHABLE)
        daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
        return {daemon["daemonType"]: daemon["lastHeartbeatTime"] for daemon in daemons if daemon["required"]}

    def require_code_location(self) -> None:
        """Raise NotReadyError unless the code location is loaded and its server answers."""
        data = self._ask(CODE_LOCATION)
        planned = None if data is None else data.get("executionPlanOrError")
        kind = None if planned is None else planned["__typename"]
        if kind == "PythonError" or kind is None:
            raise NotReadyError(Component.CODE_LOCATION, Reason.UNREACHABLE)
        if kind != "ExecutionPlan":
            raise NotReadyError(Component.CODE_LOCATION, Reason.NOT_LOADED)

    def _ask(self, query: str) -> dict[str, Any] | None:
        """Return the data of the answer, None when it has none but errors.

        Raises NotReadyError for an answer that is none of Dagster's, TimeoutError when none comes in time.
        """
        try:
            answer = ask_webserver("GET", f"{self.url}{GRAPHQL_PATH}", WAIT_SECONDS, params={"query": query})
        except requests.Timeout as error:
            raise TimeoutError from error
        except requests.RequestException as error:
            raise NotReadyError(Component.WEBSERVER, Reason.UNREACHABLE) from error
        # Dagster answers 500 where a part of the data is an error.
        if answer.status_code not in (200, 500):
            raise NotReadyError(Component.WEBSERVER, Reason.REFUSED)
        try:
            return data_of(answer)
        except ValueError as error:
            raise NotReadyError(Component.WEBSERVER, Reason.REFUSED) from error
