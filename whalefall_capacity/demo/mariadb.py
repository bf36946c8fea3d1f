"""A local MariaDB server, from the machine's own package."""

from __future__ import annotations

import shutil

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.demo.local_server import SEARCH_PATH, LocalServer


class MariadbServer(LocalServer):
    """A MariaDB server with its data in a folder."""

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
