"""The pages as they are sent: what they show, that their URL says it, and the tables as CSV."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.periods import PeriodType, window_of
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity_tests.console.conftest import Callers
from whalefall_capacity_tests.store.past import MIB, put_sizes

PAGES = ("/instances", "/databases")
SUMMARY = {
    "version": 1,
    "common": {
        "inputs": {"first": "2026-06-22", "last": "2026-06-28"},
        "scope": {"time": None, "target": {"period_type": "weekly"}},
        "metrics": [
            {"key": "total_bytes", "label": "Total", "value": 3 * 2**30},
            {"key": "share", "label": "Share", "value": 12.5, "unit": "%"},
        ],
        "highlights": ["all well"],
        "flags": {"skipped": True, "skip_reason": "nothing to do"},
    },
    "ext": {"type": "sync_databases", "version": 1, "data": {}},
}
BAD = [
    ("period_type", "hourly"),
    ("periods", "0"),
    ("periods", "401"),
    ("periods", "x"),
    ("top", "7"),
    ("chart", "pie"),
    ("start_date", "0000-01-01"),
    ("instance_id", "one"),
    ("db_type", "Oracle"),
    ("database_name", "n" * 10_000),
    ("database_name", "a\x00b"),
]


def payload(client: TestClient, path: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    found = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', answer.text, re.DOTALL)
    assert found
    charts: list[dict[str, Any]] = json.loads(found[1])
    return charts


def test_there_are_three_charts_of_the_largest(reader: TestClient) -> None:
    charts = payload(reader, "/databases", periods=3)
    assert [chart["metric"] for chart in charts] == ["size", "change", "percent"]
    assert [series["name"] for series in charts[0]["series"]] == [
        "shop (instance-2)",
        "shop (instance-1)",
        "crm (instance-1)",
    ]
    assert charts[0]["series"][1]["values"] == [98 * MIB, 99 * MIB, 100 * MIB]
    assert [(series["name"], series["texts"][-1]) for series in charts[1]["series"]] == [
        ("shop (instance-1)", "+1.00 MiB")
    ]
    assert [series["name"] for series in charts[2]["series"]] == ["shop (instance-1)"]


def test_a_window_without_a_row_is_a_gap(reader: TestClient) -> None:
    size, change, _ = payload(reader, "/databases", database_name="crm", periods=5)
    assert size["series"][0]["values"] == [10 * MIB, None, 10 * MIB, 10 * MIB, 10 * MIB]
    assert change["series"] == []
    assert len(size["labels"]) == 5


def test_windows_before_everything_are_gaps_too(reader: TestClient) -> None:
    size, _, _ = payload(reader, "/instances", periods=12)
    assert size["series"][0]["values"][:2] == [None, None]


def test_a_chart_without_any_value_says_so(reader: TestClient, day: date) -> None:
    first = str(day - timedelta(days=9))
    page = reader.get("/instances", params={"start_date": first, "end_date": first}).text
    assert re.findall(r'id="plot-(\w+)"', page) == ["size"]
    assert page.count("No change is known in this range.") == 2


def test_only_the_top_are_shown(viewer: TestClient, store: Engine, day: date) -> None:
    put_sizes(store, [(3, f"database_{n:02}", day, n * MIB) for n in range(1, 31)])
    aggregate(store, Level.DATABASE, [window_of(day, PeriodType.DAILY)])
    for top in (5, 10, 20):
        assert len(payload(viewer, "/databases", top=top)[0]["series"]) == top


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
def test_the_buttons_are_for_operators_and_send_the_level_of_the_page(callers: Callers, role: Role) -> None:
    client = callers.script(role)
    for path, scope in (("/instances", "instance"), ("/databases", "database"), ("/runs", "all")):
        page = html.unescape(client.get(path).text)
        assert f"""data-body="{{"scope": "{scope}"}}\"""" in page
        assert """data-launch="/api/v1/capacity/collections" data-body="{"instance_id": null}\"""" in page


@pytest.mark.parametrize("path", ["/instances", "/databases", "/runs"])
def test_a_viewer_is_offered_no_button(reader: TestClient, path: str) -> None:
    assert "data-launch" not in reader.get(path).text


def test_links_keep_the_state_of_the_page(reader: TestClient) -> None:
    page = reader.get("/instances", params={"period_type": "weekly", "periods": 4, "chart": "bar"}).text
    assert '/instances/size.csv?period_type=weekly&amp;periods=4&amp;chart=bar"' in page
    assert '/databases?period_type=weekly&amp;periods=4&amp;chart=bar&amp;instance_id=2"' in page
    assert "?period_type=weekly&amp;periods=4&amp;chart=bar&amp;lang=zh" in page


def test_several_engines_instances_and_databases_can_be_chosen_at_once(reader: TestClient) -> None:
    several: dict[str, list[str | int]] = {
        "db_type": ["mysql", "postgresql"],
        "instance_id": [1, 2],
        "database_name": ["crm", "shop"],
    }
    names = [series["name"] for series in payload(reader, "/databases", **several)[0]["series"]]
    assert names == ["shop (instance-2)", "shop (instance-1)", "crm (instance-1)"]
    page = reader.get("/databases", params=several).text
    assert page.count(" checked>") == 6
    every = "db_type=mysql&amp;db_type=postgresql&amp;instance_id=1&amp;instance_id=2"
    assert f"/databases/size.csv?{every}&amp;database_name=crm&amp;database_name=shop" in page
    assert f"?{every}&amp;database_name=crm&amp;database_name=shop&amp;lang=zh" in page


def test_a_window_in_progress_is_said_to_be_one(reader: TestClient, day: date) -> None:
    size, _, _ = payload(reader, "/instances", period_type="quarterly", periods=2)
    assert size["in_progress"] is True
    page = reader.get("/instances", params={"period_type": "quarterly"}).text
    assert f"{day.year} Q{(day.month + 2) // 3} is in progress" in page
    assert payload(reader, "/instances", periods=2)[0]["in_progress"] is False
    ended = payload(reader, "/instances", period_type="quarterly", end_date=str(day - timedelta(days=100)))
    assert ended[0]["in_progress"] is False


def test_a_database_that_did_not_move_is_not_in_the_charts_of_changes(
    viewer: TestClient, store: Engine, day: date
) -> None:
    put_sizes(store, [(2, "archive", when, 40 * 2**40) for when in (day - timedelta(days=1), day)])
    for when in (day - timedelta(days=1), day):
        aggregate(store, Level.DATABASE, [window_of(when, PeriodType.DAILY)])
    size, change, percent = payload(viewer, "/databases")
    assert size["series"][0]["name"] == "archive (instance-2)"
    for chart in (change, percent):
        assert "archive (instance-2)" not in [series["name"] for series in chart["series"]]


def test_the_cards_do_not_fall_on_a_gap_day_and_the_page_says_who_is_missing(
    viewer: TestClient, store: Engine, day: date
) -> None:
    def cards(path: str) -> list[str]:
        return re.findall(r"<dd>(.*?)</dd>", viewer.get(path).text)

    before = {path: cards(path) for path in PAGES}
    with store.begin() as connection:
        for table in ("database_size_stats", "instance_size_stats"):
            connection.execute(
                text(f"DELETE FROM {table} WHERE instance_id = 2 AND collected_date = :day"), {"day": day}
            )
        connection.execute(
            text("UPDATE instance_databases SET last_seen_date = last_seen_date - 1 WHERE instance_id = 2")
        )
    for level in Level:
        aggregate(store, level, [window_of(day, PeriodType.DAILY)])
    assert {path: cards(path) for path in PAGES} == before
    for path, said in (("/instances", "1 of 2 instances"), ("/databases", "2 of 3 databases")):
        page = viewer.get(path).text
        assert f"{said} measured on the newest day, {day}." in page
        assert f'<a href="/instances/2">instance-2</a> ({day - timedelta(days=1)})' in page


