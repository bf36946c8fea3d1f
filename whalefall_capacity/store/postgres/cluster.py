"""One PostgreSQL cluster in a folder: made, started and stopped with the bundled programs.

Its socket lies in a folder of mode 0700, so that nobody but its owner and root reaches the server, which asks for no
password. That is the data directory itself, or a folder of ours where its path is too long for a socket.

The server works through a descriptor of its data directory: by the path, the account that it runs as reaches it only
where it may enter every folder above, and those are not ours to open.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from whalefall_capacity.errors import StoreError
from whalefall_capacity.socket_paths import can_be_reached_by_libpq, is_short_enough
from whalefall_capacity.store.postgres.bundled import Account, program_for, server_account

SUPERUSER = "postgres"
SOCKET = ".s.PGSQL.5432"
OWN_DESCRIPTORS = "/proc/self/fd"
START_SECONDS = 120
POLL_SECONDS = 0.05
# Fast, immediate, killed: how long each is waited for.
STOPS = ((signal.SIGINT, 60), (signal.SIGQUIT, 10), (signal.SIGKILL, 10))


@dataclass(frozen=True)
class Postmaster:
    """The leading process of a server that is starting, running or stopping."""

    process: psutil.Process
    socket_dir: Path
    is_ready: bool


class Cluster:
    """The cluster in *data_dir*, of PostgreSQL *version*; the caller of `start` or `stop` keeps others away from it."""

    def __init__(self, data_dir: Path, version: int) -> None:
        self.data_dir = data_dir
        self.version = version

    def postmaster(self) -> Postmaster | None:
        """Return the leading process as it describes itself, None when there is none."""
        lines = self._pid_file()
        process = self._process(int(lines[0])) if lines else None
        if process is None:
            return None
        socket_dir = lines[4].strip() if len(lines) > 4 else ""
        # Through a descriptor of its own, the server sees its data directory.
        shown = self.data_dir if socket_dir.startswith(OWN_DESCRIPTORS) else Path(socket_dir)
        return Postmaster(process, shown, len(lines) > 7 and lines[7].strip() == "ready")

    def start(self) -> None:
        """Make the cluster where there is none, and start the server where it is not running."""
        if self._runs_once_settled():
            return
        account = server_account(self.data_dir)
        if not (self.data_dir / "PG_VERSION").exists():
            self._make(account)
        self._require_version()
        self._remove_stale_pid_files()
        socket_dir = self._socket_dir(account)
        with _open_folder(self.data_dir) as descriptor:
            folder = f"{OWN_DESCRIPTORS}/{descriptor}"
            seen = folder if socket_dir == self.data_dir else str(socket_dir)
            # The setting means nothing to the server; it shows in a list of processes whose server this is.
            options = ("-p", "5432", "-h", "", "-k", seen, "-c", f"whalefall.data_directory={self.data_dir}")
            start = ("-w", "-t", str(START_SECONDS), "-l", f"{folder}/log", "-o", shlex.join(options), "start")
            self._run(account, descriptor, "pg_ctl", "-D", folder, *start)

    def stop(self) -> None:
        """Stop the server if it is running."""
        postmaster = self.postmaster()
        if postmaster is None:
            return
        for number, seconds in STOPS:
            postmaster.process.send_signal(number)
            if _ends(postmaster.process, seconds):
                if postmaster.socket_dir != self.data_dir:
                    postmaster.socket_dir.rmdir()
                return
        raise StoreError(f"the embedded PostgreSQL server in {self.data_dir} does not stop; see {self.data_dir}/log")

    def _runs_once_settled(self) -> bool:
        """Wait while the server starts or stops, as it goes on doing when its starter was killed; tell if it runs."""
        deadline = time.monotonic() + START_SECONDS
        while (postmaster := self.postmaster()) is not None and not postmaster.is_ready:
            if time.monotonic() > deadline:
                raise StoreError(f"the embedded PostgreSQL server is not ready; see {self.data_dir}/log")
            time.sleep(POLL_SECONDS)
        return postmaster is not None

    def _make(self, account: Account | None) -> None:
        # In another folder first: one that is half done would look like one that is done.
        unfinished = self.data_dir.with_name(f"{self.data_dir.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        with _open_folder(unfinished) as descriptor:
            if account is not None:
                os.fchown(descriptor, account.uid, account.gid)
            options = ("--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", f"--username={SUPERUSER}")
            self._run(account, descriptor, "initdb", *options, "-D", f"{OWN_DESCRIPTORS}/{descriptor}")
        unfinished.rename(self.data_dir)

    def _require_version(self) -> None:
        found = (self.data_dir / "PG_VERSION").read_text(encoding="utf-8").strip()
        if found != str(self.version):
            raise StoreError(f"{self.data_dir} is of PostgreSQL {found}: it needs that version, not {self.version}")

    def _run(self, account: Account | None, descriptor: int, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [program_for(account, name, self.version), *arguments],
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            pass_fds=(descriptor,),
            cwd="/",
            # Nothing of ours, such as PGPORT, TZ or a password, is for the server.
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            # Ctrl-C is for us.
            start_new_session=True,
        )
        if done.returncode != 0:
            raise StoreError(
                f"{name} failed for the embedded PostgreSQL server in {self.data_dir}:\n{done.stdout}"
                f"{self._end_of_log()}"
            )

    def _end_of_log(self) -> str:
        log = self.data_dir / "log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""

    def _pid_file(self) -> list[str]:
        try:
            return (self.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def _process(self, pid: int) -> psutil.Process | None:
        """Return process *pid* if it works in the data directory: after a reboot its id may be another's."""
        try:
            process = psutil.Process(pid)
            works_here = process.status() != psutil.STATUS_ZOMBIE and self.data_dir.samefile(process.cwd())
        except (psutil.Error, OSError):
            return None
        return process if works_here else None

    def _remove_stale_pid_files(self) -> None:
        """Remove what a killed server left, where its id belongs to another process: the server would not start."""
        lines = self._pid_file()
        if lines and psutil.pid_exists(int(lines[0])) and self._process(int(lines[0])) is None:
            (self.data_dir / "postmaster.pid").unlink()
            (self.data_dir / f"{SOCKET}.lock").unlink(missing_ok=True)

    def _socket_dir(self, account: Account | None) -> Path:
        """Return the folder for the socket."""
        if can_be_reached_by_libpq(self.data_dir / SOCKET):
            return self.data_dir
        return short_folder(self.data_dir, SOCKET, account)


