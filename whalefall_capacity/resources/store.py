"""The store as Dagster resources: shared by the runs that work on it, and held alone by the maintenance."""

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

# A run that was launched twice ends soon, and a restore by hand has its time.
MAINTENANCE_WAIT_SECONDS = 10.0
OTHER_CONNECTIONS = 5


@contextmanager
def held_store() -> Iterator[SecretStr]:
    """Hold the store and yield its URL; an embedded one is migrated, for no command of ours may have been there yet."""
    settings = load_settings()
    with held_store_url(settings) as url:
        if settings.store_url is None:
            with disposed(create_store_engine(url, poolclass=NullPool)) as engine:
                if not is_current(engine):
                    migrate_store(engine, settings)
        yield url


@contextmanager
def store_engine() -> Iterator[Engine]:
    """Hold connections to the store outside of a run; an error is not waited out."""
    with held_store() as url, disposed(create_store_engine(url, poolclass=NullPool)) as engine:
        yield engine


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Connections to the store for the length of a run.

    It has no configuration of its own, so that no URL with a password shows up in the UI: the settings say
    where the store is.
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
            raise RuntimeError("the store resource is open only while a run works")
        return self._engine


class MaintenanceStore(StoreResource):
    """Connections to the store, and the lock of the maintenance for as long as the run, or a process of it, lives."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[MaintenanceStore]:
        with super().yield_for_execution(context), maintenance_lock(self.engine, MAINTENANCE_WAIT_SECONDS):
            yield self
