"""A migration that is killed before any of its commits goes on when it is started again, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy import Engine

from whalefall_capacity_tests.store.moving_in import killed_migration
from whalefall_capacity_tests.store.moving_in.conftest import START, TODAY, Migrate
from whalefall_capacity_tests.store.records import children, rows
from whalefall_capacity_tests.whalefall_source import WhaleFall

CONTENT = (
    "SELECT name, db_type, host, port, is_active, deleted_at FROM instances ORDER BY 1",
    "SELECT name, username FROM credentials ORDER BY 1",
    "SELECT i.name, d.database_name, d.is_active, first_seen_date, last_seen_date FROM instance_databases AS d "
    "JOIN instances AS i ON i.id = instance_id ORDER BY 1, 2",
    "SELECT i.name, d.database_name, collected_date, size_bytes, collected_at FROM database_size_stats AS d "
    "JOIN instances AS i ON i.id = instance_id ORDER BY 1, 2, 3",
    "SELECT i.name, collected_date, total_size_bytes, database_count, collected_at FROM instance_size_stats AS d "
    "JOIN instances AS i ON i.id = instance_id ORDER BY 1, 2",
    "SELECT run_id, status, progress_total FROM task_runs ORDER BY 1",
    "SELECT run_id, item_type, item_name, status FROM task_run_items ORDER BY 1, 2, 3",
)


# PostgreSQL 16 has the same commits: every fourth of them will do.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("either_store", "stride"),
    [("store_server", 1), ("postgresql", 4)],
    indirect=["either_store"],
    ids=["PostgreSQL 18", "PostgreSQL 16"],
)
def test_a_migration_that_is_killed_at_every_commit_ends_like_one_that_was_not(
    stride: int, house: WhaleFall, migrate: Migrate, store: Engine, either_store: Engine
) -> None:
    house.insert(
        "task_runs",
        run_id="r1",
        task_key="sync_databases",
        task_name="n",
        task_category="c",
        trigger_source="api",
        status="completed",
    )
    address = either_store.url.render_as_string(hide_password=False)
    script = [sys.executable, str(killed_migration.__file__), address, house.url, house.key, str(START), str(TODAY)]
    # Before its second commit, third, ...: each gets further than the one before it, until one comes to its end.
    done = subprocess.run([*script, *map(str, range(1, 22, stride))], capture_output=True, text=True, check=True)
    ended = [line.split()[1] for line in done.stdout.splitlines()]
    assert ended == ["killed"] * (len(ended) - ended.count("ended")) + ["ended"] * ended.count("ended")
    # The fleet, the databases, two levels in each of seven months, the task runs.
    assert ended.count("killed") * stride >= 17
    assert "ended" in ended
    migrate(task_runs=True)
    for query in CONTENT:
        assert rows(either_store, query) == rows(store, query)
    assert children(either_store) == children(store)
