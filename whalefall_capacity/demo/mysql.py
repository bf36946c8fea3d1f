"""A local MySQL server: one that is installed, or the one that `scripts/mysql-server` has brought."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.demo.local_server import SEARCH_PATH, LocalServer


class MysqlServer(LocalServer):
    """A MySQL server with its data in a folder."""

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
        brought = _cache_folder() / "whalefall_capacity" / "mysql" / "mysqld"
        if brought.exists():
            return str(brought)
        installed = shutil.which("mysqld") or shutil.which("mysqld", path=SEARCH_PATH)
        return installed if installed is not None and not _is_mariadb(installed) else None

    def _install_command(self, program: str, common: list[str]) -> list[str]:
        return [program, *common, "--initialize-insecure"]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _is_mariadb(program: str) -> bool:
    """Is this `mysqld` MariaDB's, which carries the old name too?"""
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return "mariadb" in shown.stdout.lower()
