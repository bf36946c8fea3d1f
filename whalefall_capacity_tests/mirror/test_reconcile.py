"""Both books end up equal: one round of reconciliation at a time, and the audit for whoever does not trust it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType, DagsterRunStatus
from sqlalchemy import Engine, text

from whalefall_capacity.mirror import reconcile as module
from whalefall_capacity.mirror.follow import mirror, new_task_run
from whalefall_capacity.mirror.reconcile import WORKER_GONE, Cursor, Repair, audit, reconcile
from whalefall_capacity.periods import utc_now
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.advisory_locks import hold_liveness
from whalefall_capacity.store.task_runs.write import (
    Item,
    ItemType,
    declare_items,
    insert_task_run,
    lock_task_run,
)
from whalefall_capacity_tests.resources.runs import (
    cancel_by_run_centre,
    item_statuses,
    queued_run,
    report,
    started_run,
    status_of,
    task_run,
)
from whalefall_capacity_tests.store.records import rows

# Times of runs are those of Dagster's storage, of task runs those of the store.
pytestmark = pytest.mark.real_clock

LOG = logging.getLogger("reconciliation")
BEGINNING = datetime(2000, 1, 1, tzinfo=timezone.utc)
NO_TIME = timedelta(0)
Works = Callable[[str], None]


class Coordinator:
    """Stands in for the queue: cancels what waits, and asks a worker that works to stop."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self.cancelled: list[str] = []

    def cancel_run(self, run_id: str) -> bool:
        self.cancelled.append(run_id)
        run = self._instance.get_run_by_id(run_id)
        assert run is not None
        self._instance.report_run_canceling(run)
        if run.status is DagsterRunStatus.QUEUED:
            self._instance.report_run_canceled(run)
        return True


