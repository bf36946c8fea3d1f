"""Failed runs that somebody should know of: until what failed in them was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.task_runs.attention import failed_runs
from whalefall_capacity.store.task_runs.summary import Extension, TaskSummary, summary_of_days

# What ended long ago, by the clock of the store, is not shown.
pytestmark = pytest.mark.real_clock

MONDAY, TUESDAY, WEDNESDAY = date(2026, 6, 22), date(2026, 6, 23), date(2026, 6, 24)
LEVELS = ("database", "instance")
RUN = """
INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, summary_json, created_at,
                       completed_at, closed_at)
VALUES (:run_id, :task_key, :task_key, 'capacity', 'scheduled', :status, CAST(:summary AS jsonb), :at, :at, :at)
"""
ITEM = """
INSERT INTO task_run_items (run_id, item_type, item_key, item_name, status)
VALUES (:run_id, 'collection', :key, 'server', :status)
"""


class Runs:
    """The runs of a store, each an hour after the one before."""

    def __init__(self, store: Engine) -> None:
        self._store = store
        self._at = datetime.now(timezone.utc) - timedelta(days=1)

    def put(self, run_id: str, status: str, summary: TaskSummary, items: Mapping[int, str] | None = None) -> None:
        """Leave a run with items, whose keys and statuses are given."""
        self._at += timedelta(hours=1)
        values = {"run_id": run_id, "status": status, "at": self._at, "task_key": summary.ext.type}
        with self._store.begin() as connection:
            connection.execute(text(RUN), values | {"summary": summary.model_dump_json()})
            for key, item_status in (items or {}).items():
                connection.execute(text(ITEM), {"run_id": run_id, "key": str(key), "status": item_status})

    def collect(
        self,
        run_id: str,
        status: str,
        items: Mapping[int, str] | None = None,
        days: tuple[date, date] = (MONDAY, MONDAY),
        instance_ids: Sequence[int] | None = None,
    ) -> None:
        """Leave a collection of the fleet, or of some of its servers."""
        summary = summary_of_days(
            "sync_databases", "Asia/Shanghai", days=days, instance_ids=instance_ids, levels=LEVELS, period_type="daily"
        )
        self.put(run_id, status, summary, items)

    @property
    def shown(self) -> list[str]:
        return [run.run_id for run in failed_runs(self._store, 10)]


@pytest.fixture
def runs(store: Engine) -> Runs:
    return Runs(store)


def test_a_completed_run_of_one_server_leaves_the_failed_run_of_the_fleet(runs: Runs) -> None:
    runs.collect("fleet", "failed", {1: "failed", 2: "failed"})
    runs.collect("one", "completed", {1: "completed"}, instance_ids=[1])
    assert runs.shown == ["fleet"]


def test_a_failed_run_of_the_fleet_before_its_first_visit_is_left_by_a_run_of_one_server(runs: Runs) -> None:
    runs.collect("fleet", "failed")
    runs.collect("one", "completed", {1: "completed"}, instance_ids=[1])
    assert runs.shown == ["fleet"]


def test_the_servers_that_failed_may_be_made_good_one_by_one(runs: Runs) -> None:
    runs.collect("fleet", "completed_with_errors", {1: "completed", 2: "failed", 3: "cancelled"})
    runs.collect("second", "completed", {2: "completed"}, instance_ids=[2])
    assert runs.shown == ["fleet"]
    runs.collect("third", "completed_with_errors", {3: "completed", 4: "failed"}, instance_ids=[3, 4])
    assert runs.shown == ["third"]


def test_a_completed_run_of_the_fleet_makes_good_any_run_of_the_day(runs: Runs) -> None:
    runs.collect("fleet", "failed", {1: "failed", 2: "failed"})
    runs.collect("one", "failed", instance_ids=[1])
    # The second server has left the fleet meanwhile.
    runs.collect("again", "completed", {1: "completed"})
    assert runs.shown == []


def test_a_run_of_a_server_makes_good_the_runs_of_that_server_alone(runs: Runs) -> None:
    runs.collect("both", "failed", instance_ids=[1, 2])
    runs.collect("first", "failed", instance_ids=[1])
    runs.collect("first again", "completed", {1: "completed"}, instance_ids=[1])
    assert runs.shown == ["both"]


def test_a_range_makes_good_its_days_and_a_day_no_range(runs: Runs) -> None:
    runs.collect("day", "failed", days=(TUESDAY, TUESDAY))
    runs.collect("range", "failed", days=(TUESDAY, WEDNESDAY))
    runs.collect("day again", "completed", days=(WEDNESDAY, WEDNESDAY))
    assert runs.shown == ["range", "day"]
    runs.collect("all", "completed", days=(MONDAY, WEDNESDAY))
    assert runs.shown == []


def test_another_period_type_and_another_level_make_nothing_good(runs: Runs) -> None:
    def weekly(*levels: str, period_type: str = "weekly") -> TaskSummary:
        days = (MONDAY, MONDAY + timedelta(days=6))
        return summary_of_days("calculate_database", "UTC", days=days, levels=levels, period_type=period_type)

    runs.put("failed", "failed", weekly("database", "instance"))
    runs.put("monthly", "completed", weekly("database", "instance", period_type="monthly"))
    runs.put("one level", "completed", weekly("instance"))
    assert runs.shown == ["failed"]
    runs.put("both levels", "completed", weekly("instance", "database"))
    assert runs.shown == []


def test_an_earlier_run_makes_nothing_good(runs: Runs) -> None:
    runs.collect("before", "completed", {1: "completed"})
    runs.collect("failed", "failed", {1: "failed"})
    assert runs.shown == ["failed"]


def test_runs_without_days_are_made_good_by_the_next_of_the_same_name(runs: Runs) -> None:
    runs.put("failed", "failed", TaskSummary(ext=Extension(type="partition_maintenance")))
    runs.put("other", "completed", TaskSummary(ext=Extension(type="other")))
    assert runs.shown == ["failed"]
    runs.put("again", "completed", TaskSummary(ext=Extension(type="partition_maintenance")))
    assert runs.shown == []
