"""Supervision of child processes in the foreground: Dagster's code server, UI and daemon, and the console.

Each is restarted if it ends unasked; the code server keeps its socket, so that the UI and the daemon find it again.
Ctrl-C ends all of them, and on Linux so does the end of this process for whatever reason: orphans would hold the ports
and the socket of the next `up`, and there would be two daemons.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import yaml

from whalefall_capacity.code_server import held_socket, is_listening
from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.private_files import write_private
from whalefall_capacity.program_output import program_output
from whalefall_capacity.runtime import WORKSPACE_FILE
from whalefall_capacity.signals import put_off
from whalefall_capacity.tasks import LOCATION

# After this time runs are ended: together with the servers of a demo, everything stops within half a minute.
GRACE_SECONDS = 15
CODE_SERVER_SECONDS = 120
RESTART_SECONDS = 1.0
# A program that ends this soon, this often in a row, cannot run at all.
TOO_SOON_SECONDS = 10.0
TOO_OFTEN = 5
# From prctl(2).
PR_SET_PDEATHSIG = 1


class Program:
    """A child process that is kept running."""

    def __init__(self, name: str, *arguments: str, output: int | None = None) -> None:
        self.name = name
        self._output = output
        self._command = [sys.executable, "-m", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._early_ends = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it in its own session, so that Ctrl-C reaches only this process, which passes it on."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            cwd=os.environ["DAGSTER_HOME"],
            start_new_session=True,
            stdout=self._output,
            stderr=self._output,
            # Only a system call, which cannot block on a lock held by another thread.
            preexec_fn=_dies_with_parent(),
        )

    def keep_running(self) -> None:
        """Restart it if it has ended. Raises WhalefallError if it cannot stay up."""
        if self._process is None or self._process.poll() is None:
            return
        lived = time.monotonic() - self._started
        self._early_ends = self._early_ends + 1 if lived < TOO_SOON_SECONDS else 0
        if self._early_ends >= TOO_OFTEN:
            raise WhalefallError(
                f"the {self.name} ended by itself {TOO_OFTEN} times in a row, the last time with status "
                f"{self._process.returncode}; its messages are above"
            )
        sys.stderr.write(f"the {self.name} ended with status {self._process.returncode}; restarting it\n")
        time.sleep(RESTART_SECONDS)
        self.start()


def serve(port: int, console_port: int, verbose: bool) -> None:
    """Run the Dagster UI on *port*, the console on *console_port*, and the processes behind them, until a signal.

    The routine lines of their logs are only shown if *verbose*.

    Raises WhalefallError if one of them cannot stay up.
    """
    with (
        # A signal between the start of a process and our note of it would leave that process behind.
        put_off() as asked,
        held_socket(Path(os.environ["DAGSTER_HOME"]).resolve()) as code_socket,
        program_output(verbose) as output,
    ):
        programs = _programs(code_socket, port, console_port, output)
        try:
            programs[0].start()
            _wait_until_listening(programs[0], code_socket, asked)
            for program in programs[1:]:
                program.start()
            while not asked:
                time.sleep(0.2)
                for program in programs:
                    program.keep_running()
        finally:
            # The code server last: the others ask it about runs.
            stop_families([program.pid for program in reversed(programs) if program.pid is not None])


def _programs(code_socket: Path, port: int, console_port: int, output: int | None) -> list[Program]:
    """Return the programs, which write to the descriptor *output*; the code server is the first."""
    workspace = str(_write_workspace(code_socket))
    return [
        Program(
            "code server",
            *("dagster", "api", "grpc", "-m", "whalefall_capacity.definitions", "--location-name", LOCATION),
            *("-s", str(code_socket), "--log-level", "warning"),
            output=output,
        ),
        Program("Dagster UI", "whalefall_capacity", "ui", "--workspace", workspace, "--port", str(port), output=output),
        Program("Dagster daemon", "dagster._daemon", "run", "-w", workspace, "--log-level", "warning", output=output),
        Program("console", "whalefall_capacity", "serve", "--port", str(console_port), output=output),
    ]


def _dies_with_parent() -> Callable[[], object] | None:
    """Return a function by which a new process asks for SIGTERM when this one ends; None where the kernel cannot."""
    if sys.platform != "linux":
        return None
    # Looked up here: between fork and exec nothing is loaded.
    return partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_families(pids: Iterable[int]) -> None:
    """Interrupt processes, give them time, then end all their descendants."""
    leaders = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    family = _with_descendants(leaders)
    for leader in leaders:
        with suppress(psutil.NoSuchProcess):
            leader.send_signal(signal.SIGINT)
    deadline = time.monotonic() + GRACE_SECONDS
    while family and time.monotonic() < deadline:
        # A process that is about to end may still start another.
        family = _with_descendants(psutil.wait_procs(family, timeout=0.1)[1])
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in family:
            with suppress(psutil.NoSuchProcess):
                end(process)
        family = set(psutil.wait_procs(family, timeout=5)[1])


def _with_descendants(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    """Return *processes* and their descendants, as far as they still exist."""
    family = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            family |= {process, *process.children(recursive=True)}
    return family


def _write_workspace(code_socket: Path) -> Path:
    server = {"socket": str(code_socket), "location_name": LOCATION}
    path = Path(os.environ["DAGSTER_HOME"]) / WORKSPACE_FILE
    write_private(path, yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return path


def _wait_until_listening(code_server: Program, code_socket: Path, asked: Sequence[int]) -> None:
    """Wait for the code server: a UI that starts before it shows an error until it is reloaded."""
    deadline = time.monotonic() + CODE_SERVER_SECONDS
    while not asked:
        time.sleep(0.1)
        code_server.keep_running()
        if is_listening(code_socket):
            return
        if time.monotonic() > deadline:
            raise WhalefallError(f"the code server does not listen after {CODE_SERVER_SECONDS} s")
