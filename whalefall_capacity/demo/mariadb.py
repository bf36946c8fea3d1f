"""A local MariaDB server, from the machine's own package."""

from __future__ import annotations

import shutil
from typing import ClassVar

from whalefall_capacity.demo.local_server import SEARCH_PATH, LocalServer


class MariadbServer(LocalServer):
    """A MariaDB server with its data in a folder."""

    product: ClassVar[str] = "MariaDB"
    how_to_install: ClassVar[str] = "apt-get install mariadb-server-core mariadb-client-core"

    @staticmethod
    def program() -> str | None:
        return shutil.which("mariadbd") or shutil.which("mariadbd", path=SEARCH_PATH)

    def _install_command(self, program: str, common: list[str]) -> list[str]:  # noqa: ARG002 - it has one of its own
        install = shutil.which("mariadb-install-db", path=SEARCH_PATH) or "mariadb-install-db"
        return [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]

    def _own_options(self) -> list[str]:
        return []
