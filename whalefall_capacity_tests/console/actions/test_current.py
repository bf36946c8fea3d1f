"""The button: one run for all who ask for the same, another for who asks for more."""

from __future__ import annotations

import logging
import re
import threading
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.store.access import Role
from whalefall_capacity_tests.clock import ZONE
from whalefall_capacity_tests.console.conftest import Callers, FakeDagster
from whalefall_capacity_tests.store.records import at_once, rows

CURRENT = "/api/v1/capacity/aggregations/current"
RUN_ID = re.compile(r"[0-9a-f-]{36}")


def ask(client: TestClient, **body: Any) -> tuple[str, bool]:
    answer = client.post(CURRENT, json=body)
    assert answer.status_code == 202, answer.text
    data = answer.json()["data"]
    return data["run_id"], data["joined"]


def end(store: Engine, run_id: str, status: str = "completed") -> None:
    with store.begin() as connection:
        connection.execute(
            text("UPDATE task_runs SET status = :status WHERE run_id = :run_id"), {"status": status, "run_id": run_id}
        )


def test_the_task_run_is_there_when_the_answer_is_given(admin: TestClient, store: Engine, day: date) -> None:
    run_id, joined = ask(admin, scope="instance", period_type="weekly")
    assert RUN_ID.fullmatch(run_id)
    assert not joined
    ((status, trigger, category, by, summary),) = rows(
        store,
        "SELECT status, trigger_source, task_category, created_by, summary_json FROM task_runs WHERE run_id = :run_id",
        run_id=run_id,
    )
    assert (status, trigger, category) == ("pending", "api", "aggregation")
    assert by.startswith("token-")
    assert summary == {
        "version": 1,
        "common": {
            "inputs": {
                "scope": "instance",
                "requested_period_type": "weekly",
                "effective_period_type": "daily",
            },
            "scope": {
                "time": {"type": "date", "timezone": str(ZONE), "date": str(day)},
                "target": {"scope": "instance"},
            },
            "metrics": [],
            "highlights": [],
            "flags": {"skipped": False, "skip_reason": None},
        },
        "ext": {"type": "capacity_aggregate_current", "version": 1, "data": {}},
    }


def test_the_run_is_told_scope_day_and_who_asked(admin: TestClient, dagster: FakeDagster, day: date) -> None:
    ask(admin, scope="database")
    ((job, config, tags),) = dagster.launched
    assert job == "capacity_aggregate_current"
    assert config == {"ops": {"aggregate_current": {"config": {"scope": "database", "day": str(day)}}}}
    assert tags["whalefall/trigger"] == "api"
    assert tags["whalefall/created_by"].startswith("token-")


@pytest.mark.parametrize("scope", ["all", "", "  ", None, "ALL", " All "])
def test_no_scope_is_all(admin: TestClient, scope: str | None) -> None:
    assert admin.post(CURRENT, json={"scope": scope}).json()["data"]["scope"] == "all"


@pytest.mark.parametrize("content", [b"", b"{}", b"null"])
def test_no_body_is_all(admin: TestClient, content: bytes) -> None:
    answer = admin.post(CURRENT, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["data"]["scope"]) == (202, "all")


@pytest.mark.parametrize(("sent", "scope"), [("INSTANCE", "instance"), (" Database", "database"), ("aLL", "all")])
def test_a_scope_is_read_in_any_case(admin: TestClient, sent: str, scope: str) -> None:
    assert admin.post(CURRENT, json={"scope": sent}).json()["data"]["scope"] == scope


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scope": "table"}, "scope"),
        ({"scope": 5}, "scope"),
        ({"scope": ["all"]}, "scope"),
        ({"scope": "all; DROP TABLE task_runs"}, "scope"),
        ({"scope": "s" * 10_000}, "scope"),
        ({"scope": "\x00"}, "scope"),
        ({"period_type": "hourly"}, "period_type"),
        ({"period_type": 7}, "period_type"),
        ({"skope": "all"}, "skope"),
        ([], "body"),
        ("all", "body"),
        (7, "body"),
    ],
    ids=str,
)
def test_a_bad_body_is_a_400_that_names_the_field_and_starts_nothing(
    admin: TestClient, dagster: FakeDagster, store: Engine, body: Any, field: str
) -> None:
    answer = admin.post(CURRENT, json=body)
    assert answer.status_code == 400
    assert answer.json()["message_code"] == "VALIDATION_ERROR"
    assert [error["field"] for error in answer.json()["data"]["errors"]] == [field]
    assert (dagster.launched, rows(store, "SELECT * FROM task_runs")) == ([], [])


