"""The embedded PostgreSQL server: a real one, out of a wheel, on a Unix socket that nobody else reaches.

Every process that uses the server holds it; the last one to leave stops it. So a command that finds it
running leaves it running, and one that had to start it stops it again.

To hold it is to hold a shared lock on a file beside its data directory. The kernel takes the lock from a process
that ends, however it ends, so that a killed holder counts for nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from pydantic import SecretStr

from whalefall_capacity.errors import StoreError
from whalefall_capacity.libpq import forget_environment
from whalefall_capacity.private_files import make_private_folder
from whalefall_capacity.signals import put_off
from whalefall_capacity.store.postgres.bundled import program
from whalefall_capacity.store.postgres.cluster import SUPERUSER, Cluster

STORE_DATABASE = "whalefall"
DAGSTER_DATABASE = "dagster"
STORE_VERSION = 18


class EmbeddedPostgres:
    """One cluster in *data_dir*, of PostgreSQL *version* (16 or 18)."""

    def __init__(self, data_dir: Path, version: int = STORE_VERSION) -> None:
        self.data_dir = data_dir.resolve()
        self.version = version
        self._cluster = Cluster(self.data_dir, version)

    @contextmanager
    def running(self) -> Iterator[EmbeddedPostgres]:
        """Hold the server for the length of the block; it is started when it is not running."""
        with self._explained():
            make_private_folder(self.data_dir.parent)
            holders = self._open("holders")
        try:
            with put_off(), self._explained(), self._exclusive_lock():
                fcntl.flock(holders, fcntl.LOCK_SH)
                self._cluster.start()
            yield self
        finally:
            with put_off():
                self._leave(holders)

    def create_databases(self, *names: str) -> None:
        """Create the databases that are not there yet."""
        import psycopg2
        from psycopg2 import sql

        forget_environment()
        connection = psycopg2.connect(host=str(self.socket_dir), user=SUPERUSER, dbname="postgres")
        connection.autocommit = True
        # Two commands that start at once would both find a database missing.
        with self._exclusive_lock(), closing(connection), connection.cursor() as cursor:
            for name in names:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def url(self, database: str) -> SecretStr:
        """Return the URL of *database*. Raises StoreError when the server is not running."""
        return SecretStr(f"postgresql+psycopg2://{SUPERUSER}@/{database}?host={quote(str(self.socket_dir))}")

    @property
    def socket_dir(self) -> Path:
        """The folder of the server's Unix socket. Raises StoreError when the server is not running."""
        with self._explained():
            postmaster = self._cluster.postmaster()
        if postmaster is None or not postmaster.is_ready:
            raise StoreError(
                f"the embedded PostgreSQL server in {self.data_dir} is not running: start it with "
                "`whalefall-capacity up`, or set WHALEFALL_STORE_URL"
            )
        return postmaster.socket_dir

    def _leave(self, holders: int) -> None:
        """Stop the server unless another process holds it, or another block of this one."""
        try:
            with self._exclusive_lock():
                fcntl.flock(holders, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._cluster.stop()
        except BlockingIOError:
            return
        finally:
            os.close(holders)

    @contextmanager
    def _exclusive_lock(self) -> Iterator[None]:
        """Keep everybody else from starting, stopping, holding or leaving the server."""
        descriptor = self._open("lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _open(self, kind: str) -> int:
        """Open a file to lock, beside the data directory; what root makes belongs to the owner of the folder."""
        path = self.data_dir.with_name(f"{self.data_dir.name}.{kind}")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of the file system into one that names the data directory and says what to do."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the embedded PostgreSQL server cannot use {self.data_dir}: {error}; "
                "set WHALEFALL_HOME to a folder of your own, or WHALEFALL_STORE_URL"
            ) from error


def bundled_psql() -> Path:
    """Return the psql that comes with the embedded server."""
    return program("psql", STORE_VERSION)
