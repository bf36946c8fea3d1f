"""The one GraphQL document with which the console starts a run, and the runs that take less than the role admin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whalefall_capacity.tasks import AGGREGATE_CURRENT, LOCATION, SYNC_DATABASES

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
# What an operator may start: it measures and calculates, and removes nothing.
OPERATORS_JOBS = frozenset({SYNC_DATABASES.key, AGGREGATE_CURRENT.key})


def launch_params(job: str, run_config: Mapping[str, object], tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the variable `params` of the document."""
    return {
        "selector": {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": job},
        "runConfigData": run_config,
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }


def is_launch_by_operator(request: Mapping[str, Any]) -> bool:
    """Tell whether a GraphQL request is that very document, for a job that an operator may start."""
    if request.get("query") != LAUNCH:
        return False
    try:
        selector = request["variables"]["params"]["selector"]
        return selector["repositoryLocationName"] == LOCATION and selector["jobName"] in OPERATORS_JOBS
    except (LookupError, TypeError):
        return False
