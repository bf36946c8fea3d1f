"""Reports of this process to its task run, written in the background so that they never delay the work.

A thread with its own connection writes everything noted since its last write in one transaction, and finds out whether
the run should stop. While the store is unreachable the thread keeps the notes and retries; the work goes on. Items are
written in the order in which they were noted, one write per item.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import dagster as dg
from pydantic import SecretStr
from sqlalchemy import Connection, NullPool
from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.mirror.follow import is_local, mirror
from whalefall_capacity.run_states import goes_on, is_cancelled
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
# How long a step waits to find out whether its run was cancelled while queued.
BEGIN_SECONDS = 10.0
# How long the end of a run waits for an unreachable store; after that the reconciler closes the task run.
END_SECONDS = 30.0

SummaryChange = Callable[[TaskSummary], TaskSummary]
logger = logging.getLogger(__name__)


@dataclass
class Unwritten:
    """Reports that are not written yet: items to declare, the latest update of each item, changes to the summary."""

    items: list[Item] = field(default_factory=list)
    updates: dict[tuple[ItemType, str], ItemUpdate] = field(default_factory=dict)
    summary_changes: list[SummaryChange] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.items or self.updates or self.summary_changes)

    def update(self, update: ItemUpdate) -> None:
        """Note *update* in place of an earlier one for the item, unless the earlier one is terminal."""
        key = (update.item_type, update.key)
        before = self.updates.get(key)
        if before is None:
            self.updates[key] = update
        elif not before.status.is_terminal:
            self.updates[key] = replace(update, started_at=before.started_at or update.started_at)

    def add(self, later: Unwritten) -> None:
        """Append the reports that were noted after these."""
        self.items += later.items
        self.summary_changes += later.summary_changes
        for update in later.updates.values():
            self.update(update)


class Reporter:
    """Reporter for one process of one run; its methods may be called from any thread."""

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
        """Report while the block runs; at its end, wait until everything is written, but only for so long."""
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
        """Note that the run will work on *items*."""
        with self._guard:
            self._noted.items += items

    def update(self, updates: Sequence[ItemUpdate]) -> None:
        """Note changes to items."""
        with self._guard:
            for update in updates:
                self._noted.update(update)

    def change_summary(self, change: SummaryChange) -> None:
        """Note a change to the summary, which is applied to the summary as it is at the time of writing."""
        with self._guard:
            self._noted.summary_changes.append(change)

    def raise_if_cancelled(self) -> None:
        """Raise DagsterExecutionInterruptedError if the run should stop; Dagster then records it as cancelled."""
        if not self._stop_asked.is_set():
            return
        run = self._instance.get_run_by_id(self._run_id)
        if goes_on(run):
            self._instance.report_run_canceling(run, "The task run was cancelled: stopping the work.")
        raise dg.DagsterExecutionInterruptedError

    def is_ending(self) -> bool:
        """Tell whether the run ends, if it is interrupted now: it is cancelled, or has nobody to go on with it."""
        run = self._instance.get_run_by_id(self._run_id)
        return not goes_on(run) or is_local(run)

    def _report(self) -> None:
        told = False
        give_up: float | None = None
        while give_up is None or time.monotonic() < give_up:
            try:
                self._report_on_one_connection()
            # A problem with the mirror must not fail the work; the reconciler catches up.
            except Exception as error:
                if not told:
                    logger.warning("run %s: its task run cannot be written at the moment: %s", self._run_id, error)
                    told = True
            else:
                return
            if self._ending.is_set() and give_up is None:
                give_up = time.monotonic() + END_SECONDS - 2 * RECONNECT_SECONDS
            time.sleep(RECONNECT_SECONDS)

    def _report_on_one_connection(self) -> None:
        """Report until the end of the run, or until the connection is lost."""
        with self._engine.connect() as connection:
            if not self._begun.is_set():
                mirror(self._engine, self._instance, self._run_id)
                with connection.begin():
                    declare_expected(connection, self._run_id, self._expected_items)
            listened = 0.0
            while True:
                # Before the write, not after: what was noted until the end was asked for is then in it.
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
        # Dagster's launcher cannot interrupt a run in a terminal, but still changes its status.
        if cancelled or is_cancelled(run):
            self._stop_asked.set()


def declare_expected(connection: Connection, run_id: str, items: Sequence[Item | InstanceItems]) -> None:
    """Declare the *items* of a run that has none; another process of it may have done so."""
    task_run = lock_task_run(connection, run_id)
    if task_run is not None and task_run.closed_at is None and not has_items(connection, run_id):
        declare_items(connection, run_id, items)


def write_reported(connection: Connection, run_id: str, noted: Unwritten) -> None:
    task_run = lock_task_run(connection, run_id)
    # A closed task run is final, although the worker of a run declared dead may still be running.
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
