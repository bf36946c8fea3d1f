"""`whalefall-capacity store`: psql as psql is, the URL, the migrations."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.periods import add_months, month_start
from whalefall_capacity.settings import PREFIX
from whalefall_capacity.store.postgres.engine import libpq_environment
from whalefall_capacity.store.postgres.schema import latest_revision
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.processes import PROGRAM, environment, run, wait_for
from whalefall_capacity_tests.store.records import rows


@dataclass
class Terminal:
    """A terminal with somebody at it; *theirs* is the side of the program."""

    ours: int
    theirs: int
    screen: str = ""

    def type(self, line: str) -> None:
        os.write(self.ours, f"{line}\n".encode())

    def shows(self, text: str) -> bool:
        """Has *text* been printed so far?"""
        with suppress(BlockingIOError):
            self.screen += os.read(self.ours, 65_536).decode(errors="replace")
        return text in self.screen


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["-Atc", "SELECT 1 AS one"], "1\n"),
        (["-A", "-t", "-c", "SELECT 1", "-c", "SELECT 2"], "1\n2\n"),
        (["--tuples-only", "--no-align", "--command=SELECT 'a  b'"], "a  b\n"),
        (["-At", "-v", "x=it's", "-c", "SELECT 1"], "1\n"),
        (["-AtF", ",", "-c", "SELECT 1, 2"], "1,2\n"),
        (["--csv", "-c", "SELECT '--help' AS h"], "h\n--help\n"),
        (["-Atc", "SELECT '$HOME', '\"', E'\\n' || '*'"], '$HOME|"|\n*\n'),
        (["-Atc", "SELECT count(*) FROM instances"], "0\n"),
    ],
)
def test_psql_gets_its_arguments_as_they_are_and_stdout_is_its_own(
    whalefall: CommandLine, arguments: list[str], out: str
) -> None:
    done = whalefall("store", "psql", *arguments)
    assert (done.status, done.out, done.err) == (0, out, "")


@pytest.mark.parametrize("flag", ["--help", "-?"])
def test_even_help_is_psqls(whalefall: CommandLine, flag: str) -> None:
    done = whalefall("store", "psql", flag)
    assert done.status == 0
    assert done.out.startswith("psql is the PostgreSQL interactive terminal.")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["-c", "SELECT 1"], 0),
        (["-c", "SELECT 1/0"], 1),
        (["-d", "no such database", "-c", "SELECT 1"], 2),
        (["-v", "ON_ERROR_STOP=1", "-f", "script.sql"], 3),
        (["--no-such-option"], 1),
    ],
)
def test_the_exit_status_is_psqls(whalefall: CommandLine, arguments: list[str], status: int) -> None:
    whalefall.write("script.sql", "SELECT 1/0;\n")
    assert whalefall("store", "psql", *arguments).status == status


def test_psql_talks_to_the_store_without_the_password_among_its_arguments(whalefall: CommandLine) -> None:
    url = whalefall.store.url.set(password="geheim").render_as_string(hide_password=False)
    os.environ[f"{PREFIX}STORE_URL"] = url
    script = whalefall.write("script.sql", "\\! tr '\\0' ' ' < /proc/$PPID/cmdline\nSELECT current_database();\n")
    done = whalefall("store", "psql", "-At", "-f", script)
    assert done.status == 0
    assert f"-At -f {script}" in done.out
    assert done.out.endswith(f"{whalefall.store.url.database}\n")
    assert "geheim" not in done.out + done.err


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    yield Terminal(ours, theirs)
    os.close(ours)
    os.close(theirs)


def test_ctrl_c_is_for_psql_which_cancels_the_statement_and_stays(whalefall: CommandLine, terminal: Terminal) -> None:
    variables = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    streams: Any = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.theirs)
    command = [PROGRAM, "store", "psql", "-X", "-P", "pager=off"]
    with subprocess.Popen(command, env=environment(variables), start_new_session=True, **streams) as process:
        try:
            terminal.type("SELECT pg_sleep(60);")
            sleeping = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
            wait_for(lambda: rows(whalefall.store, sleeping), "statement that sleeps")
            # As a terminal does on Ctrl-C: to the whole group in the foreground.
            os.killpg(process.pid, signal.SIGINT)
            wait_for(lambda: terminal.shows("canceling statement due to user request"), "cancelled statement")
            terminal.type("SELECT 'still ' || 'here';")
            wait_for(lambda: terminal.shows("still here"), "answer to the next statement")
            terminal.type("\\q")
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert not terminal.shows("Traceback")


def test_the_url_is_printed_alone_for_programs_that_know_libpq(whalefall: CommandLine) -> None:
    done = whalefall("store", "url")
    assert (done.status, done.err) == (0, "")
    url = done.out.strip()
    assert done.out == f"{url}\n"
    assert url.startswith("postgresql://")
    connection = psycopg2.connect(url)
    assert connection.info.dbname == whalefall.store.url.database
    connection.close()


def test_migrate_brings_an_empty_database_to_this_version_and_then_has_nothing_to_do(
    whalefall: CommandLine, empty_database: str
) -> None:
    os.environ[f"{PREFIX}STORE_URL"] = empty_database
    first, second = whalefall("store", "migrate"), whalefall("store", "migrate")
    assert (first.status, first.out) == (0, f"store is at revision {latest_revision()} (was empty)\n")
    assert (second.status, second.out) == (0, f"store is at revision {latest_revision()}\n")


def test_a_new_store_has_its_table_partitions_ahead(whalefall: CommandLine, empty_database: str) -> None:
    os.environ[f"{PREFIX}STORE_URL"] = empty_database
    whalefall("store", "migrate")
    assert whalefall("partitions", "status").status == 0


def test_a_table_partition_that_is_in_the_way_stops_no_command_that_needs_none(
    whalefall: CommandLine, store: Engine
) -> None:
    next_month = add_months(month_start(today()), 1)
    with store.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE half PARTITION OF database_size_stats "
            f"FOR VALUES FROM ('{next_month + timedelta(days=9)}') TO ('{next_month + timedelta(days=19)}')"
        )
    assert whalefall("fleet", "list").status == 0


def test_a_store_that_cannot_be_reached_is_an_error_without_the_password(whalefall: CommandLine) -> None:
    os.environ[f"{PREFIX}STORE_URL"] = "postgresql://whalefall:geheim@127.0.0.1:1/store"
    for command in (["fleet", "list"], ["store", "migrate"], ["collect"]):
        done = whalefall(*command)
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert "127.0.0.1" in done.err
        assert "geheim" not in done.err
        assert "Traceback" not in done.err


def test_a_store_of_a_newer_version_is_left_alone(whalefall: CommandLine, store: Engine) -> None:
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for command in (["fleet", "list"], ["store", "migrate"]):
        done = whalefall(*command)
        assert (done.status, done.out) == (1, "")
        assert "9999" in done.err
    assert rows(store, "SELECT version_num FROM alembic_version") == [("9999",)]


@pytest.mark.slow
def test_the_embedded_server_is_started_for_a_command_and_stopped_after_it(tmp_path: Path) -> None:
    variables = {f"{PREFIX}HOME": str(tmp_path / "home")}
    for _ in range(2):
        done = run(
            ["store", "psql", "-Atc", "SELECT current_database(), current_setting('server_version_num')::int / 10000"],
            variables,
        )
        assert (done.returncode, done.stdout) == (0, "whalefall|18\n")
        assert not (tmp_path / "home" / "postgres" / "postmaster.pid").exists()


def test_psql_goes_nowhere_else_whatever_the_environment_says(whalefall: CommandLine) -> None:
    os.environ |= {"PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGSERVICE": "other", "PGOPTIONS": "-c search_path=other"}
    done = whalefall("store", "psql", "-Atc", "SELECT current_database(), current_schema()")
    assert (done.status, done.out) == (0, f"{whalefall.store.url.database}|public\n")


def test_psql_gets_every_parameter_of_the_url() -> None:
    several = "postgresql+psycopg2://u:p%40@/sizes?host=one:5432&host=two:5433&target_session_attrs=read-write"
    assert libpq_environment(SecretStr(several)) == {
        "PGUSER": "u",
        "PGPASSWORD": "p@",
        "PGDATABASE": "sizes",
        "PGHOST": "one,two",
        "PGPORT": "5432,5433",
        "PGTARGETSESSIONATTRS": "read-write",
    }
    detailed = "postgresql+psycopg2://u@one/sizes?sslmode=verify-full&sslcert=/c&application_name=a&options=-cjit%3Doff"
    assert libpq_environment(SecretStr(detailed + "&connect_timeout=3")) == {
        "PGUSER": "u",
        "PGDATABASE": "sizes",
        "PGHOST": "one",
        "PGSSLMODE": "verify-full",
        "PGSSLCERT": "/c",
        "PGAPPNAME": "a",
        "PGOPTIONS": "-cjit=off",
        "PGCONNECT_TIMEOUT": "3",
    }
