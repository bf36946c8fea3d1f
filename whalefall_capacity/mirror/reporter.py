"""Reports of this process to its task run, written beside the work and never in its way.

A thread with a connection of its own holds the liveness lock of the run, writes what has been noted since it last
wrote in one transaction, and learns whether the run is to stop. When the store is away it keeps what was noted and
tries again; the work goes on. Items are written in the order in which they were noted, one write an item.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import dagster as dg
from dagster import DagsterRunStatus
from pydantic import SecretStr
from sqlalchemy import Connection, NullPool
from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.mirror.follow import mirror
from whalefall_capacity.store.postgres.advisory_locks import hold_liveness
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.summary import TaskSummary
from whalefall_capacity.store.task_runs.write import (
    InstanceItems,
    Item,
    ItemType,
    ItemUpdate,
    declare_items,
    has_items,
    lock_task_run,
    task_run_status,
    update_items,
    write_summary,
)

WRITE_SECONDS = 1.0
LISTEN_SECONDS = 1.0
RECONNECT_SECONDS = 1.0
# How long a step waits to hear whether its run was cancelled while it was queued.
BEGIN_SECONDS = 10.0
# How long the end of a run waits for a store that is away; after that the reconciler closes the task run.
END_SECONDS = 30.0

SummaryChange = Callable[[TaskSummary], TaskSummary]
logger = logging.getLogger(__name__)


@dataclass
class Unwritten:
    """Reports that are not written yet: items to declare, the last update of each item, changes of the summary."""

    items: list[Item] = field(default_factory=list)
    updates: dict[tuple[ItemType, str], ItemUpdate] = field(default_factory=dict)
    summary_changes: list[SummaryChange] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.items or self.updates or self.summary_changes)

    def update(self, update: ItemUpdate) -> None:
        """Note *update*, over one that was noted before unless that one is terminal."""
        key = (update.item_type, update.key)
        before = self.updates.get(key)
        if before is None:
            self.updates[key] = update
        elif not before.status.is_terminal:
            self.updates[key] = replace(update, started_at=before.started_at or update.started_at)

    def add(self, later: Unwritten) -> None:
        """Note what was noted after this."""
        self.items += later.items
        self.summary_changes += later.summary_changes
        for update in later.updates.values():
            self.update(update)


class Reporter:
    """Reports for one process of one run; its methods may be called from any thread."""

    def __init__(
        self,
        url: SecretStr,
        instance: dg.DagsterInstance,
        run_id: str,
        expected_items: Sequence[Item | InstanceItems],
    ) -> None:
        self._engine = create_store_engine(url, poolclass=NullPool)
        self._instance = instance
        self._run_id = run_id
        self._expected_items = expected_items
        self._noted = Unwritten()
        self._guard = threading.Lock()
        self._begun = threading.Event()
        self._ending = threading.Event()
        self._stop_asked = threading.Event()
        self._thread = threading.Thread(target=self._report, name=f"task-run-{run_id}", daemon=True)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report for the length of the block; at its end, wait until all is written, but not for ever."""
        self._thread.start()
        self._begun.wait(BEGIN_SECONDS)
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join(END_SECONDS)
            if self._thread.is_alive() or self._noted:
                logger.warning("run %s: the outcomes of some items could not be written to the store", self._run_id)

    def declare(self, items: Sequence[Item]) -> None:
        """Note that the run will do *items*."""
        with self._guard:
            self._noted.items += items

    def update(self, updates: Sequence[ItemUpdate]) -> None:
        """Note changes of items."""
        with self._guard:
            for update in updates:
                self._noted.update(update)

    def change_summary(self, change: SummaryChange) -> None:
        """Note a change of the summary; it is applied to whatever the summary is when it is written."""
        with self._guard:
            self._noted.summary_changes.append(change)

    def raise_if_cancelled(self) -> None:
        """Raise DagsterExecutionInterruptedError once the run is to stop; Dagster then records it as cancelled."""
        if not self._stop_asked.is_set():
            return
        run = self._instance.get_run_by_id(self._run_id)
        if run is not None and not run.is_finished and run.status is not DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run, "The task run was cancelled: stopping the work.")
        raise dg.DagsterExecutionInterruptedError

    def _report(self) -> None:
        told = False
        give_up: float | None = None
        while give_up is None or time.monotonic() < give_up:
            try:
                self._report_on_one_connection()
            # Whatever is wrong with the mirror is no reason for the work to fail; the reconciler catches up.
            except Exception as error:
                if not told:
                    logger.warning("run %s: its task run cannot be written now: %s", self._run_id, error)
                    told = True
            else:
                return
            if self._ending.is_set() and give_up is None:
                give_up = time.monotonic() + END_SECONDS - 2 * RECONNECT_SECONDS
            time.sleep(RECONNECT_SECONDS)

    def _report_on_one_connection(self) -> None:
        """Report until the end of the run, or until the connection is lost."""
        with self._engine.connect() as connection:
            with connection.begin():
                hold_liveness(connection, self._run_id)
            if not self._begun.is_set():
                mirror(self._engine, self._instance, self._run_id)
                with connection.begin():
                    declare_expected(connection, self._run_id, self._expected_items)
            listened = 0.0
            while True:
                ending = self._ending.is_set()
                self._write(connection)
                if time.monotonic() - listened >= LISTEN_SECONDS:
                    self._listen(connection)
                    listened = time.monotonic()
                self._begun.set()
                if ending:
                    return
                self._ending.wait(WRITE_SECONDS)

    def _write(self, connection: Connection) -> None:
        with self._guard:
            noted, self._noted = self._noted, Unwritten()
        if not noted:
            return
        try:
            with connection.begin():
                write_reported(connection, self._run_id, noted)
        except SQLAlchemyError:
            with self._guard:
                noted.add(self._noted)
                self._noted = noted
            raise

    def _listen(self, connection: Connection) -> None:
        with connection.begin():
            cancelled = task_run_status(connection, self._run_id) is Status.CANCELLED
        run = self._instance.get_run_by_id(self._run_id)
        # A run in a terminal cannot be told to stop by Dagster's launcher; its status says so all the same.
        if cancelled or (run and run.status in (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED)):
            self._stop_asked.set()


def declare_expected(connection: Connection, run_id: str, items: Sequence[Item | InstanceItems]) -> None:
    """Declare the *items* of a run that has none; another process of it may have done so."""
    task_run = lock_task_run(connection, run_id)
    if task_run is not None and task_run.closed_at is None and not has_items(connection, run_id):
        declare_items(connection, run_id, items)


def write_reported(connection: Connection, run_id: str, noted: Unwritten) -> None:
    task_run = lock_task_run(connection, run_id)
    # After the end nothing changes: the worker of a run that was given up may still be at work.
    if task_run is None or task_run.closed_at is not None:
        return
    if noted.items:
        declare_items(connection, run_id, noted.items)
    if noted.updates:
        update_items(connection, run_id, list(noted.updates.values()))
    if noted.summary_changes:
        summary = task_run.summary
        for change in noted.summary_changes:
            summary = change(summary)
        write_summary(connection, run_id, summary)
