"""First steps of an engineer who knows Dagster: its own commands, in a fresh checkout, with nothing set.

Each starts the embedded server when it is not running, finds the same store and the same runs as `up`, and leaves
nothing that runs. After `make install`: a .env names the home without which some of them do nothing.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
import yaml

from whalefall_capacity.periods import today
from whalefall_capacity.settings import PROJECT_ROOT, Settings
from whalefall_capacity_tests.browser import open_page
from whalefall_capacity_tests.processes import PATIENCE_SECONDS, free_port, processes_below, wait_for
from whalefall_capacity_tests.servers import PostgresqlServer

pytestmark = pytest.mark.slow

MODULE = ("-m", "whalefall_capacity.definitions")
STATS = quote('group:"stats"', safe="")
SIZES = "SELECT count(*) > 0, bool_and(size_bytes > 0) FROM database_size_stats WHERE collected_date = '{day}'"
# What comes after finds none.
SIZES_TAKEN = """
WITH taken AS (DELETE FROM database_size_stats RETURNING collected_date, size_bytes)
SELECT count(*) > 0, bool_and(size_bytes > 0), bool_and(collected_date = '{day}') FROM taken
"""


@dataclass(frozen=True)
class Checkout:
    """A fresh checkout with an environment of its own, as `make install` leaves it, and an empty environment."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}/.venv/bin:/usr/bin:/bin", "HOME": str(self.folder.parent)}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, and make sure that it leaves nothing."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert processes_below(self.folder) == [], done.stdout
        return done

    def store(self, query: str) -> str:
        """Ask the store."""
        done = self.run("whalefall-capacity", "store", "psql", "-AtX", "-c", query)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    @contextmanager
    def serving(self, *command: str) -> Iterator[str]:
        """Hold a command that serves the UI, for the length of the block; Ctrl-C ends it, and it leaves nothing."""
        port = free_port()
        log = self.folder.parent / "served.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*command, "--port", str(port)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        try:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}/server_info"), "answer of the UI")
            yield f"http://127.0.0.1:{port}"
            # Afterwards, Dagster's daemon may miss the code location that is gone already.
            assert "Traceback" not in log.read_text(errors="replace")
        finally:
            process.send_signal(signal.SIGINT)
            # Runs under way end first.
            process.wait(PATIENCE_SECONDS)
        wait_for(lambda: processes_below(self.folder) == [], "end of all processes")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgresqlServer) -> Checkout:
    """A checkout whose fleet is one server; nothing else was done with it."""
    folder = tmp_path_factory.mktemp("fresh") / "checkout"
    for name in _output("git", "ls-files", "-z").split("\0")[:-1]:
        if (PROJECT_ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT_ROOT / name, folder / name)
    _output("git", "init", "-q", str(folder))
    _install(folder)
    checkout = Checkout(folder)
    password = folder.parent / "password"
    password.write_text("none is asked for")
    entry = {"name": "pg", "engine": "postgresql", "host": str(postgresql.embedded.socket_dir)}
    fleet = folder.parent / "fleet.yaml"
    credential = {"username": "postgres", "password_file": str(password)}
    fleet.write_text(yaml.safe_dump({"instances": [entry | {"credential": credential}]}))
    return checkout


def _install(folder: Path) -> None:
    """Do what `make install` does, with the packages of this environment: they are many megabytes."""
    venv.create(folder / ".venv", symlinks=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder / ".venv")}))
    (own / "shared.pth").write_text(f"{folder}\n{sysconfig.get_path('purelib')}\n")
    for name in ("dagster", "dagster-daemon", "dagster-webserver", "dg", "whalefall-capacity"):
        script = (Path(sys.executable).parent / name).read_text()
        (folder / ".venv" / "bin" / name).write_text(script.replace(sys.executable, f"{folder}/.venv/bin/python", 1))
        (folder / ".venv" / "bin" / name).chmod(0o755)
    _output("make", "-C", str(folder), ".env", ".venv/dagster/dagster.yaml")


def test_a_day_is_measured_although_no_command_of_ours_was_there_before(checkout: Checkout) -> None:
    done = checkout.run("dagster", "asset", "materialize", *MODULE, "--select", "group:stats", "--partition", _today())
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    assert checkout.store("SELECT task_key FROM task_runs") == "sync_databases"


