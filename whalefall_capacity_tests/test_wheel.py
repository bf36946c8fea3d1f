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
from cryptography.fernet import Fernet

from whalefall_capacity.settings import PROJECT_ROOT
from whalefall_capacity_tests.processes import Deployment, deployment, environment, wait_for
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
def demo(installed: Installed) -> Iterator[Deployment]:
    """`demo` in the empty folder, from the moment that its console answers."""
    log = installed.folder.with_name("demo.log")
    with deployment(["demo"], installed.variables, log, str(installed.program), installed.folder) as running:
        wait_for(running.console_answers, "answer of the console")
        yield running


@pytest.fixture(scope="module")
def token(demo: Deployment, installed: Installed) -> str:
    assert demo.console_answers()
    return installed.run("token", "create", "reads pages", "--role", "view").stdout.strip()


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


def test_the_demo_runs_in_an_empty_folder_and_keeps_its_state_there(installed: Installed, demo: Deployment) -> None:
    assert len(re.findall(r"│ demo-\w+ +│ \S+ +│ measured", demo.log.read_text())) >= 5
    assert os.listdir(installed.folder) == [".whalefall"]  # noqa: PTH208 - the names are enough


def test_the_demo_serves_the_pipeline(demo: Deployment) -> None:
    assert demo.graphql(LOCATION) == {
        "workspaceOrError": {"locationEntries": [{"locationOrLoadError": {"__typename": "RepositoryLocation"}}]}
    }


@pytest.mark.parametrize("path", PAGES)
def test_the_console_has_its_pages_with_all_that_they_load(demo: Deployment, token: str, path: str) -> None:
    def get(address: str) -> str:
        request = urllib.request.Request(demo.console_url + address, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
            return str(answer.read().decode())

    page = get(path)
    loaded = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(loaded) >= 2
    assert all(get(address) for address in loaded)


def test_the_demo_prints_two_lines_a_run_and_warnings_beside_the_table(demo: Deployment) -> None:
    wait_for(lambda: demo.log.read_text().count(": completed after ") == 5, "end of the runs that follow the import")
    lines = [line for line in demo.log.read_text().splitlines() if not re.match("[┏┃┡│└]", line)]
    ends = [line for line in lines if ": completed after " in line]
    # Four of aggregations, and the forecast of today.
    assert len(ends) == 5
    assert len([line for line in lines if ": started (" in line]) == 5
    assert [line for line in lines if re.search("DEBUG|INFO", line)] == []
    assert len(lines) < 40


def one_of_each_module() -> list[str]:
    """Return the first command of each name on the pages: the others of that name are in the same module."""
    first: dict[str, str] = {}
    for command in commands_of_the_pages():
        first.setdefault(shlex.split(command)[0], command)
    return list(first.values())


@pytest.mark.parametrize("command", one_of_each_module())
def test_the_commands_of_the_pages_work(command: str, demo: Deployment, installed: Installed) -> None:
    assert demo.process.poll() is None
    state = installed.folder / ".whalefall"
    shutil.copy(state / "demo" / "fleet.yaml", installed.folder)
    (installed.folder / "sizes.csv").write_text(
        "instance,database,date,size_bytes\ndemo-postgresql,shop,2026-01-01,8388608\n"
    )
    done = installed.run(*shlex.split(command.replace("FILE", "sizes.csv").replace("crm", "demo-postgresql")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)
