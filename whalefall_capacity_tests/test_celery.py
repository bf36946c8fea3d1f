"""Steps on Celery workers, through a real Redis, with the command of docs/scaling.md.

What a killed worker costs, and what becomes of a cancelled run when there is no worker.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest
from redis import Redis
from sqlalchemy import Engine

from whalefall_capacity.mirror.reconcile import Cursor, reconcile
from whalefall_capacity.periods import utc_now
from whalefall_capacity.settings import PREFIX, Settings, load_settings
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity_tests.celery_workers import NAMES, celery_workers
from whalefall_capacity_tests.processes import PATIENCE_SECONDS, run, start, wait_for
from whalefall_capacity_tests.redis_server import PASSWORD, redis_server
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE, entry, register
from whalefall_capacity_tests.resources.runs import cancel_by_run_centre, status_of, task_run
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.slow_fleet import Gate, gate
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import rows

pytestmark = pytest.mark.slow

MONDAY = date(2026, 3, 2)
MONDAYS = [MONDAY + timedelta(weeks=n) for n in range(3)]
# Until the step of a worker that is gone goes to another: several times as long as any step here.
VISIBILITY_SECONDS = 30
STORED = """
SELECT period_start, data_count, sum_size_bytes, max_size_bytes FROM database_size_aggregations ORDER BY period_start
"""
ITEMS = "SELECT item_type, status FROM task_run_items ORDER BY item_type"


@dataclass(frozen=True)
class Workers:
    """Two workers, and the settings that they share with the command line."""

    processes: Sequence[psutil.Process]
    variables: dict[str, str]
    folder: Path

    def process_at(self, server: Gate) -> psutil.Process | None:
        """Return the process of a worker that is connected to *server*."""
        for worker in self.processes:
            for child in worker.children():
                if any(connection.raddr[1:] == (server.port,) for connection in child.net_connections("tcp")):
                    return child
        return None

    def worker_of(self, process: psutil.Process) -> psutil.Process:
        return next(worker for worker in self.processes if process in worker.children())


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def dagster_url(store_server: EmbeddedPostgres) -> str:
    store_server.create_databases("dagster_of_celery")
    return store_server.url("dagster_of_celery").get_secret_value()


@pytest.fixture
def variables(store: Engine, settings: Settings, broker: str, dagster_url: str) -> dict[str, str]:
    """Return the settings of the command line and of the workers; those of this process find the same runs."""
    os.environ[f"{PREFIX}DAGSTER_URL"] = dagster_url
    settings_of_all = {
        "HOME": str(settings.home),
        "STORE_URL": store.url.render_as_string(hide_password=False),
        "DAGSTER_URL": dagster_url,
        "EXECUTOR": "celery",
        "CELERY_BROKER": broker,
        "CELERY_VISIBILITY_SECONDS": str(VISIBILITY_SECONDS),
    }
    return {PREFIX + name: value for name, value in settings_of_all.items()} | {PASSWORD_VARIABLE: ""}


@pytest.fixture
def workers(variables: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    with celery_workers(variables, tmp_path) as processes:
        yield Workers(processes, variables, tmp_path)


@contextmanager
def dagster_of_settings() -> Iterator[dg.DagsterInstance]:
    """Hold the instance of Dagster in which the command line and the workers execute their runs."""
    load_settings.cache_clear()
    with dg.DagsterInstance.from_config(str(load_settings().home / "dagster")) as instance:
        yield instance


def events(run_id: str, event_type: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    """Return the events of a run, from Dagster's storage."""
    with dagster_of_settings() as instance:
        records = instance.get_records_for_run(run_id, of_type=event_type).records
    return [record.event_log_entry.get_dagster_event() for record in records]


def attempts(run_id: str) -> Counter[str]:
    """Return how often each step of a run was begun."""
    return Counter(str(event.step_key) for event in events(run_id, dg.DagsterEventType.STEP_START))


def hosts(run_id: str) -> set[str]:
    """Return the names of the workers that executed steps of a run."""
    return {
        str(event.engine_event_data.metadata["Celery worker"].value).partition("@")[0]
        for event in events(run_id, dg.DagsterEventType.ENGINE_EVENT)
        if "in celery worker" in (event.message or "")
    }


def run_of(store: Engine) -> tuple[str, str]:
    ((run_id, status),) = rows(store, "SELECT run_id, status FROM task_runs")
    return str(run_id), str(status)


def test_workers_write_the_rows_and_keep_the_password_of_redis_to_themselves(store: Engine, workers: Workers) -> None:
    put_sizes(store, [(1, "shop", MONDAY + timedelta(days=n), 100 * (n + 1)) for n in range(20)])
    weeks = ["aggregate", "weekly", "--from", "2026-03-02", "--to", "2026-03-21", "--json"]
    elsewhere = run(weeks, workers.variables)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert "Warning" not in elsewhere.stderr
    weeks_of = [(level, start) for level in ("database", "instance") for start in MONDAYS]
    found = [(window["level"], window["period_start"], window["state"]) for window in json.loads(elsewhere.stdout)]
    assert found == [(level, str(start), "done") for level, start in weeks_of]
    assert rows(store, STORED) == [
        (MONDAYS[0], 7, 2800, 700),
        (MONDAYS[1], 7, 7700, 1400),
        (MONDAYS[2], 6, 10500, 2000),
    ]
    run_id, status = run_of(store)
    assert status == "completed"
    assert set() < hosts(run_id) <= set(NAMES)
    for worker in workers.processes:
        assert PASSWORD not in " ".join(worker.cmdline())
    # By now Dagster's own command would have written it into its home.
    files = [path for path in workers.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path.name for path in files if PASSWORD.encode() in path.read_bytes()] == []


