"""Task runs against a running deployment: whatever becomes of runs, workers, services and servers, the books agree.

Everything is real: processes under our supervisor, a fleet behind a gate that the test opens, servers that crash.
Every scenario ends with an audit that finds nothing to repair.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import partial
from typing import Any

import psycopg2
import pytest
from dagster import DagsterEvent, DagsterEventType
from sqlalchemy import Engine, text

from whalefall_capacity.asset_keys import aggregation_keys
from whalefall_capacity.mirror.follow import COMPLETED_DESPITE_CANCEL, mirror
from whalefall_capacity.mirror.reconcile import audit
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.task_runs.summary import TaskSummary
from whalefall_capacity_tests.collection.support import settled
from whalefall_capacity_tests.processes import REPOSITORY, wait_for
from whalefall_capacity_tests.registry import entry, register
from whalefall_capacity_tests.run_centre import ALONE, HELD, Centre, centre
from whalefall_capacity_tests.servers import MariadbFleetServer, PostgresqlServer
from whalefall_capacity_tests.slow_fleet import Gate, gate, outage
from whalefall_capacity_tests.store.past import MIB, put_sizes

pytestmark = pytest.mark.slow

NAMES = [f"pg-{number}" for number in range(5)]
# A backfill makes one run of adjacent weeks.
MONDAYS = [date(2025, 3, 3), date(2025, 3, 17), date(2025, 3, 31)]
NOBODY = {"host": "127.0.0.1", "port": 1}

REEXECUTE = """
mutation($run: String!) { launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: FROM_FAILURE}) {
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
} }
"""
TERMINATE = """
mutation($run: String!, $policy: TerminateRunPolicy!) { terminateRun(runId: $run, terminatePolicy: $policy) {
  __typename
} }
"""
BACKFILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }
"""
RUNS_OF_BACKFILL = """
query($id: String!) { runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
  ... on Runs { results { runId } }
} }
"""
SIZES = """
SELECT i.name, s.database_name, s.size_bytes
FROM database_size_stats AS s JOIN instances AS i ON i.id = s.instance_id ORDER BY i.name, s.database_name COLLATE "C"
"""
TOTALS = """
SELECT i.name, a.data_count, a.sum_size_bytes
FROM instance_size_aggregations AS a JOIN instances AS i ON i.id = a.instance_id ORDER BY i.name
"""
EXPECTED_SIZES = """
SELECT datname, pg_database_size(datname) FROM pg_database WHERE datallowconn AND NOT datistemplate
ORDER BY datname COLLATE "C"
"""
FORGET = """
TRUNCATE database_size_stats, instance_size_stats, database_size_aggregations, instance_size_aggregations,
         aggregation_windows
"""
# One statement, so both tables at the same moment.
READ = """
SELECT status, progress_total, progress_completed, progress_failed,
       (SELECT count(*) FROM task_run_items AS item WHERE item.run_id = run.run_id),
       (SELECT count(*) FROM task_run_items AS item WHERE item.run_id = run.run_id AND item.status = 'completed')
FROM task_runs AS run WHERE run_id = %s
"""


@pytest.fixture(scope="module")
def store_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that holds a store and not Dagster's storage."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("alone") / "postgres")
    with server.running():
        yield server


@pytest.fixture(scope="module")
def runs(
    store_alone: EmbeddedPostgres, store_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Centre]:
    store_alone.create_databases("mirrored")
    store_server.create_databases("mirrored_dagster")
    engine = create_store_engine(store_alone.url("mirrored"))
    dagster_url = store_server.url("mirrored_dagster").get_secret_value()
    with centre(tmp_path_factory.mktemp("mirrored"), engine, dagster_url) as found:
        yield found
    engine.dispose()


@pytest.fixture
def fleet(runs: Centre, postgresql: PostgresqlServer, mariadb: MariadbFleetServer) -> Iterator[Gate]:
    """Six instances, all but the first behind a gate."""
    with fleet_of(runs, postgresql, mariadb) as closed:
        yield closed


