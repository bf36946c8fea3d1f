"""Table partitions over the API: what there is, children at once, and a maintenance as a run."""

from __future__ import annotations

import re
from datetime import date

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.periods import add_months
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.table_partitions.create import PARTITIONED_TABLES, ensure_children
from whalefall_capacity_tests.console.conftest import Callers, FakeDagster
from whalefall_capacity_tests.store.records import rows

DATABASE_STATS, *_ = PARTITIONED_TABLES
TABLES = [table.name for table in PARTITIONED_TABLES]
PARTITIONS, CLEANUP = "/api/v1/partitions", "/api/v1/partitions/actions/cleanup"


def test_partitions_are_listed_by_table_and_state(viewer: TestClient, day: date) -> None:
    data = viewer.get(PARTITIONS, params={"table": "database_size_stats", "state": "current"}).json()["data"]
    assert [item["child"] for item in data["items"]] == [f"database_size_stats_{day:%Y_%m}"]
    assert data["items"][0]["bytes"] > 0
    assert viewer.get(PARTITIONS, params={"table": "none"}).json()["data"]["items"] == []
    assert viewer.get(PARTITIONS, params={"state": "gone"}).status_code == 400


def test_partitions_are_searched_by_a_part_of_their_name(viewer: TestClient, day: date) -> None:
    found = viewer.get(PARTITIONS, params={"search": f"E_SIZE_STATS_{day:%Y_%m}"}).json()["data"]
    assert [item["child"] for item in found["items"]] == [
        f"database_size_stats_{day:%Y_%m}",
        f"instance_size_stats_{day:%Y_%m}",
    ]
    assert viewer.get(PARTITIONS, params={"search": "_\\%"}).json()["data"]["total"] == 0


def test_the_status_says_what_is_missing_and_what_would_go(viewer: TestClient, day: date) -> None:
    data = viewer.get(f"{PARTITIONS}/status").json()["data"]
    assert (data["day"], data["healthy"]) == (str(day), False)
    assert {table["table"] for table in data["tables"]} >= {"database_size_stats", "instance_size_aggregations_daily"}
    assert (data["plan"]["drops"], data["plan"]["question"]) == ([], None)
    assert data["plan"]["totals"]["partitions"] == 0
    assert data["totals"]["partitions"] == sum(table["totals"]["partitions"] for table in data["tables"]) >= 10
    assert data["totals"]["bytes"] == sum(table["totals"]["bytes"] for table in data["tables"])


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


def shown(client: TestClient, query: str = "") -> list[str]:
    """Return the table partitions that the page shows."""
    answer = client.get(f"/partitions{query}")
    assert answer.status_code == 200, answer.text
    return re.findall(r'<tr class="part"><th scope="row">(\w+)</th>', answer.text)


def test_the_page_shows_a_line_a_table_and_the_partitions_of_the_one_that_is_open(
    viewer: TestClient, day: date
) -> None:
    page = viewer.get("/partitions").text
    assert re.findall(r'aria-expanded="(\w+)">(\w+)</a>', page) == [("false", table) for table in TABLES]
    assert shown(viewer) == []
    assert "Nothing is past its retention." in page
    assert "data-apply" not in page
    page = viewer.get("/partitions?table=database_size_stats").text
    assert 'aria-expanded="true">database_size_stats</a>' in page
    assert f"database_size_stats_{day:%Y_%m}" in shown(viewer, "?table=database_size_stats")
    assert {name[:-8] for name in shown(viewer, "?table=database_size_stats")} == {"database_size_stats"}


def test_a_search_opens_the_tables_in_which_it_finds_something(viewer: TestClient, day: date) -> None:
    month = f"{day:%Y_%m}"
    assert shown(viewer, f"?search=Stats_{month}") == [
        f"database_size_stats_{month}",
        f"instance_size_stats_{month}",
    ]
    assert shown(viewer, "?search=stats&state=current") == [
        f"database_size_stats_{month}",
        f"instance_size_stats_{month}",
    ]
    page = viewer.get("/partitions?search=%25").text
    assert "No table partition matches the search." in page
    assert viewer.get("/partitions?state=gone").status_code == 400


def test_what_is_due_is_created_from_the_page_by_admins_alone(callers: Callers) -> None:
    assert "data-create" in callers.script(Role.ADMIN).get("/partitions").text
    for role in (Role.VIEW, Role.OPERATOR):
        assert "data-create" not in callers.script(role).get("/partitions").text


def test_the_plan_of_the_page_has_the_rows_and_bytes_of_all_that_would_go(
    admin: TestClient, store: Engine, day: date
) -> None:
    old = add_months(day, -18)
    with store.begin() as connection:
        ensure_children(connection, [DATABASE_STATS], [old])
        connection.execute(
            text(
                "INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source,"
                " collected_at) SELECT 1, 'd' || n, :day, n, 'imported', now() FROM generate_series(1, 1234) AS n"
            ),
            {"day": old},
        )
    with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ANALYZE database_size_stats_{old:%Y_%m}"))
    plan = admin.get(f"{PARTITIONS}/status").json()["data"]["plan"]
    assert (plan["totals"]["partitions"], plan["totals"]["rows"], plan["totals"]["not_estimated"]) == (1, 1234, 0)
    assert plan["totals"]["bytes"] == plan["drops"][0]["bytes"] > 100_000
    page = admin.get("/partitions").text
    # Its own line, and the one of all that would go.
    assert page.partition('id="plan"')[2].count("~1,234") == 2
    assert f'data-apply="{plan["plan_id"]}"' in page
