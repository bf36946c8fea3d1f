"""The output of the programs that `up` and `demo` run, without the routine lines of Dagster's log.

Every run logs some hundred DEBUG and INFO lines, all of which are in the Dagster UI, too. Each line is judged by itself
and shown unless it begins as such a line does: a warning, a traceback, or what a library prints is never held back.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

COLOR = rb"(?:\x1b\[[\d;]*m)*"
TIME = rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"
# The format of dagster._utils.log: `2026-06-22 03:00:01 +0000 - dagster - DEBUG - …`, in colors or without.
ROUTINE = re.compile(COLOR + TIME + COLOR + rb" - [\w.-]+ - " + COLOR + rb"(?:DEBUG|INFO)" + COLOR + rb" - ")
# What may still be written when every program has ended is little.
DRAIN_SECONDS = 5


@contextmanager
def program_output(verbose: bool) -> Iterator[int | None]:
    """Yield the descriptor that programs are to write to; None for the terminal itself, which shows everything."""
    if verbose:
        yield None
        return
    reading, writing = os.pipe()
    reader = threading.Thread(target=_show, args=(reading,), daemon=True)
    reader.start()
    try:
        yield writing
    finally:
        os.close(writing)
        reader.join(DRAIN_SECONDS)


def is_routine(line: bytes) -> bool:
    """Return whether *line* is a DEBUG or INFO line of Dagster's log."""
    return ROUTINE.match(line) is not None


def _show(reading: int) -> None:
    terminal = sys.stderr.buffer
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if is_routine(line):
                continue
            # Where the terminal is gone there is still to be read: a program that nobody reads from would stand still.
            with suppress(OSError):
                terminal.write(line)
                terminal.flush()
