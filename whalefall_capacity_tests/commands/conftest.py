"""The command line in this process: its exit status and both streams, on a store and a Dagster storage of our own."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from whalefall_capacity.cli import main
from whalefall_capacity.settings import PREFIX, Settings, load_settings
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres


@dataclass(frozen=True)
class Outcome:
    """End of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """Runs `whalefall-capacity` the way its entry point does, with *store* as the store."""

    store: Engine
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path, stdin: str | bytes = "") -> Outcome:
        """Run a command; nothing but *stdin* comes from a terminal or a pipe."""
        content = stdin.encode() if isinstance(stdin, str) else stdin
        self.monkeypatch.setattr(sys, "argv", ["whalefall-capacity", *map(str, arguments)])
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        # Typer puts a hook of its own there, which prints the tracebacks of whatever comes after.
        self.monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        load_settings.cache_clear()
        self.capfd.readouterr()
        # The command line closes what it makes to others; what the next test makes stays as open as before.
        umask = os.umask(0o022)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            os.umask(umask)
        streams = self.capfd.readouterr()
        return Outcome(ended.value.code if isinstance(ended.value.code, int) else 0, streams.out, streams.err)

    def write(self, name: str, content: str) -> Path:
        """Write a file for a command to read."""
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return path


@pytest.fixture(scope="session")
def dagster_url(store_server: EmbeddedPostgres) -> str:
    """A database for Dagster's storage, beside the stores; shared, for making its schema takes seconds."""
    store_server.create_databases("dagster_of_commands")
    return store_server.url("dagster_of_commands").get_secret_value()


@pytest.fixture
def whalefall(
    store: Engine,
    settings: Settings,  # noqa: ARG001 - puts the environment back afterwards
    dagster_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> CommandLine:
    """The command line, on the test's store."""
    os.environ[f"{PREFIX}DAGSTER_URL"] = dagster_url
    return CommandLine(store, tmp_path, monkeypatch, capfd)
