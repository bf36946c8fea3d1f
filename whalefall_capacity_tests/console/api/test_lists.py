"""Lists and details over the API: latest sizes, raw days, visits, options."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity_tests.store.past import MIB, put_sizes

INSTANCES, DATABASES = "/api/v1/instances", "/api/v1/databases"
MANY_DATABASES = """
INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)
SELECT 1, 'app_' || n, now(), now() FROM generate_series(1, :count) AS n
"""
VISITED = """
INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status)
VALUES ('r-1', 'sync_databases', 'Collect sizes', 'capacity', 'scheduled', 'completed_with_errors');
INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status, completed_at, error_message,
                            details_json)
VALUES ('r-1', 'collection', '1', 'instance-1', 1, 'completed', now(), NULL, '{"caveats": ["sizes are estimates"]}'),
       ('r-1', 'collection', '2', 'instance-2', 2, 'failed', now(), 'instance-2: no answer', NULL)
"""


def data(client: TestClient, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_the_list_of_instances_has_latest_size_changes_and_status(reader: TestClient, day: date) -> None:
    found = data(reader, INSTANCES, sort="-size")
    assert (found["total"], found["total_is_exact"], found["has_next"]) == (2, True, False)
    assert [(row["instance"], row["size_bytes"] // MIB, row["status"]) for row in found["items"]] == [
        ("instance-2", 1000, "measured"),
        ("instance-1", 110, "measured"),
    ]
    shop = found["items"][1]
    assert (shop["day"], shop["change_7_days_bytes"], shop["change_30_days_bytes"]) == (str(day), 7 * MIB, None)
    assert shop["trend"][-1] == 110 * MIB
    assert shop["trend"][:20] == [None] * 20


def test_the_list_of_databases_is_filtered_sorted_and_paged(reader: TestClient) -> None:
    found = data(reader, DATABASES, search="SHOP", sort="-size", limit=1)
    assert [(row["instance"], row["database_name"]) for row in found["items"]] == [("instance-2", "shop")]
    assert (found["total"], found["pages"], found["has_next"]) == (2, 2, True)
    assert [row["database_name"] for row in data(reader, DATABASES, instance_id=1)["items"]] == ["crm", "shop"]
    assert data(reader, DATABASES, db_type="mariadb")["items"] == []
    assert data(reader, DATABASES, status=["late", "failed"])["items"] == []


@pytest.mark.real_clock
@pytest.mark.parametrize(("added", "last_page"), [(9_992, (5, False)), (10_500, (30, False))])
def test_a_list_that_says_that_a_page_follows_has_it(
    viewer: TestClient, store: Engine, added: int, last_page: tuple[int, bool]
) -> None:
    with store.begin() as connection:
        connection.execute(text(MANY_DATABASES), {"count": added})
    before = data(viewer, DATABASES, limit=30, page=333)
    assert (len(before["items"]), before["pages"], before["has_next"]) == (30, 334, True)
    shown = viewer.get("/databases/list", params={"limit": 30, "page": 333}).text
    assert 'href="/databases/list?limit=30&amp;page=334" rel="next"' in shown
    last = data(viewer, DATABASES, limit=30, page=334)
    assert (len(last["items"]), last["has_next"]) == last_page
    assert 'rel="next"' not in viewer.get("/databases/list", params={"limit": 30, "page": 334}).text
    assert viewer.get(DATABASES, params={"limit": 30, "page": 335}).status_code == 400


@pytest.mark.real_clock
def test_the_lists_follow_what_is_measured_what_fails_and_who_leaves(
    viewer: TestClient, store: Engine, day: date
) -> None:
    def shown(path: str) -> list[tuple[str, int, str]]:
        rows = data(viewer, path, sort="-size")["items"]
        return [(row["instance"], row["size_bytes"] // MIB, row["status"]) for row in rows]

    def largest_of_file() -> str:
        return viewer.get("/databases/list.csv", params={"sort": "-size"}).text.splitlines()[1]

    assert largest_of_file().startswith("instance-2,shop,mysql,measured,")
    assert shown(INSTANCES) == [("instance-2", 1000, "measured"), ("instance-1", 110, "measured")]
    assert shown(DATABASES)[0] == ("instance-2", 1000, "measured")
    put_sizes(store, [(1, "shop", day, 2000 * MIB)])
    assert shown(INSTANCES) == [("instance-1", 2010, "measured"), ("instance-2", 1000, "measured")]
    assert shown(DATABASES)[0] == ("instance-1", 2000, "measured")
    assert largest_of_file().startswith("instance-1,shop,postgresql,measured,")
    with store.begin() as connection:
        connection.execute(text(VISITED))
    assert shown(INSTANCES)[1] == ("instance-2", 1000, "failed")
    assert shown(DATABASES)[1] == ("instance-2", 1000, "failed")
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET is_active = false WHERE id = 1"))
    assert shown(INSTANCES)[0] == ("instance-1", 2010, "dropped")
    assert shown(DATABASES)[0] == ("instance-1", 2000, "dropped")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("sort", "colour"), ("sort", "--size"), ("status", "fine"), ("db_type", "Oracle"), ("page", "501"), ("x", "1")],
)
@pytest.mark.parametrize("path", [INSTANCES, DATABASES])
def test_a_bad_value_of_a_list_is_a_400_that_names_its_field(
    reader: TestClient, path: str, parameter: str, value: str
) -> None:
    answer = reader.get(path, params={parameter: value})
    assert answer.status_code == 400
    assert answer.json()["data"]["errors"][0]["field"] == parameter


def test_raw_days_leave_out_the_day_on_which_nothing_was_measured(reader: TestClient, day: date) -> None:
    path = f"{INSTANCES}/1/database/days"
    found = data(reader, path, database_name="crm", time_range=5)
    assert (found["start_date"], found["end_date"]) == (str(day - timedelta(days=4)), str(day))
    assert [row["day"] for row in found["items"]] == [str(day - timedelta(days=n)) for n in (4, 2, 1, 0)]
    assert found["items"][0]["size_bytes"] == 10 * MIB
    days = data(reader, f"{INSTANCES}/1/days", start_date=day)["items"]
    assert [(row["total_size_bytes"] // MIB, row["database_count"], row["source"]) for row in days] == [
        (110, 2, "measured")
    ]


@pytest.mark.real_clock
def test_visits_tell_their_errors_and_their_runs(store: Engine, viewer: TestClient) -> None:
    with store.begin() as connection:
        connection.execute(text(VISITED))
    (visit,) = data(viewer, f"{INSTANCES}/2/visits")
    assert (visit["run_id"], visit["status"], visit["error_message"]) == ("r-1", "failed", "instance-2: no answer")
    one = data(viewer, f"{INSTANCES}/2")
    assert (one["status"], one["failure"]) == ("failed", "instance-2: no answer")
    assert data(viewer, f"{INSTANCES}/2/database", database_name="shop")["status"] == "failed"
    assert data(viewer, f"{INSTANCES}/1/database", database_name="shop")["status"] == "measured"


@pytest.mark.parametrize(
    "path",
    [
        f"{INSTANCES}/99",
        f"{INSTANCES}/{10**17}",
        f"{INSTANCES}/99/days",
        f"{INSTANCES}/99/visits",
        f"{INSTANCES}/1/database?database_name=nothing",
        f"{INSTANCES}/1/database?database_name=SHOP",
        f"{INSTANCES}/2/database/days?database_name=crm",
    ],
)
def test_what_is_not_there_is_a_404(reader: TestClient, path: str) -> None:
    assert reader.get(path).status_code == 404


def test_options_are_searched_in_any_case(reader: TestClient) -> None:
    assert data(reader, "/api/v1/options/instances", search="CE-2") == [
        {"id": 2, "name": "instance-2", "db_type": "mysql", "in_fleet": True}
    ]
    assert data(reader, "/api/v1/options/databases") == ["crm", "shop"]
    assert data(reader, "/api/v1/options/databases", search="SH", instance_id=2) == ["shop"]
    assert data(reader, "/api/v1/options/databases", limit=1) == ["crm"]
