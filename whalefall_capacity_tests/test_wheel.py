"""A wheel, built from a copy of the project and installed where nothing of the checkout is: all of it works there.

The environment is empty but for the libraries, which are those of the tests.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from cryptography.fernet import Fernet

from whalefall_capacity.settings import PROJECT_ROOT
from whalefall_capacity_tests.processes import Deployment, deployment, environment
from whalefall_capacity_tests.test_docs_executed import commands_of_the_pages

pytestmark = pytest.mark.slow

NOT_COPIED = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "screenshots")
PAGES = ("/login", "/instances", "/databases", "/runs", "/partitions")
LOCATION = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and an empty folder to work in."""

    program: Path
    folder: Path
    variables: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.execute(str(self.program), *arguments)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=environment(self.variables),
            cwd=self.folder,
            input="change-me\n",
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(PROJECT_ROOT, folder / "project", symlinks=True, ignore=NOT_COPIED)
    _pip("wheel", str(folder / "project"), "--no-deps", "--wheel-dir", str(folder))
    (built,) = folder.glob("whalefall_capacity-*.whl")
    # What it was built from is not there any more.
    shutil.rmtree(folder / "project")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    python = place / "venv" / "bin" / "python"
    _pip("--python", str(python), "install", "--no-deps", "--ignore-installed", str(wheel))
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    # A folder that is named in a .pth is searched; the .pth in it, which leads to the checkout, is not read.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    folder = place / "empty"
    folder.mkdir()
    variables = {"PYTHONPATH": "", "COLUMNS": "140", "WHALEFALL_SECRET_KEY": Fernet.generate_key().decode()}
    return Installed(python.with_name("whalefall-capacity"), folder, variables)


@pytest.fixture(scope="module")
def printed(installed: Installed) -> str:
    """The output of `demo --once` in the empty folder."""
    done = installed.run("demo", "--once")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def running(installed: Installed, printed: str) -> Iterator[Deployment]:
    """`up` on what the demo left, without its servers."""
    assert printed
    log = installed.folder.with_name("up.log")
    with deployment(["up"], installed.variables, log, str(installed.program), installed.folder) as up:
        yield up


def test_the_wheel_has_every_file_of_the_package_and_none_of_the_tests(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        instance = archive.read("whalefall_capacity/dagster.yaml")
    package = PROJECT_ROOT / "whalefall_capacity"
    files = {str(path.relative_to(PROJECT_ROOT)) for path in package.rglob("*") if path.is_file()}
    assert packed == {name for name in files if not name.endswith(".pyc")}
    assert instance == (PROJECT_ROOT / "dagster.yaml").read_bytes()


def test_nothing_is_imported_from_the_checkout(installed: Installed) -> None:
    found = installed.execute(
        str(installed.program.with_name("python")),
        "-c",
        "import sys, whalefall_capacity.runtime as module; print(module.__file__, *sys.path, sep='\\n')",
    ).stdout.splitlines()
    assert found[0].startswith(str(installed.program.parent.parent))
    assert str(PROJECT_ROOT) not in found


def test_the_demo_runs_in_an_empty_folder_and_keeps_its_state_there(installed: Installed, printed: str) -> None:
    assert len(re.findall(r"│ demo-\w+ +│ \S+ +│ measured", printed)) >= 5
    assert os.listdir(installed.folder) == [".whalefall"]  # noqa: PTH208 - the names are enough


def test_up_serves_the_pipeline(running: Deployment) -> None:
    assert running.graphql(LOCATION) == {
        "workspaceOrError": {"locationEntries": [{"locationOrLoadError": {"__typename": "RepositoryLocation"}}]}
    }


@pytest.mark.parametrize("path", PAGES)
def test_the_console_has_its_pages_with_all_that_they_load(
    running: Deployment, installed: Installed, path: str
) -> None:
    token = installed.run("token", "create", f"reads {path}", "--role", "view").stdout.strip()

    def get(address: str) -> str:
        request = urllib.request.Request(running.console_url + address, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
            return str(answer.read().decode())

    page = get(path)
    loaded = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(loaded) >= 2
    assert all(get(address) for address in loaded)


@pytest.mark.parametrize("command", commands_of_the_pages())
def test_the_commands_of_the_pages_work(command: str, running: Deployment, installed: Installed) -> None:
    assert running.process.poll() is None
    state = installed.folder / ".whalefall"
    fleet = yaml.safe_load((state / "demo" / "fleet.yaml").read_text())
    (installed.folder / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    (installed.folder / "sizes.csv").write_text(
        "instance,database,date,size_bytes\ndemo-postgresql,shop,2026-01-01,8388608\n"
    )
    # The servers of the demo are stopped: a visit fails, and says of which server.
    visits = command.startswith(("collect", "fleet check"))
    known = command.replace("FILE", "sizes.csv").replace("crm", "demo-postgresql")
    if "RUN_ID" in known:
        listed = yaml.safe_load(installed.run("runs", "list", "--json").stdout)
        known = known.replace("RUN_ID", next(run["run_id"] for run in listed if run["status"] == "completed"))
    done = installed.run(*shlex.split(known))
    assert done.returncode == (1 if visits else 0), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not visits or "demo-postgresql" in done.stdout + done.stderr


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)
