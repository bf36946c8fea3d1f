"""The queue: its order (made by hand, then of a schedule, of a sensor, and of a backfill), and cancelled runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
JOB = "aggregate_weekly"
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("whalefall_capacity"), "__repository__"), JOB
)


@pytest.fixture
def instance(new_dagster_home: Callable[[], str]) -> Iterator[dg.DagsterInstance]:
    """An instance with the queue of dagster.yaml."""
    queue = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())["run_coordinator"]
    with dg.instance_for_test(overrides={"run_coordinator": queue}, temp_dir=new_dagster_home()) as instance:
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
    run = create_run_for_test(instance, JOB, tags=dict(tags), remote_job_origin=ORIGIN)
    context = dg.SubmitRunContext(run, cast(BaseWorkspaceRequestContext, None))
    queued = queue.submit_run(context)
    assert queued.status == dg.DagsterRunStatus.QUEUED
    assert queued.tags.get("dagster/priority") == priority


def test_the_rest_of_the_queue_is_configured_as_dagsters_own(instance: dg.DagsterInstance) -> None:
    queue: Any = instance.run_coordinator
    assert queue.dequeue_interval_seconds == 1
    assert queue.dequeue_num_workers == 4


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING])
def test_a_run_that_is_cancelled_before_its_work_begins_is_cancelled_at_once(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    run = create_run_for_test(instance, JOB, status=status, remote_job_origin=ORIGIN)
    assert instance.run_coordinator.cancel_run(run.run_id)
    assert state(instance, run) is dg.DagsterRunStatus.CANCELED
    # A second request finds nothing to do.
    assert not instance.run_coordinator.cancel_run(run.run_id)
    assert state(instance, run) is dg.DagsterRunStatus.CANCELED


def test_a_run_that_works_is_asked_to_stop_and_says_itself_when_it_has(instance: dg.DagsterInstance) -> None:
    run = create_run_for_test(instance, JOB, status=dg.DagsterRunStatus.STARTING, remote_job_origin=ORIGIN)
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name), run.run_id)
    instance.run_coordinator.cancel_run(run.run_id)
    assert state(instance, run) is dg.DagsterRunStatus.CANCELING


def state(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status
