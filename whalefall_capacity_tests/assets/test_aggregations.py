"""The aggregation assets: metadata an operator can read and the UI can plot."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine

from whalefall_capacity.asset_keys import aggregation_key
from whalefall_capacity.assets.aggregations import AGGREGATIONS
from whalefall_capacity.definitions import defs
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity_tests.store.past import put_sizes

MONDAY = date(2026, 6, 22)


def run(instance: dg.DagsterInstance, period_type: PeriodType, first: date, last: date) -> dg.ExecuteInProcessResult:
    tags = range_tags(first, last)
    return defs.resolve_job_def(f"aggregate_{period_type.value}").execute_in_process(instance=instance, tags=tags)


def metadata(result: dg.ExecuteInProcessResult, level: Level, period_type: PeriodType, start: date) -> dict[str, Any]:
    (found,) = [
        materialization
        for event in result.all_events
        if event.is_step_materialization
        and (materialization := event.step_materialization_data.materialization).partition == start.isoformat()
        and materialization.asset_key == aggregation_key(level, period_type)
    ]
    return {name: value.value for name, value in found.metadata.items()}


def test_there_are_eight_assets_below_the_stats() -> None:
    assert sorted(asset.key.to_user_string() for asset in AGGREGATIONS) == [
        "database_size_aggregations/daily",
        "database_size_aggregations/monthly",
        "database_size_aggregations/quarterly",
        "database_size_aggregations/weekly",
        "instance_size_aggregations/daily",
        "instance_size_aggregations/monthly",
        "instance_size_aggregations/quarterly",
        "instance_size_aggregations/weekly",
    ]
    for asset in AGGREGATIONS:
        (upstream,) = asset.dependency_keys
        assert upstream.to_user_string() == asset.key.path[0].replace("aggregations", "stats")
        assert asset.backfill_policy == dg.BackfillPolicy.single_run()


def test_a_range_has_metadata_of_every_window_and_the_growers_of_the_latest(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    before = MONDAY - timedelta(days=7)
    put_sizes(
        store, [(1, "shop", before, 100), (1, "crm", before, 100), (1, "shop", MONDAY, 300), (1, "crm", MONDAY, 50)]
    )
    result = run(dagster_instance, PeriodType.WEEKLY, before, MONDAY + timedelta(days=7))
    first, second, third = (
        metadata(result, Level.DATABASE, PeriodType.WEEKLY, before + timedelta(days=7 * n)) for n in range(3)
    )
    assert (first["state"], first["rows_written"], first["closing_size_bytes"]) == ("done", 2, 200)
    assert "growth_bytes" not in first
    assert (second["growth_bytes"], second["growth_percent"]) == (150, 75.0)
    grown, shrunk = (record.data for record in second["top_growers"].records)
    assert (grown["database"], grown["average_bytes"], grown["change_bytes"], grown["change_percent"]) == (
        "shop",
        300,
        200,
        200.0,
    )
    assert (shrunk["database"], shrunk["change_bytes"], shrunk["change_percent"]) == ("crm", -50, -50.0)
    assert (third["state"], third["skipped"]) == ("skipped", True)
    instance = metadata(result, Level.INSTANCE, PeriodType.WEEKLY, MONDAY)
    assert (instance["growth_bytes"], instance["instances"], instance["dagster/partition_row_count"]) == (150, 1, 1)


def test_growth_is_against_the_window_before_also_when_that_is_not_part_of_the_run(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    put_sizes(store, [(1, "shop", MONDAY - timedelta(days=1), 100), (1, "shop", MONDAY, 110)])
    run(dagster_instance, PeriodType.DAILY, MONDAY - timedelta(days=1), MONDAY - timedelta(days=1))
    result = run(dagster_instance, PeriodType.DAILY, MONDAY, MONDAY)
    assert metadata(result, Level.INSTANCE, PeriodType.DAILY, MONDAY)["growth_percent"] == 10.0


@pytest.mark.parametrize("asset", AGGREGATIONS, ids=lambda asset: asset.key.to_user_string())
def test_every_asset_says_what_it_is(asset: dg.AssetsDefinition) -> None:
    (spec,) = asset.specs
    assert spec.owners == ["team:dba"]
    assert spec.kinds == {"postgres"}
    assert spec.description is not None
    columns = {column.name for column in spec.metadata["dagster/column_schema"].columns}
    assert {"instance_id", "period_start", "sum_size_bytes", "closing_size_bytes"} <= columns
