"""A collection of several shards: one run, one task run, one materialization a day, whichever processes visit them.

What one process does is executed here; what becomes of the processes of steps, in a process of its own for the run,
by each executor that can run here.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import time_machine
from dagster import DagsterEventType, DagsterRunStatus
from sqlalchemy import Engine

from whalefall_capacity.execution_choices import ExecutorName
from whalefall_capacity.mirror.follow import mirror
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.settings import PREFIX, PROJECT_ROOT, load_settings
from whalefall_capacity_tests.assets.collections_elsewhere import in_process
from whalefall_capacity_tests.assets.test_stats import store_past
from whalefall_capacity_tests.celery_workers import VISIBILITY_SECONDS, celery_workers
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.redis_server import redis_server
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE, entry, refusing, register
from whalefall_capacity_tests.resources.runs import cancel_by_run_centre, run_in_own_process, status_of, task_run
from whalefall_capacity_tests.resources.test_run_process import is_alive, reconcile_for_minutes
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.slow_fleet import Gate, gate
from whalefall_capacity_tests.store.records import rows

STATS = [dg.AssetKey("database_size_stats"), dg.AssetKey("instance_size_stats")]
COLLECTIONS = "assets.collections_elsewhere"
SIZES = """
SELECT md5(string_agg(concat_ws('/', i.name, s.database_name, s.collected_date, s.size_bytes), ','
                      ORDER BY i.name, s.database_name, s.collected_date))
