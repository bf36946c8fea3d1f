"""A maintenance that is killed before its N-th step: `python killed_maintenance.py URL ARCHIVE_DIR N [N ...]`.

A step is everything that lasts: a commit, a statement outside of transactions, the renaming of a file. What a killed
process did since its last commit is taken back, so that a kill between two statements of a transaction is one before
the first. Every N has a store of its own, URL followed by N, and a process of its own, which kills itself with
SIGKILL. Prints per N whether it was killed, or came to its end because it has fewer steps; after the first N that is
greater than the number of steps it tries no other.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import psycopg2.extensions
from sqlalchemy import create_engine

from whalefall_capacity.store.postgres.locks import Patience, maintenance_lock
from whalefall_capacity_tests.store.maintenance.upkeep import upkeep

left = 0


def step() -> None:
    """Count down, and die at zero."""
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


class CountingCursor(psycopg2.extensions.cursor):
    """Counts statements that commit themselves."""

    def execute(self, *arguments: Any, **named: Any) -> None:
        if self.connection.autocommit:
            step()
        super().execute(*arguments, **named)


class CountingConnection(psycopg2.extensions.connection):
    """Counts commits, and has cursors that count."""

    def cursor(self, *arguments: Any, **named: Any) -> Any:
        return super().cursor(*arguments, **{"cursor_factory": CountingCursor, **named})

    def commit(self) -> None:
        step()
        super().commit()


def count_renames() -> None:
    """Make the renaming of a file a step."""
    real: Callable[..., Any] = Path.replace

    def replace(self: Path, target: Path) -> Path:
        step()
        found: Path = real(self, target)
        return found

    Path.replace = replace  # type: ignore[method-assign, assignment]


def work(url: str, archive_dir: str, day: date) -> None:
    """Do what the daily maintenance does."""
    engine = create_engine(url, connect_args={"connection_factory": CountingConnection})
    with maintenance_lock(engine):
        upkeep(engine, day, Patience(), archive_dir=archive_dir)
    engine.dispose()


def main(url: str, archive_dir: str, steps: list[int]) -> None:
    """Fork a process for every one of *steps* and say how each ended."""
    global left
    count_renames()
    for number in steps:
        process = os.fork()
        if process == 0:
            left = number
            work(f"{url}{number}", f"{archive_dir}/{number}", date(2026, 5, 20))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write(f"{number} {'killed' if killed else 'ended' if status == 0 else 'failed'}\n")
        sys.stdout.flush()
        if number > 0 and not killed:
            return


if __name__ == "__main__":
    # Loaded before the forks: each of them then starts at once.
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401

    main(sys.argv[1], sys.argv[2], [int(number) for number in sys.argv[3:]])
