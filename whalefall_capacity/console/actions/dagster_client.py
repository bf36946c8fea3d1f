"""Asking the Dagster webserver to start a run: GraphQL over HTTP, nothing of Dagster is imported."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from whalefall_capacity.console.http.cookies import HOST_PREFIX
from whalefall_capacity.console.http.principals import SESSION_COOKIE, Credential
from whalefall_capacity.errors import DagsterError

LOCATION = "whalefall_capacity"
REPOSITORY = "__repository__"
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""


@dataclass(frozen=True)
class DagsterClient:
    """The webserver at *url*; where it asks for the console's login, it is asked in the name of the caller."""

    url: str
    asks_for_login: bool
    credential: Credential | None = None
    timeout_seconds: float = 30

    def for_caller(self, credential: Credential) -> DagsterClient:
        """Return the same webserver, asked in the name of whoever sent *credential*."""
        return replace(self, credential=credential)

    def launch(self, job: str, run_config: Mapping[str, object], tags: Mapping[str, str]) -> str:
        """Start a run of *job* and return its id. Raises DagsterError."""
        params = {
            "selector": {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": job},
            "runConfigData": run_config,
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = self._ask(LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            reasons = [error["message"] for error in answer.get("errors", [])] or [answer.get("message", "")]
            raise DagsterError(f"Dagster did not start {job}: {answer['__typename']}: {'; '.join(reasons)}")
        run_id: str = answer["run"]["runId"]
        return run_id

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the operator's own setting
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json", **self._login()},
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:  # noqa: S310
                content = json.load(answer)
        except urllib.error.HTTPError as error:
            raise DagsterError(f"the Dagster webserver at {self.url} refused: {_reason(error)}") from error
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise DagsterError(
                f"the Dagster webserver at {self.url} does not answer ({error}): start it with "
                "`whalefall-capacity up`; WHALEFALL_WEBSERVER_URL says where it is"
            ) from error
        if content.get("errors"):
            raise DagsterError(f"the Dagster webserver refused: {content['errors'][0].get('message')}")
        data: dict[str, Any] = content["data"]
        return data

    def _login(self) -> dict[str, str]:
        """Return the headers that say who asks; to a webserver without login they are nobody's business."""
        if not self.asks_for_login or self.credential is None:
            return {}
        is_token, value = self.credential
        if is_token:
            return {"Authorization": f"Bearer {value}"}
        # Under both names: which of them counts depends on whether the webserver is behind TLS.
        return {"Cookie": f"{SESSION_COOKIE}={value}; {HOST_PREFIX}{SESSION_COOKIE}={value}"}


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what an answer that is an error says."""
    if error.code == 401:
        return "it asks for a login; set WHALEFALL_UI_LOGIN=true for the console too, and the same WHALEFALL_STORE_URL"
    try:
        message: str = json.load(error)["errors"][0]["message"]
    except (ValueError, LookupError, TypeError, OSError):
        return str(error)
    return message
