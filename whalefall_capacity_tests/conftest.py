"""Real servers once a session; a store of its own, and settings of its own, for every test."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from copy import copy
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import psutil
import pytest
import time_machine
from sqlalchemy import Connection, Engine, event, text

from whalefall_capacity.demo.mysql_family import MariadbServer, MysqlServer
from whalefall_capacity.settings import PREFIX, Settings, load_settings
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity_tests.servers import (
    FamilyServer,
    MariadbFleetServer,
    MysqlFleetServer,
    PostgresqlServer,
    require_mysql,
)
from whalefall_capacity_tests.summaries import check_summaries

TEMPLATE = "migrated"
# pytest makes a folder of this account alone in it.
MEMORY = Path("/dev/shm")  # noqa: S108
ROOM_BYTES = 8 * 1024**3
CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE datname = :name"
# On a disk, Dagster makes a database for the events of each run, and opens it again for each event.
EVENTS = {"module": "dagster._core.storage.event_log", "class": "InMemoryEventLogStorage"}
CLOCK = pytest.StashKey[datetime]()
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the option that lets every test begin at a chosen moment, and set its zone at once.

    pytest imports the conftest.py of each folder that it is given before it configures anything, and the product makes
    its partitions in the configured zone when it is imported: with some folders, pytest_configure would be too late.
    """
    parser.addoption(
        "--clock",
        metavar="TIME@ZONE",
        help="when every test begins, in which configured time zone, such as 2027-03-14T00:30@America/New_York",
    )
    config = pluginmanager.get_plugin("pytestconfig")
    assert isinstance(config, pytest.Config)
    # In a process of xdist the options are there already, and there are no arguments.
    given = parser.parse_known_args(config.invocation_params.args, namespace=copy(config.option))
    if given.clock:
        os.environ[f"{PREFIX}TIMEZONE"] = given.clock.partition("@")[2]


def pytest_configure(config: pytest.Config) -> None:
    """Keep the moment of --clock, and the files of the tests in memory."""
    if _has_room(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if chosen := config.getoption("--clock"):
        moment, zone = chosen.split("@")
        config.stash[CLOCK] = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone))


def _has_room(folder: Path) -> bool:
    """Tell whether the files of the tests' servers, some hundred MiB, fit into a *folder* in memory.

    Those servers create and drop thousands of databases: on a slow disk the tests would wait for that alone. Where
    nothing in the folder may be executed, as in most containers, it will not do.
    """
    if not folder.is_dir() or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    return min(shutil.disk_usage(folder).free, psutil.virtual_memory().available) > ROOM_BYTES


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, under --clock, what compares the clock of this process with that of a server; slow files come first.

    The processes take one file after the other: a long one at the end would leave one of them with nothing to do.
    """
    if CLOCK in config.stash:
        left_out = [item for item in items if item.get_closest_marker("real_clock")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)


@pytest.fixture(scope="session", autouse=True)
def traveller(pytestconfig: pytest.Config) -> Iterator[time_machine.Traveller | None]:
    """The clock of this process under --clock, None without.

    Servers and commands that a test starts keep the real one.
    """
    if CLOCK not in pytestconfig.stash:
        yield None
        return
    with time_machine.travel(pytestconfig.stash[CLOCK], tick=True) as found:
        yield found


@pytest.fixture(autouse=True)
def clock(traveller: time_machine.Traveller | None, pytestconfig: pytest.Config) -> None:
    """The clock of the test: the real one, or one that goes on from the moment of --clock."""
    if traveller is not None:
        traveller.move_to(pytestconfig.stash[CLOCK], tick=True)


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The server (PostgreSQL 18) of all stores, with one migrated store as the template of the others."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("store") / "postgres", 18)
    with server.running():
        _forget_the_disk(server)
        server.create_databases(TEMPLATE)
        engine = create_store_engine(server.url(TEMPLATE))
        migrate(engine)
        engine.dispose()
        yield server


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    """A server of the fleet: PostgreSQL 16."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("fleet") / "postgres", 16).running() as server:
        _forget_the_disk(server)
        yield PostgresqlServer(server)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariadbFleetServer]:
    """A server of the fleet: MariaDB, with binary logs."""
    with MariadbServer(tmp_path_factory.mktemp("mariadb")).running("--log-bin=binlog") as server:
        yield MariadbFleetServer(server)


