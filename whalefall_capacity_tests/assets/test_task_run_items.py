"""The project's work as the run centre reads it: one item an instance, and a task run that follows from them.

The jobs run in this process, on a real store and against real servers; at the end the mirror closes the task run, as
the reconciler does.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from sqlalchemy import Engine, text

from whalefall_capacity.assets import aggregations as aggregation_assets
from whalefall_capacity.definitions import defs
from whalefall_capacity.mirror.follow import mirror
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity_tests.clock import ZONE, today
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import MariadbFleetServer, PostgresqlServer
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import rows

MONDAY = date(2026, 6, 22)
STATS = ("database_size_stats", "instance_size_stats")


def execute(
    store: Engine,
    instance: dg.DagsterInstance,
    first: date,
    last: date | None = None,
    job: str = "sync_databases",
    only: tuple[str, ...] = (),
    **config: Any,
) -> str:
    """Execute a job over first..last, or *only* some of its assets, to its end, and return the id of the run."""
    run_id = (
        defs.resolve_job_def(job)
        .execute_in_process(
            instance=instance,
            tags=range_tags(first, last or first),
            asset_selection=[dg.AssetKey(key.split("/")) for key in only] or None,
            run_config={"ops": {"size_stats": {"config": config}}} if config else None,
            raise_on_error=False,
        )
        .run_id
    )
    mirror(store, instance, run_id)
    return str(run_id)


def task_run(store: Engine, run_id: str, columns: str = "status") -> tuple[Any, ...]:
    (row,) = rows(store, f"SELECT {columns} FROM task_runs WHERE run_id = :r", r=run_id)
    return row


def items(store: Engine, run_id: str, columns: str = "status") -> dict[tuple[str, str], Any]:
    """Return *columns* of each item by its type and the name of its instance."""
    query = f"""
        SELECT item_type, item_name, {columns} FROM task_run_items
        WHERE run_id = :r AND item_key = instance_id::text ORDER BY id
    """
    found = {row[:2]: row[2] if len(row) == 3 else row[2:] for row in rows(store, query, r=run_id)}
    assert len(found) == rows(store, "SELECT count(*) FROM task_run_items WHERE run_id = :r", r=run_id)[0][0]
    return found


def metrics(store: Engine, run_id: str) -> dict[str, Any]:
    """Return the values of the metrics in the summary."""
    (found,) = task_run(store, run_id, "summary_json -> 'common' -> 'metrics'")
    return {metric["key"]: metric["value"] for metric in found}


# Nobody can visit them.
WITHOUT_HOST = """
INSERT INTO instances (name, db_type)
SELECT 'gone-' || number, 'postgresql' FROM generate_series(1, :count) AS number
"""
COUNTERS = "progress_total, progress_completed, progress_failed"
FLAGS = "summary_json -> 'common' -> 'flags'"


# Collection


def test_one_visit_is_one_item_with_what_it_measured(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer, mariadb: MariadbFleetServer
) -> None:
    register(store, entry("pg", postgresql.target()), entry("maria", mariadb.target()))
    run_id = execute(store, dagster_instance, today())
    assert task_run(store, run_id, f"status, task_key, {COUNTERS}") == ("completed", "sync_databases", 6, 6, 0)
    assert items(store, run_id) == {
        ("collection", "pg"): "completed",
        ("collection", "maria"): "completed",
        ("database_aggregation", "pg"): "completed",
        ("database_aggregation", "maria"): "completed",
        ("instance_aggregation", "pg"): "completed",
        ("instance_aggregation", "maria"): "completed",
    }
    details = items(store, run_id, "metrics_json, details_json, started_at, completed_at, error_message")
    measured, said, started_at, completed_at, error = details["collection", "pg"]
    stored = """
        SELECT total_size_bytes, database_count, version, missing_count, log_size_bytes
        FROM instance_size_stats JOIN instances ON id = instance_id WHERE name = 'pg'
    """
    ((total, count, version, missing, log),) = rows(store, stored)
    assert measured.pop("seconds") > 0
    assert measured == {
        "databases": count,
        "databases_missing": missing,
        "total_size_bytes": total,
        "log_size_bytes": log,
    }
    assert (said, error) == ({"version": version}, None)
    assert task_run(store, run_id, "started_at")[0] <= started_at <= completed_at
    assert details["database_aggregation", "pg"][0] == {"days_with_stats": 1, "windows": 1}


def test_the_summary_of_a_collection_counts_what_was_measured(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()), refusing("gone"))
    run_id = execute(store, dagster_instance, today())
    ((total, count),) = rows(store, "SELECT total_size_bytes::bigint, database_count FROM instance_size_stats")
    assert metrics(store, run_id) == {
        "instances_visited": 2,
        "instances_failed": 1,
        "databases": count,
        "databases_missing": 0,
        "total_size_bytes": total,
        "database_windows": 1,
        "database_windows_sealed": 0,
        "database_windows_skipped": 0,
        "database_rows_written": count,
        "database_rows_removed": 0,
        "instance_windows": 1,
        "instance_windows_sealed": 0,
        "instance_windows_skipped": 0,
        "instance_rows_written": 1,
        "instance_rows_removed": 0,
        "items_total": 6,
        "items_completed": 5,
        "items_failed": 1,
        "items_cancelled": 0,
    }
    assert task_run(store, run_id, "summary_json -> 'common' -> 'scope' -> 'time'") == (
        {"type": "date", "timezone": str(ZONE), "date": today().isoformat()},
    )


def test_an_instance_that_fails_leaves_a_failed_item_with_the_reason_and_a_run_completed_with_errors(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()), refusing("gone"))
    run_id = execute(store, dagster_instance, today())
    assert task_run(store, run_id, f"status, {COUNTERS}, error_message") == ("completed_with_errors", 6, 5, 1, None)
    found = items(store, run_id, "status, error_message, metrics_json")
    status, error, measured = found["collection", "gone"]
    assert status == "failed"
    assert error.startswith("gone: connecting to 127.0.0.1:1 as nobody failed")
    assert list(measured) == ["seconds"]
    # It is active and has no data: there is nothing to roll up, and that is no failure.
    skipped = ("completed", None, {"days_with_stats": 0, "windows": 1, "skipped": True})
    assert found["database_aggregation", "gone"] == skipped
    assert found["instance_aggregation", "gone"] == skipped


def test_a_collection_in_which_all_instances_fail_fails_and_leaves_nothing_open(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    register(store, refusing("gone"), refusing("away"))
    run_id = execute(store, dagster_instance, today())
    status, error, *counters = task_run(store, run_id, f"status, error_message, {COUNTERS}")
    assert (status, counters) == ("failed", [6, 0, 6])
    assert error.startswith("none of 2 instances could be measured; the first: ")
    found = items(store, run_id, "status, error_message")
    assert {status for status, _ in found.values()} == {"failed"}
    assert found["collection", "gone"][1].startswith("gone: connecting to 127.0.0.1:1 as nobody failed")
    assert found["collection", "away"][1].startswith("away: connecting to 127.0.0.1:1 as nobody failed")
    # What never began fails with the error of the run.
    assert found["instance_aggregation", "gone"][1] == error


def test_a_password_that_cannot_be_found_fails_its_own_item(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    locked = entry("locked", postgresql.target(), credential={"username": "u", "password_env": "NOT_SET_ANYWHERE"})
    register(store, entry("pg", postgresql.target()), locked)
    run_id = execute(store, dagster_instance, today(), only=STATS)
    status, error = items(store, run_id, "status, error_message")["collection", "locked"]
    assert status == "failed"
    assert "NOT_SET_ANYWHERE is not set" in error
    assert task_run(store, run_id) == ("completed_with_errors",)


@pytest.fixture
def closed_database(postgresql: PostgresqlServer) -> Iterator[str]:
    """A database that the role `reader` may list but not measure."""
    with postgresql.connect() as cursor:
        cursor.execute("CREATE ROLE reader LOGIN")
        cursor.execute("CREATE DATABASE closed")
        cursor.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    yield "closed"
    with postgresql.connect() as cursor:
        cursor.execute("DROP DATABASE closed WITH (FORCE)")
        cursor.execute("DROP ROLE reader")


def test_a_database_that_gave_no_size_is_told_by_name_and_fails_nobody(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer, closed_database: str
) -> None:
    register(store, entry("pg", postgresql.target(username="reader")))
    run_id = execute(store, dagster_instance, today(), only=STATS)
    status, measured, details = items(store, run_id, "status, metrics_json, details_json")["collection", "pg"]
    assert (status, measured["databases"], measured["databases_missing"]) == ("completed", 1, 1)
    assert list(details["missing"]) == [closed_database]
    assert metrics(store, run_id)["databases_missing"] == 1
    assert task_run(store, run_id) == ("completed",)


def test_a_targeted_collection_has_items_of_its_instances_alone(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, entry("first", postgresql.target()), entry("second", postgresql.target()))
    before = execute(store, dagster_instance, today(), only=STATS)
    run_id = execute(store, dagster_instance, today(), only=STATS, instance_ids=[ids["second"]])
    assert len(items(store, before)) == 2
    # The first has sizes of today too; they are not of this run.
    assert items(store, run_id) == {("collection", "second"): "completed"}
    assert "databases" in items(store, run_id, "metrics_json")["collection", "second"]
    assert task_run(store, run_id, "summary_json -> 'common' -> 'scope' -> 'target'") == (
        {"instance_ids": [ids["second"]], "period_type": "daily"},
    )


def test_stored_days_of_the_past_are_reported_item_by_item(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, entry("pg", postgresql.target()), entry("new", postgresql.target()))
    yesterday = today() - timedelta(days=1)
    put_sizes(store, [(ids["pg"], "shop", yesterday - timedelta(days=1), 100), (ids["pg"], "shop", yesterday, 110)])
    run_id = execute(store, dagster_instance, yesterday - timedelta(days=1), yesterday, only=STATS)
    assert items(store, run_id, "status, metrics_json") == {("collection", "pg"): ("completed", {"days_reported": 2})}
    assert task_run(store, run_id) == ("completed",)


def test_in_a_range_to_today_a_visit_is_what_an_item_tells_of(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, entry("pg", postgresql.target()), refusing("gone"))
    yesterday = today() - timedelta(days=1)
    put_sizes(store, [(instance_id, "shop", yesterday, 100) for instance_id in (ids["pg"], ids["gone"], 99)])
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET is_active = false WHERE id = 99"))
    run_id = execute(store, dagster_instance, yesterday, today(), only=STATS)
    found = items(store, run_id, "status, metrics_json")
    assert found["collection", "pg"][0] == "completed"
    assert "total_size_bytes" in found["collection", "pg"][1]
    # Its day of yesterday is stored, but today it could not be measured.
    assert found["collection", "gone"][0] == "failed"
    assert found["collection", "instance-99"] == ("completed", {"days_reported": 1})
    assert task_run(store, run_id, f"status, {COUNTERS}") == ("completed_with_errors", 3, 2, 1)


def test_a_past_day_of_which_nothing_is_stored_fails_the_task_run(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    day = today() - timedelta(days=3)
    run_id = execute(store, dagster_instance, day, only=STATS)
    status, error = task_run(store, run_id, "status, error_message")
    assert status == "failed"
    assert error.startswith(f"nothing is stored for {day}, and a past day cannot be measured")


def test_a_fleet_of_nobody_is_completed_and_skipped(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    run_id = execute(store, dagster_instance, today())
    assert task_run(store, run_id, f"status, {COUNTERS}, {FLAGS}") == (
        "completed",
        0,
        0,
        0,
        {"skipped": True, "skip_reason": "there was nothing to do"},
    )


def test_a_failed_coverage_check_alone_changes_nothing(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, entry("pg", postgresql.target()), refusing("gone"), refusing("away"))
    run_id = execute(store, dagster_instance, today(), instance_ids=[ids["pg"]])
    (check,) = [
        event.dagster_event.asset_check_evaluation_data
        for event in dagster_instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        if event.dagster_event and event.dagster_event.asset_check_evaluation_data.check_name == "fleet_coverage"
    ]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert task_run(store, run_id, f"status, {COUNTERS}") == ("completed", 7, 7, 0)


# Aggregation


def test_a_range_is_one_item_an_instance_and_level_with_its_days(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    week = timedelta(days=7)
    put_sizes(store, [(1, "shop", MONDAY + timedelta(days=n), 100 + n) for n in range(10)])
    put_sizes(store, [(2, "crm", MONDAY, 50), (3, "old", MONDAY + week, 7), (5, "gone", MONDAY - week, 7)])
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET is_active = false WHERE id IN (3, 5)"))
        connection.execute(text("INSERT INTO instances (id, name, db_type) VALUES (4, 'instance-4', 'postgresql')"))
    run_id = execute(store, dagster_instance, MONDAY, MONDAY + week, job="aggregate_weekly")
    expected = {
        "instance-1": {"days_with_stats": 10, "windows": 2},
        "instance-2": {"days_with_stats": 1, "windows": 2},
        # Not active any more, but it was then.
        "instance-3": {"days_with_stats": 1, "windows": 2},
        # Active, without data.
        "instance-4": {"days_with_stats": 0, "windows": 2, "skipped": True},
    }
    assert items(store, run_id, "status, metrics_json") == {
        (item_type, name): ("completed", told)
        for item_type in ("database_aggregation", "instance_aggregation")
        for name, told in expected.items()
    }
    assert task_run(store, run_id, f"status, task_key, {COUNTERS}") == ("completed", "calculate_database", 8, 8, 0)
    assert metrics(store, run_id)["database_windows"] == 2
    assert metrics(store, run_id)["database_rows_written"] == 4


def test_one_level_has_items_of_its_own_type(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    put_sizes(store, [(1, "shop", MONDAY, 100)])
    only = ("instance_size_aggregations/daily",)
    run_id = execute(store, dagster_instance, MONDAY, job="aggregate_daily", only=only)
    assert items(store, run_id) == {("instance_aggregation", "instance-1"): "completed"}
    assert task_run(store, run_id, "summary_json -> 'common' -> 'scope' -> 'target' -> 'levels'") == (["instance"],)


def test_a_window_without_any_stats_is_completed_and_all_its_items_are_skipped(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    put_sizes(store, [(1, "shop", MONDAY, 100)])
    run_id = execute(store, dagster_instance, MONDAY + timedelta(days=7), job="aggregate_weekly")
    assert [told["skipped"] for told in items(store, run_id, "metrics_json").values()] == [True, True]
    assert task_run(store, run_id) == ("completed",)
    assert metrics(store, run_id)["instance_windows_skipped"] == 1


# Executed again


def execute_again(instance: dg.DagsterInstance, day: date, parent: str | None = None) -> str:
    """Execute `sync_databases` as a worker does, or what failed of *parent* again."""
    module = ReconstructableRepository.for_module("whalefall_capacity.definitions", "defs", str(Path.cwd()))
    again = dg.ReexecutionOptions.from_failure(parent, instance) if parent else None
    result = dg.execute_job(
        module.get_reconstructable_job("sync_databases"),
        instance=instance,
        tags=range_tags(day, day),
        reexecution_options=again,
        raise_on_error=False,
    )
    return str(result.run_id)


def test_a_run_executed_again_from_its_failure_is_a_task_run_of_its_own(
    store: Engine,
    dagster_instance: dg.DagsterInstance,
    postgresql: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(store, entry("pg", postgresql.target()))

    def fails_for_instances(engine: Engine, level: Level, *arguments: Any) -> Any:
        if level is Level.INSTANCE:
            raise OSError("no space left on device")
        return aggregate(engine, level, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(aggregation_assets, "aggregate", fails_for_instances)
        first = execute_again(dagster_instance, today())
    mirror(store, dagster_instance, first)
    assert task_run(store, first, "status, error_message") == ("failed", "OSError: no space left on device")
    assert items(store, first, "status, error_message") == {
        ("collection", "pg"): ("completed", None),
        ("database_aggregation", "pg"): ("completed", None),
        ("instance_aggregation", "pg"): ("failed", "OSError: no space left on device"),
    }
    of_first = """
        SELECT r.xmin::text, i.xmin::text FROM task_runs AS r JOIN task_run_items AS i USING (run_id)
        WHERE run_id = :r ORDER BY i.id
    """
    before = rows(store, of_first, r=first)
    second = execute_again(dagster_instance, today(), parent=first)
    mirror(store, dagster_instance, second)
    mirror(store, dagster_instance, first)
    assert task_run(store, second, f"status, task_key, trigger_source, {COUNTERS}") == (
        "completed",
        "calculate_database",
        "manual",
        1,
        1,
        0,
    )
    assert items(store, second) == {("instance_aggregation", "pg"): "completed"}
    assert rows(store, of_first, r=first) == before


@pytest.mark.slow
def test_ten_thousand_servers_that_fail_leave_no_more_in_a_run_than_the_first_hundred(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    with store.begin() as connection:
        connection.execute(text(WITHOUT_HOST), {"count": 10_000})
    run_id = execute(store, dagster_instance, today(), only=STATS)
    assert task_run(store, run_id, f"status, {COUNTERS}") == ("completed_with_errors", 10_001, 1, 10_000)
    ((summary,),) = rows(store, "SELECT summary_json::text FROM task_runs")
    assert len(summary) < 5_000
    events = list(dagster_instance.all_logs(run_id))
    assert sum("has no host" in event.user_message for event in events if not event.is_dagster_event) == 100
    texts = [repr(event) for event in events]
    assert max(map(len, texts)) < 100_000
    assert sum(map(len, texts)) < 500_000
    (check,) = [event for event in events if "1 of 10001 instances reported their sizes" in event.user_message]
    assert " and 9900 more" in check.user_message
