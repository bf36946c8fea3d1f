"""However a command is ended, nothing that it started is left, and its exit status says by what.

`kill -9` is the exception that nobody can do anything about: there the next command cleans up.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from whalefall_capacity.settings import PREFIX
from whalefall_capacity.signals import ended_by_signals, put_off
from whalefall_capacity_tests.processes import (
    PROGRAM,
    console_answers,
    environment,
    free_port,
    processes_below,
    run,
    wait_for,
)
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.slow_fleet import gate

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SECONDS = 30


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_unwinds_the_block_and_becomes_the_exit_status(number: signal.Signals) -> None:
    with ExitStack() as stack:
        left: list[str] = []
        ended = stack.enter_context(pytest.raises(SystemExit))
        stack.enter_context(ended_by_signals())
        stack.callback(left.append, "everything")
        signal.raise_signal(number)
    assert (ended.value.code, left) == (128 + number, ["everything"])


def test_afterwards_signals_have_the_effect_that_they_had_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with ended_by_signals(), put_off():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_that_is_put_off_takes_effect_when_the_work_is_done() -> None:
    with ExitStack() as stack:
        ended = stack.enter_context(pytest.raises(SystemExit))
        stack.enter_context(ended_by_signals())
        came = stack.enter_context(put_off())
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        done = list(came)
    assert (ended.value.code, done) == (143, [signal.SIGTERM, signal.SIGINT])


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals(), put_off() as came:
            signal.raise_signal(signal.SIGHUP)
            assert came == []
    finally:
        signal.signal(signal.SIGHUP, before)


class Home:
    """A WHALEFALL_HOME and all processes that work for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {f"{PREFIX}WEBSERVER_PORT": str(free_port()), f"{PREFIX}CONSOLE_PORT": str(free_port())}

    @property
    def variables(self) -> dict[str, str]:
        return {f"{PREFIX}HOME": str(self.folder)} | self.ports

    @property
    def console_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[f'{PREFIX}CONSOLE_PORT']}"

    def processes(self) -> list[str]:
        """Return what runs: what names the folder, works in it, or has it in its environment."""
        found = processes_below(self.folder)
        for process in psutil.process_iter():
            try:
                if process.environ().get(f"{PREFIX}HOME") == str(self.folder):
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that the services share, one after the other; the demo comes last, for its past makes work for `up`."""
    home = Home(tmp_path_factory.mktemp("signals") / "home")
    home.folder.mkdir(mode=0o700)
    return home


@contextmanager
def started(arguments: list[str], home: Home, prefix: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, behind the words of a shell if any; kill what is left of it at the end."""
    command = ["sh", "-c", f'{prefix} exec "$@"', "sh", PROGRAM, *arguments]
    log = home.folder / "command.log"
    with log.open("wb") as stream, ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                command,
                env=environment(home.variables),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        )
        try:
            yield process
        finally:
            process.kill()


def ends(process: subprocess.Popen[bytes], home: Home, numbers: list[signal.Signals]) -> None:
    """Send the signals and assert that within 30 s nothing is left, and that the exit status is that of one of them."""
    for number in numbers:
        process.send_signal(number)
    shown = (home.folder / "command.log").read_text
    # Of signals that come together, which is first is not ours to say.
    assert process.wait(SECONDS) in {128 + number for number in numbers}, shown()
    wait_for(lambda: home.processes() == [], f"end of {home.processes()}")


# All commands unwind alike: one of them gets each signal, and those that hold more get one each, further down.
@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_service_leaves_nothing(home: Home, number: signal.Signals) -> None:
    with started(["serve"], home) as process:
        wait_for(lambda: console_answers(home.console_url), "answer of the console")
        ends(process, home, [number])


# SIGINT is handled by Dagster, and so is SIGTERM, which SIGHUP becomes.
@pytest.mark.slow
@pytest.mark.parametrize(("number", "executor"), [(signal.SIGINT, "in_process"), (signal.SIGHUP, "multiprocess")])
def test_a_collection_leaves_nothing_and_its_run_is_over(
    postgresql: PostgresqlServer, tmp_path: Path, number: signal.Signals, executor: str
) -> None:
    with gate(postgresql.embedded.socket_dir / ".s.PGSQL.5432") as closed:
        entry = {"name": "slow", "engine": "postgresql", "host": "127.0.0.1", "port": closed.port}
        credential = {"username": "postgres", "password_env": "NONE"}
        fleet = tmp_path / "fleet.yaml"
        fleet.write_text(yaml.safe_dump({"instances": [entry | {"credential": credential}]}))
        own = Home(tmp_path / "home")
        own.folder.mkdir()
        assert run(["fleet", "apply", str(fleet)], own.variables).returncode == 0
        with started(
            ["collect"], own, f"NONE='' {PREFIX}EXECUTOR={executor}; export NONE {PREFIX}EXECUTOR;"
        ) as process:
            wait_for(lambda: closed.waiting == 1, "visit that waits")
            ends(process, own, [number])
        runs = run(["runs", "list", "--json"], own.variables)
    assert [entry["status"] for entry in json.loads(runs.stdout)] == ["failed"]


@pytest.mark.slow
def test_a_service_in_the_background_ends_by_sigterm_and_survives_the_terminal(home: Home) -> None:
    with started(["up"], home, "trap '' INT QUIT HUP;") as process:
        wait_for(lambda: console_answers(home.console_url), "answer of the console")
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        ends(process, home, [signal.SIGTERM])


@pytest.mark.slow
def test_the_server_of_a_killed_command_ends_with_the_next_one(home: Home) -> None:
    with started(["serve"], home) as process:
        wait_for(lambda: console_answers(home.console_url), "answer of the console")
        process.kill()
        process.wait(SECONDS)
    assert [command for command in home.processes() if "postgres" in command] != []
    assert run(["fleet", "list"], home.variables).returncode == 0
    assert home.processes() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "numbers"),
    [
        ("serve", [signal.SIGTERM, signal.SIGINT]),
        ("serve", [signal.SIGHUP] * 2),
        ("demo", [signal.SIGINT] * 3),
    ],
)
def test_impatience_leaves_nothing_either(home: Home, command: str, numbers: list[signal.Signals]) -> None:
    with started([command], home) as process:
        wait_for(lambda: console_answers(home.console_url), "answer of the console")
        ends(process, home, numbers)
