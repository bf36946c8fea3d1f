"""The documentation, done as it says: the quick start on servers of our own, the units of a deployment, a restore."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg2
import pytest
import yaml
from typer.testing import CliRunner

from whalefall_capacity import supervisor
from whalefall_capacity.cli import app
from whalefall_capacity.demo.mysql_family import MariadbServer
from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres, bundled_psql
from whalefall_capacity.supervisor import Program, stop_families
from whalefall_capacity_tests.pages import PAGES, PROGRAM, Page, page
from whalefall_capacity_tests.processes import (
    PATIENCE_SECONDS,
    Deployment,
    deployment,
    environment,
    free_port,
    run,
    wait_for,
)
from whalefall_capacity_tests.units import BIN, CHECKOUT, STATE, WITH_UNITS, Unit, environment_files, replaced, units

QUICK_START = page("docs/quick-start.md")
OPERATIONS = page("docs/operations.md")
CLI = page("docs/cli.md")
UP = f"{PROGRAM} up\n"
# They serve until they are stopped, or need what the quick start does not make: an archive, a receiver of alerts, the
# database of another system.
DONE_ELSEWHERE = {
    *("up", "demo", "serve", "ui", "partitions restore", "alert test", "migrate-from whalefall"),
    # The worked example of docs/engines.md is followed by the tests of these commands.
    *("engine check", "engine try"),
}
HEALTH = """
query {
  workspaceOrError { ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
}
"""


@dataclass(frozen=True)
class Tried:
    """The quick start, done: what it printed, and the program as it runs at its end."""

    printed: str
    variables: Mapping[str, str]
    folder: Path
    running: Deployment
    run_id: str

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the folder of the quick start."""
        return _shell(script, self.variables, self.folder)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    folder = tmp_path_factory.mktemp("quick-start")
    scripts = [block.content for block in QUICK_START.blocks("sh")]
    before_up = "".join(scripts[: scripts.index(UP)])
    # The tests run in what `make install` installed.
    assert before_up.startswith("make install\n")
    variables = {"WHALEFALL_HOME": str(folder / "home"), "SHOP_PASSWORD": "change-me"}
    with fleet_of_the_quick_start(folder) as fleet:
        (folder / "fleet.yaml").write_text(yaml.safe_dump(fleet))
        (folder / "sizes.csv").write_text(QUICK_START.blocks("csv")[0].content)
        done = _shell(before_up.removeprefix("make install\n"), variables, folder)
        assert done.returncode == 0, done.stdout + done.stderr
        # A service has no .env in its folder; here it stands for EnvironmentFile.
        key = (folder / ".env").read_text().strip().partition("=")[2]
        variables["WHALEFALL_SECRET_KEY"] = key
        with deployment(["up"], variables, folder / "up.log") as running:
            listed = run(["runs", "list", "--json"], variables)
            yield Tried(done.stdout, variables, folder, running, json.loads(listed.stdout)[-1]["run_id"])


@contextmanager
def fleet_of_the_quick_start(folder: Path) -> Iterator[dict[str, list[dict[str, object]]]]:
    """Hold a server for each entry of the quick start's fleet, with the accounts that it makes, and yield the fleet."""
    fleet: dict[str, list[dict[str, object]]] = yaml.safe_load(QUICK_START.blocks("yaml")[0].content)
    postgresql_grants, mariadb_grants = (block.content for block in QUICK_START.blocks("sql"))
    with ExitStack() as servers:
        postgresql = servers.enter_context(EmbeddedPostgres(folder / "shop", 16).running())
        execute_sql(postgresql.socket_dir, "postgres", postgresql_grants)
        mariadb = servers.enter_context(MariadbServer(folder / "crm").running())
        with closing(mariadb.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE crm")
            for statement in statements(mariadb_grants):
                cursor.execute(statement)
        hosts = {"postgresql": str(postgresql.socket_dir), "mariadb": str(mariadb.socket)}
        for entry in fleet["instances"]:
            entry["host"] = hosts[str(entry["engine"])]
        yield fleet


@pytest.mark.slow
def test_the_quick_start_ends_with_measured_servers_and_a_ui_that_answers(tried: Tried) -> None:
    assert "stored credential crm" in tried.printed
    assert re.search(r"shop-primary +│ \S+ +│ database sizes +│ ok", tried.printed)
    assert re.search(r"crm +│ \S+ +│ database sizes +│ ok", tried.printed)
    assert re.search(r"shop-primary +│ postgresql", tried.printed)
    assert "wrote 2 of 2 rows on 2 days" in tried.printed
    assert tried.running.serves()


@pytest.mark.slow
def test_what_follows_the_start_in_the_quick_start_works(tried: Tried) -> None:
    scripts = [block.content for block in QUICK_START.blocks("sh")]
    for script in scripts[scripts.index(UP) + 1 :]:
        done = tried.shell(script)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_query_to_monitor_says_that_all_is_well(tried: Tried) -> None:
    (script,) = (block.content for block in OPERATIONS.blocks("sh") if "25 * 3600" in block.content)
    assert tried.shell(script).stdout == "t\n"


def commands_of_the_pages() -> list[str]:
    found = {
        shlex.join(arguments)
        for path in PAGES
        # The page of the command line names each command without its arguments.
        if path not in (QUICK_START.path, CLI.path)
        for arguments in Page(path).commands()
        if arguments and not {" ".join(arguments[:1]), " ".join(arguments[:2])} & DONE_ELSEWHERE
    }
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("command", commands_of_the_pages())
def test_every_other_command_of_the_pages_works_after_the_quick_start(
    command: str, tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tried.folder)
    arguments = shlex.split(command.replace("RUN_ID", tried.run_id).replace("FILE", "sizes.csv"))
    # In this process: the quick start shows that the program works as one of its own, at one second a command.
    load_settings.cache_clear()
    done = CliRunner().invoke(app, arguments, input="change-me\n", env=tried.variables)
    # The name of a group prints its help.
    assert done.exit_code == 0 or (done.exit_code == 2 and "Usage:" in done.stdout), (done.output, done.exception)


def test_the_units_start_exactly_what_up_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = []

    class Recorded(Program):
        def start(self) -> None:
            started.append(shlex.join(self._command[1:]))

        def keep_running(self) -> None:
            if len(started) == 4:
                raise WhalefallError("enough")

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(supervisor, "Program", Recorded)
    monkeypatch.setattr(supervisor, "is_listening", lambda _: True)
    with pytest.raises(WhalefallError, match="enough"):
        supervisor.serve(3000, 8000, verbose=False)

    written = units({"/etc/whalefall": str(tmp_path)})
    programs = [written[f"whalefall-{name}"] for name in ("code", "webserver", "daemon", "console")]
    assert [shlex.join(unit.command[1:]) for unit in programs] == [
        re.sub(r" -s \S+", " -s /run/whalefall/code.sock", started[0]),
        *started[1:],
    ]
    assert written["whalefall"].command == [f"{CHECKOUT}/.venv/bin/{PROGRAM}", "up"]


@pytest.mark.parametrize(
    ("unit", "secrets"),
    [
        ("whalefall", {"WHALEFALL_STORE_URL", "WHALEFALL_DAGSTER_URL", "WHALEFALL_SECRET_KEY", "SHOP_PASSWORD"}),
        ("whalefall-code", {"WHALEFALL_STORE_URL", "WHALEFALL_DAGSTER_URL", "WHALEFALL_SECRET_KEY", "SHOP_PASSWORD"}),
        ("whalefall-webserver", {"WHALEFALL_STORE_URL", "WHALEFALL_DAGSTER_URL"}),
        ("whalefall-daemon", {"WHALEFALL_DAGSTER_URL"}),
        ("whalefall-console", {"WHALEFALL_STORE_URL"}),
        ("whalefall-worker", {"WHALEFALL_STORE_URL", "WHALEFALL_DAGSTER_URL", "WHALEFALL_SECRET_KEY", "SHOP_PASSWORD"}),
    ],
)
def test_a_unit_has_the_secrets_that_it_needs_and_no_others(unit: str, secrets: set[str]) -> None:
    variables = units({})[unit].variables
    assert {name for name in variables if name.endswith(("_URL", "_KEY", "_PASSWORD"))} - {
        "WHALEFALL_UI_URL"
    } == secrets
    assert variables["WHALEFALL_HOME"] == STATE


@pytest.mark.parametrize("unit", sorted(units({})))
def test_a_unit_may_do_nothing_that_it_does_not_need(unit: str) -> None:
    settings = units({})[unit].settings
    assert settings["User"] == ["whalefall"]
    assert settings["UMask"] == ["0077"]
    assert settings["CapabilityBoundingSet"] == [""]
    assert settings["RestrictAddressFamilies"] == ["AF_UNIX AF_INET AF_INET6"]
    assert settings["ProtectProc"] == ["invisible"]
    assert settings["SystemCallFilter"] == ["@system-service"]
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["ReadWritePaths"] == [STATE]
    for name in (
        *("NoNewPrivileges", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality"),
        *("PrivateTmp", "PrivateDevices", "ProtectHome", "ProtectClock", "ProtectHostname", "ProtectKernelLogs"),
        *("ProtectKernelModules", "ProtectKernelTunables", "ProtectControlGroups"),
    ):
        assert settings[name] == ["yes"], name


def test_the_files_with_secrets_are_roots_alone() -> None:
    script = "".join(block.content for written in WITH_UNITS for block in written.blocks("sh"))
    for name in environment_files():
        assert f"sudo install -o root -g root -m 0600 /dev/null /etc/whalefall/{name}\n" in script


@dataclass(frozen=True)
class Deployed:
    """The deployment of operations.md: the account's databases, its environment, and its UI."""

    server: EmbeddedPostgres
    variables: Mapping[str, str]
    running: Deployment


@contextmanager
def database_server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """Hold a server on which an administrator has done what operations.md asks for first."""
    with EmbeddedPostgres(folder / "postgres").running() as server:
        execute_sql(server.socket_dir, "postgres", OPERATIONS.blocks("sql")[0].content)
        yield server


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("units")
    ui_port, console_port = free_port(), free_port()
    processes: list[subprocess.Popen[bytes]] = []
    with database_server(folder) as server:
        places = {
            f"{CHECKOUT}/.venv/bin": str(BIN),
            STATE: str(folder),
            "/etc/whalefall": str(folder),
            "/run/whalefall": str(folder / "run"),
            "--port 3000": f"--port {ui_port}",
            "--port 8000": f"--port {console_port}",
            "@db.internal:5432/whalefall": f"@/whalefall?host={server.socket_dir}",
            "@db.internal:5432/dagster": f"@/dagster?host={server.socket_dir}",
        }
        (folder / "workspace.yaml").write_text(replaced(OPERATIONS.blocks("yaml")[0].content, places))
        written = units(places)
        # As systemd does by RuntimeDirectory.
        (folder / "run").mkdir(mode=0o700)
        try:
            for name in ("whalefall-code", "whalefall-webserver", "whalefall-daemon", "whalefall-console"):
                variables = {key: replaced(value, places) for key, value in written[name].variables.items()}
                processes.append(start_unit(written[name], variables, folder))
            here, log = "http://127.0.0.1", folder / "whalefall-webserver.log"
            running = Deployment(processes[1], f"{here}:{ui_port}", f"{here}:{console_port}", log)
            wait_for(running.serves, "answer of the Dagster UI")
            everything = {key: replaced(value, places) for key, value in written["whalefall"].variables.items()}
            token = run(["token", "create", "tests", "--role", "admin"], everything).stdout.strip()
            yield Deployed(server, everything, running.with_token(token))
        finally:
            # The code server last: the others ask it how runs are.
            stop_families([process.pid for process in reversed(processes)])


def start_unit(unit: Unit, variables: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """Do what systemd does with a unit: what comes before, the service itself, what comes after."""
    for command in unit.before:
        subprocess.run(command, env=environment(variables), cwd=folder, check=True, timeout=PATIENCE_SECONDS)
    with (folder / f"{unit.name}.log").open("wb") as log:
        process = subprocess.Popen(
            unit.command,
            env=environment(variables),
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    for command in unit.after:
        subprocess.run(command, env=environment(variables), cwd=folder, check=True, timeout=PATIENCE_SECONDS)
    return process


@pytest.mark.slow
def test_the_units_work_with_a_role_that_owns_two_databases_and_nothing_else(deployed: Deployed) -> None:
    running = deployed.running
    wait_for(running.console_answers, "answer of the console")

    def healthy() -> bool:
        answer = running.graphql(HEALTH)
        daemons = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(daemon["healthy"] for daemon in daemons if daemon["required"])

    wait_for(healthy, "healthy daemons")
    (location,) = running.graphql(HEALTH)["workspaceOrError"]["locationEntries"]
    assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    day = datetime.now(ZoneInfo(deployed.variables["WHALEFALL_TIMEZONE"])).date()
    run_id = running.launch_collection(day)

    # Asked first, because a command costs a second of what the run needs.
    wait_for(lambda: running.run_status(run_id) in {"SUCCESS", "FAILURE"}, "end of the run in Dagster")

    def status() -> str | None:
        shown = run(["runs", "show", run_id, "--json"], deployed.variables)
        return json.loads(shown.stdout)[0]["status"] if shown.returncode == 0 else None

    ended = wait_for(lambda: (now := status()) in {"completed", "failed"} and now, "end of the run")
    assert ended == "completed"
    rights = query(
        deployed.server.socket_dir,
        "postgres",
        "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'whalefall'",
    )
    assert rights == [(False, False, False)]


@pytest.mark.slow
def test_who_reads_the_store_can_do_that_and_no_more(deployed: Deployed) -> None:
    folder = deployed.server.socket_dir
    execute_sql(folder, "whalefall", OPERATIONS.blocks("sql")[1].content)
    assert query(folder, "whalefall", "SELECT count(*) FROM database_size_growth", "charts") == [(0,)]
    assert query(folder, "whalefall", "SELECT count(*) FROM database_size_stats", "charts") == [(0,)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(folder, "whalefall", "SELECT * FROM credentials", "charts")
    execute_sql(folder, "whalefall", "UPDATE task_runs SET status = 'cancelled' WHERE status = 'pending'", "run_centre")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        execute_sql(folder, "whalefall", "UPDATE task_runs SET created_by = 'me'", "run_centre")
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        query(folder, "dagster", "SELECT 1", "charts")


@pytest.mark.slow
def test_a_backup_restores_into_empty_databases(tmp_path: Path) -> None:
    backup, restore = _commands_of("pg_dump --format=custom --file=dagster.dump"), _commands_of("pg_restore")
    (tmp_path / "fleet.yaml").write_text(
        "instances: [{name: kept, engine: postgresql, host: 127.0.0.1, port: 1,"
        " credential: {username: nobody, password_env: KEPT_PASSWORD}}]"
    )
    with database_server(tmp_path) as server:
        variables = {
            "WHALEFALL_HOME": str(tmp_path),
            "WHALEFALL_STORE_URL": f"postgresql://whalefall@/whalefall?host={server.socket_dir}",
            "WHALEFALL_DAGSTER_URL": f"postgresql://whalefall@/dagster?host={server.socket_dir}",
            "PGHOST": str(server.socket_dir),
            "PGUSER": "postgres",
        }
        before = _shell(f"{PROGRAM} fleet apply fleet.yaml; {PROGRAM} runs audit; {backup}", variables, tmp_path)
        assert before.returncode == 0, before.stderr
        made = [s for s in statements(OPERATIONS.blocks("sql")[0].content) if s.startswith("CREATE DATABASE")]
        execute_sql(server.socket_dir, "postgres", "DROP DATABASE whalefall; DROP DATABASE dagster;" + ";".join(made))
        # Nobody listens where the server of this fleet would be.
        done = _shell(restore.replace(f"{PROGRAM} fleet check\n", ""), variables, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert query(server.socket_dir, "whalefall", "SELECT name FROM instances") == [("kept",)]
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        assert query(server.socket_dir, "whalefall", owners) == [("whalefall",)]


def statements(script: str) -> list[str]:
    """Return the statements of a script that has no semicolon inside of one."""
    return [statement.strip() for statement in script.split(";") if statement.strip()]


def execute_sql(folder: Path, database: str, script: str, user: str = "postgres") -> None:
    """Execute each statement by itself: a database cannot be made in a transaction."""
    with closing(psycopg2.connect(host=str(folder), dbname=database, user=user)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements(script):
                cursor.execute(statement)


def query(folder: Path, database: str, statement: str, user: str = "postgres") -> list[tuple[object, ...]]:
    with (
        closing(psycopg2.connect(host=str(folder), dbname=database, user=user)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
        return cursor.fetchall()


def _shell(script: str, variables: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(BIN), str(bundled_psql().parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment(variables) | {"PATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE_SECONDS,
        check=False,
    )


def _commands_of(beginning: str) -> str:
    (found,) = (block.content for block in OPERATIONS.blocks("sh") if block.content.startswith(beginning))
    return found
