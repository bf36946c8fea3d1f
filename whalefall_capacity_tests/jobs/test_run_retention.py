"""Old runs of this project go; whatever else shares Dagster's storage stays."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster import DagsterEventType
from sqlalchemy import Engine

from whalefall_capacity.jobs import run_retention
from whalefall_capacity.jobs.run_retention import forget_old_runs
from whalefall_capacity.settings import build_settings
from whalefall_capacity_tests.resources.runs import local_run, queued_run, report

SETTINGS = build_settings(retention_dagster_runs_days=400)


def ended_run(instance: dg.DagsterInstance, job: str, location: str | None) -> str:
    run_id = local_run(instance, job) if location is None else queued_run(instance, job, location=location)
    report(instance, run_id, DagsterEventType.RUN_SUCCESS)
    return run_id


@pytest.mark.real_clock
def test_old_runs_of_this_project_go_and_those_of_other_code_locations_stay(
    store: Engine, dagster_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_retention, "BATCH", 2)
    ours, theirs = ("whalefall_capacity", "sync_databases"), ("finance", "sync_databases")
    local, local_of_others = (None, "partition_maintenance"), (None, "close_the_books")
    of_all = [ours, theirs, theirs, theirs, ours, local, ours, local_of_others, ours, ours]
    ids = [ended_run(dagster_instance, job, location) for location, job in of_all]
    open_run = queued_run(dagster_instance)
    now = datetime.now(timezone.utc)
    assert forget_old_runs(store, dagster_instance, SETTINGS, now + timedelta(days=399)).dagster_runs == 0
    assert forget_old_runs(store, dagster_instance, SETTINGS, now + timedelta(days=401)).dagster_runs == 6
    left = {run.run_id for run in dagster_instance.get_runs()}
    assert left == {ids[1], ids[2], ids[3], ids[7], open_run}
