"""Migration of the store's schema to the revision that this program needs."""

from __future__ import annotations

import functools
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.store.postgres.advisory_locks import lock_migration

MIGRATIONS = Path(__file__).parent / "migrations"
OLDEST_SERVER = 15


def alembic_config(connection: Connection) -> Config:
    """Return Alembic's configuration for *connection*; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def current_revision(connection: Connection) -> str | None:
    """Return the revision that the store is at, None when it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


@functools.cache
def latest_revision() -> str | None:
    """Return the revision that this program needs."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def migrate(engine: Engine, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring the store to *revision* in one transaction and return the revisions before and after.

    Raises StoreError when the server is older than PostgreSQL 15, and when the database is at a revision
    that this program does not know.
    """
    with engine.begin() as connection:
        version = int(connection.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
        if version < OLDEST_SERVER:
            raise StoreError(f"the store runs on PostgreSQL {version}; it needs {OLDEST_SERVER} or newer")
        # Two programs that start together must not both migrate.
        lock_migration(connection)
        before = current_revision(connection)
        _require_known(before)
        command.upgrade(alembic_config(connection), revision)
        return before, current_revision(connection)


def is_current(engine: Engine) -> bool:
    """Tell whether the store is at the revision that this program needs."""
    with engine.connect() as connection:
        return current_revision(connection) == latest_revision()


def require_current(engine: Engine) -> None:
    """Raise StoreError unless the store is at the revision that this program needs."""
    with engine.connect() as connection:
        found = current_revision(connection)
    if found != latest_revision():
        _require_known(found)
        raise StoreError(
            f"the store is at revision {found or 'none'}, this program needs {latest_revision()}: "
            "run `whalefall-capacity store migrate`"
        )


def _require_known(revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreError(
            f"the store is at revision {revision}, which this program does not know: another version of it made the "
            "store (install that one), or the database belongs to another program, such as Dagster"
        )
