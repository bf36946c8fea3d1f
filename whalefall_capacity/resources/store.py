"""The store as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import PrivateAttr
from sqlalchemy import Engine, NullPool

from whalefall_capacity.runtime import store_url
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.engine import PATIENCE_SECONDS, create_store_engine
from whalefall_capacity.store.schema import require_current


@contextmanager
def store_engine() -> Iterator[Engine]:
    """Hold connections to the store outside of a run; an error is not waited out."""
    engine = create_store_engine(store_url(load_settings()), poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Connections to the store for the length of a run.

    It has no configuration of its own, so that no URL with a password shows up in the UI: the settings say
    where the store is.
    """

    _engine: Engine | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[StoreResource]:  # noqa: ARG002
        self._engine = create_store_engine(store_url(load_settings()), PATIENCE_SECONDS)
        try:
            require_current(self._engine)
            yield self
        finally:
            self._engine.dispose()

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("the store resource is open only while a run works")
        return self._engine
