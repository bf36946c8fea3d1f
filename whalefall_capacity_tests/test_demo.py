"""`make demo` on real servers: the README's first command, as a new user sees it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from typer.testing import CliRunner

from whalefall_capacity.cli import app
from whalefall_capacity.demo.mysql_family import MariadbServer, MysqlServer
from whalefall_capacity.store.postgres.embedded import DAGSTER_DATABASE, STORE_DATABASE, EmbeddedPostgres, bundled_psql
from whalefall_capacity_tests.other_account import UID, needs_root
from whalefall_capacity_tests.processes import processes_below, run
from whalefall_capacity_tests.servers import require_mysql

pytestmark = pytest.mark.slow

DATA_FILES = (".ibd", ".MYD", ".MYI", ".MAD", ".MAI")
ROWS = """
SELECT 'database', instance_id, database_name, collected_date, size_bytes, source, updated_at FROM database_size_stats
WHERE source = 'imported'
UNION ALL
SELECT 'instance', instance_id, NULL, collected_date, total_size_bytes, source, updated_at FROM instance_size_stats
WHERE source = 'imported'
UNION ALL
SELECT 'fleet', id, name, NULL, NULL, db_type, created_at FROM instances
ORDER BY 1, 2, 3, 4
"""


@dataclass(frozen=True)
class Demo:
    """A demo that has run once, while the ports of its UI and its console were taken, and what it printed."""

    home: Path
    printed: str

    @property
    def settings(self) -> dict[str, str]:
        return {"WHALEFALL_HOME": str(self.home)}

    def sizes(self) -> dict[tuple[str, str], int]:
        """Return the bytes of the printed table by (instance, database)."""
        lines = re.findall(r"│ (demo-\w+) +│ (\S+) +│ measured +│[^│]+│ +(\d+) │", self.printed)
        return {(instance, database): int(size_bytes) for instance, database, size_bytes in lines}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    home = tmp_path_factory.mktemp("demo")
    # A terminal wide enough for the table.
    variables = {"WHALEFALL_HOME": str(home), "COLUMNS": "140"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {"WHALEFALL_WEBSERVER_PORT": port, "WHALEFALL_CONSOLE_PORT": port}
        done = run(["demo", "--once"], variables | ports)
    assert done.returncode == 0, done.stderr
    return Demo(home, done.stdout)


def test_a_demo_that_serves_nothing_needs_no_port(demo: Demo) -> None:
    assert "demo-postgresql" in demo.printed


@pytest.fixture
def store_of_demo(demo: Demo) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(demo.home / "postgres").running() as server:
        yield server


def test_the_table_agrees_with_what_psql_is_told_by_the_servers(demo: Demo) -> None:
    printed = {database: size for (instance, database), size in demo.sizes().items() if instance == "demo-postgresql"}
    assert sorted(printed) == ["analytics", "blog", "crm", "postgres", "shop"]
    with EmbeddedPostgres(demo.home / "demo" / "postgresql", 16).running() as server:
        asked = {database: _size_by_psql(server, database) for database in printed}
    assert printed == pytest.approx(asked, rel=0.01)


FOLDERS = {
    "mariadb": {"orders": "orders", "web-logs": "web@002dlogs", "inventory": "inventory", "会员": "@4f1a@5458"},
    "mysql": {"billing": "billing", "app/v2.1": "app@002fv2@002e1", "sessions": "sessions", "客户": "@5ba2@6237"},
}


@pytest.mark.parametrize("server", FOLDERS)
def test_the_table_agrees_with_the_files_in_the_data_directory(demo: Demo, server: str) -> None:
    if server == "mysql":
        require_mysql()
    printed = {database: size for (instance, database), size in demo.sizes().items() if instance == f"demo-{server}"}
    assert printed == {
        database: sum(
            file.stat().st_size
            for file in (demo.home / "demo" / server / "data" / folder).iterdir()
            if file.suffix in DATA_FILES
        )
        for database, folder in FOLDERS[server].items()
    }


def test_databases_are_of_visibly_different_sizes(demo: Demo) -> None:
    megabytes = sorted(size // 2**20 for size in demo.sizes().values())
    assert megabytes[0] < 10
    assert megabytes[-1] > 100


def test_400_days_are_imported_and_marked_as_imported(demo: Demo, store_of_demo: EmbeddedPostgres) -> None:
    days = _rows(
        store_of_demo,
        "SELECT source, count(DISTINCT collected_date), count(*) FROM database_size_stats GROUP BY source",
    )
    databases = len(demo.sizes())
    assert sorted(days) == [("imported", 400, 400 * databases), ("measured", 1, databases)]
    described = _rows(store_of_demo, "SELECT DISTINCT description FROM instances")
    assert described == [("Demo server. Its past is made up; what is marked as measured was measured.",)]


def test_every_day_is_a_materialized_partition_of_both_assets(store_of_demo: EmbeddedPostgres) -> None:
    partitions = _rows(
        store_of_demo,
        "SELECT asset_key, count(DISTINCT partition) FROM event_logs "
        "WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key LIKE '%_stats\"]' GROUP BY asset_key",
        DAGSTER_DATABASE,
    )
    assert sorted(partitions) == [('["database_size_stats"]', 401), ('["instance_size_stats"]', 401)]


def test_one_disk_is_dated_one_not_before_a_day_and_one_not_within_a_year(demo: Demo) -> None:
    printed = run(["forecast", "--json"], demo.settings)
    found = {each["instance"]: each for each in json.loads(printed.stdout)}
    assert found["demo-postgresql"]["status"] == "dated"
    assert found["demo-mariadb"]["status"] == "not_before"
    assert found["demo-mariadb"]["earliest_date"] is not None
    if "demo-mysql" in found:
        assert found["demo-mysql"]["status"] == "not_within_a_year"


def test_a_second_start_changes_no_row_that_it_need_not(demo: Demo, store_of_demo: EmbeddedPostgres) -> None:
    before = _rows(store_of_demo, ROWS)
    again = run(["demo", "--once"], demo.settings)
    assert again.returncode == 0, again.stderr
    databases = len(demo.sizes())
    assert f"0 of {400 * databases} sizes" in again.stdout
    assert _rows(store_of_demo, ROWS) == before
    measured = _rows(store_of_demo, "SELECT count(*) FROM database_size_stats WHERE source = 'measured'")
    assert measured == [(databases,)]


def test_every_process_that_it_started_is_gone(demo: Demo) -> None:
    assert processes_below(demo.home) == []


def test_without_the_other_servers_it_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MariadbServer, "program", staticmethod(lambda: None))
    monkeypatch.setattr(MysqlServer, "program", staticmethod(lambda: None))
    done = CliRunner().invoke(app, ["demo", "--once"])
    assert done.exit_code == 0, done.output
    assert "MariaDB is not installed: the demo continues without it" in done.stderr
    assert "MySQL is not installed: the demo continues without it" in done.stderr
    assert "demo-postgresql" in done.stdout
    assert "demo-mariadb" not in done.stdout
    assert "demo-mysql" not in done.stdout


def test_it_refuses_a_store_that_watches_a_real_fleet(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        "instances: [{name: production, engine: postgresql, host: 127.0.0.1, port: 1,"
        " credential: {username: u, password_env: P}}]"
    )
    assert CliRunner().invoke(app, ["fleet", "apply", str(fleet)]).exit_code == 0
    done = CliRunner().invoke(app, ["demo", "--once"])
    assert done.exit_code == 1
    assert "the store already watches production" in str(done.exception)


def _size_by_psql(server: EmbeddedPostgres, database: str) -> int:
    """Ask the database itself: the first connection after a restart writes a cache of 160 kB that belongs to it."""
    query = "SELECT pg_database_size(current_database())"
    answer = subprocess.run(
        [str(bundled_psql()), "-h", str(server.socket_dir), "-U", "postgres", "-d", database, "-Atc", query],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(answer.stdout)


def _rows(server: EmbeddedPostgres, query: str, database: str = STORE_DATABASE) -> list[tuple[object, ...]]:
    with psycopg2.connect(host=str(server.socket_dir), user="postgres", dbname=database) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return cursor.fetchall()


ABANDONED = """
import sys
from pathlib import Path
from whalefall_capacity.demo.mysql_family import MariadbServer
with MariadbServer(Path(sys.argv[1])).running():
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("is_kept", [True, False], ids=["with its folder", "without its folder"])
def test_a_server_that_was_left_over_is_used_again_only_with_its_folder(tmp_path: Path, is_kept: bool) -> None:
    folder = tmp_path / "server"
    command = [sys.executable, "-c", ABANDONED, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        holder.kill()
    pid = int((folder / "server.pid").read_text())
    if not is_kept:
        shutil.rmtree(folder)
    server = MariadbServer(folder)
    with server.running(), server.connect() as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1
        assert (int((folder / "server.pid").read_text()) == pid) is is_kept
        assert len(processes_below(folder)) == 1
    assert processes_below(folder) == []


@needs_root
def test_a_process_of_another_account_does_not_pass_for_our_server(tmp_path: Path) -> None:
    server = MariadbServer(tmp_path)
    impostor = ["/bin/sh", "-c", "sleep 600; true", "sh", f"--datadir={server.data_dir}"]
    with subprocess.Popen(impostor, user=UID, group=UID, extra_groups=[], start_new_session=True, cwd="/") as process:
        try:
            with server.running(), server.connect() as connection, connection.cursor() as cursor:
                assert cursor.execute("SELECT 1") == 1
            # It was not ours to end, either.
            assert process.poll() is None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
