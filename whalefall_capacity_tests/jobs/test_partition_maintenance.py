"""The maintenance as a Dagster job: harmless by hand, whole on its schedule, and every child in the metadata."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.assets.checks import TABLE_PARTITION_CHECKS
from whalefall_capacity.automation.schedules import daily_maintenance
from whalefall_capacity.definitions import defs
from whalefall_capacity.jobs.partition_maintenance import MaintenanceConfig, partition_maintenance
from whalefall_capacity.mirror.follow import mirror
from whalefall_capacity.periods import add_months, month_start, utc_now
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.maintenance import retire
from whalefall_capacity.store.maintenance.retire import make_plan
from whalefall_capacity.store.postgres.locks import maintenance_lock
from whalefall_capacity_tests.clock import ZONE, today
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import children

OPS = ["plan", "finish_leftovers", "create", "seal", "archive", "detach_and_drop", "forget_runs", "report"]


def long_ago() -> date:
    return add_months(month_start(today()), -20)


def run(instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("partition_maintenance").execute_in_process(
        instance=instance, run_config={"ops": {"plan": {"config": config}}}, raise_on_error=False
    )


def table(result: dg.ExecuteInProcessResult, op: str, name: str) -> list[dict[str, Any]]:
    """Return a table of an op's output metadata."""
    (found,) = [
        event.step_output_data.metadata[name]
        for event in result.all_node_events
        if event.is_successful_output and event.step_key == op
    ]
    return [dict(record.data) for record in found.records]  # type: ignore[attr-defined]


def test_the_steps_follow_each_other_in_a_graph_of_ops() -> None:
    assert [node.name for node in partition_maintenance.nodes_in_topological_order] == OPS


