"""Dagster's storage, which dagster.yaml names: PostgreSQL by the settings, or on the embedded server.

Whatever opens Dagster's instance finds it: `up`, Dagster's own commands, code servers, the workers of runs. Where no
URL is set, each of these processes holds the embedded server, from the moment that it opens the instance until it
disposes of it or ends.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from dagster._core.storage.base_storage import DagsterStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage

from whalefall_capacity.libpq import forget_environment
from whalefall_capacity.runtime import held_dagster_url
from whalefall_capacity.settings import load_settings


class SettingsStorage(DagsterStorage, ConfigurableClass):
    """Runs, events and schedules in one PostgreSQL database; what is to be said of it, the settings say."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inst_data = inst_data
        forget_environment()
        with ExitStack() as stack:
            url = stack.enter_context(held_dagster_url(load_settings())).get_secret_value()
            self._run_storage = PostgresRunStorage(url)
            self._schedule_storage = PostgresScheduleStorage(url)
            self._event_log_storage = _LastStorage(url, stack.pop_all())

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003 - there is none
    ) -> SettingsStorage:
        return cls(inst_data)

    @property
    def event_log_storage(self) -> PostgresEventLogStorage:
        return self._event_log_storage

    @property
    def run_storage(self) -> PostgresRunStorage:
        return self._run_storage

    @property
    def schedule_storage(self) -> PostgresScheduleStorage:
        return self._schedule_storage


class _LastStorage(PostgresEventLogStorage):
    """The one that an instance disposes of last; it lets the server go."""

    def __init__(self, url: str, holding: ExitStack) -> None:
        super().__init__(url)
        # At the latest when the process ends: not every one disposes of its instances.
        self._let_go = weakref.finalize(self, holding.close)

    def dispose(self) -> None:
        super().dispose()
        self._let_go()
