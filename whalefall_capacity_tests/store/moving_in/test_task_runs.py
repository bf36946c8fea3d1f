"""Task runs of WhaleFall become ended and closed ones here, with their items by instance, sizes in bytes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from psycopg2.extras import Json
from sqlalchemy import Engine

from whalefall_capacity.store.moving_in.report import Outcome
from whalefall_capacity.store.task_runs.read import get_task_run, list_items
from whalefall_capacity.store.task_runs.write import miscounted, not_closed
from whalefall_capacity_tests.store.moving_in.conftest import Migrate
from whalefall_capacity_tests.store.records import rows
from whalefall_capacity_tests.whalefall_source import WhaleFall

START = datetime(2025, 5, 31, 18, 0, tzinfo=timezone.utc)
END = START + timedelta(minutes=7)
COLLECTED = "11111111-aaaa-4bbb-8ccc-000000000001"
CALCULATED = "11111111-aaaa-4bbb-8ccc-000000000002"
HANGING = "11111111-aaaa-4bbb-8ccc-000000000003"
ACCOUNTS = "11111111-aaaa-4bbb-8ccc-000000000004"


def add_run(whale: WhaleFall, run_id: str, task_key: str, **columns: Any) -> None:
    common = {"task_name": "任务", "task_category": "capacity", "trigger_source": "scheduled", "status": "completed"}
    times = {"started_at": START, "completed_at": END, "created_at": START, "result_url": "/capacity"}
    summary = {"summary_json": Json({"version": 1, "its": "own"})}
    whale.insert("task_runs", **{"run_id": run_id, "task_key": task_key} | common | times | summary | columns)


def add_item(whale: WhaleFall, run_id: str, key: int | str, **columns: Any) -> None:
    defaults = {"item_type": "instance", "item_key": str(key), "status": "completed", "started_at": START}
    numbers = {"instance_id": key} if isinstance(key, int) else {}
    whale.insert("task_run_items", **{"run_id": run_id} | defaults | numbers | columns)


@pytest.fixture
def runs(whale: WhaleFall) -> WhaleFall:
    """A collection, a calculation, one that hangs, and one that is not about capacity."""
    monitor = whale.credential("monitor", "secret")
    shop, bank = (whale.instance(name, credential_id=monitor) for name in ("shop", "bank"))
    admin = whale.insert("users", username="li wei", password="$2b$12$x", role="admin")
    add_run(
        whale, COLLECTED, "sync_databases", status="completed_with_errors", created_by=admin, trigger_source="manual"
    )
    metrics = {"size_mb": 3, "total_size_mb": 1.5, "database_count": 2, "name_mb": "text"}
    add_item(whale, COLLECTED, shop, item_name="shop", metrics_json=Json(metrics), completed_at=END)
    add_item(whale, COLLECTED, bank, item_name="bank", status="failed", error_message="refused", completed_at=END)
    add_item(whale, COLLECTED, "summary", item_type="step", item_name="summary")
    add_item(whale, COLLECTED, 777, item_name="removed")
    add_run(whale, CALCULATED, "capacity_aggregate_current", started_at=START + timedelta(days=40))
    add_item(whale, CALCULATED, bank, item_name="bank", completed_at=END)
    add_run(whale, HANGING, "calculate_database", status="running", completed_at=None)
    add_item(whale, HANGING, shop, item_name=None, status="pending", started_at=None)
    add_run(whale, ACCOUNTS, "sync_accounts")
    add_item(whale, ACCOUNTS, shop)
    return whale


@pytest.mark.usefixtures("runs")
def test_runs_come_along_ended_with_their_items(migrate: Migrate, store: Engine) -> None:
    migrate(task_runs=True)
    run = get_task_run(store, COLLECTED)
    assert run is not None
    assert (run.task_key, run.task_name, run.task_category) == ("sync_databases", "Collect sizes", "capacity")
    assert (run.status, run.trigger_source, run.created_by, run.result_url) == (
        "completed_with_errors",
        "manual",
        "li wei",
        None,
    )
    assert (run.started_at, run.completed_at, run.created_at) == (START, END, START)
    assert (run.progress_total, run.progress_completed, run.progress_failed) == (2, 1, 1)
    assert run.summary_json is not None
    assert run.summary_json["common"]["highlights"] == ["taken along from WhaleFall"]
    ids = dict(rows(store, "SELECT name, id FROM instances"))
    items = {item.item_name: item for item in list_items(store, COLLECTED, 10)}
    assert sorted(items) == ["bank", "shop"]
    assert (items["shop"].item_type, items["shop"].item_key, items["shop"].instance_id) == (
        "collection",
        str(ids["shop"]),
        ids["shop"],
    )
    assert items["shop"].metrics_json == {
        "size_bytes": 3_145_728,
        "total_size_bytes": 1_572_864,
        "database_count": 2,
        "name_mb": "text",
    }
    assert (items["bank"].status, items["bank"].error_message) == ("failed", "refused")
    (calculated,) = list_items(store, CALCULATED, 10)
    assert calculated.item_type == "instance_aggregation"


@pytest.mark.usefixtures("runs")
def test_what_had_not_ended_has_failed_and_every_run_is_closed(migrate: Migrate, store: Engine) -> None:
    migrate(task_runs=True)
    run = get_task_run(store, HANGING)
    assert run is not None
    assert (run.status, run.completed_at) == ("failed", START)
    assert run.error_message == "it had not ended in WhaleFall when it was taken along"
    (item,) = list_items(store, HANGING, 10)
    assert (item.status, item.error_message) == ("failed", run.error_message)
    with store.connect() as connection:
        assert not_closed(connection) == {}
        assert miscounted(connection) == []


@pytest.mark.usefixtures("runs")
def test_every_run_and_item_is_accounted_for_and_a_second_time_nothing_is_written(
    migrate: Migrate, store: Engine
) -> None:
    plan, report = migrate(apply=False, task_runs=True), migrate(task_runs=True)
    assert plan.tables == report.tables
    found = {table.table: table for table in report.tables}
    assert (found["task_runs"].rows, found["task_runs"].created, found["task_runs"].skipped) == (4, 3, 1)
    assert (found["task_run_items"].rows, found["task_run_items"].created, found["task_run_items"].skipped) == (7, 4, 3)
    skipped = {(line.table, line.reason) for line in report.lines if line.outcome is Outcome.SKIPPED}
    assert skipped == {
        ("task_runs", "of the task sync_accounts: not about capacity"),
        ("task_run_items", "not of an instance"),
        ("task_run_items", "its instance is not there"),
        ("task_run_items", "its task run is not about capacity"),
    }
    versions = rows(store, "SELECT ctid, xmin FROM task_runs UNION ALL SELECT ctid, xmin FROM task_run_items")
    again = {table.table: table for table in migrate(task_runs=True).tables}
    assert (again["task_runs"].kept, again["task_run_items"].kept) == (3, 6)
    assert rows(store, "SELECT ctid, xmin FROM task_runs UNION ALL SELECT ctid, xmin FROM task_run_items") == versions


@pytest.mark.usefixtures("runs")
def test_task_runs_stay_behind_unless_they_are_asked_for(migrate: Migrate, store: Engine) -> None:
    report = migrate()
    assert "Task runs stay where they are; --task-runs takes them along" in report.notes
    assert rows(store, "SELECT count(*) FROM task_runs") == [(0,)]


def test_runs_that_the_maintenance_would_delete_stay_behind(runs: WhaleFall, migrate: Migrate, store: Engine) -> None:
    add_run(runs, "11111111-aaaa-4bbb-8ccc-000000000005", "sync_databases", created_at=START - timedelta(days=30))
    report = migrate(task_runs=True, retention_task_runs_days=60)
    assert get_task_run(store, "11111111-aaaa-4bbb-8ccc-000000000005") is None
    assert get_task_run(store, COLLECTED) is not None
    reason = "older than WHALEFALL_RETENTION_TASK_RUNS_DAYS: the next maintenance would delete it"
    assert [line.rows for line in report.lines if line.reason == reason] == [1]
