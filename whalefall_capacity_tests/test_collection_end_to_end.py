"""The command `collect` as a process of its own: killed in the middle, and with a secret to keep."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.fleet_file import FleetFile
from whalefall_capacity.store.fleet import apply_fleet
from whalefall_capacity.store.fleet_credentials import set_credential
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity_tests.conftest import TEMPLATE, drop_database
from whalefall_capacity_tests.processes import Deployment, deployment, run, start, wait_for
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE, entry, register, silent
from whalefall_capacity_tests.servers import MariadbFleetServer, PostgresqlServer

pytestmark = pytest.mark.slow

SIZES = """
SELECT i.name, s.database_name, s.collected_date, s.size_bytes, s.source
FROM database_size_stats AS s JOIN instances AS i ON i.id = s.instance_id ORDER BY 1, 2
"""
TOTALS = """
SELECT i.name, t.collected_date, t.total_size_bytes, t.database_count, t.missing_count
FROM instance_size_stats AS t JOIN instances AS i ON i.id = t.instance_id ORDER BY 1
"""
INVENTORY = """
SELECT i.name, d.database_name, d.is_active, d.first_seen_date, d.last_seen_date
FROM instance_databases AS d JOIN instances AS i ON i.id = d.instance_id ORDER BY 1, 2
"""
SECRET = "tr0ub4dor-und-3-Geheimnis"

EVENTS = """
query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
  ... on MessageEvent { message }
  ... on AssetCheckEvaluationEvent {
    evaluation { description metadataEntries { label ... on TextMetadataEntry { text } } }
  }
} } } }
"""


@pytest.fixture
def variables(store: Engine, empty_database: str, tmp_path: Path) -> dict[str, str]:
    """Settings of the processes: this test's store, and Dagster's storage beside it."""
    return {
        "WHALEFALL_HOME": str(tmp_path / "home"),
        "WHALEFALL_STORE_URL": store.url.render_as_string(hide_password=False),
        "WHALEFALL_DAGSTER_URL": empty_database,
        PASSWORD_VARIABLE: "",
    }


@pytest.fixture
def undisturbed(store_server: EmbeddedPostgres, administrator: Connection) -> Iterator[Engine]:
    """A second store, for the run that nobody kills."""
    administrator.execute(text(f"CREATE DATABASE undisturbed TEMPLATE {TEMPLATE}"))
    engine = create_store_engine(store_server.url("undisturbed"))
    yield engine
    engine.dispose()
    drop_database(administrator, "undisturbed")


def rows(store: Engine, query: str) -> list[tuple[object, ...]]:
    with store.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_a_collection_that_is_killed_and_run_again_leaves_the_rows_of_an_undisturbed_one(
    store: Engine, undisturbed: Engine, variables: dict[str, str], postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    fleet = [entry(f"pg-{number:02}", postgresql.target()) for number in range(6)]
    with silent("silent") as tarpit:
        # One server at a time, and the silent one in the middle: half of the fleet is stored, half is not.
        register(store, *fleet[:3], {**tarpit, "name": "pg-02-silent"}, *fleet[3:])
        slow = variables | {"WHALEFALL_COLLECTION_CONCURRENCY": "1"}
        process = start(["collect"], slow, tmp_path / "killed.log")
        wait_for(lambda: len(rows(store, TOTALS)) == 3, "first half of the fleet")
        process.kill()
        process.wait()
    assert [row[0] for row in rows(store, TOTALS)] == [f"pg-{number:02}" for number in range(3)]

    register(store, *fleet)
    register(undisturbed, *fleet)
    again = run(["collect"], variables)
    assert again.returncode == 0, again.stderr
    other = variables | {"WHALEFALL_STORE_URL": undisturbed.url.render_as_string(hide_password=False)}
    assert run(["collect"], other).returncode == 0
    for query in (SIZES, TOTALS, INVENTORY):
        assert rows(store, query) == rows(undisturbed, query)


def test_no_secret_shows_up_anywhere(
    store: Engine,
    variables: dict[str, str],
    postgresql: PostgresqlServer,
    mariadb: MariadbFleetServer,
    tmp_path: Path,
) -> None:
    """Good and bad passwords by every kind of reference, through the CLI and the UI; then everything is searched."""
    key = Fernet.generate_key().decode()
    with mariadb.connect() as cursor:
        cursor.execute("CREATE USER IF NOT EXISTS planted@localhost IDENTIFIED BY %s", (SECRET,))
        cursor.execute("GRANT PROCESS, SHOW DATABASES, SHOW VIEW ON *.* TO planted@localhost")
        cursor.execute("CREATE DATABASE IF NOT EXISTS planted")
    with postgresql.connect() as cursor:
        cursor.execute("DROP ROLE IF EXISTS planted")
        cursor.execute("CREATE ROLE planted LOGIN PASSWORD %s IN ROLE pg_monitor", (SECRET,))
    password_file = tmp_path / "secret"
    password_file.write_text(SECRET)
    by_file = {"username": "planted", "password_file": str(password_file)}
    by_environment = {"username": "planted", "password_env": "PLANTED"}
    set_credential(store, "planted", "planted", SecretStr(SECRET), SecretStr(key))
    fleet = FleetFile.model_validate(
        {
            "instances": [
                entry("maria-env", mariadb.target(), credential=by_environment),
                entry("maria-file", mariadb.target(), credential=by_file),
                entry("maria-stored", mariadb.target(), credential={"stored": "planted"}),
                entry("maria-wrong-user", mariadb.target(), credential=by_file | {"username": "stranger"}),
                entry("pg-file", postgresql.target(), credential=by_file),
                entry("pg-wrong-user", postgresql.target(), credential=by_file | {"username": "stranger"}),
            ]
        }
    )
    apply_fleet(store, fleet)
    settings = variables | {"PLANTED": SECRET, "WHALEFALL_SECRET_KEY": key}
    arguments: set[str] = set()
    watching = threading.Event()
    watcher = threading.Thread(target=_note_arguments, args=(arguments, watching))
    watcher.start()

    streams = [run([*command], settings) for command in (["fleet", "check"], ["fleet", "list"], ["collect"])]
    with deployment(["up", "--verbose"], settings, tmp_path / "up.log") as running:
        run_id = running.launch_collection(rows(store, TOTALS)[0][1])  # type: ignore[arg-type]
        wait_for(lambda: _status(running, run_id) == "SUCCESS", "end of the run")
        pages = str(running.graphql(EVENTS, run=run_id))
    watching.set()
    watcher.join()

    assert [row[0] for row in rows(store, TOTALS)] == ["maria-env", "maria-file", "maria-stored", "pg-file"]
    searched = {
        "the streams of the commands": "".join(done.stdout + done.stderr for done in streams),
        "the arguments of processes": "\n".join(arguments),
        "the events in the UI": pages,
        "the store": _dump(settings["WHALEFALL_STORE_URL"]),
        "Dagster's storage": _dump(settings["WHALEFALL_DAGSTER_URL"]),
        "the log of the server": (tmp_path / "up.log").read_text(errors="replace"),
    }
    assert " - DEBUG - sync_databases - " in searched["the log of the server"]
    for file in (tmp_path / "home").rglob("*"):
        if file.is_file():
            searched[str(file)] = file.read_text(errors="replace")
    assert "maria-wrong-user" in searched["the events in the UI"]
    assert "maria-wrong-user" in searched["Dagster's storage"]
    assert [where for where, content in searched.items() if SECRET in content or key in content] == []


def _status(running: Deployment, run_id: str) -> str:
    status = running.run_status(run_id)
    assert status not in {"FAILURE", "CANCELED"}
    return status


def _note_arguments(arguments: set[str], enough: threading.Event) -> None:
    while not enough.wait(0.05):
        for process in psutil.process_iter(["cmdline"]):
            arguments.add(" ".join(process.info["cmdline"] or []))


def _dump(url: str) -> str:
    """Return every row of every table of a database, as text."""
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
        tables = [row[0] for row in cursor.fetchall()]
        content = []
        for table in tables:
            cursor.execute(f"SELECT t::text FROM {table} AS t")
            content += [row[0] for row in cursor.fetchall()]
    return "\n".join(content)
