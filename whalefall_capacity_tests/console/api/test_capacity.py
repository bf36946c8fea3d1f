"""The capacity API: filters, pages, summaries; a bad value is a 400 that names its field."""

from __future__ import annotations

from datetime import date, timedelta
from html import unescape
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from starlette.testclient import TestClient

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.periods import PeriodType, window_before, window_of
from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity_tests.console.conftest import Callers, FakeDagster
from whalefall_capacity_tests.store.past import MIB, put_sizes
from whalefall_capacity_tests.store.records import rows

DATABASES, INSTANCES = "/api/v1/capacity/databases", "/api/v1/capacity/instances"
PATHS = (DATABASES, f"{DATABASES}/summary", INSTANCES, f"{INSTANCES}/summary")
SQL = [
    "'",
    "''; DROP TABLE instances; --",
    '"',
    "%",
    "_",
    "\\",
    "$$",
    ":name",
    "%(name)s",
    "{}",
    "1 OR 1=1",
    "/*",
    "\u202e",
]
BAD = [
    ("period_type", "hourly"),
    ("period_type", ""),
    ("start_date", "0000-01-01"),
    ("start_date", "2026-02-30"),
    ("start_date", "20260101"),
    ("start_date", "0"),
    ("start_date", "now"),
    ("end_date", "2026-13-01"),
    ("end_date", "99999-01-01"),
    ("time_range", "0"),
    ("time_range", "-1"),
    ("time_range", "3661"),
    ("time_range", "1.5"),
    ("time_range", "9" * 400),
    ("instance_id", "0"),
    ("instance_id", "-5"),
    ("instance_id", "one"),
    ("instance_id", "1e3"),
    ("instance_id", "9" * 5000),
    ("db_type", "Oracle"),
    ("db_type", "POSTGRESQL; --"),
    ("database_name", ""),
    ("database_name", "n" * 10_000),
    ("database_name", "a\x00b"),
    ("colour", "red"),
]
BAD_PAGES = [
    ("page", "0"),
    ("page", "-1"),
    ("page", "x"),
    ("page", "501"),
    ("limit", "0"),
    ("limit", "201"),
    ("limit", ""),
]


def items(client: TestClient, path: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]["items"]
    return found


def test_an_answer_has_the_envelope(reader: TestClient) -> None:
    content = reader.get(DATABASES).json()
    assert list(content) == ["success", "error", "message", "timestamp", "data"]
    assert (content["success"], content["error"]) == (True, False)


def test_the_newest_window_of_a_database_has_its_size_and_its_change(reader: TestClient, day: date) -> None:
    (row,) = items(reader, DATABASES, instance_id=1, database_name="shop", start_date=day)
    assert row["avg_size_bytes"] == 100 * MIB
    assert row["size_change_bytes"] == MIB
    assert row["size_change_percent"] == 1.01
    assert row["trend_direction"] == "stable"
    assert row["baseline_start"] == str(day - timedelta(days=1))


@pytest.mark.real_clock
def test_a_row_says_its_engine_its_extremes_and_when_it_was_calculated(
    viewer: TestClient, store: Engine, day: date
) -> None:
    window = window_before(window_of(day, PeriodType.QUARTERLY))
    first, second = window.start, window.start + timedelta(days=1)
    put_sizes(store, [(2, "files", first, 10 * MIB, 7 * MIB, None), (2, "files", second, 10 * MIB, 5 * MIB, None)])
    put_sizes(store, [(2, "more", second, MIB)])
    for level in Level:
        aggregate(store, level, [window])
    parameters = {"period_type": "quarterly", "instance_id": 2, "start_date": first, "end_date": second}
    files = items(viewer, DATABASES, **parameters)[0]
    assert (files["db_type"], files["max_data_size_bytes"], files["min_data_size_bytes"]) == ("mysql", 7 * MIB, 5 * MIB)
    assert files["calculated_at"] >= str(day - timedelta(days=1))
    (instance,) = items(viewer, INSTANCES, **parameters)
    assert (instance["max_database_count"], instance["min_database_count"]) == (2, 1)


