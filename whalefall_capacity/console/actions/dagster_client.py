"""Asking the Dagster webserver to start a run: GraphQL over HTTP, nothing of Dagster is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

import requests

from whalefall_capacity.console.http.cookies import HOST_PREFIX
from whalefall_capacity.console.http.dagster_checks import DagsterCheck
from whalefall_capacity.console.http.dagster_webserver import ask_webserver, data_of
from whalefall_capacity.console.http.principals import SESSION_COOKIE, Credential
from whalefall_capacity.errors import DagsterError
from whalefall_capacity.launch_request import LAUNCH, launch_params
from whalefall_capacity.sentences import Sentence

FAILED_CHECKS = """
query {
  assetNodes {
    assetKey { path }
    assetChecksOrError {
      ... on AssetChecks {
        checks {
          name
          executionForLatestMaterialization { status runId timestamp evaluation { severity description } }
        }
      }
    }
  }
}
"""


@dataclass(frozen=True)
class DagsterClient:
    """The webserver at *url*; where it asks for the console's login, it is asked in the name of the caller."""

    url: str
    asks_for_login: bool
    timeout_seconds: float = 30
    # Of a question that a page asks while somebody waits for it.
    glance_seconds: float = 3

    def launch(
        self, job: str, run_config: Mapping[str, object], tags: Mapping[str, str], credential: Credential
    ) -> str:
        """Start a run of *job* for whoever sent *credential*, and return its id. Raises DagsterError."""
        variables = {"params": launch_params(job, run_config, tags)}
        answer = self._ask("launchRun", LAUNCH, variables, credential, self.timeout_seconds)
        if answer["__typename"] != "LaunchRunSuccess":
            reasons = [error["message"] for error in answer.get("errors", [])] or [answer.get("message", "")]
            why = f"{answer['__typename']}: {'; '.join(reasons)}"
            raise DagsterError(Sentence("Dagster did not start {job}: {why}", job=job, why=why))
        run_id: str = answer["run"]["runId"]
        return run_id

    def failed_checks(self, credential: Credential) -> list[DagsterCheck]:
        """Return the asset checks that failed, told to whoever sent *credential*. Raises DagsterError."""
        nodes = self._ask("assetNodes", FAILED_CHECKS, {}, credential, self.glance_seconds)
        return [
            _failed_check(node, check, executed)
            for node in nodes
            for check in node["assetChecksOrError"].get("checks", [])
            if (executed := check["executionForLatestMaterialization"]) is not None
            and executed["status"] in ("FAILED", "EXECUTION_FAILED")
        ]

    def _ask(
        self, field: str, query: str, variables: dict[str, Any], credential: Credential, timeout_seconds: float
    ) -> Any:
        """Return *field* of the answer to a query. Raises DagsterError when there is none."""
        try:
            answer = ask_webserver(
                "POST",
                f"{self.url}/graphql",
                timeout_seconds,
                partial(self._log_in, credential),
                json={"query": query, "variables": variables},
            )
        except requests.RequestException as error:
            raise DagsterError(
                Sentence(
                    "the Dagster webserver at {url} does not answer ({why}): start it with `whalefall-capacity up`; "
                    "WHALEFALL_WEBSERVER_URL says where it is",
                    url=self.url,
                    why=root_cause(error),
                )
            ) from error
        if (why := _refusal(answer)) is not None:
            raise DagsterError(Sentence("the Dagster webserver at {url} refused: {why}", url=self.url, why=why))
        try:
            found = (data_of(answer) or {}).get(field)
        except ValueError:
            found = None
        if found is None:
            # Such as the login page of a proxy.
            raise DagsterError(
                Sentence(
                    "what answers at {url} is no Dagster webserver; WHALEFALL_WEBSERVER_URL says where that is",
                    url=self.url,
                )
            )
        return found

    def _log_in(self, credential: Credential, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add to *request* who asks; to a webserver without login that is nobody's business."""
        if self.asks_for_login:
            is_token, value = credential
            if is_token:
                request.headers["Authorization"] = f"Bearer {value}"
            else:
                # Under both names: which of them counts depends on whether the webserver is behind TLS.
                request.headers["Cookie"] = f"{SESSION_COOKIE}={value}; {HOST_PREFIX}{SESSION_COOKIE}={value}"
        return request


def _failed_check(node: Mapping[str, Any], check: Mapping[str, Any], executed: Mapping[str, Any]) -> DagsterCheck:
    evaluation = executed["evaluation"] or {}
    return DagsterCheck(
        asset="/".join(node["assetKey"]["path"]),
        check=check["name"],
        severity=evaluation.get("severity"),
        description=evaluation.get("description"),
        run_id=executed["runId"],
        executed_at=datetime.fromtimestamp(executed["timestamp"], timezone.utc),
    )


def _refusal(answer: requests.Response) -> str | None:
    """Return why nothing was done, in the words of the webserver where it has some; None when it was done."""
    if answer.status_code == 401:
        return Sentence(
            "it asks for a login; set WHALEFALL_UI_LOGIN=true for the console too, and the same WHALEFALL_STORE_URL"
        )
    try:
        message: str = answer.json()["errors"][0]["message"]
    except (ValueError, LookupError, TypeError):
        return None if 200 <= answer.status_code < 300 else f"HTTP Error {answer.status_code}: {answer.reason}"
    return message


def root_cause(error: BaseException) -> BaseException:
    """Return the error of the network beneath those that the library wraps around it, which repeat one another."""
    while error.__context__ is not None:
        error = error.__context__
    return error
