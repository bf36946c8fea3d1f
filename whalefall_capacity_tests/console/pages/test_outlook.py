"""Dates of full disks, over the API and as pages: the answers, the refusals, the growth taken apart, what if."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity_tests.console.conftest import Callers, FakeDagster, copied_store
from whalefall_capacity_tests.console.forecasts import DATED, FULL, GIB, STALE, UNEVEN, YOUNG, forecast, put_fleet
from whalefall_capacity_tests.store.insight.golden import line, put_history

FORECASTS = "/api/v1/capacity/forecasts"
ONE = f"/api/v1/instances/{DATED}/forecast"
PAGE = f"/instances/{DATED}"


@pytest.fixture(scope="module")
def fleet(store_server: EmbeddedPostgres, past: str, day: date) -> Iterator[Engine]:
    """A store with forecasts of today; nobody changes it."""
    with copied_store(store_server, past) as engine:
        put_fleet(engine, day)
        forecast(engine, [day])
        yield engine


@pytest.fixture(scope="module")
def reader(fleet: Engine) -> TestClient:
    """A script that may look."""
    return Callers(create_app(console_of(fleet, build_settings(), FakeDagster())), fleet).script(Role.VIEW)


def data(client: TestClient, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def shown(client: TestClient, path: str, **parameters: Any) -> str:
    """Return the text of a page, without markup."""
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    page = re.sub(r'<span class="day">([^<]*)</span>', r"\1", answer.text)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def after(day: date, days: int) -> str:
    return str(day + timedelta(days=days))


def fan_of(client: TestClient, path: str, **parameters: Any) -> Any:
    found = re.search(
        r'<script type="application/json" id="chart-data">(.*?)</script>',
        client.get(path, params=parameters).text,
        re.DOTALL,
    )
    assert found
    return json.loads(found[1])[0]["fan"]


# The list


def test_instances_with_a_limit_come_soonest_first_and_the_others_are_counted(reader: TestClient, day: date) -> None:
    found = data(reader, FORECASTS)
    assert [(one["instance"], one["status"]) for one in found["items"]] == [
        ("brimful", "full"),
        ("dated", "dated"),
        ("uneven", "not_before"),
        ("flat", "not_within_a_year"),
        ("stale", "stale"),
        ("young", "too_new"),
    ]
    assert (found["forecast_date"], found["total"], found["without_limit"]) == (str(day), 6, 2)
    assert [one["expected_date"] for one in found["items"][2:]] == [None] * 4
    assert [one["rate_bytes_per_day"] for one in found["items"][3:]] == [0, None, None]
    dated = found["items"][1]
    assert [dated[f"{which}_date"] for which in ("expected", "earliest", "latest")] == [
        after(day, 60),
        after(day, 53),
        after(day, 69),
    ]
    assert (dated["rate_bytes_per_day"], dated["reason"]["one_offs"][0]["size_bytes"]) == (GIB, 100 * GIB)


def test_the_page_says_dates_and_refusals_in_words(reader: TestClient, day: date) -> None:
    page = shown(reader, "/capacity")
    assert f"Full about {after(day, 60)} ({after(day, 53)} \N{EN DASH} {after(day, 69)})" in page
    assert "Full: 299.0 GiB of 299.0 GiB are used" in page
    assert "Most of its data has 13 measured days so far: a pace needs 14" in page
    assert f"Not measured since {after(day, -4)}, when it was 295.0 GiB: nothing can be said of today" in page
    assert "Not full within a year" in page
    assert re.search(r"Not full before \d{4}-\d\d-\d\d; it may not be full within a year at all", page)
    assert "Without a limit, and so not listed: 2." in page
    assert f"Left out as one-off: orders +100.0 GiB ({after(day, -9)})" in page
    assert re.search(r"\d+ % of the forecasts of 90 days ago ended in their range \(\d+ compared\)", page)


def test_the_page_says_it_in_chinese_too(reader: TestClient, day: date) -> None:
    page = shown(reader, "/capacity", lang="zh")
    assert f"约 {after(day, 60)} 写满（{after(day, 53)} \N{EN DASH} {after(day, 69)}）" in page  # noqa: RUF001
    shown(reader, PAGE, lang="en")


def test_pages_of_the_list_follow_one_another(reader: TestClient) -> None:
    page = reader.get("/capacity?limit=4").text
    assert len(re.findall(r'<th scope="row">', page)) == 4
    assert 'href="/capacity?limit=4&amp;page=2" rel="next"' in page
    assert len(re.findall(r'<th scope="row">', reader.get("/capacity?limit=4&page=2").text)) == 2
    assert reader.get("/capacity?page=x").status_code == 400
    assert reader.get(FORECASTS, params={"page": 200, "limit": 200}).status_code == 400


def test_the_list_as_a_file_has_every_figure(reader: TestClient, day: date) -> None:
    lines = list(csv.DictReader(io.StringIO(reader.get("/capacity.csv").text)))
    assert [line["instance"] for line in lines] == ["brimful", "dated", "uneven", "flat", "stale", "young"]
    assert (lines[1]["limit_bytes"], lines[1]["expected_date"]) == (str(459 * GIB), after(day, 60))
    assert lines[4]["expected_date"] == ""


def test_without_forecasts_the_pages_say_so(callers: Callers) -> None:
    client = callers.script(Role.VIEW)
    assert "No forecast has been made yet." in shown(client, "/capacity")
    assert "The newest day has no forecast of this instance." in shown(client, "/instances/1")
    assert "Nothing can be compared yet" in shown(client, "/capacity/accuracy")
    assert data(client, "/api/v1/instances/1/forecast") == {"forecast": None, "what_if": None}
    assert data(client, FORECASTS)["forecast_date"] is None


# One instance


def test_the_fan_leads_to_the_limit_on_each_date(reader: TestClient, day: date) -> None:
    fan = fan_of(reader, PAGE)
    assert fan["limit"] == 459 * GIB
    assert (fan["labels"][0], fan["labels"][-1]) == (str(day), after(day, 69))
    assert {line["key"]: line["reached"] for line in fan["lines"]} == {"earliest": 53, "expected": 60, "latest": 69}
    expected = next(line for line in fan["lines"] if line["key"] == "expected")
    assert expected["values"][:2] == [399 * GIB, 400 * GIB]
    assert expected["values"][60:] == [459 * GIB] * 10


def test_what_if_says_no_pace_and_no_other_size_of_then_where_it_refuses(reader: TestClient, day: date) -> None:
    answer = data(reader, f"/api/v1/instances/{STALE}/forecast", if_dropped="app")["what_if"]
    assert (answer["status"], answer["used_bytes"], answer["rate_bytes_per_day"]) == ("stale", 0, None)
    page = shown(reader, f"/instances/{STALE}", if_dropped="app")
    assert page.count(f"Not measured since {after(day, -4)}, when it was 295.0 GiB") == 2


@pytest.mark.parametrize("instance_id", [1, YOUNG, STALE, FULL])
def test_where_the_forecast_refuses_there_is_no_fan(reader: TestClient, instance_id: int) -> None:
    assert fan_of(reader, f"/instances/{instance_id}") is None


def test_where_the_latest_day_is_open_only_the_earliest_line_is_drawn(reader: TestClient) -> None:
    assert [line["key"] for line in fan_of(reader, f"/instances/{UNEVEN}")["lines"]] == ["earliest"]


def test_a_range_that_ends_before_the_forecast_has_no_fan(reader: TestClient, day: date) -> None:
    assert fan_of(reader, PAGE, end_date=after(day, -1)) is None


def test_no_pace_is_shown_where_there_is_none(reader: TestClient) -> None:
    for instance_id in (YOUNG, STALE):
        page = shown(reader, f"/instances/{instance_id}")
        assert "a day" not in page
        assert "Grows:" not in page


# What if


def test_other_conditions_change_the_dates_and_nothing_is_stored(reader: TestClient, day: date) -> None:
    before = data(reader, FORECASTS)
    limit = data(reader, ONE, if_limit="489GiB")["what_if"]
    assert (limit["expected_date"], limit["limit_bytes"]) == (after(day, 90), 489 * GIB)
    planned = data(reader, ONE, if_import="50GiB", if_import_on=after(day, 5))["what_if"]
    assert planned["expected_date"] == after(day, 10)
    pace = data(reader, ONE, if_pace="2")["what_if"]
    assert (pace["expected_date"], pace["rate_bytes_per_day"]) == (after(day, 30), 2 * GIB)
    assert data(reader, ONE, if_pace="0")["what_if"]["status"] == "not_within_a_year"
    dropped = data(reader, ONE, if_dropped="orders")["what_if"]
    assert (dropped["status"], dropped["used_bytes"]) == ("not_within_a_year", 0)
    assert data(reader, ONE)["what_if"] is None
    assert data(reader, FORECASTS) == before


def test_without_the_new_database_that_has_most_of_the_bytes_the_pace_of_the_others_counts(
    store: Engine, day: date
) -> None:
    put_history(store, 1, {"orders": line(), "restored": [1000] * 6}, 1500, last=day)
    forecast(store, [day])
    asking = Callers(create_app(console_of(store, build_settings(), FakeDagster())), store).script(Role.VIEW)
    path = "/api/v1/instances/1/forecast"
    without_the_new = data(asking, path, if_dropped="restored", if_limit="329GiB")
    assert without_the_new["forecast"]["status"] == "too_new"
    assert (without_the_new["what_if"]["status"], without_the_new["what_if"]["expected_date"]) == (
        "dated",
        after(day, 30),
    )
    assert data(asking, path, if_dropped="orders")["what_if"]["status"] == "too_new"


def test_the_fan_follows_the_conditions(reader: TestClient, day: date) -> None:
    fan = fan_of(reader, PAGE, if_limit="429GiB")
    assert (fan["limit"], fan["labels"][-1]) == (429 * GIB, after(day, 35))


def test_an_instance_without_a_limit_can_be_asked_about_one(reader: TestClient) -> None:
    assert data(reader, "/api/v1/instances/1/forecast", if_limit="1TiB")["what_if"]["status"] == "too_new"


@pytest.mark.parametrize(
    ("conditions", "field"),
    [
        ({"if_limit": "much"}, "if_limit"),
        ({"if_limit": "0"}, "if_limit"),
        ({"if_limit": "9" * 50}, "if_limit"),
        ({"if_pace": "-1"}, "if_pace"),
        ({"if_pace": "nan"}, "if_pace"),
        ({"if_pace": "fast"}, "if_pace"),
        ({"if_import": "10GiB"}, "if_import_on"),
        ({"if_import_on": "2999-01-01"}, "if_import"),
        ({"if_import": "10GiB", "if_import_on": "2001-01-01"}, "if_import_on"),
        ({"if_import": "10GiB", "if_import_on": "2199-01-01"}, "if_import_on"),
        ({"if_import": "10GiB", "if_import_on": "soon"}, "if_import_on"),
        ({"if_dropped": "no-such"}, "if_dropped"),
    ],
)
def test_conditions_that_cannot_be_are_named(reader: TestClient, conditions: dict[str, str], field: str) -> None:
    answer = reader.get(ONE, params=conditions)
    assert (answer.status_code, answer.json()["data"]["errors"][0]["field"]) == (400, field)
    page = reader.get(PAGE, params=conditions)
    assert page.status_code == 400
    assert '<p class="problem" role="alert">' in page.text
    assert 'id="what-if-answer"' not in page.text


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"if_limit": "0"}, "必须大于 0"),
        ({"if_limit": "much"}, "必须是字节数"),
        ({"if_pace": "fast"}, "必须是数字"),
        ({"if_pace": "101"}, "必须不大于 100"),
        ({"if_import": "10GiB"}, "请填写导入的日期"),
        ({"if_dropped": "no-such"}, "no-such 不是预测所计入的数据库"),
    ],
)
def test_conditions_that_cannot_be_are_named_in_the_language_of_the_page(
    reader: TestClient, conditions: dict[str, str], said: str
) -> None:
    page = reader.get(PAGE, params=conditions | {"lang": "zh"}).text
    # The choice is remembered; the other tests of this module have the same reader.
    reader.cookies.clear()
    problem = page.partition('<p class="problem" role="alert">')[2].partition("</p>")[0]
    assert f"\N{FULLWIDTH COLON}{said}" in problem


def test_the_url_keeps_the_conditions_and_the_range_of_the_chart(reader: TestClient, day: date) -> None:
    conditions = {"if_limit": "489GiB", "if_dropped": "orders", "periods": "7"}
    page = reader.get(PAGE, params=conditions).text
    assert 'name="if_limit" maxlength="40" placeholder="459.0 GiB" value="489GiB"' in page
    assert '<option value="orders" selected>' in page
    assert '<input type="hidden" name="periods" value="7">' in page
    assert '<input type="hidden" name="if_dropped" value="orders">' in page
    assert f'<a href="{PAGE}?periods=7">' in page
    assert 'id="what-if-answer"' in page
    assert after(day, -3) in page


def test_a_limit_that_was_changed_in_the_fleet_file_counts_at_once(
    store_server: EmbeddedPostgres, past: str, day: date
) -> None:
    with copied_store(store_server, past) as engine:
        put_fleet(engine, day)
        forecast(engine, [day])
        with engine.begin() as connection:
            values = {"id": DATED, "limit": 489 * GIB}
            connection.execute(text("UPDATE instances SET capacity_limit_bytes = :limit WHERE id = :id"), values)
        client = Callers(create_app(console_of(engine, build_settings(), FakeDagster())), engine).script(Role.VIEW)
        found = data(client, ONE)["forecast"]
        assert (found["expected_date"], found["rate_bytes_per_day"]) == (after(day, 90), GIB)
        assert f"Full about {after(day, 90)}" in shown(client, PAGE)
        assert f"Full about {after(day, 90)}" in shown(client, "/capacity")
        assert fan_of(client, PAGE)["limit"] == 489 * GIB


# What explains the growth


def test_the_page_takes_the_growth_of_the_shown_range_apart(reader: TestClient, day: date) -> None:
    page = shown(reader, PAGE, periods=30)
    assert f"the first and the last measured day of the range: {after(day, -29)} and {day}." in page
    assert "orders one-off +100.0 GiB 77.5 %" in page
    assert "orders steady +29.00 GiB 22.5 %" in page
    assert "Change of the instance +129.0 GiB 100.0 %" in page
    assert shown(reader, PAGE, periods=1).count("The range has fewer than two measured days.") == 1
    lines = list(csv.reader(io.StringIO(reader.get(f"{PAGE}/waterfall.csv?periods=30").text)))
    assert lines[1:] == [
        ["orders", "one_off", str(100 * GIB), "77.5"],
        ["orders", "steady", str(29 * GIB), "22.5"],
    ]


def test_the_growth_is_taken_apart_over_the_api(reader: TestClient, day: date) -> None:
    found = data(reader, f"/api/v1/instances/{DATED}/waterfall", time_range=5)
    assert (found["since"], found["change_bytes"]) == (after(day, -4), 4 * GIB)
    assert found["rows"] == [
        {
            "database_name": "orders",
            "cause": "steady",
            "databases": 1,
            "change_bytes": 4 * GIB,
            "share_percent": 100.0,
        }
    ]
    assert reader.get("/api/v1/instances/999/waterfall").status_code == 404


# Accuracy


def test_accuracy_stands_beside_the_simple_methods_day_by_day(
    store_server: EmbeddedPostgres, past: str, day: date
) -> None:
    with copied_store(store_server, past) as engine:
        put_fleet(engine, day)
        forecast(engine, [day - timedelta(days=1), day])
        client = Callers(create_app(console_of(engine, build_settings(), FakeDagster())), engine).script(Role.VIEW)
        rows = data(client, f"{FORECASTS}/accuracy", time_range=2)
        assert {(row["forecast_date"], row["level"], row["horizon_days"]) for row in rows} == {
            (after(day, -n), level, horizon)
            for n in (0, 1)
            for level in ("database", "instance")
            for horizon in (30, 60, 90)
        }
        page = shown(client, "/capacity/accuracy", horizon=30, level="database")
        assert "least squares of 90 days" in page
        newest = next(
            r for r in rows if (r["level"], r["horizon_days"], r["forecast_date"]) == ("database", 30, str(day))
        )
        assert f"{newest['mean_error_percent']:,.2f} %" in page
        assert f"{newest['least_squares_mean_error_percent']:,.2f} %" in page
        lines = list(csv.DictReader(io.StringIO(client.get("/capacity/accuracy.csv").text)))
        assert len(lines) == 12
        for bad in ("level=fleet", "horizon=7", "days=2"):
            assert client.get(f"/capacity/accuracy?{bad}").status_code == 400
