"""The environment of every command by the settings: the store, Dagster's storage and home, the limits of a visit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.collection.sizes import Limits, NameFilter, ServerEngine
from whalefall_capacity.collection.visit import Filters
from whalefall_capacity.errors import SettingsError
from whalefall_capacity.execution_choices import LauncherName
from whalefall_capacity.periods import today
from whalefall_capacity.private_files import close_to_others, make_private_folder, write_private
from whalefall_capacity.run_launchers import MADE_HERE, with_launcher
from whalefall_capacity.settings import PREFIX, Settings, settings_of_file
from whalefall_capacity.store.postgres.embedded import DAGSTER_DATABASE, STORE_DATABASE, EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity.store.table_partitions.create import create_ahead

DAGSTER_FILE = "dagster.yaml"
WORKSPACE_FILE = "workspace.yaml"


@contextmanager
def open_runtime(settings: Settings, needs_dagster: bool = True) -> Iterator[None]:
    """Hold the store's server if it is the embedded one, and pass the settings on to child processes.

    With *needs_dagster* false, Dagster is not prepared.
    """
    with held_store_url(settings):
        if needs_dagster:
            make_dagster_ready(settings)
        yield


def held_store_url(settings: Settings) -> AbstractContextManager[SecretStr]:
    """Yield the store's URL; if none is set, hold the embedded server."""
    return _held_url(settings.store_url, settings, STORE_DATABASE)


def held_dagster_url(settings: Settings) -> AbstractContextManager[SecretStr]:
    """Yield the URL of Dagster's storage; if none is set, hold the embedded server."""
    return _held_url(settings.dagster_url, settings, DAGSTER_DATABASE)


@contextmanager
def _held_url(configured: SecretStr | None, settings: Settings, database: str) -> Iterator[SecretStr]:
    if configured is not None:
        yield configured
        return
    with EmbeddedPostgres(settings.home / "postgres").running() as server:
        server.create_databases(database)
        yield server.url(database)


@contextmanager
def open_store(settings: Settings, needs_dagster: bool = True) -> Iterator[Engine]:
    """Hold everything that `open_runtime` holds, and yield an engine for the migrated store."""
    with open_runtime(settings, needs_dagster), disposed(create_store_engine(store_url(settings))) as engine:
        migrate_store(engine, settings)
        yield engine


@contextmanager
def disposed(engine: Engine) -> Iterator[Engine]:
    """Yield *engine*, and close its connections at the end of the block."""
    try:
        yield engine
    finally:
        engine.dispose()


def migrate_store(engine: Engine, settings: Settings) -> tuple[str | None, str | None]:
    """Bring the store to this version and return the revisions before and after.

    A new store gets its table partitions ahead; later the maintenance creates them, or a write that needs one.
    """
    before, after = migrate(engine)
    if before is None:
        create_ahead(engine, settings, today(settings.zone))
    return before, after


def store_url(settings: Settings) -> SecretStr:
    """Return the store's URL: the configured one, or that of the embedded server, which must be held."""
    return settings.store_url or EmbeddedPostgres(settings.home / "postgres").url(STORE_DATABASE)


def collection_limits(settings: Settings) -> Limits:
    """Return the longest waits of one visit."""
    return Limits(
        connect_timeout_seconds=min(settings.connect_timeout_seconds, settings.collection_deadline_seconds),
        statement_timeout_seconds=settings.statement_timeout_seconds,
        deadline_seconds=settings.collection_deadline_seconds,
    )


def name_filters(settings: Settings) -> Filters:
    """Return the filter of databases for each engine."""
    return {
        ServerEngine.POSTGRESQL: NameFilter(frozenset(settings.postgresql_exclude), settings.postgresql_exclude_regex),
        ServerEngine.MYSQL: NameFilter(frozenset(settings.mysql_exclude), settings.mysql_exclude_regex),
        ServerEngine.MARIADB: NameFilter(frozenset(settings.mariadb_exclude), settings.mariadb_exclude_regex),
    }


def dagster_home(settings: Settings) -> Path:
    """Return Dagster's home folder, with the project's dagster.yaml in it; a file of your own is kept.

    It is a link, or with another run launcher than the default a copy to which that is added.
    """
    source = Path(__file__).resolve().parent / DAGSTER_FILE
    # Dagster keeps the output of runs here.
    home = make_private_folder(settings.home / "dagster")
    close_to_others(home)
    file = home / DAGSTER_FILE
    if _may_be_replaced(file):
        # In one step: another command may be starting at the same time.
        new = home / f"{DAGSTER_FILE}.{os.getpid()}"
        if settings.run_launcher is LauncherName.DEFAULT:
            new.symlink_to(source)
        else:
            write_private(new, with_launcher(source.read_text(encoding="utf-8"), settings.run_launcher))
        new.replace(file)
    return home


def _may_be_replaced(file: Path) -> bool:
    return not file.exists() or file.is_symlink() or file.read_text(encoding="utf-8").startswith(MADE_HERE)


def make_dagster_ready(settings: Settings) -> None:
    """Set the environment for Dagster and for child processes, which run in another folder: its home, the settings.

    The URL of an embedded server is not included: they find the server by WHALEFALL_HOME, and hold it themselves.
    """
    os.environ.update(settings_of_file())
    for name, value in settings:
        # Absolute by now: child processes run in another folder.
        paths = [value] if isinstance(value, Path) else value if isinstance(value, tuple) else []
        if paths and all(isinstance(path, Path) for path in paths):
            os.environ[f"{PREFIX}{name.upper()}"] = ",".join(map(str, paths))
    own = settings.home / "dagster"
    if Path(os.environ.setdefault("DAGSTER_HOME", str(own))) == own:
        try:
            dagster_home(settings)
        except OSError as error:
            raise SettingsError(
                f"{PREFIX}HOME: {error.filename}: {error.strerror}; it must be writable for whoever starts the command"
            ) from None
    # Half the cost of a range of partitions lies in writing its events one by one.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "50")
    # This daemon looks for runs to re-execute, each time with new connections; the default is 5.
    os.environ.setdefault("DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS", "15")
