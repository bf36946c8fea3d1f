"""Lines about runs in the terminal of `up` and `demo`: a line when one starts, a line when it ends."""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.commands.run_lines import RunLines, run_lines_shown
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.summary import Extension, TaskSummary
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
from whalefall_capacity_tests.processes import wait_for

SHANGHAI = ZoneInfo("Asia/Shanghai")
FIRST = "11111111-1111-1111-1111-111111111111"
SECOND = "22222222-2222-2222-2222-222222222222"
STARTED = datetime(2026, 6, 22, 3, 0, 0, tzinfo=timezone.utc)
ENDED = datetime(2026, 6, 22, 3, 0, 12, tzinfo=timezone.utc)


def queue(store: Engine, run_id: str) -> None:
    summary = TaskSummary(ext=Extension(type="sync_databases"))
    with store.begin() as connection:
        insert_task_run(
            connection,
            NewTaskRun(run_id, "sync_databases", "Collect sizes of 2026-06-22", "capacity", "scheduled", summary),
        )


def start(store: Engine, run_id: str) -> None:
    """Let the run start with two items, of which it completes one."""
    queue(store, run_id)
    with store.begin() as connection:
        lock_task_run(connection, run_id)
        start_task_run(connection, run_id, STARTED)
        items = [Item(ItemType.COLLECTION, key, f"instance-{key}", int(key)) for key in ("1", "2")]
        declare_items(connection, run_id, items)
        update_items(connection, run_id, [ItemUpdate(ItemType.COLLECTION, "1", Status.COMPLETED, STARTED, ENDED)])


def end(store: Engine, run_id: str, status: Status, error: str | None = None, started: bool = True) -> None:
    with store.begin() as connection:
        run = lock_task_run(connection, run_id)
        assert run is not None
        close_task_run(connection, run, RunEnd(status, ENDED, error), STARTED if started else None)


def test_a_run_is_one_line_when_it_starts_and_one_when_it_ends(store: Engine) -> None:
    lines = RunLines(store, SHANGHAI)
    assert lines.new() == []
    queue(store, FIRST)
    assert lines.new() == []
    start(store, FIRST)
    assert lines.new() == ["2026-06-22 11:00:00 Collect sizes of 2026-06-22: started (scheduled, run 11111111)"]
    assert lines.new() == []
    end(store, FIRST, Status.COMPLETED)
    assert lines.new() == [
        "2026-06-22 11:00:12 Collect sizes of 2026-06-22: completed with errors after 12 s, 1 of 2 items done "
        "(scheduled, run 11111111)"
    ]
    assert lines.new() == []


def test_a_run_whose_worker_died_ends_with_the_first_line_of_its_error(store: Engine) -> None:
    lines = RunLines(store, SHANGHAI)
    start(store, FIRST)
    lines.new()
    end(store, FIRST, Status.FAILED, "the worker is gone\nTraceback: …")
    assert lines.new() == [
        "2026-06-22 11:00:12 Collect sizes of 2026-06-22: failed after 12 s, 1 of 2 items done: the worker is gone "
        "(scheduled, run 11111111)"
    ]


def test_a_run_that_came_and_went_between_two_looks_has_both_lines(store: Engine) -> None:
    lines = RunLines(store, SHANGHAI)
    start(store, FIRST)
    end(store, FIRST, Status.FAILED, "no")
    assert [line.partition(": ")[2].split()[0] for line in lines.new()] == ["started", "failed"]


def test_a_run_that_was_cancelled_in_the_queue_has_only_an_end(store: Engine) -> None:
    lines = RunLines(store, SHANGHAI)
    queue(store, FIRST)
    end(store, FIRST, Status.CANCELLED, started=False)
    assert lines.new() == ["2026-06-22 11:00:12 Collect sizes of 2026-06-22: cancelled (scheduled, run 11111111)"]


def test_a_run_that_works_for_hours_still_has_its_end(store: Engine) -> None:
    lines = RunLines(store, SHANGHAI)
    start(store, FIRST)
    lines.new()
    with store.begin() as connection:
        connection.execute(text("UPDATE task_runs SET created_at = now() - interval '5 hours'"))
    assert lines.new() == []
    end(store, FIRST, Status.FAILED, "no")
    assert len(lines.new()) == 1


def test_what_happened_before_is_not_told_but_the_end_of_what_still_runs(store: Engine) -> None:
    start(store, FIRST)
    end(store, FIRST, Status.FAILED, "no")
    start(store, SECOND)
    lines = RunLines(store, SHANGHAI)
    assert lines.new() == []
    end(store, SECOND, Status.FAILED, "no")
    (line,) = lines.new()
    assert line.endswith("(scheduled, run 22222222)")


def test_lines_are_printed_while_the_block_lasts_and_the_last_ones_at_its_end(
    store: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = ""

    def started() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return "started" in printed

    with run_lines_shown(store, SHANGHAI):
        start(store, FIRST)
        wait_for(started, "line of the start")
        end(store, FIRST, Status.FAILED, "no")
    assert "failed after 12 s" in capsys.readouterr().out


def test_a_store_that_does_not_answer_is_said_once(
    store: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whalefall_capacity.commands.run_lines.POLL_SECONDS", 0.01)
    printed = ""

    def said() -> bool:
        nonlocal printed
        printed += capsys.readouterr().err
        return "runs will not be shown until the store answers" in printed

    with run_lines_shown(store, SHANGHAI):
        with store.begin() as connection:
            connection.execute(text("ALTER TABLE task_runs RENAME TO hidden"))
        wait_for(said, "message")
        with store.begin() as connection:
            connection.execute(text("ALTER TABLE hidden RENAME TO task_runs"))
        start(store, FIRST)
        wait_for(lambda: "started" in capsys.readouterr().out, "line of the start")
    assert printed.count("runs will not be shown") == 1
