"""A local MariaDB server on a Unix socket, from the machine's own package."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pymysql

from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.private_files import open_private
from whalefall_capacity.signals import put_off
from whalefall_capacity.store.cluster import is_short_enough, short_folder

START_SECONDS = 60
STOP_SECONDS = 30
SOCKET = "mariadb.sock"
SEARCH_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin"


class MariadbServer:
    """One server with its data in *folder*; `root` has no password, and only this user reaches the socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.data_dir = self.folder / "data"
        self.socket = self.folder / SOCKET

    @staticmethod
    def program() -> str | None:
        """Return the server program, or None where MariaDB is not installed."""
        return shutil.which("mariadbd") or shutil.which("mariadbd", path=SEARCH_PATH)

    @contextmanager
    def running(self, *options: str) -> Iterator[MariadbServer]:
        """Hold the server for the length of the block."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.socket = self._socket_path()
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
            raise WhalefallError("MariaDB is not installed: apt-get install mariadb-server-core mariadb-client-core")
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True, mode=0o700)
        common = [
            "--no-defaults",
            f"--datadir={self.data_dir}",
            # Without root's word, the server refuses to work as root.
            *(["--user=root"] if os.geteuid() == 0 else []),
            # A server that starts removes the temporary tables it finds there: those of others, in a shared folder.
            f"--tmpdir={temporary}",
        ]
        if not self.data_dir.exists():
            self._install(common)
        with open_private(self.folder / "mariadbd.log", "ab") as log:
            started = subprocess.Popen(
                [
                    program,
                    *common,
                    f"--socket={self.socket}",
                    f"--pid-file={self.folder / 'mariadbd.pid'}",
                    "--skip-networking",
                    "--innodb-buffer-pool-size=64M",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for us; we stop the server when we are done with it.
                start_new_session=True,
            )
        return psutil.Process(started.pid)

    def _install(self, common: list[str]) -> None:
        program = shutil.which("mariadb-install-db", path=SEARCH_PATH) or "mariadb-install-db"
        # Into another folder first: one that is half done would look like one that is done.
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = [option.replace(str(self.data_dir), str(unfinished)) for option in common]
        done = subprocess.run(
            [program, *options, "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise WhalefallError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")
        unfinished.rename(self.data_dir)

    def _left_over(self) -> psutil.Process | None:
        """Return the server of an earlier run that was killed, if it still works on our data."""
        for process in psutil.process_iter(["cmdline"]):
            if f"--datadir={self.data_dir}" in (process.info["cmdline"] or []):
                return process
        return None

    def _await_ready(self, process: psutil.Process) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
            except pymysql.Error:
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
                    raise WhalefallError(f"MariaDB did not start; see {self.folder / 'mariadbd.log'}") from None
                time.sleep(0.1)
            else:
                return

    def _socket_path(self) -> Path:
        inside = self.folder / SOCKET
        return inside if is_short_enough(inside) else short_folder(self.folder, SOCKET) / SOCKET


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
