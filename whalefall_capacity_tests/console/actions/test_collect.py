"""Collect now: the fleet or one instance, one run for all who ask for the same."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.store.access import Role
from whalefall_capacity_tests.clock import ZONE
from whalefall_capacity_tests.console.conftest import Callers, FakeDagster
from whalefall_capacity_tests.store.records import at_once, rows

COLLECT = "/api/v1/capacity/collections"
ITEM = """
INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status)
VALUES (:run_id, 'collection', :key, 'instance', 1, :status)
"""


@pytest.fixture
def operator(callers: Callers, admin: TestClient) -> TestClient:  # noqa: ARG001 - there is an admin
    return callers.script(Role.OPERATOR)


def ask(client: TestClient, **body: Any) -> tuple[str, bool]:
    answer = client.post(COLLECT, json=body)
    assert answer.status_code == 202, answer.text
    data = answer.json()["data"]
    assert data["instance_id"] == body.get("instance_id")
    return data["run_id"], data["joined"]


def execute(store: Engine, statement: str, **values: object) -> None:
    with store.begin() as connection:
        connection.execute(text(statement), values)


def test_the_fleet_is_measured_for_today_in_the_name_of_whoever_asked(
    operator: TestClient, dagster: FakeDagster, store: Engine, day: date
) -> None:
    run_id, joined = ask(operator)
    assert not joined
    ((job, config, tags),) = dagster.launched
    assert (job, config) == ("sync_databases", {"ops": {"size_stats": {"config": {"instance_ids": None}}}})
    assert (tags["dagster/partition"], tags["whalefall/trigger"]) == (str(day), "api")
    ((status, name, category, by, summary),) = rows(
        store,
        "SELECT status, task_name, task_category, created_by, summary_json FROM task_runs WHERE run_id = :run_id",
        run_id=run_id,
    )
    assert (status, name, category) == ("pending", f"Collect sizes of {day}", "capacity")
    assert by == tags["whalefall/created_by"]
    assert summary["common"]["inputs"] == {"first": str(day), "last": str(day)}
    assert summary["common"]["scope"] == {
        "time": {"type": "date", "timezone": str(ZONE), "date": str(day)},
        "target": {"levels": ["database", "instance"], "period_type": "daily"},
    }
    assert summary["ext"] == {"type": "sync_databases", "version": 1, "data": {}}


def test_one_instance_is_measured_alone(operator: TestClient, dagster: FakeDagster, store: Engine) -> None:
    ask(operator, instance_id=2)
    ((_, config, _),) = dagster.launched
    assert config == {"ops": {"size_stats": {"config": {"instance_ids": [2]}}}}
    ((target,),) = rows(store, "SELECT summary_json #> '{common,scope,target}' FROM task_runs")
    assert target["instance_ids"] == [2]


@pytest.mark.parametrize("content", [b"", b"{}", b"null"])
def test_no_body_is_the_fleet(operator: TestClient, content: bytes) -> None:
    answer = operator.post(COLLECT, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["data"]["instance_id"]) == (202, None)


@pytest.mark.parametrize(
    ("open_run", "asked", "joins"),
    [
        ({}, {}, True),
        ({}, {"instance_id": 1}, True),
        ({"instance_id": 1}, {"instance_id": 1}, True),
        ({"instance_id": 1}, {"instance_id": 2}, False),
        ({"instance_id": 1}, {}, False),
    ],
    ids=str,
)
def test_an_open_run_is_joined_when_it_measures_what_is_asked(
    operator: TestClient, open_run: dict[str, int], asked: dict[str, int], joins: bool
) -> None:
    first, _ = ask(operator, **open_run)
    second, joined = ask(operator, **asked)
    assert (second == first, joined) == (joins, joins)


@pytest.mark.parametrize(
    ("status", "joins"), [("pending", True), ("running", True), ("failed", False), ("completed", False)]
)
def test_a_server_whose_visit_has_ended_in_the_open_run_is_visited_by_another(
    operator: TestClient, store: Engine, status: str, joins: bool
) -> None:
    first, _ = ask(operator)
    execute(store, ITEM, run_id=first, key="1", status=status)
    assert (ask(operator, instance_id=1)[0] == first) == joins
    assert ask(operator, instance_id=2) == (first, True)
    assert ask(operator) == (first, True)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_run_that_has_ended_is_not_joined(operator: TestClient, store: Engine, status: str) -> None:
    first, _ = ask(operator)
    execute(store, "UPDATE task_runs SET status = :status", status=status)
    assert ask(operator)[0] != first


def test_the_run_of_yesterday_is_not_joined(operator: TestClient, store: Engine) -> None:
    first, _ = ask(operator)
    execute(
        store,
        "UPDATE task_runs SET summary_json = jsonb_set(summary_json, '{common,scope,time,date}', '\"2026-01-01\"')",
    )
    assert ask(operator)[0] != first


def test_four_at_once_get_one_run(callers: Callers, operator: TestClient, dagster: FakeDagster) -> None:
    clients = [operator, *(callers.script(Role.ADMIN) for _ in range(3))]
    answers = at_once(*(lambda client=client: ask(client) for client in clients))
    assert len({run_id for run_id, _ in answers}) == 1
    assert len(dagster.launched) == 1


def test_an_instance_that_is_not_in_the_fleet_is_a_404_and_starts_nothing(
    operator: TestClient, dagster: FakeDagster, store: Engine
) -> None:
    execute(store, "UPDATE instances SET is_active = false WHERE id = 2")
    for instance_id in (2, 4711):
        answer = operator.post(COLLECT, json={"instance_id": instance_id})
        assert (answer.status_code, answer.json()["message_code"]) == (404, "RESOURCE_NOT_FOUND")
    assert (dagster.launched, rows(store, "SELECT * FROM task_runs")) == ([], [])


@pytest.mark.parametrize("value", [0, -1, 2**31, "1", 1.5, True, [1]])
def test_a_bad_instance_is_a_400_that_names_the_field(
    operator: TestClient, dagster: FakeDagster, value: object
) -> None:
    answer = operator.post(COLLECT, json={"instance_id": value})
    assert (answer.status_code, answer.json()["data"]["errors"][0]["field"]) == (400, "instance_id")
    assert dagster.launched == []
