"""`collect` and `aggregate` with an executor that hands the steps to other processes: the same rows and books."""

from __future__ import annotations

import json
import os
from datetime import date, timedelta

import dagster as dg
import pytest

from whalefall_capacity.settings import PREFIX, load_settings
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.processes import run
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE, entry, refusing, register
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import rows

pytestmark = pytest.mark.slow

MONDAY = date(2026, 3, 2)
STORED = """
SELECT period_start, data_count, sum_size_bytes, max_size_bytes FROM instance_size_aggregations ORDER BY period_start
"""
ITEMS = """
SELECT item.item_type, item.item_name, item.status FROM task_run_items AS item
JOIN task_runs AS run USING (run_id) WHERE run.task_key = 'sync_databases' ORDER BY 1, 2
"""
STEPS = {
    "size_stats",
    "database_size_aggregations__daily",
    "instance_size_aggregations__daily",
    "insight",
}


def variables(**settings: str) -> dict[str, str]:
    """Return the variables of a command, with a process for each step."""
    kept = {name: value for name, value in os.environ.items() if name.startswith((PREFIX, PASSWORD_VARIABLE))}
    return kept | {f"{PREFIX}EXECUTOR": "multiprocess"} | {PREFIX + name: value for name, value in settings.items()}


def steps_in_processes_of_their_own(run_id: str) -> set[str]:
    """Return the steps that another process than that of the run executed; of a graph, its name."""
    load_settings.cache_clear()
    with dg.DagsterInstance.from_config(str(load_settings().home / "dagster")) as instance:
        records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_WORKER_STARTED).records
    return {str(record.event_log_entry.step_key).partition(".")[0] for record in records}


def test_a_collection_has_a_process_for_each_step_and_ends_like_any_other(
    whalefall: CommandLine, postgresql: PostgresqlServer
) -> None:
    register(whalefall.store, entry("pg", postgresql.target()), refusing("dead"))
    done = run(["collect", "--json"], variables())
    assert done.returncode == 1
    assert [total["instance"] for total in json.loads(done.stdout)] == ["pg"]
    assert "not measured:\ndead: connecting to 127.0.0.1:1 as nobody failed: " in done.stderr
    ((run_id, status),) = rows(whalefall.store, "SELECT run_id, status FROM task_runs")
    assert status == "completed_with_errors"
    assert rows(whalefall.store, ITEMS) == [
        ("collection", "dead", "failed"),
        ("collection", "pg", "completed"),
        ("database_aggregation", "dead", "completed"),
        ("database_aggregation", "pg", "completed"),
        ("instance_aggregation", "dead", "completed"),
        ("instance_aggregation", "pg", "completed"),
    ]
    assert steps_in_processes_of_their_own(str(run_id)) >= STEPS


def test_a_range_of_windows_is_the_same_by_either_executor(whalefall: CommandLine) -> None:
    put_sizes(whalefall.store, [(1, "shop", MONDAY + timedelta(days=n), 100 * (n + 1)) for n in range(20)])
    weeks = ["aggregate", "weekly", "--from", "2026-03-02", "--to", "2026-03-21", "--json"]
    here = whalefall(*weeks)
    stored = rows(whalefall.store, STORED)
    with whalefall.store.begin() as connection:
        connection.exec_driver_sql("TRUNCATE instance_size_aggregations, database_size_aggregations")
    elsewhere = run(weeks, variables(EXECUTOR_MAX_CONCURRENT="1"))
    assert (here.status, elsewhere.returncode) == (0, 0), here.err + elsewhere.stderr
    assert here.json == json.loads(elsewhere.stdout)
    assert len(stored) == 3
    assert rows(whalefall.store, STORED) == stored


def test_a_step_that_fails_in_another_process_fails_the_command_with_its_reason(whalefall: CommandLine) -> None:
    put_sizes(whalefall.store, [(1, "shop", MONDAY, 100)])
    with whalefall.store.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE instance_size_aggregations ADD CHECK (sum_size_bytes > 1000)")
    day = ["--from", str(MONDAY), "--to", str(MONDAY), "--scope", "instance"]
    done = run(["aggregate", "daily", *day], variables())
    assert done.returncode == 1
    assert "failed" in next(line for line in done.stdout.splitlines() if "instance" in line)
    assert "violates check constraint" in done.stderr
    assert rows(whalefall.store, "SELECT status FROM task_runs") == [("failed",)]
