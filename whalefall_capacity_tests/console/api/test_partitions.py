"""Table partitions over the API: what there is, children at once, and a maintenance as a run."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from whalefall_capacity.periods import add_months
from whalefall_capacity_tests.console.conftest import FakeDagster
from whalefall_capacity_tests.store.records import rows

PARTITIONS, CLEANUP = "/api/v1/partitions", "/api/v1/partitions/actions/cleanup"


def test_partitions_are_listed_by_table_and_state(viewer: TestClient, day: date) -> None:
    data = viewer.get(PARTITIONS, params={"table": "database_size_stats", "state": "current"}).json()["data"]
    assert [item["child"] for item in data["items"]] == [f"database_size_stats_{day:%Y_%m}"]
    assert data["items"][0]["bytes"] > 0
    assert viewer.get(PARTITIONS, params={"table": "none"}).json()["data"]["items"] == []
    assert viewer.get(PARTITIONS, params={"state": "gone"}).status_code == 400


def test_the_status_says_what_is_missing_and_what_would_go(viewer: TestClient, day: date) -> None:
    data = viewer.get(f"{PARTITIONS}/status").json()["data"]
    assert (data["day"], data["healthy"]) == (str(day), False)
    assert {table["table"] for table in data["tables"]} >= {"database_size_stats", "instance_size_aggregations_daily"}
    assert (data["plan"]["drops"], data["plan"]["question"]) == ([], None)


def test_what_is_due_is_created_once(admin: TestClient) -> None:
    first = admin.post(PARTITIONS).json()["data"]["created"]
    assert first
    assert admin.post(PARTITIONS, json={}).json()["data"]["created"] == []
    assert admin.get(f"{PARTITIONS}/status").json()["data"]["healthy"]


def test_the_partitions_of_a_day_are_created(admin: TestClient, day: date) -> None:
    wanted = add_months(day, 12)
    created = admin.post(PARTITIONS, json={"date": str(wanted)}).json()["data"]["created"]
    assert f"database_size_stats_{wanted:%Y_%m}" in created


@pytest.mark.parametrize("value", ["0000-01-01", "9999-12-31", "1999-01-01", "soon", 5, ""])
def test_a_day_that_no_table_will_need_is_a_400(admin: TestClient, store: Engine, value: object) -> None:
    before = rows(store, "SELECT count(*) FROM pg_class")
    answer = admin.post(PARTITIONS, json={"date": value})
    assert (answer.status_code, answer.json()["data"]["errors"][0]["field"]) == (400, "date")
    assert rows(store, "SELECT count(*) FROM pg_class") == before


def test_a_maintenance_is_a_dry_run_unless_it_says_otherwise(
    admin: TestClient, dagster: FakeDagster, store: Engine
) -> None:
    answer = admin.post(CLEANUP)
    assert (answer.status_code, answer.json()["data"]["dry_run"]) == (202, True)
    plan_id = admin.get(f"{PARTITIONS}/status").json()["data"]["plan"]["plan_id"]
    assert admin.post(CLEANUP, json={"dry_run": False, "confirm": True, "plan_id": plan_id}).status_code == 202
    assert [config["ops"]["plan"]["config"] for _, config, _ in dagster.launched] == [
        {"dry_run": True, "confirm": False},
        {"dry_run": False, "confirm": True, "plan_id": plan_id},
    ]
    assert (
        rows(store, "SELECT task_key, trigger_source, status FROM task_runs")
        == [("partition_maintenance", "api", "pending")] * 2
    )


def test_a_plan_that_no_longer_holds_is_refused(admin: TestClient, dagster: FakeDagster) -> None:
    answer = admin.post(CLEANUP, json={"dry_run": False, "plan_id": "0123456789ab"})
    assert (answer.status_code, answer.json()["message_code"]) == (409, "CONFLICT")
    assert dagster.launched == []


@pytest.mark.parametrize(
    ("body", "field"), [({"dry_run": "no"}, "dry_run"), ({"plan_id": "'; --"}, "plan_id"), ({"force": True}, "force")]
)
def test_a_bad_body_is_a_400(admin: TestClient, dagster: FakeDagster, body: dict[str, object], field: str) -> None:
    answer = admin.post(CLEANUP, json=body)
    assert (answer.status_code, answer.json()["data"]["errors"][0]["field"]) == (400, field)
    assert dagster.launched == []


def test_the_page_shows_every_table(viewer: TestClient, day: date) -> None:
    page = viewer.get("/partitions").text
    assert f"database_size_stats_{day:%Y_%m}" in page
    assert "Nothing is past its retention." in page
    assert "data-apply" not in page