@pytest.mark.parametrize(
    "command",
    [
        ["dagster", "definitions", "validate"],
        ["dg", "check", "defs"],
        ["dg", "list", "defs"],
        ["dagster", "instance", "migrate"],
        ["dagster", "instance", "info"],
        ["dagster", "job", "execute", *MODULE, "-j", "partition_maintenance"],
        ["dagster", "schedule", "list", *MODULE],
    ],
    ids=" ".join,
)
def test_it_works(checkout: Checkout, command: list[str]) -> None:
    done = checkout.run(*command)
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout


def test_without_the_home_of_make_install_all_but_the_commands_about_it_work(checkout: Checkout) -> None:
    named = (checkout.folder / ".env").rename(checkout.folder / "put-aside")
    try:
        done = checkout.run("dagster", "job", "execute", *MODULE, "-j", "capacity_aggregate_current")
        assert done.returncode == 0, done.stdout
        assert "Traceback" not in done.stdout
    finally:
        named.rename(checkout.folder / ".env")


def test_a_run_without_a_partition_says_how_to_name_one(checkout: Checkout) -> None:
    done = checkout.run("dagster", "job", "execute", *MODULE, "-j", "sync_databases")
    assert done.returncode == 1
    assert "this run has no partition, which says what day it is for" in done.stdout


@pytest.fixture(scope="module")
def watching(checkout: Checkout) -> Checkout:
    """The checkout, from when its fleet is registered; its store has no sizes at the beginning and end of a test."""
    done = checkout.run("whalefall-capacity", "fleet", "apply", str(checkout.folder.parent / "fleet.yaml"))
    assert done.returncode == 0, done.stdout
    return checkout


def test_sizes_measured_by_dagsters_commands_are_in_the_store(watching: Checkout) -> None:
    for command in (
        ["asset", "materialize", *MODULE, "--select", "group:stats", "--partition"],
        ["job", "execute", *MODULE, "-j", "sync_databases", "--tags"],
    ):
        day = _today()
        done = watching.run("dagster", *command, day if "asset" in command else json.dumps({"dagster/partition": day}))
        assert done.returncode == 0, done.stdout
        assert watching.store(SIZES_TAKEN.format(day=day)) == "t|t|t"


def test_one_click_in_the_ui_of_dagster_dev_measures_today(watching: Checkout) -> None:
    with watching.serving("dagster", "dev") as url, open_page() as page:
        page.goto(f"{url}/asset-groups~{STATS}/")
        page.get_by_role("button", name="Materialize all").click()
        page.get_by_role("button", name="Latest").click()
        day = _today()
        with closing(psycopg2.connect(_store_url(watching))) as store, store.cursor() as cursor:
            store.autocommit = True
            page.get_by_role("button", name="Launch 1 run").click()

            def measured() -> bool:
                cursor.execute(SIZES.format(day=day))
                return cursor.fetchone() == (True, True)

            # Not by a command of ours: each costs more than a second of what the run needs.
            wait_for(measured, "sizes in the store")


def test_dg_dev_serves_the_same(checkout: Checkout) -> None:
    with checkout.serving("dg", "dev") as url:
        query = {"query": "{ runsOrError { ... on Runs { results { jobName status } } } }"}
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{url}/graphql", json.dumps(query).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
            runs = json.load(answer)["data"]["runsOrError"]["results"]
    assert {"jobName": "partition_maintenance", "status": "SUCCESS"} in runs


def test_nothing_in_the_checkout_is_new_to_git(checkout: Checkout) -> None:
    ignored = {line[3:] for line in _output("git", "-C", str(checkout.folder), "status", "--porcelain").splitlines()}
    tracked = {Path(name).parts[0] for name in _output("git", "ls-files").splitlines()}
    assert {name.rstrip("/") for name in ignored} <= tracked


def _today() -> str:
    day: date = today(Settings.model_construct().zone)
    return day.isoformat()


def _store_url(checkout: Checkout) -> str:
    """Return the URL of the store while something else serves."""
    done = subprocess.run(
        ["whalefall-capacity", "store", "url"],
        cwd=checkout.folder,
        env=checkout.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - our own server
    except OSError:
        return False
    return True


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout
