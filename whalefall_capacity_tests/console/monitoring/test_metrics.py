"""`/metrics` as Prometheus reads it: figures with literal values, and to whom they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.console.monitoring import metrics
from whalefall_capacity.console.monitoring.metrics import GAUGES
from whalefall_capacity.settings import Settings, build_settings
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.postgres.engine import create_monitoring_engine
from whalefall_capacity.store.sizes.fleet_totals import fleet_totals
from whalefall_capacity_tests.console.conftest import Callers, FakeDagster
from whalefall_capacity_tests.console.forecasts import forecast, put_fleet
from whalefall_capacity_tests.console.monitoring.watched import Watched, watched_webserver
from whalefall_capacity_tests.processes import free_port
from whalefall_capacity_tests.store.past import MIB, put_sizes, put_total

Figures = dict[str, dict[tuple[str, ...], float]]
ADD_INSTANCE = """
INSERT INTO instances (id, name, db_type, host, port, is_active) OVERRIDING SYSTEM VALUE
SELECT max(id) + 1, :name, 'postgresql', 'db.internal', 5432, :active FROM instances RETURNING id
"""
ADD_RUN = """
INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, created_at, started_at,
                       completed_at, closed_at)
VALUES (:run, :task, :task, 'capacity', 'scheduled', :status, now() - CAST(:age AS interval),
        now() - CAST(:age AS interval), CASE WHEN :closed THEN now() - CAST(:age AS interval) + interval '90 s' END,
        CASE WHEN :closed THEN now() END)