def test_databases_of_one_name_on_two_instances_stay_two(reader: TestClient, day: date) -> None:
    found = items(reader, DATABASES, database_name="shop", start_date=day)
    assert [(row["instance"], row["avg_size_bytes"] // MIB) for row in found] == [
        ("instance-1", 100),
        ("instance-2", 1000),
    ]


def test_names_of_databases_are_told_apart_by_case(reader: TestClient) -> None:
    assert items(reader, DATABASES, database_name="Shop") == []


def test_rows_come_by_instance_database_and_window(reader: TestClient, day: date) -> None:
    found = items(reader, DATABASES, start_date=day - timedelta(days=1))
    keys = [(row["instance_id"], row["database_name"], row["period_start"]) for row in found]
    before, now = str(day - timedelta(days=1)), str(day)
    assert keys == [
        (1, "crm", before),
        (1, "crm", now),
        (1, "shop", before),
        (1, "shop", now),
        (2, "shop", before),
        (2, "shop", now),
    ]


def test_a_window_without_data_is_absent_and_the_next_change_looks_further_back(reader: TestClient, day: date) -> None:
    found = items(reader, DATABASES, database_name="crm", start_date=day - timedelta(days=4), end_date=day)
    assert [row["period_start"] for row in found] == [str(day - timedelta(days=n)) for n in (4, 2, 1, 0)]
    assert found[1]["baseline_start"] == str(day - timedelta(days=4))


def test_pages_follow_one_another_without_gap_or_repetition(reader: TestClient) -> None:
    whole = items(reader, DATABASES, limit=200)
    assert len(whole) == 29
    parts = [items(reader, DATABASES, limit=7, page=page) for page in range(1, 6)]
    assert [len(part) for part in parts] == [7, 7, 7, 7, 1]
    assert [row for part in parts for row in part] == whole


def test_a_page_says_what_there_is(reader: TestClient) -> None:
    data = reader.get(DATABASES, params={"limit": 7, "page": 5}).json()["data"]
    counts = {key: data[key] for key in ("page", "limit", "total", "total_is_exact", "pages", "has_next")}
    assert counts == {"page": 5, "limit": 7, "total": 29, "total_is_exact": True, "pages": 5, "has_next": False}
    beyond = reader.get(DATABASES, params={"limit": 7, "page": 9}).json()["data"]
    assert (beyond["items"], beyond["total"]) == ([], 29)


def test_the_default_is_twenty_rows_of_thirty_days(reader: TestClient, day: date) -> None:
    data = reader.get(DATABASES).json()["data"]
    assert (len(data["items"]), data["limit"], data["period_type"]) == (20, 20, "daily")
    assert (data["start_date"], data["end_date"]) == (str(day - timedelta(days=29)), str(day))


@pytest.mark.parametrize(("time_range", "windows"), [(1, 1), (3, 3), (400, 10)])
def test_a_time_range_counts_days_back_from_today(reader: TestClient, time_range: int, windows: int) -> None:
    found = items(reader, INSTANCES, instance_id=2, time_range=time_range)
    assert len(found) == windows


def test_a_range_shows_every_window_that_has_one_of_its_days(reader: TestClient, day: date) -> None:
    (row,) = items(reader, INSTANCES, period_type="quarterly", instance_id=2, start_date=day, end_date=day)
    assert row["period_start"] == str(window_of(day, PeriodType.QUARTERLY).start)


def test_filters_can_be_repeated(reader: TestClient, day: date) -> None:
    found = items(reader, INSTANCES, instance_id=[1, 2, 77], db_type=["mysql", "mariadb"], start_date=day)
    assert [row["instance"] for row in found] == ["instance-2"]


def test_instances_can_be_asked_for_by_the_name_of_a_database(reader: TestClient, day: date) -> None:
    assert [row["instance_id"] for row in items(reader, INSTANCES, database_name="crm", start_date=day)] == [1]


def test_an_instance_has_its_total_and_its_number_of_databases(reader: TestClient, day: date) -> None:
    (row,) = items(reader, INSTANCES, instance_id=1, start_date=day)
    assert (row["total_size_bytes"], row["database_count"]) == (110 * MIB, 2)
    assert (row["total_size_change_bytes"], row["database_count_change"]) == (MIB, 0)


@pytest.mark.parametrize("path", [DATABASES, INSTANCES])
@pytest.mark.parametrize("unknown", [77, 2**31, 2**53, 10**17])
def test_unknown_ids_give_an_empty_list(reader: TestClient, path: str, unknown: int) -> None:
    assert items(reader, path, instance_id=unknown) == []
    assert reader.get(f"{path}/summary", params={"instance_id": unknown}).json()["data"]["period_start"] is None


def test_the_summary_of_databases_is_of_the_newest_window(reader: TestClient, day: date) -> None:
    assert reader.get(f"{DATABASES}/summary").json()["data"] == {
        "period_type": "daily",
        "period_start": str(day),
        "instances": 2,
        "databases": 3,
        "total_size_bytes": 1110 * MIB,
        "average_size_bytes": 370 * MIB,
        "largest_size_bytes": 1000 * MIB,
        "largest_instance": "instance-2",
        "largest_database": "shop",
        "newest_day": str(day),
        "measured": 3,
        "expected": 3,
        "missing": [],
        "missing_not_named": 0,
        "replicas": 0,
        "replica_size_bytes": 0,
    }


def test_the_summary_of_instances_is_of_the_newest_window(reader: TestClient, day: date) -> None:
    assert reader.get(f"{INSTANCES}/summary").json()["data"] == {
        "period_type": "daily",
        "period_start": str(day),
        "instances": 2,
        "databases": 3,
        "total_size_bytes": 1110 * MIB,
        "average_size_bytes": 555 * MIB,
        "largest_size_bytes": 1000 * MIB,
        "largest_instance": "instance-2",
        "largest_database": None,
        "newest_day": str(day),
        "measured": 2,
        "expected": 2,
        "missing": [],
        "missing_not_named": 0,
        "replicas": 0,
        "replica_size_bytes": 0,
    }


def test_a_summary_goes_back_to_the_newest_window_that_has_what_is_asked_for(
    viewer: TestClient, store: Engine, day: date
) -> None:
    put_sizes(store, [(3, "old", day - timedelta(days=5), MIB)])
    aggregate(store, Level.DATABASE, [window_of(day - timedelta(days=5), PeriodType.DAILY)])
    data = viewer.get(f"{DATABASES}/summary", params={"instance_id": 3}).json()["data"]
    assert (data["period_start"], data["databases"]) == (str(day - timedelta(days=5)), 1)


def test_a_summary_of_a_past_range_is_of_its_last_window(reader: TestClient, day: date) -> None:
    data = reader.get(f"{DATABASES}/summary", params={"end_date": str(day - timedelta(days=3))}).json()["data"]
    assert (data["period_start"], data["databases"]) == (str(day - timedelta(days=3)), 3)
    assert [(one["instance"], one["database_name"]) for one in data["missing"]] == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "days", [("0001-01-01", "0001-12-31"), ("9999-01-01", "9999-12-31"), ("0001-01-01", "9999-12-31")]
)
@pytest.mark.parametrize("period_type", list(PeriodType))
def test_days_of_any_year_are_answered(reader: TestClient, path: str, days: tuple[str, str], period_type: str) -> None:
    parameters = {"start_date": days[0], "end_date": days[1], "period_type": PeriodType(period_type).value}
    assert reader.get(path, params=parameters).status_code == 200