@pytest.fixture
def coordinator(dagster_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Coordinator:
    coordinator = Coordinator(dagster_instance)
    monkeypatch.setattr(dg.DagsterInstance, "run_coordinator", coordinator)
    return coordinator


def rounds(store: Engine, instance: dg.DagsterInstance, *seconds: float, cursor: Cursor | None = None) -> Cursor:
    """Reconcile once at each of *seconds* from now."""
    cursor, now = cursor or Cursor(), utc_now()
    for second in seconds:
        cursor = reconcile(store, instance, cursor, now + timedelta(seconds=second), LOG)
    return cursor


def put_items(store: Engine, run_id: str, *keys: str) -> None:
    with store.begin() as connection:
        lock_task_run(connection, run_id)
        declare_items(connection, run_id, [Item(ItemType.COLLECTION, key, "n", int(key)) for key in keys])


@pytest.fixture
def works(store: Engine) -> Iterator[Works]:
    """A function that shows for the length of the test that somebody works for a run."""
    connection = store.connect()

    def work_for(run_id: str) -> None:
        hold_liveness(connection, run_id)
        connection.commit()

    yield work_for
    connection.invalidate()


def everything(store: Engine) -> list[Any]:
    return [
        *rows(store, "SELECT xmin::text, r::text FROM task_runs AS r ORDER BY id"),
        *rows(store, "SELECT xmin::text, i::text FROM task_run_items AS i ORDER BY id"),
    ]


# Reconciliation


def test_runs_of_which_nobody_told_get_their_task_runs(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    queued = queued_run(dagster_instance)
    started = started_run(dagster_instance)
    ended = started_run(dagster_instance)
    report(dagster_instance, ended, DagsterEventType.RUN_SUCCESS)
    started_run(dagster_instance, location="finance")
    rounds(store, dagster_instance, 0)
    assert rows(store, "SELECT run_id, status FROM task_runs ORDER BY run_id") == sorted(
        [(queued, "pending"), (started, "running"), (ended, "completed")]
    )


def test_a_task_run_follows_its_run_round_by_round(
    store: Engine, dagster_instance: dg.DagsterInstance, works: Works
) -> None:
    run_id = queued_run(dagster_instance)
    works(run_id)
    seen = []
    cursor = Cursor()
    for event in (None, DagsterEventType.RUN_STARTING, DagsterEventType.RUN_START, DagsterEventType.RUN_SUCCESS):
        if event:
            report(dagster_instance, run_id, event)
        cursor = rounds(store, dagster_instance, 0, cursor=cursor)
        seen.append(task_run(store, run_id))
    assert seen == ["pending", "pending", "running", "completed"]


def test_an_open_task_run_is_looked_at_however_long_ago_its_run_changed(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    report(dagster_instance, run_id, DagsterEventType.RUN_SUCCESS)
    rounds(store, dagster_instance, 0, cursor=Cursor(seen=utc_now() + timedelta(days=7)))
    assert task_run(store, run_id) == "completed"


@pytest.mark.parametrize(("seconds", "status"), [(55, "pending"), (65, None)])
def test_clocks_may_differ_by_a_minute(
    store: Engine, dagster_instance: dg.DagsterInstance, seconds: int, status: str | None
) -> None:
    # The round before was by a clock that is ahead of the one by which the run was created.
    run_id = queued_run(dagster_instance)
    rounds(store, dagster_instance, 0, cursor=Cursor(seen=utc_now() + timedelta(seconds=seconds)))
    assert task_run(store, run_id) == status


def test_once_all_is_in_line_a_round_writes_nothing(
    store: Engine, dagster_instance: dg.DagsterInstance, works: Works
) -> None:
    for event in (DagsterEventType.RUN_SUCCESS, DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED):
        report(dagster_instance, started_run(dagster_instance), event)
    works(started_run(dagster_instance))
    works(dagster_instance.get_runs(limit=1)[0].run_id)
    queued_run(dagster_instance)
    cursor = rounds(store, dagster_instance, 0)
    before = everything(store)
    rounds(store, dagster_instance, 5, 10, cursor=cursor)
    assert len(before) == 5
    assert everything(store) == before


# Cancels


def test_a_queued_run_that_the_run_centre_cancelled_leaves_the_queue(
    store: Engine, dagster_instance: dg.DagsterInstance, coordinator: Coordinator
) -> None:
    run_id = queued_run(dagster_instance)
    cursor = rounds(store, dagster_instance, 0)
    assert coordinator.cancelled == []
    cancel_by_run_centre(store, run_id)
    cursor = rounds(store, dagster_instance, 5, cursor=cursor)
    assert coordinator.cancelled == [run_id]
    assert status_of(dagster_instance, run_id) is DagsterRunStatus.CANCELED
    rounds(store, dagster_instance, 10, 15, cursor=cursor)
    assert coordinator.cancelled == [run_id]
    assert task_run(store, run_id, "status, closed_at IS NOT NULL") == ("cancelled", True)


def test_a_started_run_that_the_run_centre_cancelled_is_asked_once_to_stop(
    store: Engine, dagster_instance: dg.DagsterInstance, coordinator: Coordinator, works: Works
) -> None:
    run_id = started_run(dagster_instance)
    works(run_id)
    cursor = rounds(store, dagster_instance, 0)
    cancel_by_run_centre(store, run_id)
    cursor = rounds(store, dagster_instance, 5, 10, 15, cursor=cursor)
    assert coordinator.cancelled == [run_id]
    assert status_of(dagster_instance, run_id) is DagsterRunStatus.CANCELING
    assert task_run(store, run_id, "status, closed_at") == ("cancelled", None)
    report(dagster_instance, run_id, DagsterEventType.RUN_CANCELED)
    rounds(store, dagster_instance, 20, cursor=cursor)
    assert task_run(store, run_id, "status, closed_at IS NOT NULL") == ("cancelled", True)


def test_a_run_that_ended_before_the_cancel_was_heard_is_not_cancelled(
    store: Engine, dagster_instance: dg.DagsterInstance, coordinator: Coordinator
) -> None:
    run_id = started_run(dagster_instance)
    cursor = rounds(store, dagster_instance, 0)
    cancel_by_run_centre(store, run_id)
    report(dagster_instance, run_id, DagsterEventType.RUN_SUCCESS)
    rounds(store, dagster_instance, 5, cursor=cursor)
    assert coordinator.cancelled == []
    assert task_run(store, run_id, "status, closed_at IS NOT NULL") == ("cancelled", True)


# Workers that are gone


@pytest.mark.parametrize(
    ("event", "dagster_status", "status", "item"),
    [
        (DagsterEventType.RUN_START, DagsterRunStatus.FAILURE, "failed", "failed"),
        (DagsterEventType.RUN_CANCELING, DagsterRunStatus.CANCELED, "cancelled", "cancelled"),
    ],
)
def test_a_run_for_which_nobody_works_is_over_after_30_seconds(
    store: Engine,
    dagster_instance: dg.DagsterInstance,
    event: DagsterEventType,
    dagster_status: DagsterRunStatus,
    status: str,
    item: str,
) -> None:
    run_id = started_run(dagster_instance)
    report(dagster_instance, run_id, event)
    mirror(store, dagster_instance, run_id)
    put_items(store, run_id, "1")
    cursor = rounds(store, dagster_instance, 0, 5, 29)
    assert task_run(store, run_id) == "running"
    assert list(cursor.without_worker_since) == [run_id]
    # As from one tick of the sensor to the next.
    cursor = Cursor.model_validate_json(cursor.model_dump_json())
    cursor = rounds(store, dagster_instance, 31, cursor=cursor)
    assert status_of(dagster_instance, run_id) is dagster_status
    assert task_run(store, run_id, "status, closed_at IS NOT NULL") == (status, True)
    assert task_run(store, run_id, "error_message") == (WORKER_GONE if status == "failed" else None)
    assert item_statuses(store, run_id) == {"1": item}
    assert rounds(store, dagster_instance, 36, cursor=cursor).without_worker_since == {}


def test_a_run_for_which_nobody_works_is_over_after_30_seconds_though_the_clock_was_set_back(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    cursor = rounds(store, dagster_instance, 3600)
    assert list(cursor.without_worker_since) == [run_id]
    rounds(store, dagster_instance, 0, 31, cursor=cursor)
    assert task_run(store, run_id) == "failed"
    assert status_of(dagster_instance, run_id) is DagsterRunStatus.FAILURE


def test_a_worker_that_shows_itself_again_starts_the_30_seconds_anew(
    store: Engine, dagster_instance: dg.DagsterInstance, works: Works
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    cursor = rounds(store, dagster_instance, 0, 25)
    works(run_id)
    cursor = rounds(store, dagster_instance, 35, 1000, cursor=cursor)
    assert cursor.without_worker_since == {}
    assert task_run(store, run_id) == "running"


@pytest.mark.parametrize("event", [None, DagsterEventType.RUN_STARTING])
def test_a_run_that_has_not_started_needs_no_worker(
    store: Engine, dagster_instance: dg.DagsterInstance, event: DagsterEventType | None
) -> None:
    run_id = queued_run(dagster_instance)
    if event:
        report(dagster_instance, run_id, event)
    mirror(store, dagster_instance, run_id)
    assert rounds(store, dagster_instance, 0, 100).without_worker_since == {}
    assert task_run(store, run_id) == "pending"


def test_a_run_that_the_run_centre_cancelled_and_whose_worker_is_gone_is_closed_as_cancelled(
    store: Engine, dagster_instance: dg.DagsterInstance, coordinator: Coordinator
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    put_items(store, run_id, "1")
    cancel_by_run_centre(store, run_id)
    rounds(store, dagster_instance, 0, 31)
    assert coordinator.cancelled == [run_id]
    assert status_of(dagster_instance, run_id) is DagsterRunStatus.CANCELED
    assert task_run(store, run_id, "status, closed_at IS NOT NULL") == ("cancelled", True)
    assert item_statuses(store, run_id) == {"1": "cancelled"}


@pytest.mark.usefixtures("coordinator")
@pytest.mark.parametrize("place", ["mirror", "_cancel", "_end_dead_run"])
def test_what_goes_wrong_with_one_run_keeps_no_other_from_its_turn(
    store: Engine,
    dagster_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    runs = [started_run(dagster_instance) for _ in range(3)]
    to_cancel = [queued_run(dagster_instance) for _ in range(3)]
    cursor = rounds(store, dagster_instance, 0, 1)
    for run_id in to_cancel:
        cancel_by_run_centre(store, run_id)
    bad = {to_cancel[1]} if place == "_cancel" else {runs[1]}
    good = getattr(module, place)

    def raises_for_one(*arguments: Any) -> None:
        if arguments[-1] in bad:
            raise RuntimeError("wrong with this run")
        good(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, place, raises_for_one)
        cursor = rounds(store, dagster_instance, 35, 40, cursor=cursor)
    assert f"run {next(iter(bad))} could not be reconciled" in caplog.text
    ended = {run_id for run_id in (*runs, *to_cancel) if task_run(store, run_id, "closed_at") is not None}
    assert ended == {*runs, *to_cancel} - bad
    # The next round tries again.
    rounds(store, dagster_instance, 45, 50, cursor=cursor)
    assert rows(store, "SELECT DISTINCT status FROM task_runs WHERE closed_at IS NOT NULL ORDER BY 1") == [
        ("cancelled",),
        ("failed",),
    ]
    assert rows(store, "SELECT count(*) FROM task_runs WHERE closed_at IS NULL") == [(0,)]


# The audit


def test_the_audit_repairs_planted_differences_and_reports_exactly_them(
    store: Engine, dagster_instance: dg.DagsterInstance, works: Works
) -> None:
    fine = started_run(dagster_instance)
    working = started_run(dagster_instance)
    waiting = queued_run(dagster_instance)
    miscounted = started_run(dagster_instance)
    over = started_run(dagster_instance)
    dead = started_run(dagster_instance)
    works(working)
    for run_id in (fine, working, waiting, miscounted, over, dead):
        mirror(store, dagster_instance, run_id)
    for run_id in (fine, working, miscounted, dead):
        put_items(store, run_id, "1", "2")
    for run_id in (fine, miscounted):
        report(dagster_instance, run_id, DagsterEventType.RUN_CANCELED)
        mirror(store, dagster_instance, run_id)
    # Now what may go wrong.
    with store.begin() as connection:
        connection.execute(text("UPDATE task_runs SET progress_failed = 7 WHERE run_id = :r"), {"r": miscounted})
    report(dagster_instance, over, DagsterEventType.RUN_SUCCESS)
    lost = started_run(dagster_instance)
    report(dagster_instance, lost, DagsterEventType.RUN_FAILURE, "boom")
    never_launched = dg.DagsterRun(job_name="sync_databases")
    with store.begin() as connection:
        insert_task_run(connection, new_task_run(never_launched, load_settings()))
        connection.execute(
            text("UPDATE task_runs SET created_at = now() - interval '1 hour' WHERE run_id = :r"),
            {"r": never_launched.run_id},
        )
    started_run(dagster_instance, location="finance")

    repairs = audit(store, dagster_instance, BEGINNING, NO_TIME)
    assert {repair.run_id: repair.repair for repair in repairs} == {
        miscounted: "counters did not match the items",
        over: "was running; now completed",
        dead: "was running; now failed",
        lost: "had no task run; now failed",
        never_launched.run_id: "was pending; now failed",
    }
    assert len(repairs) == 5
    assert task_run(store, miscounted, "progress_total, progress_completed, progress_failed") == (2, 0, 2)
    assert task_run(store, lost, "status, error_message") == ("failed", "boom")
    assert item_statuses(store, dead) == {"1": "failed", "2": "failed"}
    assert task_run(store, fine) == "cancelled"
    assert task_run(store, working) == "running"
    assert task_run(store, waiting) == "pending"
    before = everything(store)
    assert audit(store, dagster_instance, BEGINNING, NO_TIME) == []
    assert everything(store) == before


def test_a_cancel_of_the_run_centre_whose_run_is_over_is_closed_by_the_audit(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    cancel_by_run_centre(store, run_id)
    report(dagster_instance, run_id, DagsterEventType.RUN_CANCELED)
    assert audit(store, dagster_instance, BEGINNING, NO_TIME) == [Repair(run_id, "was cancelled; now cancelled")]
    assert task_run(store, run_id, "status, closed_at IS NOT NULL") == ("cancelled", True)


def test_the_reconciler_leaves_the_audit_nothing_to_do(
    store: Engine, dagster_instance: dg.DagsterInstance, coordinator: Coordinator, works: Works
) -> None:
    for event in (DagsterEventType.RUN_SUCCESS, DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED):
        report(dagster_instance, started_run(dagster_instance), event)
    working, cancelled = started_run(dagster_instance), queued_run(dagster_instance)
    works(working)
    started_run(dagster_instance)
    cursor = rounds(store, dagster_instance, 0, 1)
    cancel_by_run_centre(store, cancelled)
    rounds(store, dagster_instance, 31, 36, cursor=cursor)
    assert coordinator.cancelled == [cancelled]
    assert audit(store, dagster_instance, BEGINNING, NO_TIME) == []
    assert rows(store, "SELECT run_id FROM task_runs WHERE closed_at IS NULL") == [(working,)]


def test_task_runs_that_retention_removed_are_not_made_again(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = started_run(dagster_instance)
    report(dagster_instance, run_id, DagsterEventType.RUN_SUCCESS)
    assert audit(store, dagster_instance, utc_now() + timedelta(days=1), NO_TIME) == []
    assert task_run(store, run_id) is None


def test_more_runs_than_a_page_holds_are_all_audited(
    store: Engine, dagster_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    runs = {queued_run(dagster_instance) for _ in range(5)}
    assert {repair.run_id for repair in audit(store, dagster_instance, BEGINNING, NO_TIME)} == runs


def test_a_worker_that_shows_itself_while_the_audit_waits_is_not_buried(
    store: Engine, dagster_instance: dg.DagsterInstance, works: Works
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    # The first second of waiting is over when the worker has its connection again.
    found = audit(store, dagster_instance, BEGINNING, timedelta(seconds=30), sleep=lambda _: works(run_id))
    assert found == []
    assert task_run(store, run_id) == "running"


def test_a_run_without_a_worker_is_buried_after_half_a_minute_of_looking(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    waited: list[float] = []
    repairs = audit(store, dagster_instance, BEGINNING, sleep=waited.append)
    assert waited == [1] * 30
    assert repairs == [Repair(run_id, "was running; now failed")]


def test_a_start_that_nobody_told_is_repaired(
    store: Engine, dagster_instance: dg.DagsterInstance, works: Works
) -> None:
    run_id = queued_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    report(dagster_instance, run_id, DagsterEventType.RUN_START)
    works(run_id)
    assert audit(store, dagster_instance, BEGINNING, NO_TIME) == [Repair(run_id, "was pending; now running")]