@contextmanager
def fleet_of(
    found: Centre, postgresql: PostgresqlServer, mariadb: MariadbFleetServer, *unreachable: str
) -> Iterator[Gate]:
    """Make six instances the fleet, of which some are at an address where nobody listens."""
    with gate(postgresql.embedded.socket_dir / ".s.PGSQL.5432") as closed:
        behind = {"host": "127.0.0.1", "port": closed.port}
        entries = [entry("maria", mariadb.target()), *(entry(name, postgresql.target(), **behind) for name in NAMES)]
        register(found.store, *(entry_ | NOBODY if entry_["name"] in unreachable else entry_ for entry_ in entries))
        yield closed


def terminate(runs: Centre, run_id: str, policy: str) -> None:
    answer = runs.running.graphql(TERMINATE, run=run_id, policy=policy)["terminateRun"]
    assert answer["__typename"] == "TerminateRunSuccess"


def snapshot(runs: Centre, run_id: str) -> list[Any]:
    return [runs.task_run(run_id), *runs.items(run_id)]


def assert_books_agree(runs: Centre, run_id: str, dagster_status: str) -> Counter[str]:
    """Check that the run is over in both books, and return how many of its items ended in which way."""
    assert runs.running.run_status(run_id) == dagster_status
    row, counts = runs.task_run(run_id), Counter(item.status for item in runs.items(run_id))
    assert counts.keys() <= {"completed", "failed", "cancelled"}
    assert row.progress_total == counts.total()
    assert row.progress_completed == counts["completed"]
    assert row.progress_failed == counts["failed"] + counts["cancelled"]
    TaskSummary.model_validate(row.summary_json)
    assert audit(runs.store, runs.instance, datetime.now(timezone.utc) - timedelta(days=1)) == []
    return counts


def test_a_run_that_goes_well_is_completed(runs: Centre, fleet: Gate) -> None:
    fleet.open()
    run_id = runs.launch()
    row = runs.await_closed(run_id)
    assert (row.status, row.task_key, row.trigger_source) == ("completed", "sync_databases", "manual")
    assert row.result_url == f"{runs.running.url}/runs/{run_id}"
    assert assert_books_agree(runs, run_id, "SUCCESS") == {"completed": 18}


def test_a_run_in_which_some_instances_fail_is_completed_with_errors(
    runs: Centre, postgresql: PostgresqlServer, mariadb: MariadbFleetServer
) -> None:
    with fleet_of(runs, postgresql, mariadb, "pg-1", "pg-3") as closed:
        closed.open()
        run_id = runs.launch()
        row = runs.await_closed(run_id)
    assert row.status == "completed_with_errors"
    assert {item.item_name for item in runs.items(run_id) if item.status == "failed"} == {"pg-1", "pg-3"}
    assert all(item.error_message for item in runs.items(run_id) if item.status == "failed")
    assert runs.visits(run_id) == {"completed": 4, "failed": 2}
    assert_books_agree(runs, run_id, "SUCCESS")


def test_a_run_in_which_all_fail_is_failed_and_stays_so_when_it_is_executed_again_from_there(
    runs: Centre, postgresql: PostgresqlServer, mariadb: MariadbFleetServer
) -> None:
    with fleet_of(runs, postgresql, mariadb, "maria", *NAMES):
        run_id = runs.launch()
        row = runs.await_closed(run_id)
    assert row.status == "failed"
    assert row.error_message.startswith("none of 6 instances could be measured; the first: ")
    assert runs.visits(run_id) == {"failed": 6}
    assert_books_agree(runs, run_id, "FAILURE")

    before = snapshot(runs, run_id)
    with fleet_of(runs, postgresql, mariadb) as closed:
        closed.open()
        second = runs.running.graphql(REEXECUTE, run=run_id)["launchRunReexecution"]["run"]["runId"]
        assert runs.await_closed(second).status == "completed"
    assert runs.visits(second) == {"completed": 6}
    assert_books_agree(runs, second, "SUCCESS")
    assert snapshot(runs, run_id) == before


