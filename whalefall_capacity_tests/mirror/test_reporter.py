"""The reporter: beside the work, never in its way, and nothing of what it heard is lost while the store is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType, DagsterRunStatus
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.mirror import reporter as module
from whalefall_capacity.mirror.follow import mirror
from whalefall_capacity.mirror.reporter import Reporter, Unwritten
from whalefall_capacity.store.postgres.advisory_locks import without_worker
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.summary import Metric
from whalefall_capacity.store.task_runs.write import InstanceItems, Item, ItemType, ItemUpdate
from whalefall_capacity_tests.processes import PATIENCE_SECONDS, wait_for
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
from whalefall_capacity_tests.summaries import check_summaries

T = [datetime(2026, 6, 22, 3, minute, tzinfo=timezone.utc) for minute in range(5)]
COLLECTION = ItemType.COLLECTION
C, F, R = Status.COMPLETED, Status.FAILED, Status.RUNNING
END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
HIGHLIGHTS = "summary_json -> 'common' -> 'highlights'"


@pytest.fixture(scope="module")
def dagster_instance() -> Iterator[dg.DagsterInstance]:
    """One instance for all of these tests: each looks at a run of its own."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def run_id(dagster_instance: dg.DagsterInstance) -> str:
    return started_run(dagster_instance)


def items(*keys: str) -> list[Item]:
    return [Item(COLLECTION, key, f"instance-{key}", int(key)) for key in keys]


def reporter_of(
    store: Engine, instance: dg.DagsterInstance, run_id: str, expected: Sequence[Item | InstanceItems] = ()
) -> Reporter:
    url = SecretStr(store.url.render_as_string(hide_password=False))
    return Reporter(url, instance, run_id, expected)


def move(
    key: str,
    status: Status,
    started_at: datetime | None = None,
    completed_at: datetime | None = None,
    error: str | None = None,
) -> ItemUpdate:
    return ItemUpdate(COLLECTION, key, status, started_at, completed_at, error=error)


# What is noted


@pytest.mark.parametrize(
    ("updates", "left"),
    [
        ([move("1", R, T[0])], move("1", R, T[0])),
        # A later move replaces an earlier one, but work began when it began.
        ([move("1", R, T[0]), move("1", C, T[2], T[3])], move("1", C, T[0], T[3])),
        ([move("1", R, T[0]), move("1", R, T[1])], move("1", R, T[0])),
        ([move("1", R), move("1", C, T[2], T[3])], move("1", C, T[2], T[3])),
        # Nothing replaces the end.
        ([move("1", C, T[0], T[1]), move("1", F, T[2], T[3], error="late")], move("1", C, T[0], T[1])),
        ([move("1", F, T[0], T[1], error="why"), move("1", C, T[2], T[3])], move("1", F, T[0], T[1], error="why")),
        ([move("1", F, T[0], T[1], error="why"), move("1", R, T[2])], move("1", F, T[0], T[1], error="why")),
    ],
)
@pytest.mark.parametrize("written_between", [False, True])
def test_of_the_updates_of_one_item_one_is_left(
    updates: list[ItemUpdate], left: ItemUpdate, written_between: bool
) -> None:
    noted, later = Unwritten(), Unwritten()
    noted.update(updates[0])
    for one in updates[1:]:
        # After a write that failed what was to be written comes before what has been noted since.
        (later if written_between else noted).update(one)
    noted.add(later)
    assert noted.updates == {(COLLECTION, "1"): left}


def test_items_and_changes_stay_in_the_order_in_which_they_were_noted() -> None:
    noted, later = Unwritten(items("1")), Unwritten(items("2", "1"))
    first, second = (lambda summary: summary), (lambda summary: summary)
    noted.summary_changes.append(first)
    later.summary_changes.append(second)
    noted.add(later)
    assert [item.key for item in noted.items] == ["1", "2", "1"]
    assert noted.summary_changes == [first, second]


def test_items_of_different_types_do_not_touch_each_other() -> None:
    noted = Unwritten()
    noted.update(ItemUpdate(ItemType.DATABASE_AGGREGATION, "1", C))
    noted.update(ItemUpdate(ItemType.INSTANCE_AGGREGATION, "1", F))
    assert [one.status for one in noted.updates.values()] == [C, F]


