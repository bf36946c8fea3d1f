"""The mirror: whatever state a Dagster run is in, its task run says so, however often and in whatever order one looks.

Runs are brought into each status by the events of Dagster itself, in a real instance; no work is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType, DagsterRunStatus
from sqlalchemy import Engine, text

from whalefall_capacity.mirror import follow as module
from whalefall_capacity.mirror.follow import COMPLETED_DESPITE_CANCEL, failure_text, mirror, new_task_run
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.write import (
    Item,
    ItemType,
    ItemUpdate,
    declare_items,
    insert_task_run,
    lock_task_run,
    update_items,
)
from whalefall_capacity_tests.resources.runs import (
    DAY,
    cancel_by_run_centre,
    item_statuses,
    local_run,
    queued_run,
    report,
    started_run,
    status_of,
    task_run,
)
from whalefall_capacity_tests.store.records import at_once, rows

STARTING, START = DagsterEventType.RUN_STARTING, DagsterEventType.RUN_START
CANCELING, CANCELED = DagsterEventType.RUN_CANCELING, DagsterEventType.RUN_CANCELED
SUCCESS, FAILURE = DagsterEventType.RUN_SUCCESS, DagsterEventType.RUN_FAILURE
HIGHLIGHTS = "summary_json -> 'common' -> 'highlights'"


@pytest.fixture(scope="module")
def dagster_instance() -> Iterator[dg.DagsterInstance]:
    """One instance for all of these tests: each looks at runs of its own."""
    with dg.instance_for_test() as instance:
        yield instance


def put_items(store: Engine, run_id: str, completed: int = 1, pending: int = 1) -> None:
    """Give the task run items, as its work does."""
    with store.begin() as connection:
        keys = [str(key) for key in range(1, completed + pending + 1)]
        lock_task_run(connection, run_id)
        declare_items(connection, run_id, [Item(ItemType.COLLECTION, key, f"instance-{key}", int(key)) for key in keys])
        moves = [ItemUpdate(ItemType.COLLECTION, key, Status.COMPLETED) for key in keys[:completed]]
        update_items(connection, run_id, moves)


def test_a_queued_run_gets_a_pending_task_run(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    tags = DAY | {"dagster/schedule_name": "daily_collection", "whalefall/created_by": "dba"}
    run_id = queued_run(dagster_instance, tags=tags)
    mirror(store, dagster_instance, run_id)
    columns = (
        "status, task_key, task_name, task_category, trigger_source, created_by, result_url, started_at, closed_at"
    )
    assert task_run(store, run_id, columns) == (
        "pending",
        "sync_databases",
        "Collect sizes of 2026-06-22",
        "capacity",
        "scheduled",
        "dba",
        f"http://127.0.0.1:3000/runs/{run_id}",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("events", "status", "is_closed"),
    [
        ([], "pending", False),
        ([STARTING], "pending", False),
        ([STARTING, START], "running", False),
        ([START, CANCELING], "running", False),
        ([STARTING, START, SUCCESS], "completed", True),
        ([START, FAILURE], "failed", True),
        ([START, CANCELING, CANCELED], "cancelled", True),
        ([START, CANCELING, FAILURE], "failed", True),
        ([CANCELED], "cancelled", True),
        ([STARTING, FAILURE], "failed", True),
    ],
)
@pytest.mark.parametrize("seen", ["every", "last"])
def test_the_task_run_says_what_dagster_says_of_the_run(
    store: Engine,
    dagster_instance: dg.DagsterInstance,
    events: list[DagsterEventType],
    status: str,
    is_closed: bool,
    seen: str,
) -> None:
    run_id = queued_run(dagster_instance)
    for event in events:
        if seen == "every":
            mirror(store, dagster_instance, run_id)
        report(dagster_instance, run_id, event)
    mirror(store, dagster_instance, run_id)
    columns = "status, closed_at IS NOT NULL, completed_at IS NOT NULL, started_at IS NOT NULL"
    started = START in events
    assert task_run(store, run_id, columns) == (status, is_closed, is_closed, started)


def test_times_are_those_of_the_run(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    run_id = started_run(dagster_instance)
    report(dagster_instance, run_id, SUCCESS)
    record = dagster_instance.get_run_record_by_id(run_id)
    assert record is not None
    mirror(store, dagster_instance, run_id)
    started_at, completed_at = task_run(store, run_id, "started_at, completed_at")
    assert started_at.timestamp() == pytest.approx(record.start_time, abs=0.001)
    assert completed_at.timestamp() == pytest.approx(record.end_time, abs=0.001)


@pytest.mark.parametrize(
    ("event", "status", "items"),
    [
        (SUCCESS, "completed_with_errors", {"1": "completed", "2": "failed"}),
        (FAILURE, "failed", {"1": "completed", "2": "failed"}),
        (CANCELED, "cancelled", {"1": "completed", "2": "cancelled"}),
    ],
)
def test_at_the_end_of_the_run_no_item_stays_open(
    store: Engine, dagster_instance: dg.DagsterInstance, event: DagsterEventType, status: str, items: dict[str, str]
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    put_items(store, run_id)
    report(dagster_instance, run_id, event)
    mirror(store, dagster_instance, run_id)
    assert task_run(store, run_id) == status
    assert item_statuses(store, run_id) == items


def test_a_task_run_is_closed_once(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    put_items(store, run_id)
    report(dagster_instance, run_id, FAILURE, "the first reason")
    mirror(store, dagster_instance, run_id)
    of_everything = """
        SELECT r.xmin::text, i.xmin::text, r::text, i::text
        FROM task_runs AS r JOIN task_run_items AS i USING (run_id) ORDER BY i.id
    """
    before = rows(store, of_everything)
    mirror(store, dagster_instance, run_id)
    report(dagster_instance, run_id, FAILURE, "the second reason")
    mirror(store, dagster_instance, run_id)
    assert rows(store, of_everything) == before


def test_many_that_mirror_the_same_end_at_once_close_it_once(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = started_run(dagster_instance)
    report(dagster_instance, run_id, SUCCESS)
    at_once(*[lambda: mirror(store, dagster_instance, run_id)] * 8)
    assert rows(store, "SELECT run_id, status FROM task_runs") == [(run_id, "completed")]


def test_whoever_writes_last_has_read_last(
    store: Engine, dagster_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # While one mirror holds the row the run ends; it still sees the end, since it reads after it has locked.
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)

    def lock_and_let_the_run_end(*arguments: Any) -> Any:
        locked = lock_task_run(*arguments)
        report(dagster_instance, run_id, SUCCESS)
        return locked

    monkeypatch.setattr(module, "lock_task_run", lock_and_let_the_run_end)
    mirror(store, dagster_instance, run_id)
    assert task_run(store, run_id) == "completed"


# The run centre


@pytest.mark.parametrize(
    ("event", "dagster_status"),
    [
        (CANCELED, DagsterRunStatus.CANCELED),
        (FAILURE, DagsterRunStatus.FAILURE),
        (SUCCESS, DagsterRunStatus.SUCCESS),
    ],
)
def test_what_the_run_centre_cancelled_is_closed_as_cancelled_however_the_run_ends(
    store: Engine, dagster_instance: dg.DagsterInstance, event: DagsterEventType, dagster_status: DagsterRunStatus
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    put_items(store, run_id)
    cancel_by_run_centre(store, run_id)
    written = task_run(store, run_id, "completed_at")
    mirror(store, dagster_instance, run_id)
    assert task_run(store, run_id, "closed_at") is None
    report(dagster_instance, run_id, event)
    mirror(store, dagster_instance, run_id)
    assert status_of(dagster_instance, run_id) is dagster_status
    assert task_run(store, run_id, "status, completed_at, closed_at IS NOT NULL") == ("cancelled", written, True)
    assert item_statuses(store, run_id) == {"1": "completed", "2": "cancelled"}
    said = [COMPLETED_DESPITE_CANCEL] if dagster_status is DagsterRunStatus.SUCCESS else []
    assert task_run(store, run_id, HIGHLIGHTS) == said


def test_a_cancelled_run_that_dagster_later_calls_a_success_stays_cancelled_and_says_so(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    put_items(store, run_id)
    report(dagster_instance, run_id, CANCELED)
    mirror(store, dagster_instance, run_id)
    assert task_run(store, run_id, HIGHLIGHTS) == []
    report(dagster_instance, run_id, SUCCESS)
    for _ in range(2):
        mirror(store, dagster_instance, run_id)
    assert status_of(dagster_instance, run_id) is DagsterRunStatus.SUCCESS
    assert task_run(store, run_id, f"status, {HIGHLIGHTS}") == (
        "cancelled",
        ["cancelled, but the work had already completed"],
    )
    assert item_statuses(store, run_id) == {"1": "completed", "2": "cancelled"}


@pytest.mark.parametrize("event", [FAILURE, CANCELED])
def test_no_later_status_of_dagster_overturns_a_completed_task_run(
    store: Engine, dagster_instance: dg.DagsterInstance, event: DagsterEventType
) -> None:
    run_id = started_run(dagster_instance)
    report(dagster_instance, run_id, SUCCESS)
    mirror(store, dagster_instance, run_id)
    report(dagster_instance, run_id, event)
    mirror(store, dagster_instance, run_id)
    assert task_run(store, run_id) == "completed"


# Runs that are not there, or not ours


def test_a_run_of_another_code_location_has_no_task_run(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    ours = queued_run(dagster_instance, "anything", location="whalefall_capacity")
    named = queued_run(dagster_instance, "anything", location="whalefall_capacity.definitions")
    # Also when its job has the name of one of ours.
    theirs = queued_run(dagster_instance, "sync_databases", location="finance")
    for run_id in (ours, named, theirs):
        mirror(store, dagster_instance, run_id)
    assert rows(store, "SELECT run_id, task_key FROM task_runs ORDER BY id") == [(ours, "other"), (named, "other")]


def test_a_run_of_the_command_line_is_ours_when_its_job_is(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    jobs = ("sync_databases", "aggregate_weekly", "partition_maintenance", "anything")
    for run_id in [local_run(dagster_instance, job) for job in jobs]:
        mirror(store, dagster_instance, run_id)
    assert rows(store, "SELECT task_key FROM task_runs ORDER BY id") == [
        ("sync_databases",),
        ("calculate_database",),
        ("partition_maintenance",),
    ]


def test_a_run_that_nobody_knows_has_no_task_run(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    mirror(store, dagster_instance, "no such run")
    assert rows(store, "SELECT * FROM task_runs") == []


@pytest.mark.parametrize(("age", "status"), [(55, "pending"), (65, "failed")])
@pytest.mark.real_clock
def test_a_task_run_whose_launch_never_came_is_given_up_after_a_minute(
    store: Engine, dagster_instance: dg.DagsterInstance, age: int, status: str
) -> None:
    run = dg.DagsterRun(job_name="sync_databases")
    with store.begin() as connection:
        insert_task_run(connection, new_task_run(run, load_settings()))
        at = datetime.now(timezone.utc) - timedelta(seconds=age)
        connection.execute(text("UPDATE task_runs SET created_at = :at"), {"at": at})
    mirror(store, dagster_instance, run.run_id)
    assert task_run(store, run.run_id) == status
    if status == "failed":
        assert task_run(store, run.run_id, "error_message, closed_at IS NOT NULL, started_at") == (
            "Dagster has no run with this id: it was never launched, or was deleted",
            True,
            None,
        )


def test_a_closed_task_run_stays_as_it_is_when_dagster_has_forgotten_its_run(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = started_run(dagster_instance)
    report(dagster_instance, run_id, SUCCESS)
    mirror(store, dagster_instance, run_id)
    with store.begin() as connection:
        connection.execute(text("UPDATE task_runs SET created_at = created_at - interval '100 days'"))
    dagster_instance.delete_run(run_id)
    mirror(store, dagster_instance, run_id)
    assert task_run(store, run_id) == "completed"


# Why a run failed


def execute(instance: dg.DagsterInstance, *ops: dg.OpDefinition) -> str:
    """Execute a job of *ops*, one after the other, which fails, and return the id of the run."""

    @dg.job
    def failing() -> None:
        for op in ops:
            op()

    return str(failing.execute_in_process(instance=instance, raise_on_error=False).run_id)


def test_a_failed_run_gives_the_innermost_cause_of_its_first_failed_step(dagster_instance: dg.DagsterInstance) -> None:
    @dg.op
    def first() -> None:
        try:
            try:
                raise OSError("no space left on device")
            except OSError as error:
                raise ValueError("the file cannot be written") from error
        except ValueError as error:
            raise RuntimeError("the work failed") from error

    @dg.op
    def second() -> None:
        raise KeyError("also wrong")

    run_id = execute(dagster_instance, first, second)
    assert failure_text(dagster_instance, run_id) == "OSError: no space left on device"


def test_a_failure_that_the_work_described_is_given_in_its_words(dagster_instance: dg.DagsterInstance) -> None:
    @dg.op
    def describes() -> None:
        raise dg.Failure("nothing is stored for 2026-06-22")

    assert failure_text(dagster_instance, execute(dagster_instance, describes)) == "nothing is stored for 2026-06-22"


def test_a_run_that_failed_without_a_step_gives_what_ended_it(dagster_instance: dg.DagsterInstance) -> None:
    run_id = started_run(dagster_instance)
    assert failure_text(dagster_instance, run_id) == "the run failed; the Dagster UI shows its log"
    run = dagster_instance.get_run_by_id(run_id)
    assert run is not None
    dagster_instance.report_run_failed(run, "the worker is gone")
    assert failure_text(dagster_instance, run_id) == "the worker is gone"


def test_a_failure_text_has_an_end(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    run_id = started_run(dagster_instance)
    run = dagster_instance.get_run_by_id(run_id)
    assert run is not None
    dagster_instance.report_run_failed(run, "x" * 10_000)
    mirror(store, dagster_instance, run_id)
    assert task_run(store, run_id, "error_message") == "x" * 4000


def test_a_failure_text_that_the_store_cannot_hold_does_not_keep_the_task_run_open(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = started_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    put_items(store, run_id, pending=1)
    report(dagster_instance, run_id, FAILURE, "the server said \x00")
    mirror(store, dagster_instance, run_id)
    assert task_run(store, run_id, "status, error_message") == ("failed", "the server said ?")
    assert item_statuses(store, run_id) == {"1": "completed", "2": "failed"}
