"""`/healthz` and `/readyz`: what is told of whom, to everybody, in bounded time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.postgres.engine import create_monitoring_engine
from whalefall_capacity_tests.console.conftest import FakeDagster
from whalefall_capacity_tests.console.monitoring.watched import Watched, watched_webserver
from whalefall_capacity_tests.processes import free_port

READY = {"ready": True, "reasons": []}


@pytest.fixture
def dagster_webserver() -> Iterator[Watched]:
    with watched_webserver() as watched:
        yield watched


def console(store: Engine, url: str, monitoring: Engine | None = None) -> FastAPI:
    settings = build_settings(webserver_url=url)
    return create_app(console_of(store, settings, FakeDagster(), monitoring=monitoring))


def client_of(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False, follow_redirects=False)


def reasons(store: Engine, url: str, monitoring: Engine | None = None) -> dict[str, str]:
    """Ask a console that was just started, and return the reason of each component."""
    answer = client_of(console(store, url, monitoring)).get("/readyz")
    content = answer.json()
    assert answer.status_code == (200 if content["ready"] else 503)
    assert content.keys() == {"ready", "reasons"}
    assert all(reason.keys() == {"component", "reason"} for reason in content["reasons"])
    return {reason["component"]: reason["reason"] for reason in content["reasons"]}


@contextmanager
def mute_port() -> Iterator[int]:
    """Hold a port whose server takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_everything_is_there_and_nobody_has_to_log_in(store: Engine, dagster_webserver: Watched) -> None:
    answer = client_of(console(store, dagster_webserver.url)).get("/readyz")
    assert (answer.status_code, answer.json()) == (200, READY)


def test_the_process_is_healthy_whatever_else_is_gone() -> None:
    with mute_port() as port:
        url = SecretStr(f"postgresql+psycopg2://nobody@127.0.0.1:{port}/store")
        app = console(create_monitoring_engine(url), f"http://127.0.0.1:{free_port()}")
        answer = client_of(app).get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_a_store_that_nobody_serves_is_unreachable(dagster_webserver: Watched) -> None:
    url = SecretStr(f"postgresql+psycopg2://nobody:s3cret@127.0.0.1:{free_port()}/store")
    assert reasons(create_monitoring_engine(url), dagster_webserver.url) == {"store": "unreachable"}


@pytest.mark.slow
def test_a_store_that_keeps_silent_is_waited_for_only_so_long(dagster_webserver: Watched) -> None:
    with mute_port() as port:
        url = SecretStr(f"postgresql+psycopg2://nobody@127.0.0.1:{port}/store")
        assert reasons(create_monitoring_engine(url), dagster_webserver.url) == {"store": "timeout"}


def test_a_store_of_another_version_is_not_migrated(store: Engine, dagster_webserver: Watched) -> None:
    with store.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0009'"))
    assert reasons(store, dagster_webserver.url) == {"store": "not_migrated"}


def test_an_empty_store_is_not_migrated(empty_database: str, dagster_webserver: Watched) -> None:
    engine = create_monitoring_engine(SecretStr(empty_database))
    assert reasons(engine, dagster_webserver.url) == {"store": "not_migrated"}
    engine.dispose()


@pytest.mark.parametrize(
    ("ages", "reason"),
    [
        ({"SCHEDULER": None, "SENSOR": None}, "no_heartbeat"),
        ({"SCHEDULER": 5.0, "SENSOR": None}, "no_heartbeat"),
        ({}, "no_heartbeat"),
        ({"SCHEDULER": 70.0, "SENSOR": 65.0}, "old_heartbeat"),
        ({"SCHEDULER": 700.0, "SENSOR": 5.0}, "old_heartbeat"),
    ],
)
def test_a_daemon_without_a_fresh_heartbeat_is_not_ready(
    store: Engine, dagster_webserver: Watched, ages: dict[str, float | None], reason: str
) -> None:
    dagster_webserver.ages = ages
    assert reasons(store, dagster_webserver.url) == {"daemon": reason}


def test_a_daemon_one_of_whose_threads_is_busy_is_ready(store: Engine, dagster_webserver: Watched) -> None:
    dagster_webserver.ages = {"SCHEDULER": 300.0, "SENSOR": 20.0}
    assert reasons(store, dagster_webserver.url) == {}