def short_folder(folder: Path, name: str, account: Account | None = None) -> Path:
    """Return a private folder, with a short path, for the socket *name* of the server in *folder*."""
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    uid = account.uid if account else os.geteuid()
    short = private_folder(runtime_dir() / f"whalefall-{uid}-{digest}", account)
    if not is_short_enough(short / name):
        raise StoreError(f"{short} is too long for a socket: set WHALEFALL_HOME to a shorter path")
    return short


def private_folder(folder: Path, account: Account | None = None) -> Path:
    """Make a folder that belongs to *account* (by default to us) and is closed to others, or make sure that it does.

    Raises StoreError when somebody else has put something in its place.
    """
    uid = account.uid if account else os.geteuid()
    try:
        folder.mkdir(mode=0o700)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
    except FileExistsError:
        pass
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) != 0o700:
        raise StoreError(
            f"{folder} must be a folder of mode 0700 that belongs to user {uid}: remove it if it is yours, or set "
            "WHALEFALL_HOME to a shorter path, which needs no such folder"
        )
    return folder


def runtime_dir() -> Path:
    """Return where folders for sockets are made; in the temporary folder, those of others are in the way at worst."""
    if os.geteuid() == 0:
        return Path("/run")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())


@contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    """Hold a descriptor of a folder, and not of one that somebody links to in its place."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ends(process: psutil.Process, seconds: float) -> bool:
    """Wait for the end of a process that is not our child; one that nobody reaps has ended, too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(POLL_SECONDS)
    return False