FROM database_size_stats AS s JOIN instances AS i ON i.id = s.instance_id
"""
TOTALS = """
SELECT i.name, collected_date, total_size_bytes, s.database_count, missing_count
FROM instance_size_stats AS s JOIN instances AS i ON i.id = s.instance_id ORDER BY 1, 2
"""
# Those that tell two collections of the same servers apart.
OF_THE_MOMENT = {"changed_at", "rows_changed"}


def set_shards(instances_each: int, retries: int = 0) -> None:
    """Set the size of shards for runs from now on, and the retries of those in other processes."""
    set_variables(COLLECTION_SHARD_INSTANCES=str(instances_each), SHARD_RETRIES=str(retries))


def collect(instance: dg.DagsterInstance, first: date, last: date | None = None, again: str | None = None) -> str:
    """Collect in this process, *again* from where a run failed, and return the id of the run."""
    options = dg.ReexecutionOptions.from_failure(again, instance) if again else None
    tags = range_tags(first, last or first)
    result = dg.execute_job(dg.reconstructable(in_process), instance, tags=tags, reexecution_options=options)
    return str(result.run_id)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["multiprocess", "celery"])
def elsewhere(request: pytest.FixtureRequest) -> None:
    """Sets the executor of runs in other processes: each that hands their steps over."""
    if request.param == "celery":
        set_celery(request.getfixturevalue("broker"))
    else:
        set_variables(EXECUTOR="multiprocess", EXECUTOR_MAX_CONCURRENT="3")


def set_celery(broker: str) -> None:
    """Let the steps of runs in other processes go to Celery workers."""
    # The settings want a storage that workers can share; here they get the instance of the test with each step.
    set_variables(
        EXECUTOR="celery",
        CELERY_BROKER=broker,
        CELERY_VISIBILITY_SECONDS=str(VISIBILITY_SECONDS),
        DAGSTER_URL="postgresql://127.0.0.1:1/unused",
    )


def set_variables(**values: str) -> None:
    os.environ.update({PREFIX + name: value for name, value in values.items()})
    load_settings.cache_clear()


def workers() -> AbstractContextManager[object]:
    """Hold the workers that the executor needs, with the settings as they are now."""
    if load_settings().executor is not ExecutorName.CELERY:
        return nullcontext()
    kept = {name: value for name, value in os.environ.items() if name.startswith((PREFIX, PASSWORD_VARIABLE))}
    return celery_workers({**kept, "PYTHONPATH": str(PROJECT_ROOT)}, Path.cwd())


@contextmanager
def collecting(
    instance: dg.DagsterInstance, first: date, last: date | None = None, again: str | None = None
) -> Iterator[str]:
    """Collect in other processes, *again* from where a run failed; yield the id of the run once it has started."""
    arguments = [first.isoformat(), (last or first).isoformat(), *([again] if again else [])]
    with workers(), run_in_own_process(instance, COLLECTIONS, *arguments) as (process, run_id):
        yield run_id
        wait_for(lambda: process.poll() is not None, "end of the run")


def events(instance: dg.DagsterInstance, run_id: str, *types: DagsterEventType) -> list[Any]:
    """Return the events of *types* of a run, in their order."""
    return [entry.dagster_event for entry in instance.all_logs(run_id, of_type=set(types))]


def attempts(instance: dg.DagsterInstance, run_id: str) -> dict[str, int]:
    """Return how often each step of a run was begun."""
    begun = events(instance, run_id, DagsterEventType.STEP_START, DagsterEventType.STEP_RESTARTED)
    return Counter(event.step_key for event in begun)


def materialized(instance: dg.DagsterInstance, run_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the metadata of each materialization of a run, of which there may be one an asset and day."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events(instance, run_id, DagsterEventType.ASSET_MATERIALIZATION):
        known = event.step_materialization_data.materialization
        key = (known.asset_key.to_user_string(), known.partition)
        assert key not in found
        found[key] = {name: value.value for name, value in known.metadata.items() if name not in OF_THE_MOMENT}
    return found


def checks(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str, bool, str | None]]:
    """Return the evaluations of checks of a run."""
    evaluated = events(instance, run_id, DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [event.asset_check_evaluation_data for event in evaluated]
    return sorted((check.check_name, check.passed, check.description) for check in found)


def shard(ids: Mapping[str, int], first: str, last: str) -> str:
    """Return the step that visits the servers from *first* to *last*."""
    return f"size_stats.visits[{ids[first]}_{ids[last]}]"


def change(store: Engine, statement: str) -> None:
    with store.begin() as connection:
        connection.exec_driver_sql(statement)


def visits(store: Engine, run_id: str) -> dict[str, str]:
    """Return the status of the item of each instance by its name."""
    return dict(rows(store, "SELECT item_name, status FROM task_run_items WHERE run_id = :r ORDER BY 1", r=run_id))


def kill_visitor(server: Gate) -> None:
    """Kill the process that waits at the gate."""
    (pid,) = {each.pid for each in psutil.net_connections("tcp") if each.raddr[1:] == (server.port,)}
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def closed(postgresql: PostgresqlServer) -> Iterator[Gate]:
    """A gate before the server."""
    with gate(postgresql.embedded.socket_dir / ".s.PGSQL.5432") as found:
        yield found


def register_fleet(store: Engine, postgresql: PostgresqlServer, behind: Gate | None = None) -> dict[str, int]:
    """Register four servers, with ids in the order of their names; the third is behind the gate, if there is one."""
    target = postgresql.target()
    through = {"host": "127.0.0.1", "port": behind.port} if behind else {}
    fleet = [entry("pg-1", target), entry("pg-2", target), entry("pg-3", target, **through), refusing("pg-4")]
    return [register(store, *fleet[:count]) for count in (1, 2, 3, 4)][-1]


def test_shards_bring_what_one_shard_brings(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register_fleet(store, postgresql)
    whole = collect(dagster_instance, today())
    before = (rows(store, SIZES), rows(store, TOTALS))
    set_shards(3)
    parted = collect(dagster_instance, today())
    assert set(attempts(dagster_instance, whole)) == {
        "size_stats.shards",
        shard(ids, "pg-1", "pg-4"),
        "size_stats.report",
    }
    assert attempts(dagster_instance, parted) == {
        "size_stats.shards": 1,
        shard(ids, "pg-1", "pg-3"): 1,
        shard(ids, "pg-4", "pg-4"): 1,
        "size_stats.report": 1,
    }
    assert (rows(store, SIZES), rows(store, TOTALS)) == before
    found = [without_seconds(materialized(dagster_instance, run_id)) for run_id in (whole, parted)]
    assert found[0] == found[1]
    assert set(found[1]) == {(key.to_user_string(), today().isoformat()) for key in STATS}
    assert checks(dagster_instance, whole) == checks(dagster_instance, parted)
    assert [name for name, _, _ in checks(dagster_instance, parted)] == ["fleet_coverage", "secrets_readable"]
    items = {"pg-1": "completed", "pg-2": "completed", "pg-3": "completed", "pg-4": "failed"}
    assert visits(store, whole) == visits(store, parted) == items
    assert task_run(store, parted, "progress_total, progress_completed, progress_failed") == (4, 3, 1)


def without_seconds(found: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return metadata without the time that the visits took."""
    return {
        key: {
            name: [{**record.data, "seconds": None} for record in value.records] if hasattr(value, "records") else value
            for name, value in metadata.items()
        }
        for key, metadata in found.items()
    }


