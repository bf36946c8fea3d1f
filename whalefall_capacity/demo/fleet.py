"""The servers of the demo, started and described as a fleet file."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.demo.content import ACCOUNT, fill_mysql_family, fill_postgresql
from whalefall_capacity.demo.mysql_family import MariadbServer, MysqlServer
from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.private_files import make_private_folder, write_private
from whalefall_capacity.store.fleet import list_instances
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres

POSTGRESQL_VERSION = 16
PREFIX = "demo-"
# Row images would only repeat the tables; some megabytes of binary logs are enough to see.
BINARY_LOGS = ("--log-bin=binlog", "--binlog-format=STATEMENT")
# How large the disk is that each server is said to have, beside what it uses: one is full on a day that can be told, of
# one only the earliest day can be told, and one is not full within a year.
ROOM = {ServerEngine.POSTGRESQL: 1.05, ServerEngine.MARIADB: 1.1, ServerEngine.MYSQL: 10.0}
RESTLESS = (f"{PREFIX}{ServerEngine.MARIADB}",)
DESCRIPTION = "Demo server. Its past is made up; what is marked as measured was measured."


def refuse_real_fleet(engine: Engine) -> None:
    """Raise WhalefallError when the store watches other servers: applying the demo's file would disable them."""
    others = [i.name for i in list_instances(engine) if i.is_active and not i.name.startswith(PREFIX)]
    if others:
        raise WhalefallError(
            f"the store already watches {', '.join(others[:5])}: the demo would disable them. "
            "Set WHALEFALL_HOME to another folder, or unset WHALEFALL_STORE_URL"
        )


@contextmanager
def demo_fleet(folder: Path, limits: Mapping[str, int]) -> Iterator[Path]:
    """Hold the demo's servers for the length of the block and yield the path of its fleet file.

    *limits* are the bytes of the disks, by instance, that are known from an earlier start.
    """
    make_private_folder(folder)
    password_file = folder / "password"
    if not password_file.exists():
        write_private(password_file, secrets.token_urlsafe(24))
    password = SecretStr(password_file.read_text())
    credential = {"username": ACCOUNT, "password_file": str(password_file)}
    with ExitStack() as servers:
        postgresql = servers.enter_context(EmbeddedPostgres(folder / "postgresql", POSTGRESQL_VERSION).running())
        fill_postgresql(postgresql, password)
        instances = [_entry(ServerEngine.POSTGRESQL, str(postgresql.socket_dir), credential)]
        for product in (MariadbServer, MysqlServer):
            if product.program() is not None:
                server = servers.enter_context(product(folder / product.engine).running(*BINARY_LOGS))
                fill_mysql_family(server, password)
                instances.append(_entry(product.engine, str(server.socket), credential))
        fleet_file = folder / "fleet.yaml"
        _write(fleet_file, instances, limits)
        yield fleet_file


def disk_sizes(used: Mapping[str, int | None]) -> dict[str, int]:
    """Return bytes of a disk for each instance, by the bytes that it uses."""
    rooms = {f"{PREFIX}{engine}": room for engine, room in ROOM.items()}
    return {name: int(size_bytes * rooms[name]) for name, size_bytes in used.items() if size_bytes and name in rooms}


def give_limits(fleet_file: Path, limits: Mapping[str, int]) -> None:
    """Write the bytes of the disks, by instance, into the demo's fleet file."""
    _write(fleet_file, yaml.safe_load(fleet_file.read_text())["instances"], limits)


def _write(fleet_file: Path, instances: Sequence[Mapping[str, Any]], limits: Mapping[str, int]) -> None:
    entries = [
        {**entry, **({"capacity_limit": limits[entry["name"]]} if entry["name"] in limits else {})}
        for entry in instances
    ]
    write_private(fleet_file, yaml.safe_dump({"instances": entries}, sort_keys=False))


def _entry(engine: ServerEngine, host: str, credential: dict[str, str]) -> dict[str, Any]:
    return {
        "name": f"{PREFIX}{engine}",
        "engine": engine.value,
        "host": host,
        "credential": credential,
        "description": DESCRIPTION,
    }