def test_a_range_beyond_all_days_is_their_end_and_runs_forwards(reader: TestClient) -> None:
    answer = reader.get("/api/v1/instances/1/days", params={"start_date": "2300-01-01", "end_date": "2301-01-01"})
    assert answer.json()["data"] == {"start_date": "2199-12-31", "end_date": "2199-12-31", "items": []}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{field}={value[:20]!r}" for field, value in BAD])
def test_a_bad_value_is_a_400_that_names_its_field(reader: TestClient, path: str, field: str, value: str) -> None:
    answer = reader.get(path, params={field: value})
    assert answer.status_code == 400
    content = answer.json()
    assert (content["success"], content["error"], content["message_code"]) == (False, True, "VALIDATION_ERROR")
    assert [error["field"] for error in content["data"]["errors"]] == [field]
    assert content["message"].startswith(f"{field}: ")
    assert len(content["message"]) < 300


@pytest.mark.parametrize("path", [DATABASES, INSTANCES, "/api/v1/task-runs"])
@pytest.mark.parametrize(("field", "value"), BAD_PAGES)
def test_a_bad_page_is_a_400_that_names_its_field(reader: TestClient, path: str, field: str, value: str) -> None:
    answer = reader.get(path, params={"limit": 20} | {field: value})
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["data"]["errors"]] == [field]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit: must be at least 1"),
        ("page=one", "page: must be a whole number"),
        ("sort=colour", "sort: is no column to sort by"),
        ("status=good", "status: must be one of 'measured', 'late', 'failed', 'never_measured', 'dropped'"),
    ],
)
def test_a_page_and_the_api_say_the_same_of_a_bad_value(callers: Callers, query: str, said: str) -> None:
    browser = callers.browser(Role.ADMIN)
    assert browser.get(f"/api/v1/databases?{query}").json()["message"] == said
    assert said in unescape(browser.get(f"/databases/list?{query}").text)


