"""Task runs over the API: lists, one with its items, cancel."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity_tests.store.records import rows

RUNS = "/api/v1/task-runs"


@pytest.fixture
def runs(store: Engine) -> Engine:
    """Twenty-five runs, r-1 to r-25, each a minute after the one before; r-25 is running and has two items."""
    with store.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, "
                "created_at) "
                "SELECT 'r-' || n, CASE WHEN n % 2 = 0 THEN 'sync_databases' ELSE 'other' END, 'run', 'capacity', "
                "'scheduled', CASE WHEN n = 25 THEN 'running' WHEN n = 24 THEN 'failed' ELSE 'completed' END, "
                "timestamptz '2026-06-22 00:00+08' + n * interval '1 minute' FROM generate_series(1, 25) AS n"
            )
        )
        connection.execute(
            text(
                "INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status) VALUES "
                "('r-25', 'collection', '1', 'shop', 1, 'completed'), ('r-25', 'collection', '2', 'crm', 2, 'failed')"
            )
        )
    return store


def data(client: TestClient, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


@pytest.mark.usefixtures("runs")
def test_runs_come_newest_first_in_pages(viewer: TestClient) -> None:
    first, second = data(viewer, RUNS), data(viewer, RUNS, page=2)
    ids = [run["run_id"] for page in (first, second) for run in page["items"]]
    assert ids == [f"r-{n}" for n in range(25, 0, -1)]
    assert (first["total"], first["pages"], first["has_next"], second["has_next"]) == (25, 2, True, False)


@pytest.mark.usefixtures("runs")
def test_runs_are_filtered_by_status_and_task(viewer: TestClient) -> None:
    assert [run["run_id"] for run in data(viewer, RUNS, status="failed")["items"]] == ["r-24"]
    assert data(viewer, RUNS, task_key="sync_databases")["total"] == 12
    assert data(viewer, RUNS, task_key="none")["items"] == []


@pytest.mark.usefixtures("runs")
def test_runs_are_sorted_and_filtered_by_their_source(viewer: TestClient) -> None:
    assert [run["run_id"] for run in data(viewer, RUNS, sort="created", limit=2)["items"]] == ["r-1", "r-2"]
    assert data(viewer, RUNS, trigger_source="api")["items"] == []
    assert data(viewer, RUNS, task_category="capacity", trigger_source="scheduled")["total"] == 25
    assert data(viewer, "/api/v1/options/task-runs") == {
        "task_keys": ["other", "sync_databases"],
        "task_categories": ["capacity"],
        "created_by": [],
    }


@pytest.mark.parametrize(("field", "value"), [("sort", "name"), ("trigger_source", "cron"), ("created_by", "")])
def test_a_filter_that_is_none_is_a_400(viewer: TestClient, field: str, value: str) -> None:
    answer = viewer.get(RUNS, params={field: value})
    assert (answer.status_code, answer.json()["data"]["errors"][0]["field"]) == (400, field)


def test_the_errors_of_a_run_come_in_one_list(viewer: TestClient, runs: Engine) -> None:
    with runs.begin() as connection:
        connection.execute(text("UPDATE task_run_items SET error_message = 'no route' WHERE status = 'failed'"))
    found = data(viewer, f"{RUNS}/r-25/errors")
    assert found["items"] == [
        {
            "item_type": "collection",
            "item_key": "2",
            "item_name": "crm",
            "instance_id": 2,
            "database_name": None,
            "message": "no route",
        }
    ]
    assert (found["total"], found["limit"], found["has_next"]) == (1, 100, False)
    assert viewer.get(f"{RUNS}/none/errors").status_code == 404


@pytest.mark.usefixtures("runs")
def test_a_run_comes_with_its_items_failed_ones_first(viewer: TestClient) -> None:
    found = data(viewer, f"{RUNS}/r-25")
    assert found["run"]["status"] == "running"
    assert found["item_counts"] == {"completed": 1, "failed": 1}
    assert [item["item_name"] for item in found["items"]] == ["crm", "shop"]
    assert [item["item_name"] for item in data(viewer, f"{RUNS}/r-25", limit=1, page=2)["items"]] == ["shop"]


@pytest.mark.parametrize("run_id", ["none", "' OR 1=1", "%25", "r" * 200])
def test_a_run_that_is_not_there_is_a_404(viewer: TestClient, admin: TestClient, run_id: str) -> None:
    for answer in (viewer.get(f"{RUNS}/{run_id}"), admin.post(f"{RUNS}/{run_id}/actions/cancel")):
        assert (answer.status_code, answer.json()["message_code"]) == (404, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize("run_id", ["%00", "r" * 10_000])
def test_a_run_id_that_is_none_is_a_400(viewer: TestClient, run_id: str) -> None:
    answer = viewer.get(f"{RUNS}/{run_id}")
    assert (answer.status_code, answer.json()["data"]["errors"][0]["field"]) == (400, "run_id")


def test_an_open_run_can_be_cancelled_once(admin: TestClient, runs: Engine) -> None:
    answer = admin.post(f"{RUNS}/r-25/actions/cancel")
    assert (answer.status_code, answer.json()["data"]) == (200, {"run_id": "r-25", "status": "cancelled"})
    assert rows(runs, "SELECT status FROM task_runs WHERE run_id = 'r-25'") == [("cancelled",)]
    again = admin.post(f"{RUNS}/r-25/actions/cancel")
    assert (again.status_code, again.json()["message_code"]) == (409, "CONFLICT")


def test_a_run_that_has_ended_stays_as_it_ended(admin: TestClient, runs: Engine) -> None:
    assert admin.post(f"{RUNS}/r-24/actions/cancel").status_code == 409
    assert rows(runs, "SELECT status FROM task_runs WHERE run_id = 'r-24'") == [("failed",)]
