"""The dead-man's switch, tick by tick, on a real store, a real Dagster and a real service: one call a good day.

What is called is a secret, and neither a tick nor a log nor the store has it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.automation.heartbeat import good_days_are_told
from whalefall_capacity.definitions import defs
from whalefall_capacity.errors import SettingsError
from whalefall_capacity.mirror.follow import mirror
from whalefall_capacity.settings import PREFIX, build_settings, load_settings
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.processes import free_port
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.store.past import put_sizes

# Good days are found by the store's clock.
pytestmark = pytest.mark.real_clock

TOKEN = "t0ken-of-the-p1ng"
NO_CALL = "0 calls of WHALEFALL_HEARTBEAT_URL, 0 not taken now"
ONE_CALL = "1 calls of WHALEFALL_HEARTBEAT_URL, 0 not taken now"
NOT_TAKEN = "0 calls of WHALEFALL_HEARTBEAT_URL, 1 not taken now"


@dataclass
class Service:
    """A service outside; *calls* has the path of each call."""

    url: str = ""
    status: int = 200
    location: str | None = None
    calls: list[str] = field(default_factory=list)


@contextmanager
def service_outside() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service.calls.append(self.path)
            self.send_response(service.status)
            if service.location is not None:
                self.send_header("Location", service.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}/ping/{TOKEN}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def call(url: str) -> None:
    os.environ[f"{PREFIX}HEARTBEAT_URL"] = url
    load_settings.cache_clear()


@pytest.fixture
def service(store: Engine) -> Iterator[Service]:  # noqa: ARG001 - its settings come first
    with service_outside() as found:
        call(found.url)
        yield found


def tick(instance: dg.DagsterInstance) -> str:
    """Evaluate the sensor once, as a daemon that remembers nothing, and return what the tick says."""
    with dg.build_sensor_context(instance, definitions=defs) as context:
        result = good_days_are_told(context)
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def collect(
    store: Engine, instance: dg.DagsterInstance, day: date | None = None, instance_ids: list[int] | None = None
) -> str:
    """Run a collection of *day*, whatever comes of it, and its task run; return how that ended."""
    result = defs.resolve_job_def("sync_databases").execute_in_process(
        instance=instance,
        partition_key=(day or today()).isoformat(),
        run_config={"ops": {"size_stats": {"config": {"instance_ids": instance_ids}}}},
        raise_on_error=False,
    )
    mirror(store, instance, result.run_id)
    with store.connect() as connection:
        status: str = connection.execute(
            text("SELECT status FROM task_runs WHERE run_id = :run"), {"run": result.run_id}
        ).scalar_one()
    return status


def make_due(store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(text("UPDATE alerts SET next_attempt_at = now()"))


def test_nobody_is_called_unless_an_address_is_set(dagster_instance: dg.DagsterInstance) -> None:
    assert tick(dagster_instance) == "WHALEFALL_HEARTBEAT_URL is not set"


def test_a_good_day_is_one_call_whatever_is_repeated(
    store: Engine, dagster_instance: dg.DagsterInstance, service: Service, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    assert tick(dagster_instance) == NO_CALL
    assert collect(store, dagster_instance) == "completed"
    assert tick(dagster_instance) == ONE_CALL
    assert tick(dagster_instance) == NO_CALL
    assert collect(store, dagster_instance) == "completed"
    assert tick(dagster_instance) == NO_CALL
    assert service.calls == [f"/ping/{TOKEN}"]


def test_a_day_on_which_some_servers_failed_is_a_good_one(
    store: Engine, dagster_instance: dg.DagsterInstance, service: Service, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()), refusing("gone"))
    assert collect(store, dagster_instance) == "completed_with_errors"
    assert tick(dagster_instance) == ONE_CALL
    assert len(service.calls) == 1


def test_a_day_that_failed_is_none_until_a_collection_succeeds(
    store: Engine, dagster_instance: dg.DagsterInstance, service: Service, postgresql: PostgresqlServer
) -> None:
    register(store, refusing("gone"))
    assert collect(store, dagster_instance) == "failed"
    assert tick(dagster_instance) == NO_CALL
    register(store, entry("pg", postgresql.target()))
    assert collect(store, dagster_instance) == "completed"
    assert tick(dagster_instance) == ONE_CALL
    assert len(service.calls) == 1


def test_the_collection_of_one_server_is_no_good_day(
    store: Engine, dagster_instance: dg.DagsterInstance, service: Service, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    assert collect(store, dagster_instance, instance_ids=[1]) == "completed"
    assert tick(dagster_instance) == NO_CALL
    assert service.calls == []


def test_a_past_day_that_is_reported_again_is_no_good_day(
    store: Engine, dagster_instance: dg.DagsterInstance, service: Service, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    past = today() - timedelta(days=3)
    put_sizes(store, [(1, "shop", past, 5)])
    assert collect(store, dagster_instance, past) == "completed"
    assert tick(dagster_instance) == NO_CALL
    assert service.calls == []


@pytest.mark.parametrize(("status", "location"), [(500, None), (404, None), (302, "/elsewhere")])
def test_a_call_that_was_not_taken_is_tried_again(
    store: Engine,
    dagster_instance: dg.DagsterInstance,
    service: Service,
    postgresql: PostgresqlServer,
    status: int,
    location: str | None,
) -> None:
    service.status, service.location = status, location
    register(store, entry("pg", postgresql.target()))
    collect(store, dagster_instance)
    assert tick(dagster_instance) == NOT_TAKEN
    # Not at once: the service may be about to start.
    assert tick(dagster_instance) == NO_CALL
    make_due(store)
    service.status = 200
    assert tick(dagster_instance) == ONE_CALL
    assert service.calls == [f"/ping/{TOKEN}"] * 2


def test_a_service_that_is_gone_fails_neither_the_run_nor_the_tick_and_its_address_stays_secret(
    store: Engine,
    dagster_instance: dg.DagsterInstance,
    postgresql: PostgresqlServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    call(f"http://127.0.0.1:{free_port()}/ping/{TOKEN}")
    register(store, entry("pg", postgresql.target()))
    assert collect(store, dagster_instance) == "completed"
    assert tick(dagster_instance) == NOT_TAKEN
    # Dagster logs to stderr.
    logged = caplog.text + "".join(capfd.readouterr())
    assert "the service of the heartbeat cannot be reached, or hung up" in logged
    assert TOKEN not in logged
    with store.connect() as connection:
        stored = connection.execute(text("SELECT * FROM alerts")).all()
        assert len(stored) == 1
        assert TOKEN not in str(stored)


def test_a_call_that_comes_too_late_to_be_a_sign_of_life_is_not_made(
    store: Engine, dagster_instance: dg.DagsterInstance, service: Service, postgresql: PostgresqlServer
) -> None:
    service.status = 500
    register(store, entry("pg", postgresql.target()))
    collect(store, dagster_instance)
    assert tick(dagster_instance) == NOT_TAKEN
    service.status = 200
    with store.begin() as connection:
        connection.execute(text("UPDATE alerts SET next_attempt_at = now(), day = day - 2"))
        connection.execute(
            text("UPDATE alerts SET message_json = jsonb_set(message_json, '{day}', to_jsonb(day::text))")
        )
        connection.execute(text("UPDATE task_runs SET status = status, closed_at = closed_at - interval '2 days'"))
    tick(dagster_instance)
    assert len(service.calls) == 1


@pytest.mark.parametrize("url", ["ftp://hc.example.com/s3cret", "hc.example.com/s3cret", "https:///s3cret", "s3cret"])
def test_an_address_that_nobody_can_call_is_refused_at_the_start_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        build_settings(heartbeat_url=url)
    assert str(raised.value) == ("WHALEFALL_HEARTBEAT_URL: (secret): must look like https://hc.example.com/ping/token")
