"""The embedded server runs while somebody holds it: the first holder starts it, the last one stops it.

Holders are processes. One that was killed, now or before a reboot, counts for nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg2
import pytest

from whalefall_capacity.errors import StoreError
from whalefall_capacity.store.embedded import EmbeddedPostgres, bundled_psql

HOLD = """
import sys
from pathlib import Path
from whalefall_capacity.store.embedded import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])).running():
    print("holding", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A cluster that nobody holds; made once, because making one is what takes long."""
    cluster = EmbeddedPostgres(tmp_path_factory.mktemp("embedded") / "postgres")
    with cluster.running():
        pass
    yield cluster
    if _is_running(cluster):
        postmaster = psutil.Process(int((cluster.data_dir / "postmaster.pid").read_text().split()[0]))
        postmaster.terminate()
        postmaster.wait(30)


def test_a_server_that_is_not_running_is_started_and_stopped_by_the_one_that_started_it(
    cluster: EmbeddedPostgres,
) -> None:
    assert not _is_running(cluster)
    with cluster.running():
        assert _answers(cluster)
    assert not _is_running(cluster)


def test_it_is_stopped_when_the_block_fails(cluster: EmbeddedPostgres) -> None:
    with pytest.raises(ZeroDivisionError), cluster.running():
        _ = 1 / 0
    assert not _is_running(cluster)


def test_one_that_finds_it_running_leaves_it_running(cluster: EmbeddedPostgres) -> None:
    with cluster.running():
        with _holder(cluster):
            pass
        assert _answers(cluster)
    assert not _is_running(cluster)


def test_it_outlives_the_one_that_started_it_while_another_holds_it(cluster: EmbeddedPostgres) -> None:
    with _holder(cluster):
        with cluster.running():
            pass
        assert _answers(cluster)
    assert not _is_running(cluster)


def test_a_process_may_hold_it_twice_at_once(cluster: EmbeddedPostgres) -> None:
    with cluster.running():
        with cluster.running():
            pass
        assert _answers(cluster)
    assert not _is_running(cluster)


def test_a_process_that_left_it_to_another_starts_it_again_when_the_other_has_stopped_it(
    cluster: EmbeddedPostgres,
) -> None:
    with _holder(cluster), cluster.running():
        pass
    assert not _is_running(cluster)
    with cluster.running():
        assert _answers(cluster)
    assert not _is_running(cluster)


def test_two_processes_that_start_it_at_once_share_it(cluster: EmbeddedPostgres) -> None:
    holders = [_start_holder(cluster) for _ in range(2)]
    assert [_said(holder) for holder in holders] == ["holding", "holding"]
    _leave(holders[0])
    assert _answers(cluster)
    _leave(holders[1])
    assert not _is_running(cluster)


def test_a_killed_holder_does_not_keep_it_alive(cluster: EmbeddedPostgres) -> None:
    killed = _start_holder(cluster)
    assert _said(killed) == "holding"
    killed.kill()
    killed.communicate(timeout=30)
    assert _is_running(cluster)
    with cluster.running():
        assert _answers(cluster)
    assert not _is_running(cluster)


def test_a_killed_holder_that_its_parent_has_not_reaped_does_not_keep_it_alive(cluster: EmbeddedPostgres) -> None:
    killed = _start_holder(cluster)
    assert _said(killed) == "holding"
    killed.kill()
    _await_zombie(killed)
    with cluster.running():
        pass
    running = _is_running(cluster)
    killed.communicate(timeout=30)
    assert not running


def test_a_holder_from_before_a_reboot_does_not_keep_it_alive_although_its_id_is_in_use_again(
    cluster: EmbeddedPostgres, request: pytest.FixtureRequest
) -> None:
    stranger = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    request.addfinalizer(lambda: stranger.communicate(timeout=30))
    (cluster.data_dir / ".handle_pids.json").write_text(json.dumps([stranger.pid]))
    with cluster.running():
        pass
    assert not _is_running(cluster)


def test_what_was_written_is_there_at_the_next_start(cluster: EmbeddedPostgres) -> None:
    with cluster.running():
        cluster.create_databases("kept")
    with cluster.running():
        assert _answers(cluster, "kept")


def test_databases_that_exist_are_left_as_they_are(cluster: EmbeddedPostgres) -> None:
    with cluster.running():
        cluster.create_databases("filled")
        with _cursor(cluster, "filled") as cursor:
            cursor.execute("CREATE TABLE remembered ()")
        cluster.create_databases("filled", 'with "quotes"')
        with _cursor(cluster, "filled") as cursor:
            cursor.execute("SELECT to_regclass('remembered') IS NOT NULL")
            assert cursor.fetchone() == (True,)


def test_a_server_that_is_not_running_has_no_url_and_the_message_says_what_to_do(cluster: EmbeddedPostgres) -> None:
    with pytest.raises(StoreError) as raised:
        cluster.url("whalefall")
    assert str(raised.value) == (
        f"the embedded PostgreSQL server in {cluster.data_dir} is not running: start it with "
        "`whalefall-capacity up`, or set WHALEFALL_STORE_URL"
    )


def test_a_server_that_never_ran_has_no_url_either(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not running"):
        EmbeddedPostgres(tmp_path / "nothing").url("whalefall")


def test_the_bundled_psql_is_of_the_version_of_the_store() -> None:
    version = subprocess.run([bundled_psql(), "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("psql (PostgreSQL) 18.")


def _is_running(cluster: EmbeddedPostgres) -> bool:
    try:
        return cluster.socket_dir.is_dir()
    except StoreError:
        return False


def _answers(cluster: EmbeddedPostgres, database: str = "postgres") -> bool:
    with _cursor(cluster, database) as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone() == (1,)


@contextmanager
def _cursor(cluster: EmbeddedPostgres, database: str) -> Iterator[psycopg2.extensions.cursor]:
    connection = psycopg2.connect(host=str(cluster.socket_dir), user="postgres", dbname=database)
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


@contextmanager
def _holder(cluster: EmbeddedPostgres) -> Iterator[None]:
    """Hold the server by another process for the length of the block."""
    holder = _start_holder(cluster)
    try:
        assert _said(holder) == "holding"
        yield
    finally:
        _leave(holder)


def _start_holder(cluster: EmbeddedPostgres) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(cluster.data_dir)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _said(holder: subprocess.Popen[str]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def _leave(holder: subprocess.Popen[str]) -> None:
    holder.communicate(timeout=30)
    assert holder.returncode == 0


def _await_zombie(killed: subprocess.Popen[str]) -> None:
    process = psutil.Process(killed.pid)
    deadline = time.monotonic() + 30
    while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.status() == psutil.STATUS_ZOMBIE