@pytest.mark.usefixtures("fleet")
def test_a_run_that_is_terminated_in_mid_collection_stops_within_five_seconds(runs: Centre) -> None:
    run_id = runs.launch_until_half()
    terminate(runs, run_id, "SAFE_TERMINATE")
    runs.await_dagster(run_id, "CANCELED")
    assert runs.await_closed(run_id).status == "cancelled"
    assert runs.visits(run_id) == {"completed": 1, "cancelled": 5}
    assert_books_agree(runs, run_id, "CANCELED")


@pytest.mark.usefixtures("fleet")
def test_a_run_that_the_run_centre_cancels_stops_between_two_instances(runs: Centre) -> None:
    run_id = runs.launch_until_half()
    runs.cancel(run_id)
    runs.await_dagster(run_id, "CANCELED")
    assert runs.await_closed(run_id).status == "cancelled"
    assert runs.visits(run_id) == {"completed": 1, "cancelled": 5}
    assert_books_agree(runs, run_id, "CANCELED")


@pytest.mark.usefixtures("fleet")
def test_a_queued_run_has_its_row_within_ten_seconds_and_never_starts_once_it_is_cancelled(runs: Centre) -> None:
    run_id = runs.launch(HELD)
    assert wait_for(lambda: runs.task_run(run_id), "row of the queued run").status == "pending"
    assert runs.running.run_status(run_id) == "QUEUED"
    runs.cancel(run_id)
    row = runs.await_closed(run_id)
    assert (row.status, row.started_at) == ("cancelled", None)
    assert assert_books_agree(runs, run_id, "CANCELED") == {}


def test_a_run_that_is_cancelled_in_the_queue_and_started_all_the_same_stops_at_its_start(
    runs: Centre, fleet: Gate
) -> None:
    """Without the reconciler nobody takes it out of the queue; the work itself hears the cancel."""
    runs.stop_sensor_between_looks("task_runs_follow_runs")
    try:
        first = runs.launch_until_half(ALONE)
        second = runs.launch(ALONE)
        mirror(runs.store, runs.instance, second)
        runs.cancel(second)
        assert runs.running.run_status(second) == "QUEUED"
        fleet.open()
        runs.await_dagster(second, "CANCELED")
    finally:
        runs.start_sensor("task_runs_follow_runs")
    assert runs.await_closed(first).status == "completed"
    assert runs.await_closed(second).status == "cancelled"
    assert runs.visits(second) == {"cancelled": 6}
    assert_books_agree(runs, second, "CANCELED")


@pytest.mark.usefixtures("fleet")
def test_a_run_whose_worker_is_killed_is_failed(runs: Centre) -> None:
    run_id = runs.launch_until_half()
    runs.worker(run_id).kill()
    row = runs.await_closed(run_id)
    assert row.status == "failed"
    assert row.error_message
    assert runs.visits(run_id) == {"completed": 1, "failed": 5}
    assert_books_agree(runs, run_id, "FAILURE")


@pytest.mark.usefixtures("fleet")
def test_a_run_whose_worker_is_killed_together_with_the_code_server_is_failed(runs: Centre) -> None:
    run_id = runs.launch_until_half()
    (code_server,) = runs.running.services("dagster api grpc")
    worker = runs.worker(run_id)
    code_server.kill()
    worker.kill()
    row = runs.await_closed(run_id)
    assert row.status == "failed"
    assert "The run's worker is gone" in row.error_message
    assert runs.visits(run_id) == {"completed": 1, "failed": 5}
    assert_books_agree(runs, run_id, "FAILURE")


def test_a_run_outlives_the_daemon_and_is_completed_once_that_is_back(runs: Centre, fleet: Gate) -> None:
    run_id = runs.launch_until_half()
    (daemon,) = runs.running.services("dagster._daemon")
    daemon.kill()
    wait_for(lambda: runs.running.services("dagster._daemon") not in ([], [daemon]), "new daemon")
    fleet.open()
    assert runs.await_closed(run_id).status == "completed"
    assert assert_books_agree(runs, run_id, "SUCCESS") == {"completed": 18}


