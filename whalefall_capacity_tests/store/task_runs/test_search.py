"""Searching the run centre: filters, orders, and what there is to filter by."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.search import RunFilter, RunOptions, RunOrder, list_task_runs, run_options

RUNS = """
INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, created_by, created_at,
                       started_at, completed_at, progress_failed)
VALUES
    ('night', 'sync_databases', 'Collect sizes of 2026-06-22', 'capacity', 'scheduled', 'completed_with_errors', NULL,
     '2026-06-22 02:00+00', '2026-06-22 02:00+00', '2026-06-22 02:10+00', 3),
    ('week', 'calculate_database', 'Calculate weekly aggregations', 'aggregation', 'scheduled', 'completed', NULL,
     '2026-06-22 02:11+00', '2026-06-22 02:12+00', '2026-06-22 02:13+00', 0),
    ('again', 'sync_databases', 'Collect sizes of 2026-06-22', 'capacity', 'api', 'completed', 'ann',
     '2026-06-22 08:00+00', '2026-06-22 08:00+00', '2026-06-22 08:00:30+00', 0),
    ('waits', 'partition_maintenance', 'Table partition maintenance', 'maintenance', 'manual', 'pending', 'bob',
     '2026-06-22 09:00+00', NULL, NULL, 0)
"""


@pytest.fixture
def runs(store: Engine) -> Engine:
    with store.begin() as connection:
        connection.execute(text(RUNS))
    return store


def ids(store: Engine, wanted: RunFilter = RunFilter(), order: RunOrder = RunOrder.CREATED_DESCENDING) -> list[str]:  # noqa: B008
    return [run.run_id for run in list_task_runs(store, 10, wanted=wanted, order=order).runs]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (RunFilter(), ["waits", "again", "week", "night"]),
        (RunFilter(status=Status.COMPLETED), ["again", "week"]),
        (RunFilter(task_key="sync_databases"), ["again", "night"]),
        (RunFilter(task_category="maintenance"), ["waits"]),
        (RunFilter(trigger_source="scheduled"), ["week", "night"]),
        (RunFilter(created_by="ann"), ["again"]),
        (RunFilter(task_key="sync_databases", trigger_source="scheduled"), ["night"]),
        (RunFilter(created_by="nobody"), []),
    ],
    ids=str,
)
def test_runs_are_filtered_by_each_of_their_marks_and_by_several(
    runs: Engine, wanted: RunFilter, found: list[str]
) -> None:
    assert ids(runs, wanted) == found
    assert list_task_runs(runs, 1, wanted=wanted).total == len(found)


@pytest.mark.parametrize(
    ("order", "found"),
    [
        (RunOrder.CREATED, ["night", "week", "again", "waits"]),
        (RunOrder.CREATED_DESCENDING, ["waits", "again", "week", "night"]),
        (RunOrder.TASK, ["week", "again", "night", "waits"]),
        (RunOrder.TASK_DESCENDING, ["waits", "again", "night", "week"]),
        (RunOrder.STATUS, ["again", "week", "night", "waits"]),
        (RunOrder.STATUS_DESCENDING, ["waits", "night", "again", "week"]),
        (RunOrder.DURATION, ["again", "week", "night", "waits"]),
        (RunOrder.DURATION_DESCENDING, ["night", "week", "again", "waits"]),
        (RunOrder.FAILED, ["waits", "again", "week", "night"]),
        (RunOrder.FAILED_DESCENDING, ["night", "waits", "again", "week"]),
    ],
)
def test_runs_of_equal_rank_stay_newest_first(runs: Engine, order: RunOrder, found: list[str]) -> None:
    assert ids(runs, order=order) == found


def test_every_order_has_a_place_to_begin_and_to_go_on(runs: Engine) -> None:
    for order in RunOrder:
        pages = [list_task_runs(runs, 2, offset, order=order).runs for offset in (0, 2, 4)]
        assert [len(page) for page in pages] == [2, 2, 0]
        assert len({run.run_id for page in pages for run in page}) == 4


def test_what_there_is_to_filter_by_comes_from_the_runs(runs: Engine) -> None:
    assert run_options(runs) == RunOptions(
        task_keys=["calculate_database", "partition_maintenance", "sync_databases"],
        task_categories=["aggregation", "capacity", "maintenance"],
        created_by=["ann", "bob"],
    )


def test_without_runs_there_is_nothing_to_filter_by(store: Engine) -> None:
    assert run_options(store) == RunOptions(task_keys=[], task_categories=[], created_by=[])
