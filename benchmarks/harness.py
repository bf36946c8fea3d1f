"""A store to measure on, a stopwatch that takes turns, and a table of the result."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate

# Below it no figure is worth being measured twice.
SMALLEST_SCALE = 0.05

console = Console(width=140, highlight=False)


@contextmanager
def fresh_store() -> Iterator[Engine]:
    """Hold a migrated store on an embedded server of its own."""
    with tempfile.TemporaryDirectory(prefix="whalefall-benchmark-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres")
        with server.running():
            server.create_databases("benchmark")
            engine = create_store_engine(server.url("benchmark"))
            migrate(engine)
            yield engine
            engine.dispose()


def in_turns(sides: Sequence[Callable[[int], object]], rounds: int) -> list[float]:
    """Return the median seconds of each side, measured A B A B, so that a slow moment of the machine hits all."""
    times: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        for side, call in enumerate(sides):
            started = time.perf_counter()
            call(number)
            times[side].append(time.perf_counter() - started)
    return [statistics.median(one) for one in times]


def rounds_at(scale: float, rounds: int) -> int:
    """Return how often to measure: at a size that only shows that a benchmark runs, once."""
    return rounds if scale >= SMALLEST_SCALE else 1


def print_result(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; floats with three digits."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