@pytest.mark.usefixtures("fleet")
def test_a_forced_cancel_that_dagster_overwrites_with_success_stays_cancelled(runs: Centre) -> None:
    """The worker hears of the cancel and stops; its success is reported by hand, as one past its last check would."""
    run_id = runs.launch_until_half()
    terminate(runs, run_id, "MARK_AS_CANCELED_IMMEDIATELY")
    assert runs.await_closed(run_id).status == "cancelled"
    before = runs.items(run_id)
    success = DagsterEvent(DagsterEventType.RUN_SUCCESS.value, "sync_databases", message="done all the same")
    runs.instance.report_dagster_event(success, run_id)
    assert runs.running.run_status(run_id) == "SUCCESS"

    def highlights() -> list[str]:
        found: list[str] = runs.task_run(run_id).summary_json["common"]["highlights"]
        return found

    wait_for(highlights, "highlight in the summary")
    assert highlights() == [COMPLETED_DESPITE_CANCEL]
    assert runs.task_run(run_id).status == "cancelled"
    assert runs.items(run_id) == before
    assert_books_agree(runs, run_id, "SUCCESS")


def test_a_run_lives_through_a_crash_of_the_store_and_the_mirror_catches_up(
    runs: Centre, fleet: Gate, store_alone: EmbeddedPostgres
) -> None:
    run_id = runs.launch_until_half()
    with outage(store_alone):
        fleet.let(2)
        wait_for(lambda: fleet.served == 2, "two visits while the store is away")
    fleet.open()
    assert runs.await_closed(run_id).status == "completed"
    assert assert_books_agree(runs, run_id, "SUCCESS") == {"completed": 18}


class Reader(threading.Thread):
    """Reads the two tables ten times a second, on a connection of its own."""

    def __init__(self, store: Engine, run_id: str) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[str, int, int, int, int, int]] = []
        self._url = store.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._run_id = run_id
        self._enough = threading.Event()

    def run(self) -> None:
        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not self._enough.wait(0.1):
                cursor.execute(READ, (self._run_id,))
                self.samples += cursor.fetchall()

    def has_seen(self, completed: int) -> bool:
        return bool(self.samples) and self.samples[-1][2] == completed

    def stop(self) -> None:
        self._enough.set()
        self.join()


def test_a_reader_of_the_tables_sees_progress_rise_to_the_end(runs: Centre, fleet: Gate) -> None:
    run_id = runs.launch()
    reader = Reader(runs.store, run_id)
    reader.start()
    try:
        for visited in range(1, 6):
            wait_for(partial(reader.has_seen, visited), f"{visited} visits done")
            fleet.let(1)
        runs.await_closed(run_id)
        wait_for(lambda: reader.samples[-1][0] == "completed", "end before the eyes of the reader")
    finally:
        reader.stop()
    totals = [total for _, total, *_ in reader.samples]
    done = [completed + failed for _, _, completed, failed, *_ in reader.samples]
    percent = [100 * d / t if t else 0 for d, t in zip(done, totals, strict=True)]
    assert totals == sorted(totals)
    assert done == sorted(done)
    assert percent == sorted(percent)
    assert {1, 2, 3, 4, 5} <= set(done)
    assert reader.samples[-1] == ("completed", 18, 18, 0, 18, 18)
    assert [s for s in reader.samples if (s[1], s[2]) != (s[4], s[5])] == []
    assert_books_agree(runs, run_id, "SUCCESS")


@dataclass(frozen=True)
class Backfills:
    """The ids of the runs of a backfill of assets and of one of a job."""

    of_assets: list[str]
    of_job: list[str]


