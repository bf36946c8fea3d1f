"""Migrations that are killed before their N-th commit: `killed_migration.py STORE SOURCE KEY FIRST LAST N [N ...]`.

One after the other, into one store: each goes on where the one before it was killed, in a process of its own, which
kills itself with SIGKILL. Prints per N whether it was killed, or came to its end because there was nothing left.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import date

import psycopg2.extensions
from pydantic import SecretStr
from sqlalchemy import create_engine

from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.moving_in.mapping import OldKey
from whalefall_capacity.store.moving_in.move import Choices, move_in

left = 0


class CountingConnection(psycopg2.extensions.connection):
    """Counts commits down, and dies before the last."""

    def commit(self) -> None:
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super().commit()


def work(store: str, source: str, key: str, first: date, last: date) -> None:
    """Migrate all days from *first* to *last*."""
    engine = create_engine(store, connect_args={"connection_factory": CountingConnection})
    choices = Choices(apply=True, task_runs=True, old_key=OldKey("OLD_KEY", SecretStr(key)))
    move_in(engine, SecretStr(source), choices, build_settings(start_date=first, secret_key=key), last)


def main(store: str, source: str, key: str, first: str, last: str, *steps: str) -> None:
    """Fork a process for every one of *steps* and say how each ended."""
    global left
    for number in map(int, steps):
        process = os.fork()
        if process == 0:
            left = number
            work(store, source, key, date.fromisoformat(first), date.fromisoformat(last))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write(f"{number} {'killed' if killed else 'ended' if status == 0 else 'failed'}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
