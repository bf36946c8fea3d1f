"""Asking the Dagster webserver to start a run: GraphQL over HTTP, nothing of Dagster is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests

from whalefall_capacity.console.http.cookies import HOST_PREFIX
from whalefall_capacity.console.http.principals import SESSION_COOKIE, Credential
from whalefall_capacity.errors import DagsterError
from whalefall_capacity.launch_request import LAUNCH, launch_params


@dataclass(frozen=True)
class DagsterClient:
    """The webserver at *url*; where it asks for the console's login, it is asked in the name of the caller."""

    url: str
    asks_for_login: bool
    timeout_seconds: float = 30

    def launch(
        self, job: str, run_config: Mapping[str, object], tags: Mapping[str, str], credential: Credential
    ) -> str:
        """Start a run of *job* for whoever sent *credential*, and return its id. Raises DagsterError."""
        variables = {"params": launch_params(job, run_config, tags)}
        answer = self._ask(LAUNCH, variables, credential)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            reasons = [error["message"] for error in answer.get("errors", [])] or [answer.get("message", "")]
            raise DagsterError(f"Dagster did not start {job}: {answer['__typename']}: {'; '.join(reasons)}")
        run_id: str = answer["run"]["runId"]
        return run_id

    def _ask(self, query: str, variables: dict[str, Any], credential: Credential) -> dict[str, Any]:
        try:
            answer = requests.post(
                f"{self.url}/graphql",
                json={"query": query, "variables": variables},
                # A function: the library would otherwise send what a .netrc says of this host in its place.
                auth=partial(self._log_in, credential),
                timeout=self.timeout_seconds,
                # It would become a GET without the mutation.
                allow_redirects=False,
            )
            if not 200 <= answer.status_code < 300:
                raise DagsterError(f"the Dagster webserver at {self.url} refused: {_reason(answer)}")
            content = answer.json()
        except requests.RequestException as error:
            raise DagsterError(
                f"the Dagster webserver at {self.url} does not answer ({root_cause(error)}): start it with "
                "`whalefall-capacity up`; WHALEFALL_WEBSERVER_URL says where it is"
            ) from error
        if content.get("errors"):
            raise DagsterError(f"the Dagster webserver refused: {content['errors'][0].get('message')}")
        data: dict[str, Any] = content["data"]
        return data

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


def _reason(answer: requests.Response) -> str:
    """Return what an answer that is an error says."""
    if answer.status_code == 401:
        return "it asks for a login; set WHALEFALL_UI_LOGIN=true for the console too, and the same WHALEFALL_STORE_URL"
    try:
        message: str = answer.json()["errors"][0]["message"]
    except (ValueError, LookupError, TypeError):
        return f"HTTP Error {answer.status_code}: {answer.reason}"
    return message


def root_cause(error: BaseException) -> BaseException:
    """Return the error of the network beneath those that the library wraps around it, which repeat one another."""
    while error.__context__ is not None:
        error = error.__context__
    return error
