"""`/readyz` of a real deployment: 503 within 30 seconds of the end of the daemon, the code server or the store.

Each has a reason of its own, and all is well again once it is back.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from whalefall_capacity.console.monitoring.metrics import GAUGES
from whalefall_capacity.store.access import Role, create_token
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity_tests.processes import PATIENCE_SECONDS, Deployment, deployment, wait_for

pytestmark = pytest.mark.slow

WITHIN_SECONDS = 30.0
READY: tuple[int, dict[str, str]] = (200, {})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The server of the store alone, which can be killed without the other that has Dagster's storage."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("store") / "postgres").running() as server:
        server.create_databases("store")
        yield server


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, stores: EmbeddedPostgres, store_server: EmbeddedPostgres
) -> Iterator[Deployment]:
    """A deployment whose Dagster UI asks for a login."""
    folder = tmp_path_factory.mktemp("readyz")
    store_server.create_databases("readyz_dagster")
    settings = {
        "WHALEFALL_HOME": str(folder / "home"),
        "WHALEFALL_STORE_URL": stores.url("store").get_secret_value(),
        "WHALEFALL_DAGSTER_URL": store_server.url("readyz_dagster").get_secret_value(),
        "WHALEFALL_UI_LOGIN": "true",
    }
    with deployment(["up"], settings, folder / "up.log") as found:
        wait_for(found.console_answers, "answer of the console")
        wait_for(lambda: readyz(found) == READY, "readiness")
        yield found


def readyz(running: Deployment) -> tuple[int, dict[str, str]]:
    """Return the status and the reason of each component."""
    try:
        with urllib.request.urlopen(f"{running.console_url}/readyz", timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            status, content = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        status, content = error.code, json.load(error)
    return status, {reason["component"]: reason["reason"] for reason in content["reasons"]}


def assert_told(running: Deployment, expected: dict[str, str], what: str) -> None:
    """Wait until *expected* is all that is wrong; it has to be so within 30 seconds."""
    began = time.monotonic()
    wait_for(lambda: readyz(running) == (503, expected), what)
    assert time.monotonic() - began < WITHIN_SECONDS


@contextmanager
def held_down(running: Deployment, words: str) -> Iterator[None]:
    """Kill a program, and let nobody start it again for the length of the block."""
    supervisor = psutil.Process(running.process.pid)
    (program,) = running.services(words)
    supervisor.suspend()
    try:
        program.kill()
        yield
    finally:
        supervisor.resume()
    wait_for(lambda: readyz(running) == READY, "readiness")


def test_a_daemon_that_is_killed_is_told(running: Deployment) -> None:
    with held_down(running, "dagster._daemon"):
        assert_told(running, {"daemon": "no_heartbeat"}, "reason of the daemon")


def test_a_code_server_that_is_killed_is_told(running: Deployment) -> None:
    with held_down(running, "api grpc"):
        assert_told(running, {"code_location": "unreachable"}, "reason of the code server")


def test_a_webserver_that_is_killed_is_told(running: Deployment) -> None:
    with held_down(running, " ui "):
        assert_told(running, {"webserver": "unreachable"}, "reason of the webserver")


def test_a_store_that_is_killed_is_told(running: Deployment, stores: EmbeddedPostgres) -> None:
    postmaster = psutil.Process(int((stores.data_dir / "postmaster.pid").read_text().split()[0]))
    for process in [postmaster, *postmaster.children()]:
        process.kill()
    assert_told(running, {"store": "unreachable"}, "reason of the store")
    with stores.running():
        wait_for(lambda: readyz(running) == READY, "readiness")


def test_prometheus_reads_every_family(running: Deployment, stores: EmbeddedPostgres) -> None:
    engine = create_store_engine(stores.url("store"))
    token = create_token(engine, "prometheus", Role.VIEW).get_secret_value()
    engine.dispose()
    request = urllib.request.Request(f"{running.console_url}/metrics")  # noqa: S310 - our own server
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - our own server
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    assert families.keys() == {gauge.name for gauge in GAUGES}
    assert {sample.labels["component"]: sample.value for sample in families["whalefall_ready"].samples} == {
        "store": 1,
        "webserver": 1,
        "dagster_storage": 1,
        "daemon": 1,
        "code_location": 1,
    }