# What the death of one of its processes costs is asserted for every executor in assets/test_sharded_collection.py.
def test_a_worker_that_is_killed_costs_its_step_alone(
    store: Engine, workers: Workers, postgresql: PostgresqlServer
) -> None:
    with gate(postgresql.embedded.socket_dir / ".s.PGSQL.5432") as server:
        register(store, entry("pg", postgresql.target(), host="127.0.0.1", port=server.port))
        log = workers.folder / "collect.log"
        collection = start(["collect"], workers.variables, log)
        victim = wait_for(lambda: workers.process_at(server), "visit by a worker")
        os.killpg(workers.worker_of(victim).pid, signal.SIGKILL)
        # The connection of the one that was killed still waits at the gate.
        wait_for(lambda: server.waiting == 2, "second attempt")
        server.open()
        assert collection.wait(PATIENCE_SECONDS) == 0, log.read_text()
    run_id, status = run_of(store)
    assert status == "completed"
    tries = attempts(run_id)
    assert sorted(tries.values()) == [1] * (len(tries) - 1) + [2]
    assert tries.most_common(1)[0][0].startswith("size_stats")
    assert rows(store, ITEMS) == [
        ("collection", "completed"),
        ("database_aggregation", "completed"),
        ("instance_aggregation", "completed"),
    ]


def interrupt(_: Engine, run_id: str, process: subprocess.Popen[bytes]) -> None:
    """Do what Dagster's launcher does when a run of its own is terminated."""
    with dagster_of_settings() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        instance.report_run_canceling(run)
    process.send_signal(signal.SIGINT)


def cancel(store: Engine, run_id: str, _: subprocess.Popen[bytes]) -> None:
    """Do what the run centre does, and what the daemon makes of it; the process gets no signal."""
    cancel_by_run_centre(store, run_id)
    reconcile_once(store)


def reconcile_once(store: Engine) -> None:
    with dagster_of_settings() as instance:
        reconcile(store, instance, Cursor(), utc_now(), logging.getLogger("reconciliation"))


def undelivered(broker: str) -> int:
    """Return how many tasks the broker holds that no worker has done."""
    with Redis.from_url(broker) as redis:
        return int(redis.hlen("unacked")) + sum(int(redis.llen(queue)) for queue in redis.keys("dagster*"))


def end_of(process: subprocess.Popen[bytes], store: Engine, run_id: str) -> tuple[str, str]:
    """Wait for the end of a collection, and return the statuses of its run and of the task run."""
    process.wait(PATIENCE_SECONDS)
    reconcile_once(store)
    with dagster_of_settings() as instance:
        return status_of(instance, run_id).value, task_run(store, run_id)


@pytest.mark.real_clock
def test_runs_that_are_cancelled_while_there_is_no_worker_end_and_no_later_worker_begins_them(
    store: Engine, variables: dict[str, str], broker: str, postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    register(store, entry("pg", postgresql.target()))
    run_ids: list[str] = []
    for way in (interrupt, cancel):
        log = tmp_path / f"{way.__name__}.log"
        collection = start(["collect"], variables, log)
        wait_for(lambda: undelivered(broker) > len(run_ids), "task in the queue")
        # No step has begun, so that only this makes a task run of it.
        reconcile_once(store)
        ((run_id,),) = rows(store, "SELECT run_id FROM task_runs WHERE status = 'running'")
        way(store, run_id, collection)
        assert end_of(collection, store, run_id) == ("CANCELED", "cancelled"), log.read_text()
        run_ids.append(run_id)
        assert undelivered(broker) == len(run_ids)
    with celery_workers(variables, tmp_path):
        wait_for(lambda: undelivered(broker) == 0, "end of the queue")
    assert [attempts(run_id) for run_id in run_ids] == [{}, {}]
    assert rows(store, "SELECT count(*) FROM database_size_stats") == [(0,)]


@pytest.mark.real_clock
def test_a_run_that_is_cancelled_after_all_workers_were_killed_ends_with_its_items(
    store: Engine, workers: Workers, broker: str, postgresql: PostgresqlServer
) -> None:
    with gate(postgresql.embedded.socket_dir / ".s.PGSQL.5432") as server:
        register(store, entry("pg", postgresql.target(), host="127.0.0.1", port=server.port))
        log = workers.folder / "collect.log"
        collection = start(["collect"], workers.variables, log)
        wait_for(lambda: workers.process_at(server), "visit by a worker")
        for worker in workers.processes:
            os.killpg(worker.pid, signal.SIGKILL)
        run_id, _ = run_of(store)
        cancel(store, run_id, collection)
        assert end_of(collection, store, run_id) == ("CANCELED", "cancelled"), log.read_text()
        assert {status for _, status in rows(store, ITEMS)} == {"cancelled"}
        begun = attempts(run_id)
        with celery_workers(workers.variables, workers.folder):
            wait_for(lambda: undelivered(broker) == 0, "end of the queue")
    assert attempts(run_id) == begun
