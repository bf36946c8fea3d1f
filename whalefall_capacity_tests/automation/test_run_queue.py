"""The order of the queue: made by hand, then of a schedule, of a sensor, and of a backfill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import BaseWorkspaceRequestContext

from whalefall_capacity.automation.run_queue import PrioritizedRunCoordinator
from whalefall_capacity.settings import PROJECT_ROOT

SCHEDULE = {"dagster/schedule_name": "daily_collection"}
SENSOR = {"dagster/sensor_name": "aggregations_follow_stats"}
BACKFILL = {"dagster/backfill": "abcdefgh"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance with the queue of dagster.yaml."""
    queue = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())["run_coordinator"]
    with dg.instance_for_test(overrides={"run_coordinator": queue}) as instance:
        yield instance


@pytest.mark.parametrize(
    ("tags", "priority"),
    [
        ({}, None),
        (SCHEDULE, "-1"),
        (SENSOR, "-2"),
        (BACKFILL, "-3"),
        (SCHEDULE | {"dagster/priority": "7"}, "7"),
    ],
)
def test_a_run_gets_the_priority_of_its_origin(
    instance: dg.DagsterInstance, tags: Mapping[str, str], priority: str | None
) -> None:
    queue = instance.run_coordinator
    assert isinstance(queue, PrioritizedRunCoordinator)
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("whalefall_capacity"), "__repository__")
    run = create_run_for_test(
        instance, "aggregate_weekly", tags=dict(tags), remote_job_origin=RemoteJobOrigin(repository, "aggregate_weekly")
    )
    context = dg.SubmitRunContext(run, cast(BaseWorkspaceRequestContext, None))
    queued = queue.submit_run(context)
    assert queued.status == dg.DagsterRunStatus.QUEUED
    assert queued.tags.get("dagster/priority") == priority


def test_the_rest_of_the_queue_is_configured_as_dagsters_own(instance: dg.DagsterInstance) -> None:
    queue: Any = instance.run_coordinator
    assert queue.dequeue_interval_seconds == 1