def test_the_total_is_that_of_the_overview_where_a_replica_is_left_out(viewer: TestClient, store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET replica_of_id = 1 WHERE id = 2"))
    for path in ("/", *PAGES):
        page = viewer.get(path).text
        assert "<dd>110 MiB</dd>" in page.replace(".0", "")
        assert "replicas apart: 1 with 1000 MiB" in page
    assert "replicas apart" not in viewer.get("/instances?instance_id=2").text


def test_empty_fields_of_the_form_say_nothing(reader: TestClient) -> None:
    empty = {"db_type": "", "instance_id": "", "database_name": "", "periods": "", "start_date": "", "end_date": ""}
    assert payload(reader, "/databases", **empty) == payload(reader, "/databases")


def test_an_instance_of_another_engine_is_dropped_from_the_filter(reader: TestClient) -> None:
    (series,) = payload(reader, "/databases", db_type="mysql", instance_id=1, database_name="crm")[0]["series"]
    assert series["name"] == "shop (instance-2)"


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{field}={value[:10]!r}" for field, value in BAD])
def test_a_bad_value_is_a_page_that_says_which(reader: TestClient, path: str, field: str, value: str) -> None:
    answer = reader.get(path, params={field: value})
    assert answer.status_code == 400
    assert f"{field}: " in answer.text


def test_too_many_periods_are_refused_before_they_are_counted(reader: TestClient) -> None:
    for start in ("2000-01-01", "0001-01-01", "2020-01-01"):
        assert reader.get("/instances", params={"start_date": start}).status_code == 400
    assert reader.get("/instances", params={"start_date": "2000-01-01", "period_type": "quarterly"}).status_code == 200


@pytest.mark.parametrize("end", ["0001-01-01", "1999-12-31"])
@pytest.mark.parametrize("period_type", ["daily", "weekly", "monthly", "quarterly"])
def test_any_end_is_a_page_without_data(reader: TestClient, end: str, period_type: str) -> None:
    answer = reader.get("/databases", params={"end_date": end, "period_type": period_type})
    assert answer.status_code == 200
    assert "No data in this range." in answer.text


@pytest.mark.parametrize("period_type", ["daily", "weekly", "monthly", "quarterly"])
def test_a_range_that_ends_in_the_future_ends_today(reader: TestClient, period_type: str) -> None:
    now = payload(reader, "/databases", period_type=period_type)
    assert payload(reader, "/databases", period_type=period_type, end_date="9999-12-31") == now
    assert now[0]["in_progress"] is (period_type != "daily")


def test_a_name_cannot_end_the_element_it_stands_in(viewer: TestClient, store: Engine, day: date) -> None:
    name = "</script><script>alert(1)</script>&\u2028"
    put_sizes(store, [(1, name, day, 5000 * MIB)])
    aggregate(store, Level.DATABASE, [window_of(day, PeriodType.DAILY)])
    assert (
        payload(viewer, "/databases")[0]["series"][0]["name"]
        == r"</script><script>alert(1)</script>&\u2028 (instance-1)"
    )
    assert "<script>alert" not in viewer.get("/databases").text


def table(client: TestClient, path: str, **parameters: Any) -> list[list[str]]:
    answer = client.get(path, params=parameters)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.reader(io.StringIO(answer.text)))


def test_the_csv_is_the_table_in_bytes_without_the_gaps(reader: TestClient, day: date) -> None:
    found = table(reader, "/databases/size.csv", database_name="crm", periods=4)
    days = [str(day - timedelta(days=n)) for n in (2, 1, 0)]
    assert found == [
        ["instance", "database", "period_start", "period_end", "avg_size_bytes"],
        *(["instance-1", "crm", one, one, str(10 * MIB)] for one in days),
    ]
    assert table(reader, "/instances/percent.csv", periods=1) == [
        ["instance", "period_start", "period_end", "total_size_change_percent"],
        ["instance-1", str(day), str(day), "0.92"],
    ]
    assert reader.get("/instances/shape.csv").status_code == 404


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\n=1+1", "\uff1d1\uff0b1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)"]
)
def test_a_name_in_the_csv_is_no_formula(viewer: TestClient, store: Engine, day: date, name: str) -> None:
    put_sizes(store, [(1, name, day, 5000 * MIB)])
    aggregate(store, Level.DATABASE, [window_of(day, PeriodType.DAILY)])
    assert table(viewer, "/databases/size.csv", periods=1)[1][1] == f"'{name}"


def test_the_run_centre_shows_status_progress_error_and_items(callers: Callers, store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, created_by,"
                " progress_total, progress_completed, progress_failed, error_message, summary_json) VALUES "
                "('r-1', 'sync_databases', 'Collect sizes of 2026-06-22', 'capacity', 'scheduled', 'running', 'ann', "
                "4, 1, 1, 'one <failed>', CAST(:summary AS jsonb))"
            ),
            {"summary": json.dumps(SUMMARY)},
        )
        connection.execute(
            text(
                "INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status, "
                "error_message) VALUES ('r-1', 'collection', '1', 'shop', 1, 'completed', NULL),"
                " ('r-1', 'collection', '2', 'crm', 2, 'failed', 'no route')"
            )
        )
    client = callers.script(Role.ADMIN)
    for path in ("/runs", "/runs?status=running", "/runs/r-1"):
        page = client.get(path).text
        assert 'data-cancel="r-1"' in page
        assert "one &lt;failed&gt;" in page
        assert 'max="4" value="2"' in page
    for shown in ("Week · 2026-06-22 → 2026-06-28", "3.00 GiB", "12.5 %", "all well", "skipped: nothing to do"):
        assert shown in page
    assert page.index("no route") < page.index(">shop<")
    assert "r-1" not in client.get("/runs?status=failed").text
    assert "data-cancel" not in callers.script(Role.VIEW).get("/runs").text


