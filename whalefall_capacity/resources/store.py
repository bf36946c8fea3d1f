"""The store as Dagster resources: one that runs share, and one that the maintenance holds exclusively."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import PrivateAttr, SecretStr
from sqlalchemy import Engine, NullPool

from whalefall_capacity.runtime import disposed, held_store_url, migrate_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.engine import PATIENCE_SECONDS, create_store_engine
from whalefall_capacity.store.postgres.locks import maintenance_lock
from whalefall_capacity.store.postgres.schema import is_current, require_current

# Enough for a second launch of the same run to give up, and short enough not to wait for a restore by hand.
MAINTENANCE_WAIT_SECONDS = 10.0
OTHER_CONNECTIONS = 5


@contextmanager
def held_store() -> Iterator[SecretStr]:
    """Hold the store and yield its URL; an embedded one is migrated first, because no command may have done so yet."""
    settings = load_settings()
    with held_store_url(settings) as url:
        if settings.store_url is None:
            with disposed(create_store_engine(url, poolclass=NullPool)) as engine:
                if not is_current(engine):
                    migrate_store(engine, settings)
        yield url


@contextmanager
def store_engine() -> Iterator[Engine]:
    """Hold connections to the store outside a run; errors are raised at once."""
    with held_store() as url, disposed(create_store_engine(url, poolclass=NullPool)) as engine:
        yield engine


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Connections to the store for the length of a run.

    It has no configuration of its own: the settings say where the store is, and no URL with a password shows up
    in the UI.
    """

    _engine: Engine | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[StoreResource]:  # noqa: ARG002
        # One for each chunk that is aggregated, beside the others.
        connections = load_settings().aggregation_concurrency + OTHER_CONNECTIONS
        with (
            held_store() as url,
            disposed(create_store_engine(url, PATIENCE_SECONDS, pool_size=connections)) as self._engine,
        ):
            require_current(self._engine)
            yield self

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("the store resource is only open during a run")
        return self._engine


class MaintenanceStore(StoreResource):
    """Connections to the store, and the maintenance lock for as long as a process of the run lives."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[MaintenanceStore]:
        with super().yield_for_execution(context), maintenance_lock(self.engine, MAINTENANCE_WAIT_SECONDS):
            yield self
