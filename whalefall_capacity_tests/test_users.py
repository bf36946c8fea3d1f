"""On anybody's machine: a user who is not root and has no sudo, and two users at the same time.

Run by root, the tests act as accounts that every Debian has; run by anybody else, as that user.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from whalefall_capacity.settings import PROJECT_ROOT
from whalefall_capacity_tests.processes import environment

IS_ROOT = os.geteuid() == 0
ACCOUNTS = [pwd.getpwnam(name) for name in ("nobody", "daemon")] if IS_ROOT else [pwd.getpwuid(os.getuid())] * 2
NOT_COPIED = shutil.ignore_patterns("__pycache__", "test", "tests", "node_modules")
SCRIPT = PROJECT_ROOT / "scripts" / "system-packages"


@dataclass(frozen=True)
class User:
    """An account, with a home of its own."""

    account: pwd.struct_passwd
    home: Path

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command as this user, in the home, where nothing is that others made."""
        return subprocess.Popen(
            command,
            env=environment({"HOME": str(self.home), "PATH": "/usr/bin:/bin"} | variables),
            cwd=self.home,
            user=self.account.pw_uid if IS_ROOT else None,
            group=self.account.pw_gid if IS_ROOT else None,
            extra_groups=[] if IS_ROOT else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            umask=0o022,
        )


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A folder that everybody may enter, whatever the umask; those of pytest are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="whalefall-users-"))
    folder.chmod(0o755)
    umask = os.umask(0o022)
    yield folder
    os.umask(umask)
    shutil.rmtree(folder)


def users_below(public: Path) -> list[User]:
    """Return a user for each account, with a home of its own in *public*."""
    homes = [Path(tempfile.mkdtemp(dir=public)) for _ in ACCOUNTS]
    if IS_ROOT:
        for account, home in zip(ACCOUNTS, homes, strict=True):
            os.chown(home, account.pw_uid, account.pw_gid)
    return [User(account, home) for account, home in zip(ACCOUNTS, homes, strict=True)]


@pytest.fixture(scope="module")
def program(public: Path) -> list[str]:
    """The command line, where the users can read it: this Python, its libraries and the package, linked or copied."""
    if not IS_ROOT:
        return [sys.executable, "-m", "whalefall_capacity"]
    interpreter = Path(sys.executable).resolve()
    base = Path(sys.base_prefix).resolve()
    if _everybody_reads(interpreter):
        python = interpreter
    else:
        library = Path(sysconfig.get_path("stdlib")).resolve()
        _share(library, public / "python" / library.relative_to(base))
        _share(interpreter.parent, public / "python" / interpreter.parent.relative_to(base))
        python = public / "python" / interpreter.relative_to(base)
        # Of an interpreter that is a shared library, which it looks for where it was installed.
        for shared in (base / "lib").glob("libpython*.so*"):
            shutil.copy2(shared, public / "python" / "lib" / shared.name)
    _share(Path(sysconfig.get_path("purelib")), public / "packages")
    _share(PROJECT_ROOT / "whalefall_capacity", public / "project" / "whalefall_capacity")
    variables = {
        "PYTHONPATH": f"{public / 'project'}:{public / 'packages'}",
        "LD_LIBRARY_PATH": str(public / "python" / "lib"),
    }
    settings = [f"{name}={value}" for name, value in variables.items()]
    return ["/usr/bin/env", *settings, str(python), "-m", "whalefall_capacity"]


@dataclass(frozen=True)
class Demos:
    """A demo of each user, both at the same time: the folder of its state, and what it printed."""

    states: list[Path]
    printed: list[str]
    left_behind: list[Path]


@pytest.fixture(scope="module")
def demos(public: Path, program: list[str]) -> Demos:
    """The demos of two users; the state of the second has a long path, whose letters would fit, its bytes do not."""
    users = users_below(public)
    states = [users[0].home / "state", users[1].home / "数据库容量采集与汇总的状态目录放在这里"]
    before = _temporary()
    started = [
        user.start(*program, "demo", "--once", WHALEFALL_HOME=str(state), COLUMNS="200")
        for user, state in zip(users, states, strict=True)
    ]
    printed = []
    for demo in started:
        output, problems = demo.communicate(timeout=300)
        assert demo.returncode == 0, output + problems
        assert "Traceback" not in problems
        printed.append(output)
    # Without root, whatever else this account does there would count.
    uids = {account.pw_uid for account in ACCOUNTS} if IS_ROOT else set()
    return Demos(states, printed, [path for path in _temporary() - before if path.lstat().st_uid in uids])


@pytest.mark.slow
def test_two_users_run_the_demo_at_the_same_time(demos: Demos) -> None:
    assert [measured(printed) >= 5 for printed in demos.printed] == [True, True]
    for account, state in zip(ACCOUNTS, demos.states, strict=True):
        assert state.stat().st_uid == account.pw_uid
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
    # What stays in the shared folder would be in the way of the next user.
    assert demos.left_behind == []


@pytest.mark.slow
def test_a_home_with_a_long_path_gets_short_sockets_in_private_folders(demos: Demos) -> None:
    assert measured(demos.printed[1]) >= 5


@pytest.mark.parametrize(("options", "status"), [([], 1), (["--optional"], 0)])
def test_who_may_not_install_packages_is_told_once_what_is_missing(
    public: Path, options: list[str], status: int
) -> None:
    """Nothing is to be had on this PATH but what the script itself needs, and an apt-get that must not be called."""
    tools = Path(tempfile.mkdtemp(dir=public))
    tools.chmod(0o755)
    for tool in ("bash", "env", "id"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    (tools / "apt-get").write_text("#!/bin/sh\necho called\n")
    (tools / "apt-get").chmod(0o755)
    script = tools / "system-packages"
    shutil.copy(SCRIPT, script)
    script.chmod(0o755)
    asked = users_below(public)[0].start(str(script), *options, "chromium", PATH=str(tools))
    printed, problems = asked.communicate(timeout=60)
    assert (asked.returncode, printed) == (status, "")
    assert problems == (
        "missing: chromium fonts-noto-cjk: this user may not install packages; "
        "as root: apt-get install chromium fonts-noto-cjk\n"
    )


def measured(printed: str) -> int:
    """Return how many databases a demo has measured."""
    return len(re.findall(r"│ demo-\w+ +│ \S+ +│ measured", printed))


def _temporary() -> set[Path]:
    return {path for path in Path(tempfile.gettempdir()).iterdir() if not path.name.startswith("pytest-")}


def _everybody_reads(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def _share(source: Path, target: Path) -> None:
    """Bring a folder to where everybody can enter it; files are linked where that can be, which takes no time.

    What is a symbolic link becomes the file that it leads to: dagster.yaml lies beside the package.
    """

    def link(original: str, copy: str) -> str:
        try:
            os.link(Path(original).resolve(), copy)
        except OSError:
            shutil.copy2(original, copy)
        return copy

    shutil.copytree(source, target, ignore=NOT_COPIED, copy_function=link)
    for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
