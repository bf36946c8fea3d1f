"""A real server that no module here knows is measured by a file alone, from the fleet file to the page."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.settings import PREFIX, Settings
from whalefall_capacity.store.access import Role
from whalefall_capacity_tests.console.conftest import Callers, FakeDagster
from whalefall_capacity_tests.processes import free_port, run, wait_for
from whalefall_capacity_tests.store.records import rows

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
HOME = CACHE / "whalefall_capacity" / "firebird"
FILE = """
name: firebird
title: Firebird
dialect: firebird
driver: firebird
install: sqlalchemy-firebird
default_port: 3050
connection:
  arguments:
    database: "{host}/{port}:{database}"
    user: "{username}"
    password: "{password}"
    charset: UTF8
queries:
  version: SELECT RDB$GET_CONTEXT('SYSTEM', 'ENGINE_VERSION') FROM RDB$DATABASE
  databases: |
    SELECT 'birds' AS name, MON$PAGES * MON$PAGE_SIZE AS size_bytes FROM MON$DATABASE
grants:
  - name: owner of the database
    probe: SELECT COUNT(*) FROM MON$DATABASE WHERE MON$OWNER = CURRENT_USER
    grant: no GRANT does it; connect as the owner, {username} is not
    required: false
"""
CONFIGURATION = """
RemoteBindAddress = 127.0.0.1
SecurityDatabase = {folder}/security3.fdb
IpcName = {folder.name}
Providers = Remote,Engine12,Loopback
AuthServer = Srp
AuthClient = Srp
UserManager = Srp
"""
PLUGIN = "Plugin = {name} {{\n  Module = {folder}/plugins/lib{name}.so\n}}\n"
PASSWORD = "sparrow-7"
DATABASES = """
COMMIT; CREATE USER SYSDBA PASSWORD '{password}'; COMMIT;
CREATE DATABASE '{folder}/birds.fdb' PAGE_SIZE 8192; CREATE TABLE nests (n INT); COMMIT;
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HOME.exists(), reason="there is no Firebird server: run scripts/firebird"),
]


@dataclass(frozen=True)
class FirebirdServer:
    """A Firebird server on a port of 127.0.0.1, with one database."""

    folder: Path
    port: int
    variables: Mapping[str, str]

    @property
    def entry(self) -> dict[str, Any]:
        return {
            "name": "nest",
            "engine": "firebird",
            "host": "127.0.0.1",
            "port": self.port,
            "database": f"{self.folder}/birds.fdb",
            "credential": {"username": "SYSDBA", "password_env": "NEST_PASSWORD"},
        }


@pytest.fixture(scope="module")
def firebird(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirebirdServer]:
    """A Firebird server."""
    folder = tmp_path_factory.mktemp("firebird")
    with _server(folder) as server:
        yield server


@contextmanager
def _server(folder: Path) -> Iterator[FirebirdServer]:
    (libraries,) = (HOME / "root" / "usr" / "lib").glob("*-linux-gnu")
    (parts,) = (libraries / "firebird").iterdir()
    for name in ("intl", "firebird.msg"):
        (folder / name).symlink_to(parts / name)
    (folder / "firebird.conf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "databases.conf").touch()
    plugins = "".join(PLUGIN.format(name=name, folder=parts) for name in ("Engine12", "Srp"))
    (folder / "plugins.conf").write_text(plugins)
    (folder / "lock").mkdir()
    variables = {
        "FIREBIRD": str(folder),
        "FIREBIRD_LOCK": str(folder / "lock"),
        "FIREBIRD_MSG": str(parts),
        "LD_LIBRARY_PATH": f"{libraries}:{parts / 'lib'}",
        "PYTHONPATH": str(HOME / "python"),
    }
    (script,) = (HOME / "root" / "usr" / "share" / "firebird").glob("*/security.sql")
    made = DATABASES.format(folder=folder, password=PASSWORD)
    subprocess.run(
        [HOME / "root" / "usr" / "bin" / "isql-fb", "-user", "SYSDBA"],
        input=f"CREATE DATABASE '{folder}/security3.fdb';\n{script.read_text()}\n{made}",
        env=os.environ | variables,
        text=True,
        capture_output=True,
        check=True,
    )
    port = free_port()
    program = HOME / "root" / "usr" / "sbin" / "firebird"
    with subprocess.Popen([program, "-p", str(port)], env=os.environ | variables, cwd=folder) as process:
        try:
            wait_for(lambda: _listens(port), "Firebird server")
            yield FirebirdServer(folder, port, variables)
        finally:
            process.kill()


def _listens(port: int) -> bool:
    return any(f":{port:04X} " in Path(table).read_text() for table in ("/proc/net/tcp", "/proc/net/tcp6"))


def test_firebird_is_measured_by_a_file_alone(
    firebird: FirebirdServer, store: Engine, settings: Settings, tmp_path: Path
) -> None:
    engines = tmp_path / "engines"
    engines.mkdir()
    (engines / "firebird.yaml").write_text(FILE)
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(yaml.safe_dump({"instances": [firebird.entry]}))
    named = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    variables = {**named, **firebird.variables, "WHALEFALL_ENGINES": str(engines), "NEST_PASSWORD": PASSWORD}
    for command in ("fleet apply", "fleet check", "collect"):
        arguments = [*command.split(), *([str(fleet)] if command == "fleet apply" else [])]
        done = run(arguments, variables)
        assert done.returncode == 0, done.stdout + done.stderr
    size = (firebird.folder / "birds.fdb").stat().st_size
    assert rows(store, "SELECT database_name, size_bytes FROM database_size_stats") == [("birds", size)]
    ((db_type, version),) = rows(store, "SELECT db_type, version FROM instances")
    assert (db_type, version[:2]) == ("firebird", "3.")
    reader = Callers(create_app(console_of(store, settings, FakeDagster())), store).script(Role.VIEW)
    page = reader.get("/databases/list", params={"db_type": "firebird"}).text
    assert 'name="db_type" value="firebird" checked' in page
    assert ">birds</a>" in page


@pytest.mark.usefixtures("store")
def test_a_wrong_password_of_firebird_is_not_repeated(firebird: FirebirdServer, tmp_path: Path) -> None:
    (tmp_path / "firebird.yaml").write_text(FILE)
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump({"instances": [firebird.entry]}))
    named = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    file = str(tmp_path / "firebird.yaml")
    variables = {**named, **firebird.variables, "WHALEFALL_ENGINES": file, "NEST_PASSWORD": "wrong-8"}
    assert run(["fleet", "apply", str(tmp_path / "fleet.yaml")], variables).returncode == 0
    done = run(["engine", "try", file, "--instance", "nest"], variables)
    assert done.returncode == 1
    assert "Your user name and password are not defined" in done.stdout
    assert "wrong-8" not in done.stdout + done.stderr