def test_by_hand_it_only_says_what_it_would_do(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    put_sizes(store, [(1, "shop", long_ago(), 100)])
    before = children(store)
    result = run(dagster_instance)
    assert result.success
    assert children(store) == before
    assert [drop["table partition"] for drop in table(result, "plan", "would_go")] == before


def test_every_option_is_explained_and_harmless_as_it_stands() -> None:
    assert MaintenanceConfig().dry_run
    assert not MaintenanceConfig().confirm
    assert all(field.description for field in MaintenanceConfig.model_fields.values())


def test_a_whole_maintenance_says_of_every_child_what_became_of_it(
    store: Engine, dagster_instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    put_sizes(store, [(1, "shop", long_ago(), 100)])
    month = f"{long_ago():%Y_%m}"
    result = run(dagster_instance, dry_run=False, archive_dir=str(tmp_path), retention_daily_months=60)
    assert result.success
    found = {
        row["table partition"]: (row["outcome"], row["rows"]) for row in table(result, "report", "table_partitions")
    }
    assert found[f"database_size_stats_{month}"] == ("dropped", 1)
    assert found[f"instance_size_stats_{month}"] == ("dropped", 1)
    assert found[f"database_size_stats_{today():%Y_%m}"] == ("created", None)
    archived = [row["outcome"] for row in table(result, "archive", "table_partitions")]
    assert archived == ["archived", "archived"]
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def items(store: Engine, run_id: str) -> dict[str, tuple[Any, ...]]:
    """Return status, metrics and error of every item of a task run, by child."""
    query = "SELECT item_key, status, metrics_json, error_message FROM task_run_items WHERE run_id = :run_id"
    with store.connect() as connection:
        return {key: tuple(row) for key, *row in connection.execute(text(query), {"run_id": run_id})}


def test_every_child_is_an_item_of_the_task_run(
    store: Engine, dagster_instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    put_sizes(store, [(1, "shop", long_ago(), 100)])
    result = run(dagster_instance, dry_run=False, archive_dir=str(tmp_path), retention_daily_months=60)
    mirror(store, dagster_instance, result.run_id)
    found = items(store, result.run_id)
    status, metrics, error = found[f"database_size_stats_{long_ago():%Y_%m}"]
    assert (status, metrics["outcome"], metrics["rows"], error) == ("completed", "dropped", 1, None)
    status, metrics, error = found[f"database_size_stats_{today():%Y_%m}"]
    assert (status, metrics["outcome"], error) == ("completed", "created", None)
    with store.connect() as connection:
        (task_run,) = connection.execute(text("SELECT * FROM task_runs"))
    assert (task_run.task_key, task_run.task_category, task_run.status) == (
        "partition_maintenance",
        "maintenance",
        "completed",
    )
    assert task_run.progress_completed == task_run.progress_total == len(found)


def test_a_dry_run_is_a_skipped_task_run_without_items(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    put_sizes(store, [(1, "shop", long_ago(), 100)])
    result = run(dagster_instance)
    mirror(store, dagster_instance, result.run_id)
    assert items(store, result.run_id) == {}
    with store.connect() as connection:
        flags = connection.execute(text("SELECT summary_json #> '{common,flags}' FROM task_runs")).scalar_one()
    assert flags == {"skipped": True, "skip_reason": "a dry run changes nothing; 2 table partitions would be dropped"}


def test_a_maintenance_that_the_run_centre_cancels_stops_before_the_next_child(
    store: Engine, dagster_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_sizes(store, [(1, "shop", long_ago(), 100)])
    create = retire.create

    def cancel_first(maintenance: retire.Maintenance) -> None:
        with store.begin() as connection:
            connection.execute(text("UPDATE task_runs SET status = 'cancelled'"))
        wait_for(lambda: _stopped(maintenance), "cancel heard")
        create(maintenance)

    monkeypatch.setattr("whalefall_capacity.jobs.partition_maintenance.create", cancel_first)
    result = run(dagster_instance, dry_run=False)
    assert dagster_instance.get_run_by_id(result.run_id).status is dg.DagsterRunStatus.CANCELED  # type: ignore[union-attr]
    assert f"database_size_stats_{long_ago():%Y_%m}" in children(store)


def _stopped(maintenance: retire.Maintenance) -> bool:
    try:
        maintenance.watcher.began("any")
    except dg.DagsterExecutionInterruptedError:
        return True
    return False


def test_runs_that_are_older_than_the_settings_keep_are_forgotten(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    old = run(dagster_instance)
    mirror(store, dagster_instance, old.run_id)
    with store.begin() as connection:
        connection.execute(text("UPDATE task_runs SET created_at = :then"), {"then": utc_now() - timedelta(days=181)})
    kept = run(dagster_instance, dry_run=False)
    mirror(store, dagster_instance, kept.run_id)
    with store.connect() as connection:
        assert list(connection.execute(text("SELECT run_id FROM task_runs")).scalars()) == [kept.run_id]


def test_options_replace_settings_for_one_run_and_are_checked_like_them(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    put_sizes(store, [(1, "shop", long_ago(), 100)])
    kept = run(dagster_instance, dry_run=False, retention_stats_months=24, create_ahead_months=1)
    assert kept.success
    assert f"database_size_stats_{long_ago():%Y_%m}" in children(store)
    refused = run(dagster_instance, retention_stats_months=2)
    assert not refused.success


def test_a_child_that_fails_fails_the_run_after_everything_else_was_done(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    put_sizes(store, [(1, "shop", long_ago(), 100)])
    with store.begin() as connection:
        # It cannot be dropped as long as a view reads it.
        connection.execute(text(f"CREATE VIEW old AS SELECT * FROM database_size_stats_{long_ago():%Y_%m}"))
    result = run(dagster_instance, dry_run=False)
    assert not result.success
    assert [event.step_key for event in result.all_node_events if event.is_step_failure] == ["report"]
    assert f"database_size_stats_{today():%Y_%m}" in children(store)


def test_a_plan_that_no_longer_holds_is_refused_and_changes_nothing(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    put_sizes(store, [(1, "shop", long_ago(), 100)])
    plan = make_plan(store, load_settings(), today())
    put_sizes(store, [(1, "shop", add_months(long_ago(), -1), 100)])
    before = children(store)
    assert not run(dagster_instance, dry_run=False, plan_id=plan.id).success
    assert children(store) == before


def test_a_second_run_beside_the_first_is_told_that_it_is_one_too_many(
    store: Engine, dagster_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whalefall_capacity.resources.store.MAINTENANCE_WAIT_SECONDS", 0.1)
    with maintenance_lock(store):
        assert not run(dagster_instance).success


def test_nothing_that_dagster_writes_to_disk_has_a_password(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    result = run(dagster_instance)
    assert "postgresql" not in repr(result.output_for_node("archive"))
    assert children(store) == []


def test_the_maintenance_evaluates_the_check_of_every_table(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    assert run(dagster_instance, dry_run=False).success
    with store.begin() as connection:
        connection.execute(text("CREATE TABLE rest PARTITION OF database_size_stats DEFAULT"))
    run(dagster_instance, dry_run=False)
    keys = [
        dg.AssetCheckKey(key, "table_partitions")
        for key in (dg.AssetKey("database_size_stats"), dg.AssetKey(["instance_size_aggregations", "weekly"]))
    ]
    found = dagster_instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    evaluations = [found[key].event.dagster_event.asset_check_evaluation_data for key in keys]  # type: ignore[union-attr]
    assert [evaluation.passed for evaluation in evaluations] == [False, True]
    assert evaluations[0].description == "rest is a default partition, added by hand"


@pytest.mark.parametrize(("prepared", "passed", "severity"), [(True, True, "WARN"), (False, False, "ERROR")])
def test_the_check_of_a_table_can_be_run_alone(
    store: Engine, dagster_instance: dg.DagsterInstance, prepared: bool, passed: bool, severity: str
) -> None:
    if prepared:
        assert run(dagster_instance, dry_run=False).success
    job = dg.Definitions(
        asset_checks=TABLE_PARTITION_CHECKS,
        resources=defs.resources,
        assets=defs.assets,
        jobs=[dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*TABLE_PARTITION_CHECKS))],
    ).resolve_job_def("checks")
    result = job.execute_in_process(instance=dagster_instance)
    found = result.get_asset_check_evaluations()
    assert len(found) == 12
    assert {(e.passed, e.severity.value) for e in found} == {(passed, severity)}
    assert store is not None


def test_every_morning_it_runs_for_real() -> None:
    due = datetime(2026, 5, 20, 4, 30, tzinfo=ZONE)
    with dg.build_schedule_context(scheduled_execution_time=due) as context:
        request = daily_maintenance(context)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "partition_maintenance 2026-05-20"
    assert request.run_config == {"ops": {"plan": {"config": {"dry_run": False}}}}
    assert (daily_maintenance.cron_schedule, daily_maintenance.execution_timezone) == ("30 4 * * *", str(ZONE))
    assert daily_maintenance.default_status is dg.DefaultScheduleStatus.RUNNING


@pytest.mark.parametrize("job", ["sync_databases", "aggregate_daily", "aggregate_quarterly"])
def test_a_run_of_assets_does_not_run_the_checks_of_the_tables(job: str) -> None:
    names = [node.name for node in defs.resolve_job_def(job).nodes_in_topological_order]
    assert [name for name in names if "table_partitions" in name] == []
