"""`capacity_aggregate_current`: today's daily aggregations at once, reported as assets and mirrored item by item."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.current_period import CurrentPeriod, read_run_config
from whalefall_capacity.definitions import defs
from whalefall_capacity.mirror.follow import mirror
from whalefall_capacity.periods import today
from whalefall_capacity.settings import load_settings
from whalefall_capacity_tests.clock import ZONE
from whalefall_capacity_tests.store.past import MIB, put_sizes
from whalefall_capacity_tests.store.records import add_instance, rows

ITEMS = "SELECT item_type, item_key, status, metrics_json ->> 'skipped' FROM task_run_items ORDER BY 1, 2"
WRITTEN = """
SELECT 'database' AS level, count(*) FROM database_size_aggregations
UNION ALL SELECT 'instance', count(*) FROM instance_size_aggregations ORDER BY 1
"""


@pytest.fixture
def day() -> date:
    return today(load_settings().zone)


def run(instance: dg.DagsterInstance, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    run_config = {"ops": {"aggregate_current": {"config": config}}}
    return defs.resolve_job_def("capacity_aggregate_current").execute_in_process(
        instance=instance, run_config=run_config, raise_on_error=False
    )


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, tuple[str | None, dict[str, Any]]]:
    found = [e.step_materialization_data.materialization for e in result.all_events if e.is_step_materialization]
    return {
        one.asset_key.to_user_string(): (one.partition, {name: value.value for name, value in one.metadata.items()})
        for one in found
    }


@pytest.mark.parametrize(
    ("scope", "written"),
    [
        ("all", [("database", 2), ("instance", 1)]),
        ("instance", [("database", 0), ("instance", 1)]),
        ("database", [("database", 2), ("instance", 0)]),
    ],
)
def test_only_the_levels_of_the_scope_are_calculated_and_reported(
    store: Engine, dagster_instance: dg.DagsterInstance, day: date, scope: str, written: list[tuple[str, int]]
) -> None:
    put_sizes(store, [(1, "shop", day, 100 * MIB), (1, "crm", day, 10 * MIB)])
    result = run(dagster_instance, {"scope": scope})
    assert result.success
    assert rows(store, WRITTEN) == written
    found = materialized(result)
    assert set(found) == {f"{level}_size_aggregations/daily" for level, count in written if count}
    for partition, metadata in found.values():
        assert partition == str(day)
        assert metadata["state"] == "done"
        assert metadata["closing_size_bytes"] == 110 * MIB
        assert len(metadata["top_growers"].records) in {1, 2}


def test_without_configuration_it_is_everything_of_today(
    store: Engine, dagster_instance: dg.DagsterInstance, day: date
) -> None:
    put_sizes(store, [(1, "shop", day, MIB), (1, "shop", day - timedelta(days=1), MIB)])
    assert defs.resolve_job_def("capacity_aggregate_current").execute_in_process(instance=dagster_instance).success
    assert rows(store, WRITTEN) == [("database", 1), ("instance", 1)]


def test_a_day_without_sizes_is_skipped_and_says_so(
    store: Engine, dagster_instance: dg.DagsterInstance, day: date
) -> None:
    put_sizes(store, [(1, "shop", day - timedelta(days=1), MIB)])
    found = materialized(run(dagster_instance, {"scope": "database"}))
    assert found["database_size_aggregations/daily"][1]["skipped"] is True


def test_a_run_that_crosses_midnight_stays_on_the_day_it_was_asked_for(
    store: Engine, dagster_instance: dg.DagsterInstance, day: date
) -> None:
    yesterday = day - timedelta(days=1)
    put_sizes(store, [(1, "shop", day, MIB), (1, "shop", yesterday, MIB)])
    found = materialized(run(dagster_instance, {"scope": "instance", "day": str(yesterday)}))
    assert found["instance_size_aggregations/daily"][0] == str(yesterday)


def test_there_is_an_item_per_instance_and_level(
    store: Engine, dagster_instance: dg.DagsterInstance, day: date
) -> None:
    put_sizes(store, [(1, "shop", day, MIB)])
    with store.begin() as connection:
        connection.execute(text("SELECT setval(pg_get_serial_sequence('instances', 'id'), 10)"))
    silent = add_instance(store, "silent")
    add_instance(store, "gone", is_active=False)
    mirror(store, dagster_instance, run(dagster_instance, {"scope": "all"}).run_id)
    assert rows(store, ITEMS) == [
        ("database_aggregation", "1", "completed", None),
        ("database_aggregation", str(silent), "completed", "true"),
        ("instance_aggregation", "1", "completed", None),
        ("instance_aggregation", str(silent), "completed", "true"),
    ]
    assert rows(
        store, "SELECT task_key, status, progress_total, progress_completed, progress_failed FROM task_runs"
    ) == [("capacity_aggregate_current", "completed", 4, 4, 0)]


def test_the_summary_says_what_was_asked_for_and_what_ran(
    store: Engine, dagster_instance: dg.DagsterInstance, day: date
) -> None:
    run(dagster_instance, {"scope": "database", "period_type": "monthly"})
    ((common,),) = rows(store, "SELECT summary_json -> 'common' FROM task_runs")
    assert common["inputs"] == {
        "scope": "database",
        "requested_period_type": "monthly",
        "effective_period_type": "daily",
    }
    assert common["scope"]["time"] == {"type": "date", "timezone": str(ZONE), "date": str(day)}


def test_a_scope_that_is_none_starts_nothing(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="scope"):
        run(dagster_instance, {"scope": "table"})
    assert rows(store, WRITTEN) == [("database", 0), ("instance", 0)]


@pytest.mark.parametrize("asked", ["soon", "2026-02-30", "1999-01-01", "2999-01-01"])
def test_a_day_that_has_no_partition_fails_the_run_and_not_its_mirror(
    store: Engine, dagster_instance: dg.DagsterInstance, day: date, asked: str
) -> None:
    result = run(dagster_instance, {"day": asked})
    assert not result.success
    assert materialized(result) == {}
    mirror(store, dagster_instance, result.run_id)
    reason = (
        f"day is '{asked}', and has to be one from {load_settings().start_date} to {day}, written like that; without "
        "it, today is aggregated"
    )
    assert rows(store, "SELECT status, error_message FROM task_runs") == [("failed", reason)]


@pytest.mark.parametrize(
    "period",
    [CurrentPeriod("all", date(2026, 6, 22)), CurrentPeriod("database", date(2026, 6, 22), "weekly")],
)
def test_the_mirror_reads_what_the_api_configures(period: CurrentPeriod) -> None:
    assert read_run_config(dict(period.run_config()), date(2026, 6, 30)) == period


def test_the_launchpad_offers_the_three_scopes() -> None:
    job = defs.resolve_job_def("capacity_aggregate_current")
    for scope in ("all", "instance", "database"):
        assert dg.validate_run_config(job, {"ops": {"aggregate_current": {"config": {"scope": scope}}}})
