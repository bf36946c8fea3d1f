"""Celery workers for the tests: two, with one process each, started as the unit of docs/scaling.md starts them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from whalefall_capacity.supervisor import stop_families
from whalefall_capacity_tests.processes import start
from whalefall_capacity_tests.units import BIN, CHECKOUT, units

NAMES = ("one", "two")
# Long enough for the longest step on a busy machine.
VISIBILITY_SECONDS = 60


@contextmanager
def celery_workers(variables: Mapping[str, str], folder: Path) -> Iterator[list[psutil.Process]]:
    """Hold two workers with one process each; their logs are in *folder*."""
    program, *arguments = units({f"{CHECKOUT}/.venv/bin": str(BIN)})["whalefall-worker"].command
    started = []
    try:
        for name in NAMES:
            own = ["--concurrency", "1", "--hostname", f"{name}@%h"]
            process = start([*arguments, *own], variables, folder / f"{name}.log", program, folder)
            started.append(psutil.Process(process.pid))
        yield started
    finally:
        stop_families([process.pid for process in started])
