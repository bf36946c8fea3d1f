"""Environment of child processes, which work in another folder, and the file that tells Dagster its run launcher."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from whalefall_capacity.errors import SettingsError
from whalefall_capacity.private_files import is_open_to_others
from whalefall_capacity.runtime import dagster_home, open_runtime
from whalefall_capacity.settings import PREFIX, PROJECT_ROOT, build_settings, load_settings


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
def test_the_file_counts_for_them_where_it_counts_for_us(tmp_path: Path) -> None:
    lines = ("WHALEFALL_WEBSERVER_PORT=3001", "whalefall_console_port=3002", "whalefall_timezone=UTC")
    (tmp_path / ".env").write_text("\n".join(lines))
    # An empty variable is none, and no case of letters makes another name.
    os.environ |= {f"{PREFIX}WEBSERVER_PORT": "", f"{PREFIX}TIMEZONE": "Europe/Berlin"}
    load_settings.cache_clear()
    with open_runtime(load_settings()):
        ours = load_settings()
        (tmp_path / ".env").unlink()
        theirs = build_settings()
    for settings in (ours, theirs):
        assert (settings.webserver_port, settings.console_port, settings.timezone) == (3001, 3002, "Europe/Berlin")


@pytest.mark.usefixtures("store")
def test_a_home_that_cannot_be_written_is_said() -> None:
    # Nobody makes a folder there.
    os.environ[f"{PREFIX}HOME"] = "/proc/whalefall"
    load_settings.cache_clear()
    with pytest.raises(SettingsError) as raised, open_runtime(load_settings()):
        pass
    assert str(raised.value) == (
        "WHALEFALL_HOME: /proc/whalefall: No such file or directory; it must be writable for whoever starts the command"
    )


@pytest.mark.usefixtures("store")
def test_with_a_dagster_home_of_your_own_none_is_made(tmp_path: Path) -> None:
    os.environ |= {f"{PREFIX}HOME": str(tmp_path / "home"), "DAGSTER_HOME": str(tmp_path)}
    load_settings.cache_clear()
    with open_runtime(load_settings()):
        assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("store")
def test_folders_that_are_relative_are_the_same_for_them(tmp_path: Path) -> None:
    os.environ[f"{PREFIX}HOME"] = "elsewhere"
    os.environ[f"{PREFIX}ARCHIVE_DIR"] = "archive"
    load_settings.cache_clear()
    with open_runtime(load_settings()):
        assert os.environ[f"{PREFIX}HOME"] == str(tmp_path / "elsewhere")
        assert os.environ[f"{PREFIX}ARCHIVE_DIR"] == str(tmp_path / "archive")
        assert os.environ["DAGSTER_HOME"] == str(tmp_path / "elsewhere" / "dagster")


def dagster_file(launcher: str) -> Path:
    """Return the dagster.yaml that Dagster finds with a run launcher."""
    settings = build_settings(
        run_launcher=launcher,
        store_url="postgresql://whalefall@db.example/sizes",
        dagster_url="postgresql://whalefall@db.example/dagster",
    )
    return dagster_home(settings) / "dagster.yaml"


def test_the_run_launcher_of_the_settings_is_added_to_the_projects_file_for_its_owner_alone() -> None:
    made = dagster_file("docker")
    content = yaml.safe_load(made.read_text())
    assert content.pop("run_launcher") == {"module": "dagster_docker", "class": "DockerRunLauncher"}
    assert content == yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())
    assert not is_open_to_others(made)


def test_another_run_launcher_replaces_it_and_the_default_is_a_link_again() -> None:
    dagster_file("docker")
    pods = yaml.safe_load(dagster_file("k8s").read_text())["run_launcher"]
    assert (pods["module"], pods["class"]) == ("dagster_k8s", "K8sRunLauncher")
    assert pods["config"]["job_namespace"] == {"env": "DAGSTER_K8S_PIPELINE_RUN_NAMESPACE"}
    link = dagster_file("default")
    assert link.is_symlink()
    assert link.samefile(PROJECT_ROOT / "dagster.yaml")


def test_a_dagster_file_of_your_own_is_kept_whatever_the_run_launcher() -> None:
    own = dagster_file("default")
    own.unlink()
    own.write_text("telemetry: {enabled: false}\n")
    for launcher in ("docker", "default"):
        assert dagster_file(launcher).read_text() == "telemetry: {enabled: false}\n"
