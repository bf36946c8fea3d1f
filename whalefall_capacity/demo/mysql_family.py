"""Local servers of the MySQL family on Unix sockets, with their data in folders of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil
import pymysql

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.private_files import open_private
from whalefall_capacity.signals import put_off
from whalefall_capacity.socket_paths import is_short_enough
from whalefall_capacity.store.postgres.cluster import short_folder

START_SECONDS = 60
STOP_SECONDS = 30
SOCKET = "server.sock"
SEARCH_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin"


class LocalServer(ABC):
    """One server with its data in *folder*; `root` has no password, and only this user reaches the socket."""

    product: ClassVar[str]
    engine: ClassVar[ServerEngine]
    how_to_install: ClassVar[str]
    # With which a small server starts quickly.
    own_options: ClassVar[Sequence[str]] = ()
    # What shows binary logs, and the variable that limits how many rows WITH RECURSIVE makes.
    log_privilege: ClassVar[str]
    recursion_limit: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.data_dir = self.folder / "data"
        self._log = self.folder / "server.log"
        self._pid_file = self.folder / "server.pid"
        self.socket = self.folder / SOCKET

    @staticmethod
    @abstractmethod
    def program() -> str | None:
        """Return the server program, or None where this machine has none."""

    @abstractmethod
    def _install_command(self, program: str, common: list[str]) -> list[str]:
        """Return the command that makes the data directory which the options *common* name."""

    @contextmanager
    def running(self, *options: str) -> Iterator[Self]:
        """Hold the server for the length of the block."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        inside = self.folder / SOCKET
        self.socket = inside if is_short_enough(inside) else short_folder(self.folder, SOCKET) / SOCKET
        process: psutil.Process | None = None
        try:
            with put_off():
                process = self._left_over() or self._start(options)
            self._await_ready(process)
            yield self
        finally:
            if process is not None:
                with put_off():
                    stop(process)
                    if self.socket.parent != self.folder:
                        shutil.rmtree(self.socket.parent, ignore_errors=True)

    def connect(self) -> pymysql.Connection[Any]:
        """Connect as root."""
        return pymysql.connect(unix_socket=str(self.socket), user="root", charset="utf8mb4", autocommit=True)

    def _start(self, options: tuple[str, ...]) -> psutil.Process:
        program = self.program()
        if program is None:
            raise WhalefallError(f"{self.product} is not installed: {self.how_to_install}")
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True, mode=0o700)
        common = [
            "--no-defaults",
            f"--datadir={self.data_dir}",
            # Without this word, the server refuses to work as root.
            *(["--user=root"] if os.geteuid() == 0 else []),
            # A server that starts removes the temporary tables it finds there: those of others, in a shared folder.
            f"--tmpdir={temporary}",
        ]
        if not self.data_dir.exists():
            self._install(program, common)
        with open_private(self._log, "ab") as log:
            started = subprocess.Popen(
                [
                    program,
                    *common,
                    f"--socket={self.socket}",
                    f"--pid-file={self._pid_file}",
                    "--skip-networking",
                    "--innodb-buffer-pool-size=64M",
                    *self.own_options,
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for us; we stop the server when we are done with it.
                start_new_session=True,
            )
        return psutil.Process(started.pid)

    def _install(self, program: str, common: list[str]) -> None:
        # Into another folder first: one that is half done would look like one that is done.
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        command = self._install_command(program, common)
        done = subprocess.run(
            [part.replace(str(self.data_dir), str(unfinished)) for part in command],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise WhalefallError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
        unfinished.rename(self.data_dir)

    def _left_over(self) -> psutil.Process | None:
        """Return the server of an earlier run that was killed, if it still works on our data.

        Any other, such as one whose folder was removed, works on files that nobody sees: it is ended.
        """
        pid = self._pid_file.read_text().strip() if self._pid_file.exists() else None
        found = None
        for process in psutil.process_iter(["cmdline", "uids"]):
            # Anybody can write our folder into a command line.
            is_ours = process.info["uids"] is not None and process.info["uids"].real == os.geteuid()
            if is_ours and f"--datadir={self.data_dir}" in (process.info["cmdline"] or []):
                if str(process.pid) == pid:
                    found = process
                else:
                    stop(process)
        return found

    def _await_ready(self, process: psutil.Process) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
            except pymysql.Error:
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
                    raise WhalefallError(f"{self.product} did not start; see {self._log}") from None
                time.sleep(0.1)
            else:
                return


class MariadbServer(LocalServer):
    """MariaDB, from the machine's own package."""

    product = "MariaDB"
    engine = ServerEngine.MARIADB
    how_to_install = "apt-get install mariadb-server-core mariadb-client-core"
    log_privilege = "BINLOG MONITOR"
    recursion_limit = "max_recursive_iterations"

    @staticmethod
    def program() -> str | None:
        return shutil.which("mariadbd") or shutil.which("mariadbd", path=SEARCH_PATH)

    def _install_command(self, program: str, common: list[str]) -> list[str]:  # noqa: ARG002 - it has one of its own
        install = shutil.which("mariadb-install-db", path=SEARCH_PATH) or "mariadb-install-db"
        return [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]


class MysqlServer(LocalServer):
    """MySQL: one that is installed, or the one that `scripts/mysql-server` has brought."""

    product = "MySQL"
    engine = ServerEngine.MYSQL
    how_to_install = "put a mysqld that is MySQL on the PATH, or run scripts/mysql-server in a checkout"
    own_options = (
        "--mysqlx=OFF",
        # The folder of the package is not ours to read.
        "--secure-file-priv=NULL",
        # Half of its memory, and binary logs that nobody asked for.
        "--performance-schema=OFF",
        "--disable-log-bin",
    )
    log_privilege = "REPLICATION CLIENT"
    recursion_limit = "cte_max_recursion_depth"

    @staticmethod
    def program() -> str | None:
        cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        brought = cache_folder / "whalefall_capacity" / "mysql" / "mysqld"
        if brought.exists():
            return str(brought)
        installed = shutil.which("mysqld") or shutil.which("mysqld", path=SEARCH_PATH)
        return installed if installed is not None and not _is_mariadb(installed) else None

    def _install_command(self, program: str, common: list[str]) -> list[str]:
        return [program, *common, "--initialize-insecure"]


def _is_mariadb(program: str) -> bool:
    """Is this `mysqld` MariaDB's, which carries the old name too?"""
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return "mariadb" in shown.stdout.lower()


def stop(process: psutil.Process) -> None:
    """Ask a server to end, and end it when it does not."""
    try:
        process.terminate()
        process.wait(STOP_SECONDS)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)
