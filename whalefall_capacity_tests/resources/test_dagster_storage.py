"""Dagster's storage is where the settings say; without a URL, on the embedded server, for as long as it is used.

The instance is the one that the project's dagster.yaml describes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from dagster._daemon.types import DaemonHeartbeat

from whalefall_capacity.errors import StoreError
from whalefall_capacity.resources import dagster_storage
from whalefall_capacity.runtime import DAGSTER_FILE
from whalefall_capacity.settings import PREFIX, PROJECT_ROOT, Settings, load_settings
from whalefall_capacity.store.postgres.embedded import DAGSTER_DATABASE, EmbeddedPostgres
from whalefall_capacity_tests.collection.support import garbage, peer
from whalefall_capacity_tests.processes import environment, wait_for

# Leaves without disposing of the instance.
FORGETFUL = """
import sys
import dagster as dg
instance = dg.DagsterInstance.from_config(sys.argv[1])
print(len(instance.get_runs()))
"""
# Sends a heartbeat as a daemon does, and stays.
DAEMON = """
import sys, time
import dagster as dg
from dagster._daemon.types import DaemonHeartbeat
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "a daemon", []))
    print("sent", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A DAGSTER_HOME with the project's dagster.yaml."""
    home = tmp_path / "dagster"
    home.mkdir()
    (home / DAGSTER_FILE).symlink_to(PROJECT_ROOT / DAGSTER_FILE)
    return home


def test_it_is_at_the_url_of_the_settings(home: Path, empty_database: str) -> None:
    os.environ[f"{PREFIX}DAGSTER_URL"] = empty_database
    load_settings.cache_clear()
    run = dg.DagsterRun(job_name="kept")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_run(run)
    with psycopg2.connect(empty_database.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_id FROM runs")
        assert cursor.fetchall() == [(run.run_id,)]


def test_another_server_in_the_environment_is_not_taken_for_it(home: Path, empty_database: str) -> None:
    os.environ[f"{PREFIX}DAGSTER_URL"] = empty_database
    load_settings.cache_clear()
    with peer(garbage) as elsewhere:
        os.environ.update(PGHOSTADDR="127.0.0.1", PGPORT=str(elsewhere.port))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            assert instance.get_runs() == []
        assert elsewhere.arrivals == 0


def test_without_one_it_is_on_the_embedded_server_which_runs_while_an_instance_is_open(
    home: Path, settings: Settings
) -> None:
    run = dg.DagsterRun(job_name="kept")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_run(run)
        # Another one that comes and goes, such as that of a sensor's tick.
        with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
            assert other.get_run_by_id(run.run_id) is not None
        assert instance.get_run_by_id(run.run_id) is not None
    with pytest.raises(StoreError, match="is not running"):
        EmbeddedPostgres(settings.home / "postgres").url(DAGSTER_DATABASE)

    command = [sys.executable, "-c", FORGETFUL, str(home)]
    variables = {f"{PREFIX}HOME": str(settings.home)}
    done = subprocess.run(command, env=environment(variables), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")
    with pytest.raises(StoreError, match="is not running"):
        EmbeddedPostgres(settings.home / "postgres").url(DAGSTER_DATABASE)


@contextmanager
def daemon(home: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Hold a process that has sent a heartbeat."""
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(home)],
        env=environment({f"{PREFIX}DAGSTER_URL": url}),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        yield process
        process.kill()


def test_a_daemon_that_was_killed_has_no_heartbeats_until_another_one_sends_some(
    home: Path, empty_database: str
) -> None:
    os.environ[f"{PREFIX}DAGSTER_URL"] = empty_database
    load_settings.cache_clear()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_daemon_heartbeats() == {}
        with daemon(home, empty_database):
            assert set(instance.get_daemon_heartbeats()) == {"SENSOR"}
            with daemon(home, empty_database) as second:
                second.kill()
                second.wait()
                # The first is still there.
                assert set(instance.get_daemon_heartbeats()) == {"SENSOR"}
        wait_for(lambda: instance.get_daemon_heartbeats() == {}, "end of the heartbeats")
        with daemon(home, empty_database):
            assert set(instance.get_daemon_heartbeats()) == {"SENSOR"}


def test_a_daemon_whose_connection_was_lost_is_heard_of_with_its_next_heartbeat(
    home: Path, empty_database: str
) -> None:
    os.environ[f"{PREFIX}DAGSTER_URL"] = empty_database
    load_settings.cache_clear()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        heartbeat = DaemonHeartbeat(1.0, "SENSOR", "a daemon", [])
        instance.add_daemon_heartbeat(heartbeat)
        with psycopg2.connect(empty_database.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        connection.close()
        wait_for(lambda: instance.get_daemon_heartbeats() == {}, "end of the lost session")
        instance.add_daemon_heartbeat(heartbeat)
        assert set(instance.get_daemon_heartbeats()) == {"SENSOR"}


CONNECTED = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def test_all_that_an_instance_writes_and_reads_goes_through_one_connection_which_is_replaced_when_it_is_lost(
    home: Path, empty_database: str
) -> None:
    os.environ[f"{PREFIX}DAGSTER_URL"] = empty_database
    load_settings.cache_clear()
    key = dg.AssetKey("sizes")
    with closing(psycopg2.connect(empty_database.replace("+psycopg2", ""))) as other, other.cursor() as watching:
        other.autocommit = True

        def connected() -> list[int]:
            watching.execute(CONNECTED)
            return [pid for (pid,) in watching.fetchall()]

        with dg.DagsterInstance.from_config(str(home)) as instance:
            # With its first event, Dagster looks from a second one which of its tables' columns it may use.
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2026-03-01"))
            wait_for(lambda: len(connected()) == 1, "end of the second session")
            (first,) = connected()
            instance.add_run(dg.DagsterRun(job_name="kept"))
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2026-03-02"))
            assert len(instance.get_runs()) == 1
            assert list(instance.all_instigator_state()) == []
            wait_for(lambda: connected() == [first], "session that is kept")

            watching.execute("SELECT pg_terminate_backend(%s)", (first,))
            wait_for(lambda: connected() == [], "end of the lost session")
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2026-03-03"))
            assert instance.get_materialized_partitions(key) == {"2026-03-01", "2026-03-02", "2026-03-03"}
            wait_for(lambda: len(connected()) == 1 and connected() != [first], "session in its place")
        wait_for(lambda: connected() == [], "end of the instance's session")


# An event of the same asset for the day after, as another process writes it.
COPY_FOR_THE_NEXT_DAY = """
INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, asset_key, partition)
SELECT run_id, replace(event, '2026-03-01', '2026-03-02'), dagster_event_type, timestamp, asset_key, '2026-03-02'
FROM event_logs WHERE partition = '2026-03-01'
"""
WAITING_FOR_WRITERS = "SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%FROM pg_locks%'"


def test_who_follows_the_events_passes_none_that_is_still_being_written(home: Path, empty_database: str) -> None:
    os.environ[f"{PREFIX}DAGSTER_URL"] = empty_database
    load_settings.cache_clear()
    key = dg.AssetKey("sizes")

    def follow(after: int) -> list[dg.EventLogRecord]:
        wanted = dg.AssetRecordsFilter(key, after_storage_id=after)
        return list(instance.fetch_materializations(wanted, limit=10, ascending=True).records)

    def waits() -> bool:
        watching.execute(WAITING_FOR_WRITERS)
        return watching.fetchone() is not None

    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        closing(psycopg2.connect(empty_database.replace("+psycopg2", ""))) as other,
        closing(psycopg2.connect(empty_database.replace("+psycopg2", ""))) as watcher,
        other.cursor() as slow_import,
        watcher.cursor() as watching,
        ThreadPoolExecutor(1) as pool,
    ):
        watcher.autocommit = True
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2026-03-01"))
        (first,) = follow(0)
        slow_import.execute(COPY_FOR_THE_NEXT_DAY)
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2026-03-03"))
        following = pool.submit(follow, first.storage_id)
        wait_for(lambda: waits() or following.done(), "look for writers")
        other.commit()
        assert [record.partition_key for record in following.result()] == ["2026-03-02", "2026-03-03"]


def test_a_writer_that_does_not_end_is_told(home: Path, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ[f"{PREFIX}DAGSTER_URL"] = empty_database
    load_settings.cache_clear()
    monkeypatch.setattr(dagster_storage, "WRITING_SECONDS", 0.1)
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        closing(psycopg2.connect(empty_database.replace("+psycopg2", ""))) as other,
        other.cursor() as cursor,
    ):
        cursor.execute("UPDATE event_logs SET timestamp = now()")
        with pytest.raises(StoreError, match=r"writing to Dagster's event_logs for more than 0\.1 s"):
            instance.fetch_materializations(dg.AssetKey("sizes"), limit=10, ascending=True)
        # The pages of Dagster, which read the newest first, wait for nobody.
        assert instance.fetch_materializations(dg.AssetKey("sizes"), limit=10).records == []
