"""Alembic's entry point: runs on the connection that `store.schema` hands over."""

from __future__ import annotations

from alembic import context

from whalefall_capacity.store.postgres.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