@pytest.mark.parametrize(
    ("planned", "reason"), [("PipelineNotFoundError", "not_loaded"), ("PythonError", "unreachable")]
)
def test_a_code_location_that_plans_no_run_is_not_ready(
    store: Engine, dagster_webserver: Watched, planned: str, reason: str
) -> None:
    dagster_webserver.planned = planned
    assert reasons(store, dagster_webserver.url) == {"code_location": reason}


def test_a_webserver_that_nobody_serves_is_unreachable(store: Engine) -> None:
    assert reasons(store, f"http://127.0.0.1:{free_port()}") == {"webserver": "unreachable"}


@pytest.mark.parametrize("status", [302, 401, 404, 502])
def test_a_webserver_that_does_not_answer_us_refuses(store: Engine, dagster_webserver: Watched, status: int) -> None:
    dagster_webserver.status = status
    assert reasons(store, dagster_webserver.url) == {"webserver": "refused"}


@pytest.mark.parametrize("answer", ["Log in", {"status": "ok"}, {"data": ["of", "another"]}])
def test_what_is_no_dagster_webserver_refuses(store: Engine, dagster_webserver: Watched, answer: object) -> None:
    dagster_webserver.instead = answer
    assert reasons(store, dagster_webserver.url) == {"webserver": "refused"}


@pytest.mark.slow
def test_a_webserver_that_keeps_silent_is_waited_for_only_so_long(store: Engine) -> None:
    with mute_port() as port:
        assert reasons(store, f"http://127.0.0.1:{port}") == {"webserver": "timeout"}


@pytest.mark.slow
def test_each_of_two_that_keep_silent_has_a_reason_of_its_own(store: Engine, dagster_webserver: Watched) -> None:
    dagster_webserver.tells_code_location.clear()
    assert reasons(store, dagster_webserver.url) == {"code_location": "timeout"}
    dagster_webserver.tells_code_location.set()
    dagster_webserver.tells_daemons.clear()
    assert reasons(store, dagster_webserver.url) == {"dagster_storage": "timeout"}


def test_a_storage_of_dagster_that_is_gone_tells_no_address(store: Engine, dagster_webserver: Watched) -> None:
    dagster_webserver.storage_answers = False
    assert reasons(store, dagster_webserver.url) == {"dagster_storage": "unreachable"}


def test_all_that_is_wrong_is_told_at_once(dagster_webserver: Watched) -> None:
    dagster_webserver.planned = "PipelineNotFoundError"
    dagster_webserver.ages = {"SENSOR": None}
    url = SecretStr(f"postgresql+psycopg2://nobody:s3cret@127.0.0.1:{free_port()}/store")
    found = reasons(create_monitoring_engine(url), dagster_webserver.url)
    assert found == {"store": "unreachable", "daemon": "no_heartbeat", "code_location": "not_loaded"}


def test_what_was_mended_is_ready_again(
    store: Engine, dagster_webserver: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whalefall_capacity.console.monitoring.looks.FRESH_SECONDS", 0.0)
    client = client_of(console(store, dagster_webserver.url))
    dagster_webserver.planned = "PythonError"
    assert client.get("/readyz").status_code == 503
    dagster_webserver.planned = "ExecutionPlan"
    assert client.get("/readyz").json() == READY


def test_the_reasons_are_logged_once_with_their_causes_and_no_secret(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whalefall_capacity.console.monitoring.looks.FRESH_SECONDS", 0.0)
    url = SecretStr(f"postgresql+psycopg2://nobody:s3cret@127.0.0.1:{free_port()}/store")
    # Ports that refuse at once: an answer that a busy machine delays would be another reason, and another line.
    client = client_of(console(create_monitoring_engine(url), f"http://127.0.0.1:{free_port()}"))
    for _ in range(3):
        client.get("/readyz")
    (line,) = [record.getMessage() for record in caplog.records if "readiness" in record.name]
    assert line.startswith("not ready: store: unreachable, webserver: unreachable; ")
    assert "Connection refused" in line
    assert "s3cret" not in line