def test_a_bad_scope_is_told_the_three_that_are_good(admin: TestClient) -> None:
    assert admin.post(CURRENT, json={"scope": "table"}).json()["message"] == "scope: must be instance, database or all"


def test_a_lone_surrogate_is_a_400(admin: TestClient) -> None:
    for content in (b'{"scope": "\\ud800"}', b'{"\\ud800": 1}'):
        answer = admin.post(CURRENT, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 60_000, b"scope=all"])
def test_what_is_no_json_is_a_400(admin: TestClient, content: bytes) -> None:
    answer = admin.post(CURRENT, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["message_code"]) == (400, "VALIDATION_ERROR")


def test_two_at_once_get_one_run(callers: Callers, dagster: FakeDagster, store: Engine) -> None:
    clients = [callers.script(Role.ADMIN) for _ in range(4)]
    answers = at_once(*(lambda client=client: ask(client, scope="all") for client in clients))
    assert len({run_id for run_id, _ in answers}) == 1
    assert sorted(joined for _, joined in answers) == [False, True, True, True]
    assert len(dagster.launched) == 1
    assert rows(store, "SELECT count(*) FROM task_runs") == [(1,)]


@pytest.mark.parametrize(
    ("open_scope", "asked", "joins"),
    [
        ("all", "all", True),
        ("all", "instance", True),
        ("all", "database", True),
        ("instance", "instance", True),
        ("instance", "database", False),
        ("instance", "all", False),
        ("database", "instance", False),
    ],
)
def test_a_run_is_joined_when_its_scope_covers_what_is_asked(
    admin: TestClient, open_scope: str, asked: str, joins: bool
) -> None:
    first, _ = ask(admin, scope=open_scope)
    second, joined = ask(admin, scope=asked)
    assert (second == first, joined) == (joins, joins)


@pytest.mark.parametrize("status", ["completed", "completed_with_errors", "failed", "cancelled"])
def test_a_run_that_has_ended_is_not_joined(admin: TestClient, store: Engine, status: str) -> None:
    first, _ = ask(admin)
    end(store, first, status)
    assert ask(admin) != (first, True)


def test_a_run_that_works_is_joined(admin: TestClient, store: Engine) -> None:
    first, _ = ask(admin)
    end(store, first, "running")
    assert ask(admin) == (first, True)


def test_the_run_of_another_day_is_not_joined(admin: TestClient, store: Engine, day: date) -> None:
    first, _ = ask(admin)
    with store.begin() as connection:
        connection.execute(
            text("UPDATE task_runs SET summary_json = jsonb_set(summary_json, '{common,scope,time,date}', :day)"),
            {"day": f'"{day - timedelta(days=1)}"'},
        )
    assert ask(admin)[0] != first


def test_a_webserver_that_refuses_is_a_503_and_no_row(
    admin: TestClient, dagster: FakeDagster, store: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    dagster.problem = "the Dagster webserver at http://x does not answer"
    with caplog.at_level(logging.ERROR):
        answer = admin.post(CURRENT, json={"scope": "instance"})
    assert (answer.status_code, answer.json()["message_code"]) == (503, "UNAVAILABLE")
    assert answer.json()["message"] == dagster.problem
    assert rows(store, "SELECT * FROM task_runs") == []
    assert "run_id=None scope=instance" in caplog.text


def test_a_run_whose_worker_was_quicker_keeps_its_row(admin: TestClient, dagster: FakeDagster, store: Engine) -> None:
    known = "0b0e6d4e-0000-4000-8000-000000000000"
    with store.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, "
                "progress_total) VALUES (:run_id, 'capacity_aggregate_current', 'x', 'aggregation', 'api', "
                "'running', 3)"
            ),
            {"run_id": known},
        )
    dagster.launch = lambda *_: known  # type: ignore[method-assign]
    assert ask(admin)[0] == known
    assert rows(store, "SELECT status, progress_total FROM task_runs") == [("running", 3)]


def test_one_who_asks_while_another_launches_waits_and_joins(callers: Callers, dagster: FakeDagster) -> None:
    launching, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        launching.set()
        assert go_on.wait(30)

    dagster.on_launch = hold
    first, second = callers.script(Role.ADMIN), callers.script(Role.ADMIN)
    answers: list[tuple[str, bool]] = []
    threads = [threading.Thread(target=lambda client=client: answers.append(ask(client))) for client in (first, second)]
    threads[0].start()
    assert launching.wait(30)
    threads[1].start()
    threads[1].join(0.5)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len({run_id for run_id, _ in answers}) == 1
    assert len(dagster.launched) == 1