@pytest.mark.parametrize("path", ["aggregations/current", "collections"])
def test_a_body_that_is_no_json_object_is_told_with_the_header_that_it_needs(admin: TestClient, path: str) -> None:
    def said(body: bytes, content_type: str) -> object:
        answer = admin.post(f"/api/v1/capacity/{path}", content=body, headers={"Content-Type": content_type})
        assert (answer.status_code, answer.json()["data"]["errors"][0]["field"]) == (400, "body")
        return answer.json()["message"]

    wanted = "body: must be a JSON object, sent with the header Content-Type: application/json"
    assert said(b"[]", "application/json") == wanted
    # As curl sends what -d is given.
    assert said(b"{}", "application/x-www-form-urlencoded") == wanted
    for body in (b"{", b"\xff", b"[" * 60_000):
        assert said(body, "application/json") == "body: must be JSON"


def test_a_bad_value_is_told_in_the_language_of_the_caller(viewer: TestClient) -> None:
    answer = viewer.get(f"{DATABASES}?limit=201&colour=red", headers={"Accept-Language": "zh"})
    assert answer.json()["message"] == "limit\N{FULLWIDTH COLON}必须不大于 200"


@pytest.mark.parametrize("path", PATHS)
def test_a_range_that_is_none_is_a_400(reader: TestClient, path: str) -> None:
    backwards = reader.get(path, params={"start_date": "2026-02-02", "end_date": "2026-02-01"})
    assert (backwards.status_code, backwards.json()["data"]["errors"][0]["field"]) == (400, "start_date")
    both = reader.get(path, params={"start_date": "2026-02-02", "time_range": 3})
    assert (both.status_code, both.json()["data"]["errors"][0]["field"]) == (400, "time_range")


@pytest.mark.parametrize("text", SQL)
def test_sql_in_a_parameter_is_a_name_like_any_other_or_a_bad_value(
    viewer: TestClient, store: Engine, text: str
) -> None:
    for path in PATHS:
        assert viewer.get(path, params={"database_name": text}).status_code == 200
        for field in ("period_type", "start_date", "end_date", "time_range", "instance_id", "db_type", "page", "limit"):
            assert viewer.get(path, params={field: text}).status_code == 400
    assert viewer.get("/api/v1/task-runs", params={"task_key": text}).status_code == 200
    assert viewer.get("/api/v1/task-runs", params={"status": text}).status_code == 400
    assert rows(store, "SELECT count(*) FROM instances") == [(2,)]


def test_too_many_ids_are_a_400(reader: TestClient) -> None:
    answer = reader.get(INSTANCES, params={"instance_id": list(range(1, 202))})
    assert (answer.status_code, answer.json()["data"]["errors"][0]["field"]) == (400, "instance_id")


def test_an_empty_store_gives_empty_answers(empty_database: str) -> None:
    engine = create_store_engine(SecretStr(empty_database))
    migrate(engine)
    client = Callers(create_app(console_of(engine, build_settings(), FakeDagster())), engine).script(Role.VIEW)
    assert items(client, DATABASES) == []
    assert items(client, INSTANCES) == []
    summary = client.get(f"{DATABASES}/summary").json()["data"]
    assert (summary["period_start"], summary["total_size_bytes"], summary["average_size_bytes"]) == (None, 0, None)
    engine.dispose()
