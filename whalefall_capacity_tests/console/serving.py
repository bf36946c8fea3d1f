"""The console as its users start it, on a store of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import StorageState
from sqlalchemy import Engine

from whalefall_capacity.settings import PREFIX
from whalefall_capacity.supervisor import stop_families
from whalefall_capacity_tests.processes import console_answers, free_port, start, wait_for


@dataclass(frozen=True)
class Served:
    """A running console, and what the browsers of those who have logged in there keep."""

    port: int
    log: Path
    sessions: dict[str, StorageState] = field(default_factory=dict, compare=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def served(store: Engine, folder: Path, **settings: str) -> Iterator[Served]:
    """Hold `serve` for the length of the block; it knows the store and *settings*, and nothing of Dagster's storage."""
    port = free_port()
    variables = {f"{PREFIX}{name.upper()}": value for name, value in settings.items()} | {
        f"{PREFIX}HOME": str(folder / "home"),
        f"{PREFIX}STORE_URL": store.url.render_as_string(hide_password=False),
    }
    running = Served(port, folder / "console.log")
    process = start(["serve", "--port", str(port)], variables, running.log)

    def answers() -> bool:
        assert process.poll() is None, running.log.read_text(errors="replace")
        return console_answers(running.url)

    try:
        wait_for(answers, "answer of the console")
        yield running
    finally:
        stop_families([process.pid])
