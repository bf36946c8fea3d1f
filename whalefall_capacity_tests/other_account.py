"""Another account of this machine, which has nothing and belongs to no group: what it tries, and what it gets."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

# Of nobody: such an account need not be known to have processes.
UID = 61_234

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")


def as_another_account(work: Callable[[], str]) -> str:
    """Return what *work* returns in a process of the other account, or the name of the error that it got."""

    def become_and_work() -> str:
        os.setgroups([])
        os.setgid(UID)
        os.setuid(UID)
        return work()

    return in_another_process(become_and_work)


def in_another_process(work: Callable[[], str]) -> str:
    """Return what *work* returns in another process of our account, or the name of the error that it got."""
    readable, writable = os.pipe()
    process = os.fork()
    if process == 0:
        answer = "Killed"
        try:
            answer = work()
        except Exception as error:
            answer = type(error).__name__
        finally:
            os.write(writable, answer.encode())
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as stream:
        answer = stream.read().decode()
    os.waitpid(process, 0)
    return answer


def connect(path: str) -> str:
    """Connect to a Unix socket and return that it was possible."""
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.connect(path)
    return "connected"


def read(path: Path) -> str:
    """Read a file."""
    return path.read_text(encoding="utf-8", errors="replace")


def end(pid: int) -> str:
    """Ask a process to end and return that it was possible."""
    os.kill(pid, signal.SIGTERM)
    return "ended"


def names_in(folder: Path) -> str:
    """Return what is in a folder."""
    return " ".join(sorted(path.name for path in folder.iterdir()))
