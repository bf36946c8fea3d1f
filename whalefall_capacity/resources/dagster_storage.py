"""Dagster's storage, named in dagster.yaml: the PostgreSQL database in the settings, or one on the embedded server.

Every process that opens Dagster's instance uses it: `up`, Dagster's own commands, code servers, the workers of runs.
If no URL is set, each of these processes holds the embedded server from the moment it opens the instance until it
disposes of the instance or ends.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage

from whalefall_capacity.libpq import forget_environment
from whalefall_capacity.runtime import held_dagster_url
from whalefall_capacity.settings import load_settings


class SettingsStorage(DagsterPostgresStorage):
    """Runs, events and schedules in the one PostgreSQL database that the settings name."""

    def __init__(self, inst_data: Any = None) -> None:
        forget_environment()
        with ExitStack() as stack:
            url = stack.enter_context(held_dagster_url(load_settings())).get_secret_value()
            super().__init__(url, inst_data=inst_data)
            self._event_log_storage = _LastStorage(url, stack.pop_all())

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> SettingsStorage:  # noqa: ARG003
        return cls(inst_data)


class _LastStorage(PostgresEventLogStorage):
    """The storage that an instance disposes of last, which then releases the server."""

    def __init__(self, url: str, holding: ExitStack) -> None:
        super().__init__(url)
        # When the process ends at the latest: not every process disposes of its instances.
        self._release = weakref.finalize(self, holding.close)

    def dispose(self) -> None:
        super().dispose()
        self._release()
