"""Every way in which a task run and its items may change, and that nothing else changes them.

A terminal status is final for every writer, the counters always equal the items, and what belongs to a terminal task
run is closed once. The last part lets writers race, a thousand times each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from itertools import product
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from whalefall_capacity.mirror.reporter import Unwritten, write_reported
from whalefall_capacity.store.postgres.advisory_locks import hold_liveness, without_worker
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children
from whalefall_capacity.store.task_runs.summary import Extension, Metric, TaskSummary
from whalefall_capacity.store.task_runs.write import (
    UNREPORTED,
    Counts,
    InstanceItems,
    Item,
    ItemType,
    ItemUpdate,
    NewTaskRun,
    RunEnd,
    close_task_run,
    declare_items,
    delete_old_task_runs,
    final_status,
    insert_task_run,
    lock_task_run,
    miscounted,
    not_closed,
    start_task_run,
    task_run_states,
    task_run_status,
    update_items,
    write_summary,
)
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.store.records import rows

RUN = "11111111-1111-1111-1111-111111111111"
STARTED = datetime(2026, 6, 22, 3, 0, tzinfo=timezone.utc)
MOVED = STARTED + timedelta(minutes=1)
ENDED = STARTED + timedelta(minutes=5)
CANCELLED_AT = STARTED + timedelta(minutes=2)
COLLECTION = ItemType.COLLECTION
TERMINAL = [Status.COMPLETED, Status.COMPLETED_WITH_ERRORS, Status.FAILED, Status.CANCELLED]
ITEM_STATES = [Status.PENDING, Status.RUNNING, Status.COMPLETED, Status.FAILED, Status.CANCELLED]
FINAL_ITEM_STATES = ITEM_STATES[2:]
ITEM = (COLLECTION, "1")


def new_run(run_id: str = RUN, task_key: str = "sync_databases") -> NewTaskRun:
    summary = TaskSummary(ext=Extension(type=task_key))
    return NewTaskRun(run_id, task_key, "Collect sizes", "capacity", "manual", summary)


def put_run(store: Engine, status: Status = Status.RUNNING, run_id: str = RUN, completed_at: Any = None) -> None:
    """Leave a task run in *status*."""
    new = NewTaskRun(
        run_id,
        "sync_databases",
        "Collect sizes",
        "capacity",
        "manual",
        TaskSummary(ext=Extension(type="sync_databases")),
    )
    with store.begin() as connection:
        insert_task_run(connection, new)
        values = {"run_id": run_id, "status": status.value, "completed_at": completed_at}
        statement = "UPDATE task_runs SET status = :status, completed_at = :completed_at WHERE run_id = :run_id"
        connection.execute(text(statement), values)


def put_items(store: Engine, *statuses: Status, run_id: str = RUN) -> None:
    """Leave items with keys 1, 2, ... in *statuses*, and the counters that go with them."""
    with store.begin() as connection:
        lock_task_run(connection, run_id)
        declare_items(connection, run_id, items(len(statuses)))
        moves = [
            ItemUpdate(COLLECTION, str(key), status, STARTED, MOVED if status.is_terminal else None)
            for key, status in enumerate(statuses, start=1)
            if status is not Status.PENDING
        ]
        update_items(connection, run_id, moves)


def items(count: int) -> list[Item]:
    return [Item(COLLECTION, str(key), f"instance-{key}", key) for key in range(1, count + 1)]


def move(store: Engine, *moves: ItemUpdate, run_id: str = RUN) -> None:
    with store.begin() as connection:
        lock_task_run(connection, run_id)
        update_items(connection, run_id, moves)


def close(store: Engine, ending: RunEnd, started_at: datetime | None = STARTED, run_id: str = RUN) -> None:
    with store.begin() as connection:
        run = lock_task_run(connection, run_id)
        assert run is not None
        close_task_run(connection, run, ending, started_at)


def item_statuses(store: Engine, run_id: str = RUN) -> list[str]:
    return [
        status
        for (status,) in rows(
            store, "SELECT status FROM task_run_items WHERE run_id = :r ORDER BY item_key::int", r=run_id
        )
    ]


def counters(store: Engine, run_id: str = RUN) -> tuple[int, int, int]:
    """Return total, completed and failed."""
    ((total, completed, failed),) = rows(
        store,
        "SELECT progress_total, progress_completed, progress_failed FROM task_runs WHERE run_id = :r",
        r=run_id,
    )
    return total, completed, failed


def run_row(store: Engine, columns: str, run_id: str = RUN) -> tuple[Any, ...]:
    (row,) = rows(store, f"SELECT {columns} FROM task_runs WHERE run_id = :r", r=run_id)
    return row


def everything(store: Engine) -> list[Any]:
    """Return all rows with the transactions that wrote them: equal lists mean that nothing was touched."""
    return [
        *rows(store, "SELECT xmin::text, r::text FROM task_runs AS r ORDER BY id"),
        *rows(store, "SELECT xmin::text, i::text FROM task_run_items AS i ORDER BY id"),
    ]


def check_counters(store: Engine) -> None:
    with store.connect() as connection:
        assert miscounted(connection) == []


# Items


def test_declared_items_are_pending_and_counted(store: Engine) -> None:
    put_run(store)
    with store.begin() as connection:
        declare_items(connection, RUN, items(3))
    assert rows(
        store, "SELECT item_type, item_key, item_name, instance_id, status FROM task_run_items ORDER BY id"
    ) == [
        ("collection", "1", "instance-1", 1, "pending"),
        ("collection", "2", "instance-2", 2, "pending"),
        ("collection", "3", "instance-3", 3, "pending"),
    ]
    assert counters(store) == (3, 0, 0)


@pytest.mark.parametrize("status", ITEM_STATES)
def test_declaring_an_item_again_leaves_it_as_it_is_and_adds_the_new_one(store: Engine, status: Status) -> None:
    put_run(store)
    put_items(store, status)
    before = rows(store, "SELECT xmin::text, i::text FROM task_run_items AS i")
    with store.begin() as connection:
        declare_items(connection, RUN, [*items(2), *items(2)])
    assert rows(store, "SELECT xmin::text, i::text FROM task_run_items AS i WHERE item_key = '1'") == before
    assert item_statuses(store) == [status.value, "pending"]
    assert counters(store)[0] == 2


def test_the_same_instance_has_an_item_of_each_type(store: Engine) -> None:
    put_run(store)
    with store.begin() as connection:
        declare_items(connection, RUN, [Item(item_type, "1", "instance-1", 1) for item_type in ItemType])
    assert counters(store) == (4, 0, 0)
    move(store, ItemUpdate(ItemType.INSTANCE_AGGREGATION, "1", Status.COMPLETED))
    assert rows(store, "SELECT item_type FROM task_run_items WHERE status = 'completed'") == [("instance_aggregation",)]


WINDOW = (date(2026, 6, 22), date(2026, 6, 28))
FLEET = """
INSERT INTO instances (id, name, db_type, is_active, deleted_at) OVERRIDING SYSTEM VALUE
VALUES (1, 'shop', 'mysql', true, NULL), (2, 'crm', 'mysql', true, NULL), (3, 'idle', 'mysql', false, NULL),
       (4, 'gone', 'mysql', false, now()), (5, 'past', 'mysql', false, now());
INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count, source,
                                 collected_at)
SELECT id, day, 1, 1, 0, 'measured', now()
FROM (VALUES (1, DATE '2026-06-22'), (1, DATE '2026-06-28'), (4, DATE '2026-06-24'), (5, DATE '2026-06-21'),
             (5, DATE '2026-06-29')) AS stored (id, day)
"""


@pytest.mark.parametrize(
    ("choice", "ids"),
    [
        ({}, [1, 2, 4]),
        ({"with_stats": False}, [1, 2]),
        ({"of_fleet": False}, [1, 4]),
        ({"instance_ids": [2, 3]}, [1, 2, 4]),
        ({"instance_ids": [2, 3], "with_stats": False}, [2]),
        ({"instance_ids": [], "with_stats": False}, []),
    ],
)
def test_items_of_instances_are_those_of_the_fleet_and_of_the_stats_of_the_days(
    store: Engine, choice: dict[str, Any], ids: list[int]
) -> None:
    put_run(store)
    with store.begin() as connection:
        ensure_children(connection, STATS_TABLES, WINDOW)
        connection.execute(text(FLEET))
    for _ in range(2):
        with store.begin() as connection:
            lock_task_run(connection, RUN)
            declare_items(connection, RUN, [InstanceItems(COLLECTION, *WINDOW, **choice)])
    names = {1: "shop", 2: "crm", 4: "gone"}
    columns = "item_type, item_key, item_name, instance_id, status"
    assert rows(store, f"SELECT {columns} FROM task_run_items ORDER BY id") == [
        ("collection", str(i), names[i], i, "pending") for i in ids
    ]
    assert counters(store) == (len(ids), 0, 0)


MANY_INSTANCES = """
INSERT INTO instances (name, db_type) SELECT 'i' || number, 'mysql' FROM generate_series(1, 2000) AS number
"""
ITEMS_READ = """
SELECT coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0) FROM pg_stat_xact_user_tables
WHERE relname = 'task_run_items'
"""


def test_a_write_looks_at_the_items_that_move_and_at_no_others(store: Engine) -> None:
    put_run(store)
    with store.begin() as connection:
        connection.execute(text(MANY_INSTANCES))
        lock_task_run(connection, RUN)
        declare_items(connection, RUN, [InstanceItems(item_type, *WINDOW) for item_type in list(ItemType)[:3]])
    moves = [ItemUpdate(COLLECTION, str(key), C if key % 4 else F, STARTED, MOVED) for key in range(1, 9)]
    with store.begin() as connection:
        lock_task_run(connection, RUN)
        update_items(connection, RUN, moves)
        assert connection.execute(text(ITEMS_READ)).scalar_one() <= 16
    assert counters(store) == (6000, 6, 2)
    check_counters(store)


MOVES = [Status.RUNNING, *FINAL_ITEM_STATES]


@pytest.mark.parametrize(("before", "to"), list(product(ITEM_STATES[:2], MOVES)))
def test_an_open_item_moves(store: Engine, before: Status, to: Status) -> None:
    put_run(store)
    put_items(store, before)
    completed_at = MOVED if to.is_terminal else None
    error = "why" if to is Status.FAILED else None
    move(store, ItemUpdate(*ITEM, to, STARTED, completed_at, {"databases": 2}, {"version": "16"}, error))
    assert item_statuses(store) == [to.value]
    expected = {Status.COMPLETED: (1, 1, 0), Status.FAILED: (1, 0, 1), Status.CANCELLED: (1, 0, 1)}
    assert counters(store) == expected.get(to, (1, 0, 0))
    if to.is_terminal:
        columns = "started_at, completed_at, metrics_json, details_json, error_message"
        assert rows(store, f"SELECT {columns} FROM task_run_items") == [
            (STARTED, MOVED, {"databases": 2}, {"version": "16"}, error)
        ]


@pytest.mark.parametrize(("before", "to"), list(product(FINAL_ITEM_STATES, MOVES)))
def test_a_terminal_item_is_moved_by_nobody(store: Engine, before: Status, to: Status) -> None:
    put_run(store)
    put_items(store, before)
    untouched = everything(store)
    move(store, ItemUpdate(*ITEM, to, ENDED, ENDED, {"databases": 9}, {"version": "17"}, "later"))
    assert everything(store) == untouched


def test_starting_a_running_item_again_keeps_its_start(store: Engine) -> None:
    put_run(store)
    put_items(store, Status.RUNNING)
    untouched = everything(store)
    move(store, ItemUpdate(*ITEM, Status.RUNNING, ENDED))
    assert everything(store) == untouched
    move(store, ItemUpdate(*ITEM, Status.COMPLETED, ENDED, ENDED))
    assert rows(store, "SELECT started_at, completed_at FROM task_run_items") == [(STARTED, ENDED)]


def test_a_move_of_an_item_that_was_not_declared_does_nothing(store: Engine) -> None:
    put_run(store)
    put_items(store, Status.PENDING)
    untouched = everything(store)
    move(
        store,
        ItemUpdate(COLLECTION, "2", Status.COMPLETED),
        ItemUpdate(ItemType.TABLE_PARTITION, "1", Status.COMPLETED),
    )
    assert everything(store) == untouched


def test_items_of_another_run_stay_as_they_are(store: Engine) -> None:
    other = RUN.replace("1", "2")
    for run_id in (RUN, other):
        put_run(store, run_id=run_id)
        put_items(store, Status.RUNNING, run_id=run_id)
    move(store, ItemUpdate(*ITEM, Status.COMPLETED))
    close(store, RunEnd(Status.COMPLETED, ENDED))
    assert item_statuses(store, other) == ["running"]
    assert counters(store, other) == (1, 0, 0)


@pytest.mark.parametrize(("before", "to"), [p for p in product(FINAL_ITEM_STATES, ITEM_STATES) if p[0] is not p[1]])
def test_a_trigger_refuses_to_let_an_item_leave_a_terminal_status(store: Engine, before: Status, to: Status) -> None:
    put_run(store)
    put_items(store, before)
    with pytest.raises(IntegrityError, match=f"task_run_items of run {RUN} is {before.value} and cannot become"):
        rows(store, "UPDATE task_run_items SET status = :to RETURNING 1", to=to.value)


# Task runs


def test_a_new_task_run_is_pending_and_is_made_once(store: Engine) -> None:
    put_run(store, Status.PENDING)
    untouched = everything(store)
    with store.begin() as connection:
        insert_task_run(connection, new_run(task_key="other"))
    assert everything(store) == untouched
    assert run_row(store, "status, task_key, started_at, completed_at, closed_at, progress_total") == (
        "pending",
        "sync_databases",
        None,
        None,
        None,
        0,
    )


def test_a_pending_task_run_starts(store: Engine) -> None:
    put_run(store, Status.PENDING)
    with store.begin() as connection:
        start_task_run(connection, RUN, STARTED)
    assert run_row(store, "status, started_at") == ("running", STARTED)


@pytest.mark.parametrize("status", [Status.RUNNING, *TERMINAL])
def test_no_other_task_run_starts(store: Engine, status: Status) -> None:
    put_run(store, status)
    untouched = everything(store)
    with store.begin() as connection:
        start_task_run(connection, RUN, STARTED)
    assert everything(store) == untouched


@pytest.mark.parametrize(("before", "to"), [p for p in product(TERMINAL, Status) if p[0] is not p[1]])
def test_a_trigger_refuses_to_let_a_task_run_leave_a_terminal_status(store: Engine, before: Status, to: Status) -> None:
    put_run(store, before)
    with pytest.raises(IntegrityError, match=f"task_runs of run {RUN} is {before.value} and cannot become {to.value}"):
        rows(store, "UPDATE task_runs SET status = :to RETURNING 1", to=to.value)


@pytest.mark.parametrize("status", TERMINAL)
def test_everything_else_of_a_terminal_task_run_may_still_be_written(store: Engine, status: Status) -> None:
    put_run(store, status)
    with store.begin() as connection:
        connection.execute(text("UPDATE task_runs SET status = status, result_url = 'http://elsewhere'"))
        write_summary(connection, RUN, TaskSummary(ext=Extension(type="sync_databases")).with_highlight("late"))
    assert run_row(store, "status, summary_json -> 'common' -> 'highlights'") == (status.value, ["late"])


@pytest.mark.parametrize(
    ("ending", "completed", "failed", "cancelled", "expected"),
    [
        (Status.COMPLETED, 0, 0, 0, Status.COMPLETED),
        (Status.COMPLETED, 3, 0, 0, Status.COMPLETED),
        (Status.COMPLETED, 2, 1, 0, Status.COMPLETED_WITH_ERRORS),
        (Status.COMPLETED, 2, 0, 1, Status.COMPLETED_WITH_ERRORS),
        (Status.COMPLETED, 0, 3, 0, Status.FAILED),
        (Status.COMPLETED, 0, 2, 1, Status.FAILED),
        (Status.FAILED, 0, 0, 0, Status.FAILED),
        (Status.FAILED, 3, 0, 0, Status.FAILED),
        (Status.FAILED, 2, 1, 0, Status.FAILED),
        (Status.CANCELLED, 0, 0, 0, Status.CANCELLED),
        (Status.CANCELLED, 3, 0, 0, Status.CANCELLED),
        (Status.CANCELLED, 1, 1, 1, Status.CANCELLED),
    ],
)
def test_the_final_status_follows_from_the_ending_and_the_items(
    ending: Status, completed: int, failed: int, cancelled: int, expected: Status
) -> None:
    counts = Counts(completed + failed + cancelled, completed, failed, cancelled)
    assert final_status(ending, counts) is expected


C, F, X, P, R = Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.PENDING, Status.RUNNING
# Before, items before, ending, its error -> status, items, counters, error of the run.
CLOSINGS: list[tuple[Status, Sequence[Status], Status, str | None, str, str, tuple[int, int, int], str | None]] = [
    (R, [C, C], C, None, "completed", "CC", (2, 2, 0), None),
    (P, [C, C], C, None, "completed", "CC", (2, 2, 0), None),
    (R, [C, F], C, None, "completed_with_errors", "CF", (2, 1, 1), None),
    (R, [C, R, P], C, None, "completed_with_errors", "CFF", (3, 1, 2), None),
    (R, [F, F], C, None, "failed", "FF", (2, 0, 2), "all of 2 items failed"),
    (R, [P, R], C, None, "failed", "FF", (2, 0, 2), "all of 2 items failed"),
    (R, [C, F, R, P], F, "boom", "failed", "CFFF", (4, 1, 3), "boom"),
    (P, [P], F, "boom", "failed", "F", (1, 0, 1), "boom"),
    (R, [C, C], F, "boom", "failed", "CC", (2, 2, 0), "boom"),
    (P, [], F, "boom", "failed", "", (0, 0, 0), "boom"),
    (R, [C, F, R, P], X, None, "cancelled", "CFXX", (4, 1, 3), None),
    (P, [P], X, None, "cancelled", "X", (1, 0, 1), None),
    (P, [], X, None, "cancelled", "", (0, 0, 0), None),
    # The run centre had written cancelled.
    (X, [C, F, R, P], X, None, "cancelled", "CFXX", (4, 1, 3), None),
    (X, [C, R, P], C, None, "cancelled", "CXX", (3, 1, 2), None),
    (X, [C, C], C, None, "cancelled", "CC", (2, 2, 0), None),
    (X, [C, R], F, "boom", "cancelled", "CX", (2, 1, 1), "boom"),
    (X, [], X, None, "cancelled", "", (0, 0, 0), None),
    # It writes no other terminal status; should it do so, that stays too.
    (F, [C, R], C, None, "failed", "CF", (2, 1, 1), None),
    (C, [C, R], C, None, "completed", "CF", (2, 1, 1), None),
    (Status.COMPLETED_WITH_ERRORS, [C, R], F, "boom", "completed_with_errors", "CF", (2, 1, 1), "boom"),
]


@pytest.mark.parametrize(("before", "items_before", "ending", "error", "status", "letters", "counts", "said"), CLOSINGS)
def test_closing_a_task_run(
    store: Engine,
    before: Status,
    items_before: Sequence[Status],
    ending: Status,
    error: str | None,
    status: str,
    letters: str,
    counts: tuple[int, int, int],
    said: str | None,
) -> None:
    put_run(store)
    put_items(store, *items_before)
    with store.begin() as connection:
        connection.execute(text("UPDATE task_runs SET status = :status"), {"status": before.value})
    close(store, RunEnd(ending, ENDED, error))
    assert run_row(store, "status, started_at, completed_at, error_message, closed_at IS NOT NULL") == (
        status,
        STARTED,
        ENDED,
        said,
        True,
    )
    assert item_statuses(store) == [{"C": "completed", "F": "failed", "X": "cancelled"}[letter] for letter in letters]
    assert counters(store) == counts
    check_counters(store)


def test_open_items_take_time_and_error_of_the_run_and_finished_ones_keep_theirs(store: Engine) -> None:
    put_run(store)
    put_items(store, Status.PENDING, Status.RUNNING, Status.COMPLETED)
    move(store, ItemUpdate(COLLECTION, "2", Status.RUNNING, MOVED))
    close(store, RunEnd(Status.FAILED, ENDED, "the disk is full"))
    columns = "status, started_at, completed_at, error_message"
    assert rows(store, f"SELECT {columns} FROM task_run_items ORDER BY id") == [
        ("failed", None, ENDED, "the disk is full"),
        ("failed", STARTED, ENDED, "the disk is full"),
        ("completed", STARTED, MOVED, None),
    ]


def test_items_of_which_a_completed_run_said_nothing_say_so(store: Engine) -> None:
    put_run(store)
    put_items(store, Status.COMPLETED, Status.PENDING)
    close(store, RunEnd(Status.COMPLETED, ENDED))
    assert rows(store, "SELECT error_message FROM task_run_items ORDER BY id") == [(None,), (UNREPORTED,)]


def test_a_cancel_by_the_run_centre_keeps_the_time_that_it_wrote(store: Engine) -> None:
    put_run(store, Status.CANCELLED, completed_at=CANCELLED_AT)
    close(store, RunEnd(Status.CANCELLED, ENDED))
    assert run_row(store, "status, completed_at") == ("cancelled", CANCELLED_AT)


def test_a_run_that_never_started_has_no_start(store: Engine) -> None:
    put_run(store, Status.PENDING)
    close(store, RunEnd(Status.CANCELLED, ENDED), started_at=None)
    assert run_row(store, "status, started_at, completed_at") == ("cancelled", None, ENDED)


def test_a_start_that_is_known_stays(store: Engine) -> None:
    put_run(store, Status.PENDING)
    with store.begin() as connection:
        start_task_run(connection, RUN, STARTED)
    close(store, RunEnd(Status.COMPLETED, ENDED), started_at=MOVED)
    assert run_row(store, "started_at") == (STARTED,)


def test_a_run_with_nothing_to_do_is_completed_and_skipped(store: Engine) -> None:
    put_run(store)
    close(store, RunEnd(Status.COMPLETED, ENDED))
    assert run_row(store, "status, summary_json -> 'common' -> 'flags'") == (
        "completed",
        {"skipped": True, "skip_reason": "there was nothing to do"},
    )


def test_the_reason_that_the_work_gave_for_having_nothing_to_do_stays(store: Engine) -> None:
    put_run(store)
    with store.begin() as connection:
        summary = TaskSummary(ext=Extension(type="sync_databases")).as_skipped("nobody is active")
        write_summary(connection, RUN, summary)
    close(store, RunEnd(Status.COMPLETED, ENDED))
    assert run_row(store, "summary_json -> 'common' -> 'flags' ->> 'skip_reason'") == ("nobody is active",)


@pytest.mark.parametrize("ending", [Status.FAILED, Status.CANCELLED])
def test_a_run_that_failed_or_was_cancelled_before_it_had_items_was_not_skipped(store: Engine, ending: Status) -> None:
    put_run(store)
    close(store, RunEnd(ending, ENDED, "boom"))
    assert run_row(store, "summary_json -> 'common' -> 'flags' -> 'skipped'") == (False,)


def test_the_summary_ends_with_the_counts_of_the_items_and_keeps_what_the_work_said(store: Engine) -> None:
    put_run(store)
    put_items(store, Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    with store.begin() as connection:
        summary = TaskSummary(ext=Extension(type="sync_databases"))
        write_summary(connection, RUN, summary.with_metrics(Metric(key="databases", label="Databases", value=7)))
    close(store, RunEnd(Status.COMPLETED, ENDED))
    assert run_row(store, "summary_json -> 'common' -> 'metrics'") == (
        [
            {"key": "databases", "label": "Databases", "value": 7},
            {"key": "items_total", "label": "Items", "value": 3},
            {"key": "items_completed", "label": "Completed", "value": 1},
            {"key": "items_failed", "label": "Failed", "value": 1, "tone": "danger"},
            {"key": "items_cancelled", "label": "Cancelled", "value": 1},
        ],
    )


@pytest.mark.parametrize("ending", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_second_closing_overturns_nothing(store: Engine, ending: Status) -> None:
    put_run(store)
    put_items(store, Status.COMPLETED, Status.FAILED, Status.RUNNING)
    close(store, RunEnd(Status.CANCELLED, ENDED, "stopped"))
    columns = "status, started_at, completed_at, error_message, summary_json"
    before = run_row(store, columns), counters(store), rows(store, "SELECT xmin::text FROM task_run_items ORDER BY id")
    close(store, RunEnd(ending, ENDED + timedelta(hours=1), "another reason"), started_at=ENDED)
    after = run_row(store, columns), counters(store), rows(store, "SELECT xmin::text FROM task_run_items ORDER BY id")
    assert after == before


@pytest.mark.parametrize("ending", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_after_the_end_an_orphaned_worker_changes_nothing(store: Engine, ending: Status) -> None:
    put_run(store)
    put_items(store, Status.RUNNING)
    close(store, RunEnd(ending, ENDED, "boom"))
    untouched = everything(store)
    noted = Unwritten()
    noted.items += items(5)
    noted.update(ItemUpdate(*ITEM, Status.COMPLETED, ENDED, ENDED))
    noted.summary_changes.append(lambda summary: summary.with_highlight("still here"))
    with store.begin() as connection:
        write_reported(connection, RUN, noted)
    assert everything(store) == untouched


def test_between_the_cancel_of_the_run_centre_and_the_end_the_work_still_reports(store: Engine) -> None:
    put_run(store, Status.CANCELLED)
    put_items(store, Status.RUNNING)
    noted = Unwritten()
    noted.update(ItemUpdate(*ITEM, Status.COMPLETED, STARTED, MOVED))
    with store.begin() as connection:
        write_reported(connection, RUN, noted)
    assert item_statuses(store) == ["completed"]
    assert counters(store) == (1, 1, 0)


def test_nothing_is_written_of_a_run_without_a_task_run(store: Engine) -> None:
    noted = Unwritten()
    noted.items += items(1)
    with store.begin() as connection:
        write_reported(connection, RUN, noted)
    assert everything(store) == []


# Looking things up


def test_states_and_lists_of_open_and_cancelled_runs(store: Engine) -> None:
    ids = [RUN.replace("1", digit) for digit in "12345"]
    for run_id, status in zip(ids, [P, R, X, X, C], strict=True):
        put_run(store, status, run_id)
    for run_id in ids[3:]:
        close(store, RunEnd(Status.COMPLETED, ENDED), run_id=run_id)
    with store.connect() as connection:
        assert task_run_states(connection) == {
            ids[0]: (P, False),
            ids[1]: (R, False),
            ids[2]: (X, False),
            ids[3]: (X, True),
            ids[4]: (C, True),
        }
        assert not_closed(connection) == {ids[0]: P, ids[1]: R, ids[2]: X}
        assert task_run_status(connection, ids[2]) is X
        assert task_run_status(connection, "unknown") is None
        assert lock_task_run(connection, "unknown") is None


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE task_runs SET progress_total = 4",
        "UPDATE task_runs SET progress_completed = 0",
        "UPDATE task_runs SET progress_failed = 1",
        "DELETE FROM task_run_items WHERE status = 'completed'",
        "DELETE FROM task_run_items",
        "UPDATE task_run_items SET status = 'failed' WHERE status = 'pending'",
    ],
)
def test_counters_that_differ_from_the_items_are_found(store: Engine, damage: str) -> None:
    put_run(store)
    put_items(store, C, F, X, P, R)
    other = RUN.replace("1", "2")
    check_counters(store)
    with store.begin() as connection:
        connection.execute(text(damage))
    put_run(store, run_id=other)
    with store.connect() as connection:
        assert miscounted(connection) == [RUN]


# Liveness


@contextmanager
def working(store: Engine, run_id: str = RUN) -> Iterator[int]:
    """Hold the liveness lock of a run in a session of its own, and yield its process id."""
    connection = store.connect()
    try:
        hold_liveness(connection, run_id)
        connection.commit()
        yield int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    finally:
        # The pool would keep the session, and with it the lock.
        connection.invalidate()
        connection.close()


def is_dead(store: Engine, run_id: str = RUN) -> bool:
    with store.connect() as connection:
        return without_worker(connection, [run_id]) == {run_id}


def test_a_run_has_a_worker_as_long_as_one_session_shows_it(store: Engine) -> None:
    assert is_dead(store)
    with working(store):
        with working(store):
            assert not is_dead(store)
        assert not is_dead(store)
    wait_for(lambda: is_dead(store), "end of the session")


def test_a_worker_whose_session_is_lost_works_no_more(store: Engine) -> None:
    with working(store) as pid:
        rows(store, "SELECT pg_terminate_backend(:pid, 5000)", pid=pid)
        assert is_dead(store)


def test_the_worker_of_one_run_is_not_that_of_another(store: Engine) -> None:
    ids = [f"{n:036d}" for n in range(50)]
    with working(store, ids[7]), working(store, ids[31]), store.connect() as connection:
        assert without_worker(connection, ids) == set(ids) - {ids[7], ids[31]}
        assert without_worker(connection, []) == set()


def test_a_worker_of_the_same_run_in_another_store_does_not_count(store: Engine, empty_database: str) -> None:
    other = create_store_engine(SecretStr(empty_database))
    with working(other):
        assert is_dead(store)
        assert not is_dead(other)
    other.dispose()


# Retention


def test_old_closed_task_runs_go_in_batches_with_their_items_and_open_ones_stay(store: Engine) -> None:
    ids = [f"{n:036d}" for n in range(6)]
    for run_id in ids:
        put_run(store, run_id=run_id)
        put_items(store, C, C, run_id=run_id)
        if run_id != ids[1]:
            close(store, RunEnd(Status.COMPLETED, ENDED), run_id=run_id)
    before = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with store.begin() as connection:
        for age, run_id in enumerate(reversed(ids)):
            # The last is as old as the limit, which is not older.
            values = {"at": before - timedelta(days=age), "run_id": run_id}
            connection.execute(text("UPDATE task_runs SET created_at = :at WHERE run_id = :run_id"), values)

    def delete(batch: int) -> int:
        return delete_old_task_runs(store, batch, before)

    def left() -> list[str]:
        return [run_id for (run_id,) in rows(store, "SELECT run_id FROM task_runs ORDER BY run_id")]

    assert delete(2) == 2
    assert left() == [ids[1], ids[3], ids[4], ids[5]]
    assert delete(10) == 2
    assert left() == [ids[1], ids[5]]
    assert delete(10) == 0
    assert rows(store, "SELECT run_id, count(*) FROM task_run_items GROUP BY 1 ORDER BY 1") == [
        (ids[1], 2),
        (ids[5], 2),
    ]


# Races


ROUNDS = 1000
WATCH = """
CREATE TABLE changes (what text, before text, after text);
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes VALUES (TG_TABLE_NAME, OLD.status, NEW.status);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_change AFTER UPDATE ON task_runs FOR EACH ROW
WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note_change();
CREATE TRIGGER note_change AFTER UPDATE ON task_run_items FOR EACH ROW
WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note_change();
"""


@contextmanager
def watching(store: Engine) -> Iterator[None]:
    """Look on from beside: counters must equal the items at every moment, and no terminal status is ever left."""
    with store.begin() as connection:
        connection.execute(text(WATCH))
    over = threading.Event()
    looks: list[list[str]] = []

    def look() -> None:
        with store.connect() as connection:
            while not over.is_set():
                looks.append(miscounted(connection))
                connection.rollback()

    observer = threading.Thread(target=look)
    observer.start()
    try:
        yield
    finally:
        over.set()
        observer.join()
    assert len(looks) > 10
    assert [look for look in looks if look] == []
    check_counters(store)
    overturned = "SELECT * FROM changes WHERE before NOT IN ('pending', 'running')"
    assert rows(store, overturned) == []


def race(*racers: Callable[[int], Any]) -> None:
    """Let *racers* run for each round at the same moment."""
    line = threading.Barrier(len(racers), timeout=60)

    def laps(racer: Callable[[int], Any]) -> None:
        try:
            for number in range(ROUNDS):
                line.wait()
                racer(number)
        except BaseException:
            line.abort()
            raise

    with ThreadPoolExecutor(len(racers)) as threads:
        for future in [threads.submit(laps, racer) for racer in racers]:
            future.result()


@pytest.mark.slow
def test_two_writers_that_race_for_one_item_leave_what_the_first_wrote(store: Engine) -> None:
    put_run(store)
    put_items(store, *[Status.RUNNING] * ROUNDS)

    def writer(status: Status) -> Callable[[int], None]:
        return lambda number: move(
            store, ItemUpdate(COLLECTION, str(number + 1), status, STARTED, ENDED, error=status.value)
        )

    with watching(store):
        race(writer(Status.COMPLETED), writer(Status.FAILED))
    changes = rows(store, "SELECT what, before, after, count(*) FROM changes GROUP BY 1, 2, 3 ORDER BY 3")
    assert [change[:3] for change in changes] == [
        ("task_run_items", "running", "completed"),
        ("task_run_items", "running", "failed"),
    ]
    assert sum(change[3] for change in changes) == ROUNDS
    # Status and what belongs to it are of the same writer.
    assert rows(store, "SELECT count(*) FROM task_run_items WHERE status <> error_message") == [(0,)]
    assert counters(store) == (ROUNDS, changes[0][3], changes[1][3])


@pytest.mark.slow
def test_a_cancel_that_races_with_the_end_leaves_one_of_them_whole(store: Engine) -> None:
    ids = [f"{n:036d}" for n in range(ROUNDS)]
    with store.begin() as connection:
        for run_id in ids:
            insert_task_run(connection, new_run(run_id))
            declare_items(connection, run_id, items(3))
            update_items(connection, run_id, [ItemUpdate(COLLECTION, "1", C), ItemUpdate(COLLECTION, "2", R, STARTED)])
            start_task_run(connection, run_id, STARTED)
    refused = []

    def cancel(number: int) -> None:
        try:
            with store.begin() as connection:
                statement = "UPDATE task_runs SET status = 'cancelled' WHERE run_id = :run_id"
                connection.execute(text(statement), {"run_id": ids[number]})
        except IntegrityError:
            refused.append(ids[number])

    def finish(number: int) -> None:
        close(store, RunEnd(Status.COMPLETED, ENDED), run_id=ids[number])

    def work(number: int) -> None:
        noted = Unwritten()
        noted.update(ItemUpdate(COLLECTION, "2", C, STARTED, MOVED))
        with store.begin() as connection:
            write_reported(connection, ids[number], noted)

    with watching(store):
        race(cancel, finish, work)
    ended = "SELECT run_id FROM task_runs WHERE status = 'completed_with_errors' ORDER BY 1"
    assert [run_id for (run_id,) in rows(store, ended)] == sorted(refused)
    assert 0 < len(refused) < ROUNDS
    left = "SELECT DISTINCT status, closed_at IS NOT NULL FROM task_runs ORDER BY 1"
    assert rows(store, left) == [("cancelled", True), ("completed_with_errors", True)]
    # What was open at the end became what the run became; the other items are as the work left them.
    of_items = """
        SELECT DISTINCT r.status, i.item_key, i.status FROM task_runs AS r JOIN task_run_items AS i USING (run_id)
        WHERE item_key IN ('1', '3') ORDER BY 1, 2
    """
    assert rows(store, of_items) == [
        ("cancelled", "1", "completed"),
        ("cancelled", "3", "cancelled"),
        ("completed_with_errors", "1", "completed"),
        ("completed_with_errors", "3", "failed"),
    ]