@pytest.fixture(scope="session")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MysqlFleetServer]:
    """A server of the fleet: MySQL, with binary logs."""
    require_mysql()
    with MysqlServer(tmp_path_factory.mktemp("mysql")).running("--log-bin=binlog") as server:
        yield MysqlFleetServer(server)


@pytest.fixture(params=["mariadb", "mysql"])
def family(request: pytest.FixtureRequest) -> FamilyServer:
    """A server of the fleet: each of the MySQL family."""
    server: FamilyServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def administrator(store_server: EmbeddedPostgres) -> Iterator[Connection]:
    """The superuser of the server of the stores, in autocommit."""
    with _administrator(store_server) as connection:
        yield connection


@pytest.fixture
def empty_database(store_server: EmbeddedPostgres, administrator: Connection) -> Iterator[str]:
    """The URL of an empty database on the server of the stores."""
    name = f"empty_{next(_numbers)}"
    store_server.create_databases(name)
    yield store_server.url(name).get_secret_value()
    drop_database(administrator, name)


@pytest.fixture
def store(store_server: EmbeddedPostgres, administrator: Connection) -> Iterator[Engine]:
    """A migrated store without any row; at the end, what the test wrote as summaries of task runs is checked."""
    name = f"store_{next(_numbers)}"
    administrator.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    engine = create_store_engine(store_server.url(name))
    yield engine
    try:
        check_summaries(engine)
    finally:
        engine.dispose()
        drop_database(administrator, name)


@pytest.fixture(autouse=True)
def settings(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    clock: None,  # noqa: ARG001 - the settings are read and checked on its day
) -> Iterator[Settings]:
    """The settings of the test: defaults, a home of its own, and the test's store when it has one.

    Made without monkeypatch, which would put back variables of the test after this has put back all of them.
    """
    before = dict(os.environ)
    for variable in [name for name in os.environ if name.startswith((PREFIX, "DAGSTER_"))]:
        del os.environ[variable]
    os.environ[f"{PREFIX}HOME"] = str(tmp_path / "home")
    if CLOCK in request.config.stash:
        os.environ[f"{PREFIX}TIMEZONE"] = str(request.config.stash[CLOCK].tzinfo)
    if "store" in request.fixturenames:
        engine: Engine = request.getfixturevalue("store")
        os.environ[f"{PREFIX}STORE_URL"] = engine.url.render_as_string(hide_password=False)
    load_settings.cache_clear()
    with chdir(tmp_path):
        yield load_settings()
    load_settings.cache_clear()
    # Commands put URLs and Dagster's home into the environment, for the processes that they start.
    os.environ.clear()
    os.environ.update(before)


@event.listens_for(Engine, "connect")
def sqlite_forgets_the_disk(connection: object, _: object) -> None:
    """Let the storage of Dagster in these tests answer before its files are on the disk: it commits each event."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session")
def new_dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Gives a home of Dagster with an empty storage: a copy of one, because it takes five times as long to make it."""
    made = tmp_path_factory.mktemp("dagster")
    with dg.instance_for_test(temp_dir=str(made)):
        pass
    return lambda: str(shutil.copytree(made, tmp_path_factory.mktemp("dagster"), dirs_exist_ok=True))


@pytest.fixture
def dagster_instance(new_dagster_home: Callable[[], str]) -> Iterator[dg.DagsterInstance]:
    """An ephemeral Dagster instance, which remembers runs and events for the length of the test."""
    with dg.instance_for_test(temp_dir=new_dagster_home(), overrides={"event_log_storage": EVENTS}) as instance:
        yield instance


@pytest.fixture
def shared_instance(new_dagster_home: Callable[[], str]) -> Iterator[dg.DagsterInstance]:
    """An ephemeral Dagster instance that the processes of its runs open, too."""
    with dg.instance_for_test(temp_dir=new_dagster_home()) as instance:
        yield instance


def _forget_the_disk(server: EmbeddedPostgres) -> None:
    """Let the server answer before its files are on the disk: no test is about a machine that loses its power."""
    with _administrator(server) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))


def drop_database(connection: Connection, name: str) -> None:
    """Drop a database, whoever is still connected to it.

    A session that was closed is gone in some milliseconds; DROP DATABASE would find it, and look again after 100.
    """
    for _ in range(20):
        if connection.execute(text(CONNECTED), {"name": name}).scalar_one() == 0:
            break
        time.sleep(0.003)
    connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def _administrator(server: EmbeddedPostgres) -> Iterator[Connection]:
    engine = create_store_engine(server.url("postgres"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection
    engine.dispose()
