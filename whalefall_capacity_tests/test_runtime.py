"""Environment of child processes: they work in another folder, and must come to the same settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from whalefall_capacity.runtime import open_runtime
from whalefall_capacity.settings import PREFIX, load_settings


@pytest.mark.usefixtures("store")
def test_settings_of_the_file_reach_them_and_the_environment_wins(tmp_path: Path) -> None:
    lines = ("WHALEFALL_TIMEZONE=UTC", "WHALEFALL_WEBSERVER_PORT=3001", "WHALEFALL_CONSOLE_PORT=", "OTHER=1")
    (tmp_path / ".env").write_text("\n".join(lines))
    (tmp_path / ".env").chmod(0o600)
    os.environ[f"{PREFIX}WEBSERVER_PORT"] = "3002"
    load_settings.cache_clear()
    with open_runtime(load_settings()):
        given = {name: os.environ.get(f"{PREFIX}{name}") for name in ("TIMEZONE", "WEBSERVER_PORT", "CONSOLE_PORT")}
        assert given == {"TIMEZONE": "UTC", "WEBSERVER_PORT": "3002", "CONSOLE_PORT": None}
        assert "OTHER" not in os.environ


@pytest.mark.usefixtures("store")
def test_folders_that_are_relative_are_the_same_for_them(tmp_path: Path) -> None:
    os.environ[f"{PREFIX}HOME"] = "elsewhere"
    os.environ[f"{PREFIX}ARCHIVE_DIR"] = "archive"
    load_settings.cache_clear()
    with open_runtime(load_settings()):
        assert os.environ[f"{PREFIX}HOME"] == str(tmp_path / "elsewhere")
        assert os.environ[f"{PREFIX}ARCHIVE_DIR"] == str(tmp_path / "archive")
        assert os.environ["DAGSTER_HOME"] == str(tmp_path / "elsewhere" / "dagster")
