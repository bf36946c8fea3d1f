"""`whalefall-capacity runs`: what ran, item by item, and stopping it."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.summary import Extension, Metric, TaskSummary
from whalefall_capacity.store.task_runs.write import (
    Item,
    ItemType,
    ItemUpdate,
    NewTaskRun,
    RunEnd,
    close_task_run,
    declare_items,
    insert_task_run,
    lock_task_run,
    start_task_run,
    update_items,
)
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import PostgresqlServer

RUN_ID = "4caf4f59-e1c1-4235-9a6d-8e5f84b8c8f9"
NOW = datetime(2026, 6, 1, 3, 0, tzinfo=timezone.utc)


@pytest.fixture
def running(store: Engine) -> str:
    """A task run that works on two servers; one of them is done."""
    summary = TaskSummary(ext=Extension(type="sync_databases")).with_metrics(
        Metric(key="databases", label="Databases measured", value=7)
    )
    with store.begin() as connection:
        new = NewTaskRun(RUN_ID, "sync_databases", "Collect sizes of 2026-06-01", "capacity", "manual", summary)
        insert_task_run(connection, new)
        start_task_run(connection, RUN_ID, NOW)
        lock_task_run(connection, RUN_ID)
        declare_items(
            connection,
            RUN_ID,
            [Item(ItemType.COLLECTION, "1", "shop", 1), Item(ItemType.COLLECTION, "2", "crm [red]", 2)],
        )
        done = ItemUpdate(ItemType.COLLECTION, "1", Status.COMPLETED, NOW, NOW, metrics={"databases": 7})
        update_items(connection, RUN_ID, [done])
    return RUN_ID


def end(store: Engine, status: Status, error: str | None = None) -> None:
    with store.begin() as connection:
        task_run = lock_task_run(connection, RUN_ID)
        assert task_run is not None
        close_task_run(connection, task_run, RunEnd(status, NOW, error), NOW)


def test_a_list_shows_how_far_each_run_is(whalefall: CommandLine, running: str) -> None:
    (run,) = whalefall("runs", "list", "--json").json
    assert run["run_id"] == running
    assert (run["status"], run["progress_completed"], run["progress_total"]) == ("running", 1, 2)
    assert "Collect sizes of 2026-06-01" in whalefall("runs", "list").out


@pytest.mark.usefixtures("running")
def test_a_list_can_be_of_one_status(whalefall: CommandLine) -> None:
    assert whalefall("runs", "list", "--status", "failed", "--json").json == []
    refused = whalefall("runs", "list", "--status", "done")
    assert refused.status == 2
    assert "completed_with_errors" in refused.err


def test_a_run_is_shown_with_its_items_by_the_beginning_of_its_id(whalefall: CommandLine, running: str) -> None:
    shown = whalefall("runs", "show", running[:8])
    assert shown.status == 0
    assert "databases measured" in shown.out
    assert "crm [red]" in shown.out
    run, *items = whalefall("runs", "show", running, "--json").json
    assert run["task_key"] == "sync_databases"
    assert [(item["item_name"], item["status"]) for item in items] == [("crm [red]", "pending"), ("shop", "completed")]


def test_no_id_is_not_the_beginning_of_the_only_run(whalefall: CommandLine, running: str) -> None:
    done = whalefall("runs", "cancel", "")
    assert (done.status, done.err) == (
        1,
        "error: an empty run id matches no task run; `whalefall-capacity runs list` shows them\n",
    )
    assert whalefall("runs", "show", running, "--json").json[0]["status"] == "running"


def test_a_run_that_is_not_there_fails_the_command(whalefall: CommandLine) -> None:
    for command in ("show", "cancel", "watch"):
        done = whalefall("runs", command, "nobody")
        assert done.status == 1
        assert "nobody matches no task run; `whalefall-capacity runs list` shows them" in done.err


def test_a_cancel_is_written_once(whalefall: CommandLine, store: Engine, running: str) -> None:
    assert "is cancelled" in whalefall("runs", "cancel", running).out
    assert "has already ended: cancelled" in whalefall("runs", "cancel", running).out
    with store.connect() as connection:
        assert connection.execute(text("SELECT status FROM task_runs")).scalar() == "cancelled"


@pytest.mark.parametrize(
    ("status", "exit_status", "final"),
    [(Status.COMPLETED, 1, "completed_with_errors"), (Status.FAILED, 1, "failed"), (Status.CANCELLED, 1, "cancelled")],
)
def test_watching_a_run_ends_with_it_and_tells_how(
    whalefall: CommandLine, store: Engine, running: str, status: Status, exit_status: int, final: str
) -> None:
    end(store, status, "the disk is full" if status is Status.FAILED else None)
    watched = whalefall("runs", "watch", running)
    assert watched.status == exit_status
    assert "completed  collection            shop" in watched.err
    assert f"run {running} is {final}" in watched.err


def test_the_task_run_of_a_command_is_complete_when_it_returns(
    whalefall: CommandLine, store: Engine, postgresql: PostgresqlServer
) -> None:
    register(store, entry("shop", postgresql.target()), refusing("gone"))
    assert whalefall("collect").status == 1
    (run,) = whalefall("runs", "list", "--json").json
    assert (run["status"], run["progress_total"], run["progress_completed"], run["progress_failed"]) == (
        "completed_with_errors",
        6,
        5,
        1,
    )
    assert whalefall("runs", "watch", run["run_id"]).status == 1
    # Dagster's storage is shared with other tests, whose runs this store has never seen.
    assert run["run_id"] not in [repair["run_id"] for repair in whalefall("runs", "audit", "--json").json]


def test_an_audit_says_what_it_repaired(whalefall: CommandLine, store: Engine, postgresql: PostgresqlServer) -> None:
    register(store, entry("shop", postgresql.target()))
    assert whalefall("collect").status == 0
    (run,) = whalefall("runs", "list", "--json").json
    with store.begin() as connection:
        connection.execute(text("DELETE FROM task_runs"))
    repairs = whalefall("runs", "audit", "--json").json
    # Dagster's storage is shared with other tests, whose runs this store has never seen.
    assert {"run_id": run["run_id"], "repair": "had no task run; now completed"} in repairs