def test_the_run_centre_is_filtered_and_sorted_by_its_url(viewer: TestClient, store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, created_by,"
                " created_at, progress_failed) VALUES "
                "('r-1', 'sync_databases', 'Collect', 'capacity', 'scheduled', 'failed', NULL, '2026-06-22', 9), "
                "('r-2', 'sync_databases', 'Collect', 'capacity', 'api', 'completed', 'a<b', '2026-06-23', 0)"
            )
        )
    assert shown(viewer, "/runs") == ["r-2", "r-1"]
    assert shown(viewer, "/runs?sort=created") == ["r-1", "r-2"]
    assert shown(viewer, "/runs?sort=-failed") == ["r-1", "r-2"]
    assert shown(viewer, "/runs?trigger_source=api") == ["r-2"]
    assert shown(viewer, "/runs?created_by=a%3Cb") == ["r-2"]
    assert shown(viewer, "/runs?task_category=maintenance") == []
    page = viewer.get("/runs?created_by=a%3Cb&sort=-failed").text
    assert '<option value="a&lt;b" selected>a&lt;b</option>' in page
    assert '<input type="hidden" name="sort" value="-failed">' in page
    assert 'aria-sort="descending"><a class="sort" href="/runs?created_by=a%3Cb&amp;sort=failed&amp;page=1">' in page


@pytest.mark.parametrize("query", ["sort=name", "trigger_source=cron", "status=gone", "page=0", "created_by=%00"])
def test_a_filter_of_runs_that_is_none_is_a_400(reader: TestClient, query: str) -> None:
    assert reader.get(f"/runs?{query}").status_code == 400


def test_the_errors_of_a_run_stand_in_one_list_in_pages(viewer: TestClient, store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status) VALUES "
                "('r-1', 'sync_databases', 'Collect', 'capacity', 'scheduled', 'completed_with_errors')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO task_run_items (run_id, item_type, item_key, item_name, status, error_message) "
                "SELECT 'r-1', 'collection', n, 'server-' || lpad(CAST(n AS text), 3, '0'), 'failed', "
                "'no <route> ' || n FROM generate_series(1, 150) AS n"
            )
        )
    first, second = viewer.get("/runs/r-1").text, viewer.get("/runs/r-1?errors_page=2").text
    assert first.count('class="message"') == 100
    assert second.count('class="message"') == 50
    assert "no &lt;route&gt; 1<" in first
    assert "no &lt;route&gt; 150<" in second
    assert "/runs/r-1?errors_page=2" in first


def shown(client: TestClient, path: str) -> list[str]:
    """Return the runs that a page of the run centre shows, in its order."""
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return re.findall(r'<th scope="row"><a href="/runs/([^"]+)">', answer.text)


@pytest.mark.parametrize("path", ["/runs/none", "/runs/%00", "/runs/a%2Fb", "/databases/none.csv", "/none"])
def test_what_is_not_there_is_a_404(reader: TestClient, path: str) -> None:
    assert reader.get(path).status_code == 404


def test_files_are_kept_for_good_and_compressed(reader: TestClient) -> None:
    page = reader.get("/instances").text
    (url,) = re.findall(r'src="(/static/plotly\.min\.js\?v=[0-9a-f]{16})"', page)
    answer = reader.get(url)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("text/javascript")
    for absent in ("/static/none.js", "/static/../pages.py", "/static/%2e%2e/pages.py", "/static/"):
        assert reader.get(absent).status_code == 404
    assert reader.post("/static/console.css").status_code == 405


def test_a_file_that_a_page_of_another_version_asks_for_is_not_kept_in_its_place(reader: TestClient) -> None:
    for other in ("/static/console.js", "/static/console.js?v=0123456789abcdef"):
        assert reader.get(other).headers["cache-control"] == "no-store"


