"""Dagster's UI and daemon as child processes in the foreground; Ctrl-C ends all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

import psutil

from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.runtime import WORKSPACE_FILE
from whalefall_capacity.settings import PROJECT_ROOT

GRACE_SECONDS = 30


def serve(port: int) -> None:
    """Run the Dagster UI and daemon until a signal. Raises WhalefallError when they end by themselves.

    The handlers are set here even where the shell started us with SIGINT ignored: children get the default
    action back, and so can be stopped.
    """
    asked = threading.Event()

    def ask(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask)
    command = [
        sys.executable,
        # Dagster's own command of another package; this one needs nothing more to be installed.
        *("-W", "ignore:Function `dev_command` is superseded"),
        *("-m", "dagster", "dev", "-w", str(PROJECT_ROOT / WORKSPACE_FILE), "-h", "127.0.0.1", "-p", str(port)),
    ]
    child = subprocess.Popen(command, cwd=os.environ["DAGSTER_HOME"], start_new_session=True)
    try:
        while not asked.wait(0.2):
            if child.poll() is not None:
                raise WhalefallError(f"Dagster ended by itself with status {child.returncode}; its messages are above")
    finally:
        stop_family(child.pid)


def stop_family(pid: int) -> None:
    """Interrupt a process, give it time, then end every process it started."""
    try:
        leader = psutil.Process(pid)
        family = [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    leader.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for process in alive:
        process.terminate()
    _, alive = psutil.wait_procs(alive, timeout=5)
    for process in alive:
        process.kill()
