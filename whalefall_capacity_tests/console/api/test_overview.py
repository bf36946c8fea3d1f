"""The overview over the API and as a page: the fleet as a whole, and what needs a person."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.console.http.dagster_checks import CheckMemory, DagsterCheck
from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity_tests.console.conftest import FakeDagster
from whalefall_capacity_tests.store.past import MIB, put_sizes

OVERVIEW = "/api/v1/overview"


def overview(client: TestClient, **parameters: Any) -> dict[str, Any]:
    answer = client.get(OVERVIEW, params=parameters)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def lose(store: Engine, day: date) -> None:
    """Let the second server not answer on *day*."""
    with store.begin() as connection:
        for table in ("database_size_stats", "instance_size_stats"):
            connection.execute(
                text(f"DELETE FROM {table} WHERE instance_id = 2 AND collected_date = :day"), {"day": day}
            )
        connection.execute(
            text(
                "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, closed_at)"
                " VALUES ('r-1', 'sync_databases', 'Collect', 'capacity', 'scheduled', 'completed_with_errors', now())"
            )
        )
        connection.execute(
            text(
                "INSERT INTO task_run_items"
                " (run_id, item_type, item_key, item_name, instance_id, status, error_message) "
                "VALUES ('r-1', 'collection', '2', 'instance-2', 2, 'failed', 'no <route> to host')"
            )
        )


def test_the_overview_says_total_changes_and_what_is_largest(reader: TestClient, day: date) -> None:
    data = overview(reader)
    assert (data["today"]["measured"], data["today"]["fleet"], data["total_size_bytes"]) == (2, 2, 1110 * MIB)
    assert data["changes"][0] == {
        "days": 7,
        "since": str(day - timedelta(days=7)),
        "change_bytes": 7 * MIB,
        "change_percent": 0.63,
    }
    assert data["changes"][1]["change_bytes"] is None
    assert len(data["totals"]) == 90
    assert data["totals"][-1] == {"day": str(day), "total_size_bytes": 1110 * MIB, "measured": 2, "servers": 2}
    assert data["totals"][0]["total_size_bytes"] is None
    assert [(one["instance"], one["database_name"]) for one in data["largest_databases"]] == [
        ("instance-2", "shop"),
        ("instance-1", "shop"),
        ("instance-1", "crm"),
    ]
    assert data["open_runs"] == data["attention"]["failed_runs"] == []


def test_days_of_the_overview_are_bounded(reader: TestClient) -> None:
    assert len(overview(reader, days=1)["totals"]) == 1
    for bad in ("0", "401", "x"):
        answer = reader.get(OVERVIEW, params={"days": bad})
        assert (answer.status_code, answer.json()["data"]["errors"][0]["field"]) == (400, "days")


@pytest.mark.real_clock
def test_a_server_that_did_not_answer_is_named_and_the_total_does_not_fall(
    viewer: TestClient, store: Engine, day: date
) -> None:
    lose(store, day)
    data = overview(viewer)
    assert (data["today"]["measured"], data["total_size_bytes"]) == (1, 1110 * MIB)
    (missing,) = data["today"]["unmeasured"]
    assert (missing["instance"], missing["last_day"]) == ("instance-2", str(day - timedelta(days=1)))
    assert (missing["visit_status"], missing["reason"]) == ("failed", "no <route> to host")
    assert [run["run_id"] for run in data["attention"]["failed_runs"]] == ["r-1"]


def test_the_overview_and_the_cards_follow_what_is_stored_and_calculated_since(
    viewer: TestClient, store: Engine, day: date
) -> None:
    assert overview(viewer)["total_size_bytes"] == 1110 * MIB
    assert cards(viewer) == (2, 1110 * MIB)
    put_sizes(store, [(1, "wiki", day, 5 * MIB), (3, "new", day, 20 * MIB)])
    assert overview(viewer)["total_size_bytes"] == 1135 * MIB
    aggregate(store, Level.INSTANCE, days_to_windows([day], PeriodType.DAILY))
    assert cards(viewer) == (3, 1135 * MIB)
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET name = 'renamed' WHERE id = 2"))
    assert overview(viewer)["largest_databases"][0]["instance"] == "renamed"
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET is_active = false WHERE id = 2"))
        connection.execute(
            text("DELETE FROM instance_size_stats WHERE instance_id = 2 AND collected_date = :d"), {"d": day}
        )
    assert overview(viewer)["total_size_bytes"] == (1135 - 1000) * MIB


def cards(client: TestClient) -> tuple[int, int]:
    data = client.get("/api/v1/capacity/instances/summary").json()["data"]
    return data["instances"], data["total_size_bytes"]


def test_the_data_of_replicas_counts_apart_and_the_page_says_so(viewer: TestClient, store: Engine) -> None:
    assert overview(viewer)["replicas"] == {"servers": 0, "total_size_bytes": None}
    assert "replicas" not in viewer.get("/").text
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET replica_of_id = 1 WHERE id = 2"))
    data = overview(viewer)
    assert (data["total_size_bytes"], data["changes"][0]["change_bytes"]) == (110 * MIB, 7 * MIB)
    assert data["replicas"] == {"servers": 1, "total_size_bytes": 1000 * MIB}
    page = viewer.get("/").text
    assert "replicas apart: 1 with 1000 MiB" in page
    assert "without replicas" in page


@pytest.mark.real_clock
def test_the_first_page_shows_the_overview(viewer: TestClient, store: Engine, day: date) -> None:
    lose(store, day)
    page = viewer.get("/").text
    assert "no &lt;route&gt; to host" in page
    assert '<a href="/instances/2">instance-2</a>' in page
    assert '<a href="/instances/1/database?name=crm">crm (instance-1)</a>' in page
    found = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', page, re.DOTALL)
    assert found
    (chart,) = json.loads(found[1])
    assert (len(chart["labels"]), chart["series"][0]["values"][-1]) == (90, 1110 * MIB)
    assert chart["series"][0]["texts"][-1] == "1.08 GiB, 1 of 2 measured"
    assert viewer.get("/?days=365").status_code == 200
    assert viewer.get("/?days=7").status_code == 400


def test_whoever_is_not_logged_in_is_led_to_the_login_and_back(viewer: TestClient) -> None:
    viewer.headers.pop("Authorization")
    answer = viewer.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2F")


def check(name: str, **values: Any) -> DagsterCheck:
    defaults = {
        "asset": "database_size_aggregations/weekly",
        "severity": "WARN",
        "description": "2 rows <differ>",
        "run_id": "r-9",
    }
    return DagsterCheck(
        check=name, executed_at=datetime(2026, 5, 1, 2, 0, tzinfo=timezone.utc), **{**defaults, **values}
    )


def test_checks_that_failed_in_dagster_are_named_beside_those_that_the_store_tells(
    viewer: TestClient, dagster: FakeDagster
) -> None:
    dagster.checks = [check("recomputed"), check("inventory_shrank"), check("table_partitions")]
    found = overview(viewer)["attention"]["dagster_checks"]
    assert [(one["check"], one["run_id"]) for one in found["failed"]] == [("recomputed", "r-9")]
    assert found["unknown"] is None
    page = viewer.get("/").text
    assert '<a href="/runs/r-9">database_size_aggregations/weekly · recomputed</a>' in page
    assert "2 rows &lt;differ&gt;" in page


def test_a_dagster_that_cannot_be_asked_is_no_dagster_without_failed_checks(
    viewer: TestClient, dagster: FakeDagster
) -> None:
    dagster.problem = "the webserver is away"
    assert overview(viewer)["attention"]["dagster_checks"] == {"failed": [], "unknown": "the webserver is away"}
    page = viewer.get("/").text
    assert "Whether other checks failed is not known: the webserver is away" in page
    assert "Nothing needs attention." not in page


def test_dagster_is_asked_for_its_checks_now_and_then_and_not_with_each_page() -> None:
    now, asked = [0.0], []

    def ask() -> list[DagsterCheck]:
        asked.append(now[0])
        return [check("recomputed")] if now[0] < 20 else []

    memory = CheckMemory(seconds=20, clock=lambda: now[0])
    for moment in (0.0, 1.5, 19.9):
        now[0] = moment
        assert len(memory.checks(ask).failed) == 1
    now[0] = 20.0
    assert memory.checks(ask).failed == []
    assert asked == [0.0, 20.0]