@pytest.fixture(scope="module")
def backfills(runs: Centre, postgresql: PostgresqlServer, mariadb: MariadbFleetServer) -> Backfills:
    """Two backfills over days that have sizes, at the same time: the daemon looks for them every 30 seconds."""
    with fleet_of(runs, postgresql, mariadb):
        ids = [row.id for row in runs.rows("SELECT id FROM instances ORDER BY id")]
    put_sizes(runs.store, [(ids[0], "shop", monday + timedelta(days=n), MIB) for monday in MONDAYS for n in range(3)])
    first, last = MONDAYS[0].isoformat(), (MONDAYS[0] + timedelta(days=2)).isoformat()
    ranges = [
        {"assetKey": {"path": list(key.path)}, "partitions": {"ranges": [{"start": first, "end": last}]}}
        for key in aggregation_keys(PeriodType.DAILY)
    ]
    weeks = {
        "selector": {"partitionSetName": "aggregate_weekly_partition_set", "repositorySelector": REPOSITORY},
        "partitionNames": [monday.isoformat() for monday in MONDAYS],
    }
    launched = [
        runs.running.graphql(BACKFILL, params=params)["launchPartitionBackfill"]["backfillId"]
        for params in ({"partitionsByAssets": ranges}, weeks)
    ]
    # Each is launched whole, by one look of the daemon.
    wait_for(lambda: [len(runs_of(runs, b)) for b in launched] == [1, 3], "runs of both backfills")
    found = Backfills(*(runs_of(runs, backfill) for backfill in launched))
    for run_id in found.of_assets + found.of_job:
        runs.await_closed(run_id)
    return found


def runs_of(runs: Centre, backfill: str) -> list[str]:
    return [run["runId"] for run in runs.running.graphql(RUNS_OF_BACKFILL, id=backfill)["runsOrError"]["results"]]


def test_a_backfill_that_is_one_run_is_one_task_run(runs: Centre, backfills: Backfills) -> None:
    (run_id,) = backfills.of_assets
    row = runs.await_closed(run_id)
    assert (row.status, row.task_key, row.trigger_source) == ("completed", "calculate_database", "manual")
    assert row.task_name == "Calculate daily aggregations of 2025-03-03 to 2025-03-05"
    assert assert_books_agree(runs, run_id, "SUCCESS") == {"completed": 12}


def test_a_backfill_of_several_runs_is_a_task_run_each(runs: Centre, backfills: Backfills) -> None:
    rows = [runs.await_closed(run_id) for run_id in backfills.of_job]
    assert sorted(row.task_name for row in rows) == [
        "Calculate weekly aggregations of 2025-03-03 to 2025-03-09",
        "Calculate weekly aggregations of 2025-03-17 to 2025-03-23",
        "Calculate weekly aggregations of 2025-03-31 to 2025-04-06",
    ]
    for row in rows:
        assert (row.status, row.trigger_source) == ("completed", "manual")
        assert assert_books_agree(runs, row.run_id, "SUCCESS") == {"completed": 12}


def test_after_a_crash_of_the_one_server_of_both_the_run_ends_and_a_new_one_gives_the_same_rows(
    postgresql: PostgresqlServer, mariadb: MariadbFleetServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("both") / "postgres")
    with server.running():
        server.create_databases("store", "dagster")
        engine = create_store_engine(server.url("store"))
        dagster_url = server.url("dagster").get_secret_value()
        # Nobody listens for MariaDB: its files grow by themselves, and rows are compared here.
        with (
            centre(tmp_path_factory.mktemp("one"), engine, dagster_url) as runs,
            fleet_of(runs, postgresql, mariadb, "maria") as closed,
        ):
            run_id = runs.launch()
            half = {"failed": 1, "running": 2, "pending": 3}
            wait_for(lambda: runs.visits(run_id) == half, "collection that is half done")
            with outage(server):
                closed.let(2)
                wait_for(lambda: closed.served == 2, "two visits while the store is away")
            closed.open()
            runs.await_ui(run_id)
            assert runs.await_closed(run_id).status in {"completed_with_errors", "failed"}
            assert_books_agree(runs, run_id, runs.running.run_status(run_id))
            with engine.begin() as connection:
                connection.execute(text(FORGET))

            def asked() -> list[tuple[Any, ...]]:
                with postgresql.connect() as cursor:
                    cursor.execute(EXPECTED_SIZES)
                    return cursor.fetchall()

            def collect() -> None:
                again = runs.launch()
                assert runs.await_closed(again).status == "completed_with_errors"
                assert_books_agree(runs, again, "SUCCESS")

            sizes, _ = settled(asked, collect)
            assert runs.rows(SIZES) == [(name, database, size) for name in NAMES for database, size in sizes]
            assert runs.rows(TOTALS) == [(name, 1, sum(size for _, size in sizes)) for name in NAMES]
        engine.dispose()
