"""The lists and the pages of one instance and one database, as they are sent."""

from __future__ import annotations

import csv
import io
import re
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.console.pages.coverage import Coverage, Day, calendar
from whalefall_capacity.console.pages.sparklines import spark_path
from whalefall_capacity_tests.console.api.test_lists import VISITED
from whalefall_capacity_tests.console.conftest import Callers

LISTS = ("/instances/list", "/databases/list")


def page(client: TestClient, path: str, **parameters: Any) -> str:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.text


def heads(content: str) -> list[str]:
    """Return the head of each row, without its links."""
    return re.findall(r'<th scope="row"><a [^>]*>([^<]*)</a>', content)


def test_the_list_of_instances_leads_to_each_of_them(reader: TestClient) -> None:
    content = page(reader, "/instances/list")
    assert heads(content) == ["instance-1", "instance-2"]
    assert 'href="/instances/2"' in content
    assert "1000 MiB" in content
    assert "2 in all" in content


def test_a_column_is_sorted_by_a_link_that_keeps_the_filters(reader: TestClient) -> None:
    content = page(reader, "/databases/list", db_type=["mysql", "postgresql"], sort="-size")
    assert heads(content) == ["shop", "shop", "crm"]
    assert 'aria-sort="descending"' in content
    assert 'href="/databases/list?db_type=mysql&amp;db_type=postgresql&amp;sort=size"' in content


def test_pages_of_a_list_keep_the_filters(reader: TestClient) -> None:
    content = page(reader, "/databases/list", limit=1, page=2, search="shop", instance_id=[1, 2])
    assert heads(content) == ["shop"]
    assert "2\N{EN DASH}2 of 2" in content
    assert 'rel="prev"' in content
    assert 'rel="next"' not in content
    assert "search=shop&amp;instance_id=1&amp;instance_id=2&amp;page=1" in content


def test_a_status_nobody_has_leaves_the_list_empty(reader: TestClient) -> None:
    assert "Nothing matches the filters." in page(reader, "/databases/list", status="dropped")


@pytest.mark.parametrize("path", LISTS)
def test_a_bad_value_of_a_list_is_a_page_that_says_which(reader: TestClient, path: str) -> None:
    for parameter, value in (("sort", "x"), ("status", "fine"), ("page", "0"), ("search", "n" * 300)):
        answer = reader.get(path, params={parameter: value})
        assert answer.status_code == 400
        assert parameter in answer.text


def test_the_csv_of_a_list_has_every_row_in_bytes(reader: TestClient, day: date) -> None:
    answer = reader.get("/databases/list.csv", params={"sort": "-size", "limit": 1})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["instance"], row["database_name"], row["size_bytes"]) for row in rows] == [
        ("instance-2", "shop", "1048576000"),
        ("instance-1", "shop", "104857600"),
        ("instance-1", "crm", "10485760"),
    ]
    assert (rows[1]["day"], rows[1]["status"], rows[1]["change_7_days_bytes"]) == (str(day), "measured", "7340032")
    assert rows[1]["change_30_days_bytes"] == ""
    instances = list(csv.DictReader(io.StringIO(reader.get("/instances/list.csv").text)))
    assert [row["instance"] for row in instances] == ["instance-1", "instance-2"]


def test_the_page_of_an_instance_shows_its_databases_coverage_and_visits(store: Engine, viewer: TestClient) -> None:
    with store.begin() as connection:
        connection.execute(text(VISITED))
        connection.execute(
            text(
                "UPDATE instance_databases SET is_active = false, deleted_at = now()"
                " WHERE instance_id = 1 AND database_name = 'crm'"
            )
        )
    content = page(viewer, "/instances/1")
    assert heads(content.partition('id="databases"')[2])[:2] == ["shop", "crm"]
    assert 'href="/instances/1/database?name=crm"' in content
    assert '<span class="status dropped">dropped</span>' in content
    assert 'href="/runs/r-1"' in content
    assert content.count('<td class="measured"') == 10
    assert "sizes are estimates" in content
    failed = page(viewer, "/instances/2")
    assert "The newest visit failed" in failed
    assert "instance-2: no answer" in failed


def test_the_page_of_a_database_shows_the_gap_day_as_unknown(reader: TestClient, day: date) -> None:
    content = page(reader, "/instances/1/database", name="crm")
    gap = day - timedelta(days=3)
    assert f'<td class="nothing" title="{gap}: nothing known">' in content
    assert f'<td class="measured" title="{day}: measured, 10.00 MiB">' in content
    assert f"as of {day}" in content


def test_a_range_and_a_period_stand_in_the_url_of_a_page(reader: TestClient, day: date) -> None:
    content = page(reader, "/instances/1", start_date=day - timedelta(days=4), period_type="daily")
    assert len(re.findall(r'<table class="series".*?</thead>', content, re.DOTALL)[0].split('<th scope="col">')) == 7
    assert page(reader, "/instances/1/database", name="shop", period_type="monthly", periods=3)


@pytest.mark.parametrize(
    "path", ["/instances/99", "/instances/99/database?name=shop", "/instances/1/database?name=no", "/instances/x"]
)
def test_a_page_of_what_is_not_there_is_a_404(reader: TestClient, path: str) -> None:
    assert reader.get(path).status_code == 404


def test_a_page_of_a_database_without_its_name_is_a_400(reader: TestClient) -> None:
    assert reader.get("/instances/1/database").status_code == 400


def test_whoever_is_not_logged_in_is_led_to_the_login(callers: Callers) -> None:
    for path in (*LISTS, "/instances/1", "/instances/1/database?name=shop", "/databases/list.csv"):
        answer = callers.nobody().get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=")


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ([], ""),
        ([None, None], ""),
        ([1, 2, 3], "M2.0 20.0L50.0 11.0L98.0 2.0"),
        ([5, 5], "M2.0 11.0L98.0 11.0"),
        ([1, None, 3], "M2.0 20.0h.01M98.0 2.0h.01"),
        ([1, 3, None], "M2.0 20.0L50.0 2.0"),
    ],
)
def test_a_small_line_breaks_where_nothing_is_known(values: list[int | None], path: str) -> None:
    assert spark_path(values) == path


def test_the_calendar_has_thirteen_months_and_no_day_that_does_not_exist() -> None:
    last = date(2028, 3, 2)
    known = {date(2028, 2, 29): Day(date(2028, 2, 29), Coverage.PARTIAL, 5)}
    months = calendar(known, last)
    assert [month.label for month in months][:3] == ["2028-03", "2028-02", "2028-01"]
    assert months[-1].label == "2027-03"
    assert [day.coverage if day else None for day in months[0].days[:3]] == ["nothing", "nothing", None]
    assert [day.coverage if day else None for day in months[1].days[27:]] == ["nothing", "partial", None, None]