"""
ADD_VISIT = """
INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status, completed_at, error_message)
VALUES (:run, 'collection', CAST(:instance AS text), 'server', :instance, 'failed', now(), 'connection refused')
"""


@pytest.fixture
def dagster_webserver() -> Iterator[Watched]:
    with watched_webserver() as watched:
        yield watched


@pytest.fixture
def app(store: Engine, dagster_webserver: Watched) -> FastAPI:
    settings = build_settings(webserver_url=dagster_webserver.url)
    return create_app(console_of(store, settings, FakeDagster()))


@pytest.fixture
def scrape(viewer: TestClient) -> Callable[[], Figures]:
    def scrape() -> Figures:
        answer = viewer.get("/metrics")
        assert answer.status_code == 200, answer.text
        return figures_in(answer.text)

    return scrape


def figures_in(content: str) -> Figures:
    """Return the samples of each family by the values of their labels, in the order of the gauge."""
    labels = {gauge.name: gauge.labels for gauge in GAUGES}
    return {
        family.name: {
            tuple(sample.labels[label] for label in labels[family.name]): sample.value for sample in family.samples
        }
        for family in text_string_to_metric_families(content)
    }


def add_instance(store: Engine, name: str, active: bool = True) -> int:
    with store.begin() as connection:
        found: int = connection.execute(text(ADD_INSTANCE), {"name": name, "active": active}).scalar_one()
        return found


def add_run(store: Engine, run: str, task: str, status: str, age: str, closed: bool = True) -> None:
    with store.begin() as connection:
        values = {"run": run, "task": task, "status": status, "age": age, "closed": closed}
        connection.execute(text(ADD_RUN), values)


def change(store: Engine, statement: str, **values: object) -> None:
    with store.begin() as connection:
        assert connection.execute(text(statement), values).rowcount == 1


def test_the_sizes_are_those_of_the_store(scrape: Callable[[], Figures]) -> None:
    found = scrape()
    assert found["whalefall_instance_size_bytes"] == {
        ("instance-1", "postgresql"): 110 * MIB,
        ("instance-2", "mysql"): 1000 * MIB,
    }
    assert found["whalefall_fleet_size_bytes"] == {(): 1110 * MIB}
    assert found["whalefall_instances"] == {("measured",): 2, ("failed",): 0, ("missing",): 0}
    assert found["whalefall_databases_missing"] == {(): 0}


def test_the_newest_day_has_the_age_of_its_first_moment(
    scrape: Callable[[], Figures], day: date, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon_after = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(settings.timezone)) + timedelta(days=1)
    monkeypatch.setattr(metrics, "utc_now", lambda: noon_after)
    assert scrape()["whalefall_newest_day_age_seconds"] == {(): 36 * 3600}


@pytest.mark.real_clock
def test_a_server_that_failed_is_told_from_one_that_nobody_visited(
    store: Engine, scrape: Callable[[], Figures]
) -> None:
    failed, _ = add_instance(store, "failed"), add_instance(store, "new")
    add_instance(store, "gone", active=False)
    add_run(store, "visits", "sync_databases", "completed_with_errors", "1 hour")
    change(store, ADD_VISIT, run="visits", instance=failed)
    found = scrape()
    assert found["whalefall_instances"] == {("measured",): 2, ("failed",): 1, ("missing",): 1}
    assert {name for name, _ in found["whalefall_instance_size_bytes"]} == {"instance-1", "instance-2"}


def test_a_server_without_a_size_of_today_counts_with_that_of_before(
    store: Engine, scrape: Callable[[], Figures], day: date
) -> None:
    change(store, "DELETE FROM instance_size_stats WHERE instance_id = 2 AND collected_date = :day", day=day)
    found = scrape()
    assert found["whalefall_instances"] == {("measured",): 1, ("failed",): 0, ("missing",): 1}
    assert found["whalefall_fleet_size_bytes"] == {(): 1110 * MIB}


def test_a_day_with_missing_databases_makes_no_server_smaller(
    store: Engine, scrape: Callable[[], Figures], day: date
) -> None:
    before = [day - timedelta(days=20), day - timedelta(days=1)]
    put_sizes(store, [(7, "crm", d, 7 * MIB) for d in (*before, day)] + [(7, "shop", before[0], 100 * MIB)])
    put_total(store, 7, day, 7 * MIB, 1, missing=1)
    inventory = (
        "INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)"
        " VALUES (7, :database, :first, :last)"
    )
    change(store, inventory, database="crm", first=before[0], last=day)
    change(store, inventory, database="shop", first=before[0], last=day)
    found = scrape()
    assert found["whalefall_databases_missing"] == {(): 1}
    assert found["whalefall_instance_size_bytes"]["instance-7", "postgresql"] == 107 * MIB
    assert found["whalefall_fleet_size_bytes"] == {(): 1217 * MIB}
    # The inventory drops it, with the next visit.
    dropped = "UPDATE instance_databases SET last_seen_date = :last WHERE instance_id = 7 AND database_name = 'shop'"
    change(store, dropped, last=before[1])
    put_total(store, 7, day, 7 * MIB, 1, missing=1)
    assert scrape()["whalefall_instance_size_bytes"]["instance-7", "postgresql"] == 7 * MIB


def test_the_size_of_the_fleet_is_that_of_the_overview(store: Engine, scrape: Callable[[], Figures], day: date) -> None:
    yesterday = day - timedelta(days=1)
    put_sizes(store, [(n, "crm", day - timedelta(days=n), n * MIB) for n in (7, 8, 40)])
    put_sizes(store, [(n, "crm", d, 1000 * n * MIB) for n in (3, 4) for d in (yesterday, day)])
    put_sizes(store, [(5, "crm", yesterday, 50_000 * MIB)])
    change(store, "UPDATE instances SET replica_of_id = 1 WHERE id = 3")
    # One left after its visit of the day, the other before.
    change(store, "UPDATE instances SET is_active = false WHERE id = 4")
    change(store, "UPDATE instances SET is_active = false WHERE id = 5")
    found = scrape()
    (total,) = fleet_totals(store, day, day)
    assert found["whalefall_fleet_size_bytes"] == {(): total.total_size_bytes} == {(): 5165 * MIB}
    assert {name for name, _ in found["whalefall_instance_size_bytes"]} == {
        f"instance-{number}" for number in (1, 2, 3, 7, 8, 40)
    }


def test_a_fleet_that_nobody_has_measured_for_a_year_has_its_sizes_of_then(
    store: Engine, scrape: Callable[[], Figures], day: date
) -> None:
    with store.begin() as connection:
        connection.execute(text("DELETE FROM instance_size_stats"))
        connection.execute(text("DELETE FROM database_size_stats"))
    put_sizes(store, [(1, "crm", day - timedelta(days=366), 9 * MIB), (2, "crm", day - timedelta(days=400), 8 * MIB)])
    found = scrape()
    assert found["whalefall_fleet_size_bytes"] == {(): 17 * MIB}
    assert found["whalefall_instances"] == {("measured",): 1, ("failed",): 0, ("missing",): 1}


def test_days_until_full_are_those_of_the_newest_forecast_and_none_where_it_gives_no_date(
    store: Engine, scrape: Callable[[], Figures], day: date
) -> None:
    put_fleet(store, day)
    forecast(store, [day])
    found = scrape()["whalefall_days_until_full"]
    assert [found["brimful", bound] for bound in ("earliest", "expected", "latest")] == [0, 0, 0]
    assert [found["dated", bound] for bound in ("earliest", "expected", "latest")] == [53, 60, 69]
    assert {bound for name, bound in found if name == "uneven"} == {"earliest"}
    assert {name for name, _ in found} == {"brimful", "dated", "uneven"}


def test_each_scrape_shows_what_has_changed_since_the_one_before(
    store: Engine, scrape: Callable[[], Figures], day: date
) -> None:
    put_fleet(store, day)
    forecast(store, [day])
    assert scrape()["whalefall_days_until_full"]["dated", "expected"] == 60
    put_sizes(store, [(1, "new", day, 5 * MIB)])
    assert scrape()["whalefall_instance_size_bytes"]["instance-1", "postgresql"] == 115 * MIB
    change(store, "UPDATE instances SET name = 'renamed' WHERE name = 'dated'")
    found = scrape()
    assert found["whalefall_days_until_full"]["renamed", "expected"] == 60
    assert ("dated", "expected") not in found["whalefall_days_until_full"]
    assert "instance-1" in {name for name, _ in found["whalefall_instance_size_bytes"]}


@pytest.mark.parametrize("name", ['quo"ted', "back\\slash", "line\nbreak", "数据库 №1", '{curly="x"} 1 # 2', " "])
def test_any_name_of_an_instance_arrives_as_it_is(store: Engine, scrape: Callable[[], Figures], name: str) -> None:
    change(store, "UPDATE instances SET name = :name WHERE id = 2", name=name)
    assert scrape()["whalefall_instance_size_bytes"][name, "mysql"] == 1000 * MIB


def test_task_runs_are_counted_by_task_and_status_and_their_seconds_added(
    store: Engine, scrape: Callable[[], Figures]
) -> None:
    add_run(store, "1", "sync_databases", "completed", "3 hours")
    add_run(store, "2", "sync_databases", "completed", "2 hours")
    add_run(store, "3", "sync_databases", "failed", "1 hour")
    add_run(store, "4", "sync_databases", "failed", "25 hours")
    add_run(store, "5", "partition_maintenance", "running", "2 hours", closed=False)
    add_run(store, "6", "partition_maintenance", "pending", "1 hour", closed=False)
    found = scrape()
    assert found["whalefall_recent_task_runs"] == {
        ("sync_databases", "completed"): 2,
        ("sync_databases", "failed"): 1,
        ("partition_maintenance", "running"): 1,
        ("partition_maintenance", "pending"): 1,
    }
    assert found["whalefall_recent_task_run_seconds"]["sync_databases", "completed"] == 180
    assert found["whalefall_open_task_runs"] == {
        ("partition_maintenance", "running"): 1,
        ("partition_maintenance", "pending"): 1,
    }
    ages = found["whalefall_open_task_run_age_seconds"]
    assert ages["partition_maintenance", "running"] >= 7200 > ages["partition_maintenance", "pending"] >= 3600


def test_a_table_without_the_partition_of_today_is_behind(store: Engine, scrape: Callable[[], Figures]) -> None:
    before = scrape()["whalefall_table_partitions_behind"]
    assert ("database_size_stats",) in before
    with store.begin() as connection:
        for child in connection.execute(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'instance_size_stats'::regclass")
        ).scalars():
            connection.execute(text(f"DROP TABLE {child}"))
    after = scrape()["whalefall_table_partitions_behind"]
    # Of today, and of the next month.
    assert after["instance_size_stats",] == 2
    assert after["database_size_stats",] == before["database_size_stats",]


def test_the_daemon_is_told_by_the_age_of_its_heartbeats(
    scrape: Callable[[], Figures], dagster_webserver: Watched
) -> None:
    dagster_webserver.ages = {"SCHEDULER": 700.0, "SENSOR": 5.0}
    found = scrape()
    ages = found["whalefall_daemon_heartbeat_age_seconds"]
    assert ages["SCHEDULER",] >= 699
    assert ages["SCHEDULER",] > ages["SENSOR",]
    assert found["whalefall_ready"] == {
        ("store",): 1,
        ("webserver",): 1,
        ("dagster_storage",): 1,
        ("daemon",): 0,
        ("code_location",): 1,
    }


def test_what_nobody_can_tell_has_no_sample(scrape: Callable[[], Figures], dagster_webserver: Watched) -> None:
    dagster_webserver.status = 502
    found = scrape()
    assert found["whalefall_ready"] == {("store",): 1, ("webserver",): 0}
    assert found["whalefall_daemon_heartbeat_age_seconds"] == {}


def test_a_store_without_a_size_has_no_sample_of_one(empty_store: TestClient) -> None:
    found = figures_in(empty_store.get("/metrics").text)
    for name in ("newest_day_age_seconds", "fleet_size_bytes", "instance_size_bytes", "databases_missing"):
        assert found[f"whalefall_{name}"] == {}
    assert found["whalefall_instances"] == {("measured",): 0, ("failed",): 0, ("missing",): 0}


@pytest.fixture
def empty_store(app: FastAPI, store: Engine) -> TestClient:
    with store.begin() as connection:
        connection.execute(text("TRUNCATE instances, instance_size_stats, database_size_stats CASCADE"))
    return Callers(app, store).script(Role.VIEW)


def test_prometheus_gets_open_metrics_when_it_asks_for_it(viewer: TestClient) -> None:
    answer = viewer.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = parse_openmetrics(answer.text)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} == {gauge.name for gauge in GAUGES}
    assert viewer.get("/metrics").headers["content-type"].startswith("text/plain; version=")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Authorization": "Bearer guess"},
        {"Authorization": "Basic dmlldzp2aWV3"},
    ],
)
def test_nobody_sees_a_figure_without_a_token(callers: Callers, headers: dict[str, str]) -> None:
    answer = callers.nobody().get("/metrics", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "whalefall_" not in answer.text


@pytest.mark.parametrize("role", list(Role))
def test_whoever_may_look_sees_them(callers: Callers, role: Role) -> None:
    assert callers.script(role).get("/metrics").status_code == 200


def test_a_store_that_is_gone_is_a_scrape_that_fails(store: Engine, dagster_webserver: Watched) -> None:
    url = SecretStr(f"postgresql+psycopg2://nobody:s3cret@127.0.0.1:{free_port()}/store")
    settings = build_settings(webserver_url=dagster_webserver.url)
    app = create_app(console_of(store, settings, FakeDagster(), monitoring=create_monitoring_engine(url)))
    answer = Callers(app, store).script(Role.VIEW).get("/metrics")
    assert answer.status_code == 503
    assert answer.json()["message"] == "the store is not ready: unreachable"


def test_every_name_and_label_is_one_of_prometheus() -> None:
    for gauge in GAUGES:
        assert gauge.name.startswith("whalefall_")
        assert gauge.name.isidentifier()
        assert set(gauge.labels) <= {
            *("state", "instance_name", "engine", "bound", "task", "status", "table", "component", "daemon")
        }