def test_there_is_something_to_write_only_when_something_was_noted() -> None:
    assert not Unwritten()
    assert Unwritten(items("1"))
    noted = Unwritten()
    noted.update(move("1", C))
    assert noted
    assert Unwritten(summary_changes=[lambda summary: summary])


# With the store at hand


def test_what_is_known_before_is_there_when_the_work_begins(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str
) -> None:
    with reporter_of(store, dagster_instance, run_id, items("1", "2")).reporting():
        assert task_run(store, run_id, "status, progress_total") == ("running", 2)
        assert item_statuses(store, run_id) == {"1": "pending", "2": "pending"}


def test_progress_is_written_while_the_work_goes_on(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str
) -> None:
    reporter = reporter_of(store, dagster_instance, run_id, items("1", "2", "3"))
    counts = "progress_total, progress_completed, progress_failed"
    with reporter.reporting():
        reporter.update([move("1", R, T[0]), move("2", R, T[0])])
        wait_for(lambda: list(item_statuses(store, run_id).values()).count("running") == 2, "running items")
        reporter.update([move("1", C, T[0], T[1]), move("2", F, T[0], T[1], error="refused")])
        wait_for(lambda: task_run(store, run_id, counts) == (3, 1, 1), "counters")
        reporter.declare(items("4"))
        wait_for(lambda: task_run(store, run_id, counts) == (4, 1, 1), "another item")
        reporter.change_summary(lambda summary: summary.with_highlight("half of it"))
        wait_for(lambda: task_run(store, run_id, HIGHLIGHTS) == ["half of it"], "highlight")
    assert task_run(store, run_id) == "running"


def test_at_the_end_of_the_block_everything_is_written(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str
) -> None:
    keys = [str(key) for key in range(1, 1001)]
    reporter = reporter_of(store, dagster_instance, run_id)
    with reporter.reporting():
        reporter.declare(items(*keys))
        for key in keys:
            reporter.update([move(key, R, T[0])])
            reporter.update([move(key, C, T[1], T[2])])
        reporter.change_summary(lambda summary: summary.with_metrics(Metric(key="databases", label="D", value=1)))
    assert task_run(store, run_id, "progress_total, progress_completed, progress_failed") == (1000, 1000, 0)
    assert rows(store, "SELECT DISTINCT status, started_at, completed_at FROM task_run_items") == [
        ("completed", T[0], T[2])
    ]
    # A thousand items are not a thousand commits.
    assert rows(store, "SELECT count(DISTINCT xmin::text) FROM task_run_items")[0][0] < 20


