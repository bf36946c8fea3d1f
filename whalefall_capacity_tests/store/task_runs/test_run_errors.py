"""The errors of a run in one list."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.task_runs.run_errors import RunError, run_errors

RUNS = """
INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status)
SELECT run_id, 'sync_databases', 'Collect sizes', 'capacity', 'scheduled', 'completed_with_errors'
FROM unnest(ARRAY['r-1', 'r-2']) AS run_id;
INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status, error_message, details_json)
VALUES ('r-1', 'collection', '1', 'shop', 1, 'completed', NULL, '{"version": "16", "missing": {"b": "dropped meanwhile",
            "a": "permission denied"}, "missing_not_named": 7}'),
       ('r-1', 'collection', '2', 'crm', 2, 'failed', 'crm: no route to host', NULL),
       ('r-1', 'instance_aggregation', '2', 'crm', 2, 'cancelled', 'the run was cancelled', '{}'),
       ('r-1', 'collection', '3', 'blog', 3, 'completed', NULL, '{"version": "16"}'),
       ('r-2', 'table_partition', 'p_2026_01', 'p_2026_01', NULL, 'failed', 'contended', NULL);
"""


@pytest.fixture
def runs(store: Engine) -> Engine:
    with store.begin() as connection:
        connection.execute(text(RUNS))
    return store


def test_failed_items_and_databases_that_were_not_measured_stand_in_one_list(runs: Engine) -> None:
    found = run_errors(runs, "r-1", 100)
    assert found.errors == [
        RunError("collection", "2", "crm", 2, None, "crm: no route to host"),
        RunError("instance_aggregation", "2", "crm", 2, None, "the run was cancelled"),
        RunError("collection", "1", "shop", 1, None, "7 more databases were not measured"),
        RunError("collection", "1", "shop", 1, "a", "permission denied"),
        RunError("collection", "1", "shop", 1, "b", "dropped meanwhile"),
    ]
    assert found.total == 5


def test_the_list_comes_in_pages(runs: Engine) -> None:
    pages = [run_errors(runs, "r-1", 2, offset) for offset in (0, 2, 4, 6)]
    assert [[error.message for error in page.errors] for page in pages] == [
        ["crm: no route to host", "the run was cancelled"],
        ["7 more databases were not measured", "permission denied"],
        ["dropped meanwhile"],
        [],
    ]
    assert {page.total for page in pages} == {5}


def test_a_run_has_the_errors_of_its_own_items(runs: Engine) -> None:
    assert [error.message for error in run_errors(runs, "r-2", 100).errors] == ["contended"]
    assert run_errors(runs, "none", 100).errors == []
