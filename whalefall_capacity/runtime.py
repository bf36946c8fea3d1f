"""What the program stands on, as the settings say: the store, Dagster's storage and home, the limits of a visit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.collection.sizes import Limits, NameFilter, ServerEngine
from whalefall_capacity.collection.visit import Filters
from whalefall_capacity.periods import today
from whalefall_capacity.settings import Settings, load_settings, settings_in_env_file
from whalefall_capacity.store.embedded import DAGSTER_DATABASE, STORE_DATABASE, EmbeddedPostgres
from whalefall_capacity.store.engine import create_store_engine
from whalefall_capacity.store.schema import migrate, require_current
from whalefall_capacity.store.table_partitions import create_ahead

DAGSTER_FILE = "dagster.yaml"
WORKSPACE_FILE = "workspace.yaml"


@contextmanager
def open_runtime(settings: Settings) -> Iterator[Settings]:
    """Hold the embedded server where no URL is set, put both URLs and DAGSTER_HOME into the environment.

    Child processes find store and Dagster storage through the environment. The settings of this process are
    read again, so that they carry the URLs too.
    """
    if settings.store_url is not None and settings.dagster_url is not None:
        yield _export(settings, settings.store_url.get_secret_value(), settings.dagster_url.get_secret_value())
        return
    embedded = EmbeddedPostgres(settings.home / "postgres")
    with embedded.running():
        embedded.create_databases(STORE_DATABASE, DAGSTER_DATABASE)
        store_url = settings.store_url or embedded.url(STORE_DATABASE)
        dagster_url = settings.dagster_url or embedded.url(DAGSTER_DATABASE)
        yield _export(settings, store_url.get_secret_value(), dagster_url.get_secret_value())


@contextmanager
def open_store(settings: Settings) -> Iterator[Engine]:
    """Hold everything `open_runtime` does and yield an engine for a store that is migrated."""
    with open_runtime(settings) as ready:
        engine = create_store_engine(store_url(ready))
        try:
            migrate_store(engine, ready)
            yield engine
        finally:
            engine.dispose()


def migrate_store(engine: Engine, settings: Settings) -> tuple[str | None, str | None]:
    """Bring the store to this version and return the revisions before and after.

    A store that is new gets its children ahead; later the maintenance does that, and a write makes what it needs.
    """
    before, after = migrate(engine)
    if before is None:
        create_ahead(engine, settings, today(settings.zone))
    return before, after


@contextmanager
def open_store_as_it_is(settings: Settings) -> Iterator[Engine]:
    """Hold everything `open_runtime` does and yield an engine for the store, which is left as it is.

    Raises StoreError when it is not at the revision that this program needs.
    """
    with open_runtime(settings) as ready:
        engine = create_store_engine(store_url(ready))
        try:
            require_current(engine)
            yield engine
        finally:
            engine.dispose()


def store_url(settings: Settings) -> SecretStr:
    """Return the store's URL: the configured one, or that of the running embedded server."""
    return settings.store_url or EmbeddedPostgres(settings.home / "postgres").url(STORE_DATABASE)


def collection_limits(settings: Settings) -> Limits:
    """Return the longest waits of one visit."""
    return Limits(
        connect_timeout_seconds=min(settings.connect_timeout_seconds, settings.collection_deadline_seconds),
        statement_timeout_seconds=settings.statement_timeout_seconds,
        deadline_seconds=settings.collection_deadline_seconds,
    )


def name_filters(settings: Settings) -> Filters:
    """Return, per engine, which databases are left out."""
    return {
        ServerEngine.POSTGRESQL: NameFilter(frozenset(settings.postgresql_exclude), settings.postgresql_exclude_regex),
        ServerEngine.MYSQL: NameFilter(frozenset(settings.mysql_exclude), settings.mysql_exclude_regex),
        ServerEngine.MARIADB: NameFilter(frozenset(settings.mariadb_exclude), settings.mariadb_exclude_regex),
    }


def dagster_home(settings: Settings) -> Path:
    """Return Dagster's home folder, with the project's dagster.yaml linked into it; a file of one's own stays."""
    source = Path(__file__).resolve().parent / DAGSTER_FILE
    home = settings.home.resolve() / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    link = home / DAGSTER_FILE
    if not link.exists() or (link.is_symlink() and link.readlink() != source):
        # In one step: another command may be starting, too.
        new = home / f"{DAGSTER_FILE}.{os.getpid()}"
        new.symlink_to(source)
        new.replace(link)
    return home


def _export(settings: Settings, store_url: str, dagster_url: str) -> Settings:
    given = {name.upper() for name, value in os.environ.items() if value}
    os.environ.update({name: value for name, value in settings_in_env_file().items() if name not in given})
    os.environ["WHALEFALL_HOME"] = str(settings.home.resolve())
    os.environ["WHALEFALL_STORE_URL"] = store_url
    os.environ["WHALEFALL_DAGSTER_URL"] = dagster_url
    os.environ.setdefault("DAGSTER_HOME", str(dagster_home(settings)))
    # Half the cost of a range of partitions lies in writing its events one by one.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "50")
    # Looks for runs to execute again, each with connections of its own; the default is 5.
    os.environ.setdefault("DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS", "15")
    load_settings.cache_clear()
    return load_settings()
