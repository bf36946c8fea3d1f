"""Dagster's storage, named in dagster.yaml: the PostgreSQL database in the settings, or one on the embedded server.

Every process that opens Dagster's instance uses it: `up`, Dagster's own commands, code servers, the workers of runs.
If no URL is set, each of these processes holds the embedded server from the moment it opens the instance until it
disposes of the instance or ends.

A daemon reports every 30 seconds, and Dagster shows one that was killed as healthy for half an hour. So the process
that sends heartbeats holds a lock, which PostgreSQL releases when the process ends; without a holder there are no
heartbeats.

A run writes some dozens of events. Dagster would connect for each of them, and its storages would each look for their
tables whenever an instance is opened; these keep one connection, and look once.

Ids of events are taken before the events can be seen: of two that are written at once, the later one may be seen first,
and whoever remembers its id as the last would never see the other. So those who follow the events in ascending order
see only what no event can precede any more.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage, PostgresRunStorage
from dagster_postgres.utils import retry_pg_connection_fn
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from whalefall_capacity.errors import StoreError
from whalefall_capacity.libpq import forget_environment
from whalefall_capacity.runtime import disposed, held_dagster_url
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.advisory_locks import hold_daemon_liveness, is_daemon_alive
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.locks import wait_for_writers
from whalefall_capacity.store.postgres.silence import GIVEN_UP_SOON

if TYPE_CHECKING:
    from whalefall_capacity.dagster_private import DaemonHeartbeat

# Those by which Dagster knows whether a storage has its tables.
TABLES = {"runs", "instance_info", "event_logs", "jobs"}
# A day's event is written in milliseconds, those of an import of ten years in a second or two.
WRITING_SECONDS = 5.0


def _create_engine(url: SecretStr) -> Engine:
    """Return an engine that keeps one connection, and makes as many as are needed at once."""
    return create_store_engine(
        url, connect_args=GIVEN_UP_SOON, pool_size=1, max_overflow=-1, isolation_level="AUTOCOMMIT"
    )


class SettingsStorage(DagsterPostgresStorage):
    """Runs, events and schedules in the one PostgreSQL database that the settings name."""

    def __init__(self, inst_data: Any = None) -> None:
        forget_environment()
        with ExitStack() as stack:
            secret = stack.enter_context(held_dagster_url(load_settings()))
            engine = stack.enter_context(disposed(_create_engine(secret)))
            url = secret.get_secret_value()
            tables = set(retry_pg_connection_fn(lambda: inspect(engine).get_table_names()))
            super().__init__(url, should_autocreate_tables=not tables.issuperset(TABLES), inst_data=inst_data)
            self._schedule_storage._engine = engine
            self._run_storage = LivelyRunStorage(url, engine)
            self._event_log_storage = _LastStorage(url, engine, stack.pop_all())

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> SettingsStorage:  # noqa: ARG003
        return cls(inst_data)


class LivelyRunStorage(PostgresRunStorage):
    """Runs, and heartbeats only of a daemon that is there."""

    def __init__(self, url: str, engine: Engine) -> None:
        super().__init__(url, should_autocreate_tables=False)
        self._engine = engine
        self._holding: Connection | None = None
        # A daemon sends the heartbeats of each of its threads from that thread.
        self._one_at_a_time = threading.Lock()

    def add_daemon_heartbeat(self, daemon_heartbeat: DaemonHeartbeat) -> None:
        super().add_daemon_heartbeat(daemon_heartbeat)
        # No thread waits for one that is at it already: that one may be waiting for the server.
        if self._one_at_a_time.acquire(blocking=False):
            try:
                self._hold_liveness()
            finally:
                self._one_at_a_time.release()

    def get_daemon_heartbeats(self) -> Mapping[str, DaemonHeartbeat]:
        with self.connect() as connection:
            is_alive = is_daemon_alive(connection)
        return super().get_daemon_heartbeats() if is_alive else {}

    def dispose(self) -> None:
        self._let_go()
        super().dispose()

    def _hold_liveness(self) -> None:
        """Hold the lock; again when the connection that held it was lost."""
        if self._holding is not None:
            try:
                self._holding.execute(text("SELECT 1"))
            except DBAPIError:
                self._let_go()
        if self._holding is None:
            holding = self._engine.connect()
            # It does not go back to the others: when it is closed, its lock is released.
            holding.detach()
            hold_daemon_liveness(holding)
            self._holding = holding

    def _let_go(self) -> None:
        if self._holding is not None:
            self._holding.close()
            self._holding = None


class _LastStorage(PostgresEventLogStorage):
    """The events, and the storage that an instance disposes of last, which then releases the server."""

    def __init__(self, url: str, engine: Engine, holding: ExitStack) -> None:
        super().__init__(url, should_autocreate_tables=False)
        self._engine = engine
        # When the process ends at the latest: not every process disposes of its instances.
        self._release = weakref.finalize(self, holding.close)

    def fetch_materializations(
        self,
        records_filter: dg.AssetKey | dg.AssetRecordsFilter,
        limit: int,
        cursor: str | None = None,
        ascending: bool = False,
    ) -> dg.EventRecordsResult:
        if ascending:
            records_filter = self._settled(records_filter)
        return super().fetch_materializations(records_filter, limit, cursor, ascending)

    def _settled(self, records_filter: dg.AssetKey | dg.AssetRecordsFilter) -> dg.AssetRecordsFilter:
        """Return the filter without events before which one may still appear; waits for those who are writing."""
        if isinstance(records_filter, dg.AssetKey):
            records_filter = dg.AssetRecordsFilter(records_filter)
        end = (self.get_maximum_record_id() or 0) + 1
        with self.index_connection() as connection:
            if not wait_for_writers(connection, "event_logs", WRITING_SECONDS):
                raise StoreError(
                    f"a transaction has been writing to Dagster's event_logs for more than {WRITING_SECONDS:g} s, and "
                    "events may be missing until it ends; pg_stat_activity shows it. The next tick tries again"
                )
        if records_filter.before_storage_id is not None:
            end = min(end, records_filter.before_storage_id)
        return records_filter._replace(before_storage_id=end)

    def dispose(self) -> None:
        super().dispose()
        self._release()