def test_a_series_has_one_colour_in_all_charts_and_none_shares_it(viewer: TestClient, store: Engine, day: date) -> None:
    before = day - timedelta(days=1)
    put_sizes(store, [(3, name, before, size * MIB) for name, size in (("a", 500), ("b", 400), ("c", 3), ("d", 2))])
    put_sizes(store, [(3, name, day, size * MIB) for name, size in (("a", 501), ("b", 402), ("c", 9), ("d", 7))])
    for level in Level:
        for when in (before, day):
            aggregate(store, level, [window_of(when, PeriodType.DAILY)])
    charts = payload(viewer, "/databases", instance_id=3, top=5)
    assert ["".join(series["name"][0] for series in chart["series"]) for chart in charts] == ["abcd", "cdba", "dcba"]
    assert [[series["colour"] for series in chart["series"]] for chart in charts] == [
        [0, 1, 2, 3],
        [2, 3, 1, 0],
        [3, 2, 1, 0],
    ]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/instances?periods=401", "periods\N{FULLWIDTH COLON}必须不大于 400"),
        ("/instances?top=7", "top\N{FULLWIDTH COLON}必须是以下之一\N{FULLWIDTH COLON}5, 10, 20"),
        ("/databases?start_date=2026-05-02&end_date=2026-05-01", "2026-05-02 晚于 end_date 2026-05-01"),
        ("/databases?end_date=2026-02-30", "必须是存在的日期"),
        ("/databases/list?page=9999", "必须在前 10,000 行之内开始"),
        ("/instances?db_type=%27", "db_type\N{FULLWIDTH COLON}必须是引擎的名称"),
        ("/databases/list?sort=nothing", "sort\N{FULLWIDTH COLON}不是可以排序的列"),
        ("/instances/999", "没有这个实例"),
        ("/runs/r-0", "没有这个任务"),
    ],
)
def test_an_error_is_said_in_the_language_of_the_page(reader: TestClient, path: str, said: str) -> None:
    assert said in reader.get(path, headers={"Accept-Language": "zh-CN"}).text
    assert said not in reader.get(path).text


def test_the_api_says_errors_in_the_language_that_the_page_asks_for(reader: TestClient) -> None:
    path = "/api/v1/instances/999"
    assert reader.get(path).json()["message"] == "there is no such instance"
    assert reader.get(path, headers={"Accept-Language": "zh-CN"}).json()["message"] == "没有这个实例"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("instance_id=x", "instance_id\N{FULLWIDTH COLON}必须是整数"),
        ("db_type=%27", "db_type\N{FULLWIDTH COLON}必须是引擎的名称"),
    ],
)
def test_the_api_says_what_is_wrong_with_a_parameter_in_the_language_of_the_page(
    reader: TestClient, parameters: str, said: str
) -> None:
    answer = reader.get(f"/api/v1/instances?{parameters}", headers={"Accept-Language": "zh-CN"})
    assert answer.json()["message"].startswith(said)


def test_a_problem_of_the_table_partitions_is_said_in_the_language_of_the_page(
    viewer: TestClient, store: Engine, day: date
) -> None:
    with store.begin() as connection:
        connection.execute(text(f"DROP TABLE database_size_stats_{day:%Y_%m}"))
    for path in ("/partitions", "/"):
        assert f"没有表分区包含今天\N{FULLWIDTH LEFT PARENTHESIS}{day}" in viewer.get(f"{path}?lang=zh").text
        assert f"no table partition holds {day}, today" in viewer.get(f"{path}?lang=en").text


def test_figures_of_a_run_have_names_and_its_inputs_words(viewer: TestClient, store: Engine) -> None:
    summary = {
        "common": {
            "inputs": {"last": "2026-05-02", "first": "2026-05-01", "scope": "all"},
            "metrics": [
                {"key": "total_size_bytes", "label": "Total size", "value": 5 * MIB, "unit": "bytes"},
                {"key": "new_figure", "label": "A new figure", "value": 12.5, "unit": "%"},
            ],
        }
    }
    run = """
    INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, closed_at, summary_json)
    VALUES ('r-7', 'sync_databases', 'Collect', 'capacity', 'manual', 'completed', now(), CAST(:summary AS jsonb))
    """
    item = """
    INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status, metrics_json)
    VALUES ('r-7', 'collection', '2', 'instance-2', 2, 'completed', CAST(:figures AS jsonb))
    """
    with store.begin() as connection:
        connection.execute(text(run), {"summary": json.dumps(summary)})
        connection.execute(text(item), {"figures": '{"databases_missing": 0, "log_size_bytes": 2048}'})
    shown = viewer.get("/runs/r-7").text
    facts = re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", shown)
    assert [fact for fact in facts if fact[0] in ("from", "to", "scope", "total", "A new figure")] == [
        ("from", "2026-05-01"),
        ("to", "2026-05-02"),
        ("scope", "all"),
        ("total", "5.00 MiB"),
        ("A new figure", "12.5 %"),
    ]
    assert "logs 2.00 KiB" in shown
    assert "without a size 0" in shown
    assert '<a href="/instances/2">instance-2</a>' in shown
    assert "没有容量 0" in viewer.get("/runs/r-7?lang=zh").text
