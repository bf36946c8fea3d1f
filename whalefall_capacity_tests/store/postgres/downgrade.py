"""The way back of a migration, which no command takes."""

from __future__ import annotations

from alembic import command
from sqlalchemy import Engine

from whalefall_capacity.store.postgres.schema import alembic_config


def downgrade(engine: Engine, revision: str) -> None:
    """Take the store back to *revision* in one transaction."""
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), revision)