def test_shards_of_a_few_instances_hold_these_alone(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register_fleet(store, postgresql)
    set_shards(1)
    result = dg.execute_job(
        dg.reconstructable(in_process),
        dagster_instance,
        tags={"dagster/partition": today().isoformat()},
        run_config={"ops": {"size_stats": {"config": {"instance_ids": [ids["pg-1"], ids["pg-3"]]}}}},
    )
    assert result.success
    assert visits(store, result.run_id) == {"pg-1": "completed", "pg-3": "completed"}
    assert [name for name, *_ in rows(store, TOTALS)] == ["pg-1", "pg-3"]


def test_past_days_need_no_shard(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register_fleet(store, postgresql)
    set_shards(1)
    days = [today() - timedelta(days=age) for age in (2, 1)]
    store_past(store, postgresql, ids["pg-1"], days)
    run_id = collect(dagster_instance, days[0], days[1])
    assert attempts(dagster_instance, run_id) == {"size_stats.shards": 1, "size_stats.report": 1}
    assert len(materialized(dagster_instance, run_id)) == 4
    assert rows(store, "SELECT count(*) FROM collection_shards") == [(0,)]


def test_a_run_in_which_all_failed_visits_them_again_when_it_is_executed_from_there(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    set_shards(1)
    register(store, refusing("pg-1"), refusing("pg-2"))
    failed = collect(dagster_instance, today())
    assert status_of(dagster_instance, failed) is DagsterRunStatus.FAILURE
    mirror(store, dagster_instance, failed)
    assert task_run(store, failed, "error_message").startswith("none of 2 instances could be measured; the first: pg-")
    register(store, entry("pg-1", postgresql.target()), refusing("pg-2"))
    again = collect(dagster_instance, today(), again=failed)
    assert status_of(dagster_instance, again) is DagsterRunStatus.SUCCESS
    assert attempts(dagster_instance, again) == {"size_stats.report": 1}
    assert visits(store, again) == {"pg-1": "completed", "pg-2": "failed"}


def test_a_range_in_which_all_failed_reports_its_stored_days_at_once_and_today_when_it_is_executed_from_there(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    set_shards(1)
    ids = register(store, refusing("pg-1"), refusing("pg-2"))
    retired = register(store, refusing("pg-1"), refusing("pg-2"), refusing("pg-3"))["pg-3"]
    change(store, f"UPDATE instances SET is_active = false WHERE id = {retired}")
    yesterday = today() - timedelta(days=1)
    store_past(store, postgresql, ids["pg-1"], [yesterday])
    store_past(store, postgresql, retired, [yesterday])
    failed = collect(dagster_instance, yesterday, today())
    assert status_of(dagster_instance, failed) is DagsterRunStatus.FAILURE
    assert {day for _, day in materialized(dagster_instance, failed)} == {yesterday.isoformat()}
    assert visits(store, failed) == {"pg-1": "failed", "pg-2": "failed", "pg-3": "completed"}
    register(store, entry("pg-1", postgresql.target()), refusing("pg-2"))
    again = collect(dagster_instance, yesterday, today(), again=failed)
    assert status_of(dagster_instance, again) is DagsterRunStatus.SUCCESS
    assert {day for _, day in materialized(dagster_instance, again)} == {yesterday.isoformat(), today().isoformat()}
    assert visits(store, again) == {"pg-1": "completed", "pg-2": "failed", "pg-3": "completed"}


def test_a_run_that_is_executed_again_on_a_later_day_measures_nothing(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    day = today()
    register(store, refusing("pg-1"))
    failed = collect(dagster_instance, day)
    register(store, entry("pg-1", postgresql.target()))
    with time_machine.travel(timedelta(days=1)):
        again = collect(dagster_instance, day, again=failed)
    mirror(store, dagster_instance, again)
    assert task_run(store, again, "status, error_message") == (
        "failed",
        f"nothing is stored for {day}, and a past day cannot be measured; "
        "`whalefall-capacity history import FILE` imports sizes from other sources",
    )
    assert rows(store, TOTALS) == []


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.real_clock
def test_a_process_that_is_killed_costs_its_shard_alone(
    store: Engine, shared_instance: dg.DagsterInstance, postgresql: PostgresqlServer, closed: Gate
) -> None:
    ids = register_fleet(store, postgresql, closed)
    yesterday = today() - timedelta(days=1)
    store_past(store, postgresql, ids["pg-1"], [yesterday])
    set_shards(2, retries=1)
    other, killed = shard(ids, "pg-1", "pg-2"), shard(ids, "pg-3", "pg-4")
    with collecting(shared_instance, yesterday, today()) as run_id:
        wait_for(lambda: closed.waiting == 1, "visit at the gate")
        kill_visitor(closed)
        closed.open()
    assert status_of(shared_instance, run_id) is DagsterRunStatus.SUCCESS
    once = {"size_stats.shards": 1, other: 1, "size_stats.report": 1}
    assert attempts(shared_instance, run_id) == {killed: 2, **once}
    found, sizes = materialized(shared_instance, run_id), rows(store, SIZES)
    mirror(store, shared_instance, run_id)
    assert task_run(store, run_id) == "completed_with_errors"
    # As if one process had done everything, on the same day.
    set_shards(1000)
    register_fleet(store, postgresql)
    alone = collect(shared_instance, yesterday, today())
    assert without_seconds(found) == without_seconds(materialized(shared_instance, alone))
    assert len(found) == 4
    assert sizes == rows(store, SIZES)
    assert visits(store, run_id) == visits(store, alone)
    assert checks(shared_instance, run_id) == checks(shared_instance, alone)


# What is left of a run is decided before any executor sees it.
@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", ["multiprocess"], indirect=True)
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.real_clock
def test_a_run_that_goes_on_where_another_failed_visits_the_shards_that_are_left(
    store: Engine, shared_instance: dg.DagsterInstance, postgresql: PostgresqlServer, closed: Gate
) -> None:
    ids = register_fleet(store, postgresql, closed)
    set_shards(2)
    first, second = shard(ids, "pg-1", "pg-2"), shard(ids, "pg-3", "pg-4")
    with collecting(shared_instance, today()) as failed:
        wait_for(lambda: closed.waiting == 1, "visit at the gate")
        wait_for(lambda: rows(store, "SELECT FROM collection_shards WHERE visited_by IS NOT NULL"), "finished shard")
        change(store, "ALTER TABLE collection_shards ADD CONSTRAINT unvisited CHECK (visited_by IS NULL) NOT VALID")
        closed.open()
    change(store, "ALTER TABLE collection_shards DROP CONSTRAINT unvisited")
    assert status_of(shared_instance, failed) is DagsterRunStatus.FAILURE
    assert materialized(shared_instance, failed) == {}
    collected_at = "SELECT collected_at FROM instance_size_stats WHERE instance_id = :i"
    collected = rows(store, collected_at, i=ids["pg-1"])
    with collecting(shared_instance, today(), again=failed) as again:
        pass
    assert status_of(shared_instance, again) is DagsterRunStatus.SUCCESS
    assert attempts(shared_instance, again) == {second: 1, "size_stats.report": 1}
    assert first in attempts(shared_instance, failed)
    assert rows(store, collected_at, i=ids["pg-1"]) == collected
    assert visits(store, again) == {"pg-1": "completed", "pg-2": "completed", "pg-3": "completed", "pg-4": "failed"}
    found = materialized(shared_instance, again)["instance_size_stats", today().isoformat()]
    assert (found["instances_ok"], found["instances_failed"], found["measured_now"]) == (3, 1, True)


# Either executor must not begin a shard again; that no retry follows is decided in the step.
@pytest.mark.slow
@pytest.mark.parametrize(("elsewhere", "retries"), [("multiprocess", 3), ("celery", 0)], indirect=["elsewhere"])
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.real_clock
def test_a_run_that_is_cancelled_visits_no_shard_twice(
    retries: int, store: Engine, shared_instance: dg.DagsterInstance, postgresql: PostgresqlServer, closed: Gate
) -> None:
    register_fleet(store, postgresql, closed)
    set_shards(2, retries)
    with collecting(shared_instance, today()) as run_id:
        wait_for(lambda: closed.waiting == 1, "visit at the gate")
        cancel_by_run_centre(store, run_id)
    assert status_of(shared_instance, run_id) is DagsterRunStatus.CANCELED
    assert set(attempts(shared_instance, run_id).values()) == {1}
    assert "size_stats.report" not in attempts(shared_instance, run_id)
    mirror(store, shared_instance, run_id)
    assert task_run(store, run_id) == "cancelled"
    assert visits(store, run_id)["pg-3"] == "cancelled"
    assert "pg-3" not in [name for name, *_ in rows(store, TOTALS)]


@pytest.mark.slow
@pytest.mark.real_clock
def test_a_run_that_waits_for_its_first_worker_is_alive_and_goes_on_when_there_is_one(
    store: Engine, shared_instance: dg.DagsterInstance, postgresql: PostgresqlServer, broker: str
) -> None:
    ids = register_fleet(store, postgresql)
    set_celery(broker)
    set_shards(2)
    days = [today().isoformat()] * 2
    with run_in_own_process(shared_instance, COLLECTIONS, *days) as (process, run_id):
        wait_for(lambda: is_alive(store, run_id), "lock")
        reconcile_for_minutes(store, shared_instance)
        assert status_of(shared_instance, run_id) is DagsterRunStatus.STARTED
        assert task_run(store, run_id) == "running"
        assert attempts(shared_instance, run_id) == {}
        with workers():
            wait_for(lambda: process.poll() is not None, "end of the run")
    assert status_of(shared_instance, run_id) is DagsterRunStatus.SUCCESS
    halves = [shard(ids, "pg-1", "pg-2"), shard(ids, "pg-3", "pg-4")]
    assert attempts(shared_instance, run_id) == dict.fromkeys(["size_stats.shards", *halves, "size_stats.report"], 1)
    assert visits(store, run_id) == {"pg-1": "completed", "pg-2": "completed", "pg-3": "completed", "pg-4": "failed"}