def test_an_error_of_the_work_goes_through_and_what_was_noted_before_is_written(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str
) -> None:
    reporter = reporter_of(store, dagster_instance, run_id, items("1"))

    def work() -> None:
        with reporter.reporting():
            reporter.update([move("1", F, T[0], T[1], error="division by zero")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert item_statuses(store, run_id) == {"1": "failed"}


def test_a_run_of_another_code_location_is_left_alone(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    run_id = started_run(dagster_instance, location="finance")
    reporter = reporter_of(store, dagster_instance, run_id, items("1"))
    with reporter.reporting():
        reporter.update([move("1", C)])
    assert rows(store, "SELECT * FROM task_runs") == []


def test_a_lost_session_is_replaced_and_nothing_is_lost_with_it(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.1)
    reporter = reporter_of(store, dagster_instance, run_id, items("1"))
    with reporter.reporting():
        assert rows(store, END_OTHER_SESSIONS) != []
        reporter.update([move("1", C, T[0], T[1])])
        wait_for(lambda: item_statuses(store, run_id) == {"1": "completed"}, "completed item")


def test_reporting_alone_does_not_keep_a_run_alive(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str
) -> None:
    with reporter_of(store, dagster_instance, run_id, items("1")).reporting(), store.connect() as connection:
        assert without_worker(connection, [run_id]) == {run_id}


@pytest.mark.parametrize("poison", ["a NUL \x00 in a message", "half of a character \udce9"])
def test_text_that_the_store_cannot_hold_does_not_cost_what_else_was_noted(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str, poison: str
) -> None:
    reporter = reporter_of(store, dagster_instance, run_id, items("1", "2", "3", "4"))
    with reporter.reporting():
        reporter.update([move("1", C, T[0], T[1]), move("2", F, T[0], T[1], error=poison)])
        reporter.update(
            [ItemUpdate(COLLECTION, "3", C, T[0], T[1], {"missing": {poison: "refused"}}, {"version": poison})]
        )
        reporter.update([move("4", C, T[0], T[1])])
    assert item_statuses(store, run_id) == {"1": "completed", "2": "failed", "3": "completed", "4": "completed"}
    written = poison.replace("\x00", "?").replace("\udce9", "?")
    columns = "error_message, metrics_json, details_json"
    assert rows(store, f"SELECT {columns} FROM task_run_items WHERE item_key IN ('2', '3') ORDER BY id") == [
        (written, None, None),
        (None, {"missing": {written: "refused"}}, {"version": written}),
    ]


# Cancel


def test_nothing_stops_the_work_of_a_run_that_nobody_cancelled(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str
) -> None:
    reporter = reporter_of(store, dagster_instance, run_id)
    with reporter.reporting():
        reporter.raise_if_cancelled()
    assert status_of(dagster_instance, run_id) is DagsterRunStatus.STARTED


def hear(reporter: Reporter) -> None:
    """Work until the cancel is heard."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        reporter.raise_if_cancelled()
        time.sleep(0.02)


def test_a_cancel_of_the_run_centre_stops_the_work_and_dagster_knows_why(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str
) -> None:
    reporter = reporter_of(store, dagster_instance, run_id)
    with reporter.reporting():
        cancel_by_run_centre(store, run_id)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            hear(reporter)
    assert status_of(dagster_instance, run_id) is DagsterRunStatus.CANCELING


def test_a_cancel_while_the_run_was_queued_is_heard_before_the_work_begins(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    run_id = queued_run(dagster_instance)
    mirror(store, dagster_instance, run_id)
    cancel_by_run_centre(store, run_id)
    report(dagster_instance, run_id, DagsterEventType.RUN_START)
    reporter = reporter_of(store, dagster_instance, run_id)
    with reporter.reporting(), pytest.raises(dg.DagsterExecutionInterruptedError):
        reporter.raise_if_cancelled()


@pytest.mark.parametrize("event", [DagsterEventType.RUN_CANCELING, DagsterEventType.RUN_CANCELED])
def test_a_run_that_was_terminated_in_dagster_stops_and_is_reported_no_more(
    store: Engine, dagster_instance: dg.DagsterInstance, run_id: str, event: DagsterEventType
) -> None:
    reporter = reporter_of(store, dagster_instance, run_id)
    with reporter.reporting():
        report(dagster_instance, run_id, event)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            hear(reporter)
    events = dagster_instance.all_logs(run_id, of_type={DagsterEventType.RUN_CANCELING, DagsterEventType.RUN_CANCELED})
    assert [e.dagster_event_type for e in events] == [event]


# With the store away


class OwnStore:
    """A store on a server of its own, which is stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._server = EmbeddedPostgres(folder / "pg")
        self._holding = ExitStack()
        self.start()
        self._server.create_databases("own")
        self.engine = create_store_engine(self._server.url("own"))
        migrate(self.engine)

    def start(self) -> None:
        self._holding.enter_context(self._server.running())

    def stop(self) -> None:
        self._holding.close()


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStore]:
    store = OwnStore(tmp_path_factory.mktemp("own"))
    yield store
    check_summaries(store.engine)
    store.engine.dispose()
    store.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the reporter wait for less long."""
    monkeypatch.setattr(module, "BEGIN_SECONDS", 0.5)
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_store_that_goes_away_in_the_middle_holds_up_nothing_and_is_told_everything(
    own_store: OwnStore, dagster_instance: dg.DagsterInstance, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = own_store.engine
    reporter = reporter_of(store, dagster_instance, run_id, items("1", "2", "3"))
    with reporter.reporting():
        reporter.update([move("1", C, T[0], T[1]), move("2", R, T[1])])
        wait_for(lambda: item_statuses(store, run_id)["2"] == "running", "running item")
        own_store.stop()
        # All of these return while the store is away; it comes back only after them.
        reporter.update([move("2", C, T[2], T[3]), move("3", F, T[2], T[3], error="refused")])
        reporter.declare(items("4"))
        reporter.change_summary(lambda summary: summary.with_highlight("while it was away"))
        reporter.raise_if_cancelled()
        wait_for(lambda: "its task run cannot be written at the moment" in caplog.text, "warning")
        own_store.start()
        wait_for(lambda: item_statuses(store, run_id).get("4") == "pending", "caught up items")
        reporter.update([move("4", C, T[3], T[4])])
    assert task_run(store, run_id, f"status, progress_total, progress_completed, progress_failed, {HIGHLIGHTS}") == (
        "running",
        4,
        3,
        1,
        ["while it was away"],
    )
    of_items = "SELECT status, started_at, completed_at FROM task_run_items WHERE run_id = :r ORDER BY id"
    assert rows(store, of_items, r=run_id) == [
        ("completed", T[0], T[1]),
        ("completed", T[1], T[3]),
        ("failed", T[2], T[3]),
        ("completed", T[3], T[4]),
    ]
    # Told once, not once a second.
    assert caplog.text.count("its task run cannot be written at the moment") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_away_at_the_beginning_is_told_everything_when_it_comes(
    own_store: OwnStore, dagster_instance: dg.DagsterInstance, run_id: str
) -> None:
    store = own_store.engine
    reporter = reporter_of(store, dagster_instance, run_id, items("1", "2"))
    own_store.stop()
    # The work begins while the store is away; it comes back only after that.
    with reporter.reporting():
        reporter.update([move("1", C, T[0], T[1])])
        own_store.start()
        wait_for(lambda: task_run(store, run_id) == "running", "task run")
    assert item_statuses(store, run_id) == {"1": "completed", "2": "pending"}


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_store_that_comes_back_after_the_work_is_still_told_everything(
    own_store: OwnStore, dagster_instance: dg.DagsterInstance, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long the store needs to start.
    monkeypatch.setattr(module, "END_SECONDS", PATIENCE_SECONDS)
    store = own_store.engine
    reporter = reporter_of(store, dagster_instance, run_id, items("1"))
    reporting = reporter.reporting()
    reporting.__enter__()
    own_store.stop()
    reporter.update([move("1", C, T[0], T[1])])
    # The end of the block waits; this thread starts the store meanwhile.
    end = threading.Thread(target=reporting.__exit__, args=(None, None, None))
    end.start()
    end.join(1)
    assert end.is_alive()
    own_store.start()
    end.join(PATIENCE_SECONDS)
    assert not end.is_alive()
    assert item_statuses(store, run_id) == {"1": "completed"}


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_store_that_stays_away_is_given_up_and_the_work_does_not_fail(
    own_store: OwnStore,
    dagster_instance: dg.DagsterInstance,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 1.5)
    store = own_store.engine
    reporter = reporter_of(store, dagster_instance, run_id, items("1"))
    try:
        with reporter.reporting():
            wait_for(lambda: item_statuses(store, run_id) == {"1": "pending"}, "items of the run")
            own_store.stop()
            reporter.update([move("1", C, T[0], T[1])])
            wait_for(lambda: "its task run cannot be written at the moment" in caplog.text, "first warning")
        assert "the outcomes of some items could not be written to the store" in caplog.text
        assert [r.levelno for r in caplog.records if r.name == module.__name__] == [logging.WARNING] * 2
    finally:
        own_store.start()
    assert item_statuses(store, run_id) == {"1": "pending"}
    # Nobody goes on trying.
    wait_for(lambda: f"task-run-{run_id}" not in {thread.name for thread in threading.enumerate()}, "end of the thread")
    wait_for(lambda: rows(store, "SELECT FROM pg_locks WHERE locktype = 'advisory'") == [], "end of its session")
