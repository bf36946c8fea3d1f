"""The assets of forecasts and anomalies, and their checks: what an operator sees."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.assets.insight import insight
from whalefall_capacity.assets.insight_checks import accuracy_result, anomaly_result, full_soon_result
from whalefall_capacity.definitions import defs
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.store.insight.read import Accuracy, accuracy_of_days, anomalies_of_days, forecasts_of_day
from whalefall_capacity_tests.store.insight.golden import GIB, TODAY, forecast, line, put_history
from whalefall_capacity_tests.store.maintenance.upkeep import upkeep
from whalefall_capacity_tests.store.records import rows

KEYS = ("capacity_forecasts", "size_anomalies")


def run(instance: dg.DagsterInstance, first: date, last: date, **options: Any) -> dg.ExecuteInProcessResult:
    tags = range_tags(first, last)
    return defs.resolve_job_def("forecast_capacity").execute_in_process(instance=instance, tags=tags, **options)


def metadata(result: dg.ExecuteInProcessResult, asset: str, day: date) -> dict[str, Any]:
    (found,) = [
        event.step_materialization_data.materialization
        for event in result.all_events
        if event.is_step_materialization
        and event.step_materialization_data.materialization.partition == day.isoformat()
        and event.asset_key == dg.AssetKey(asset)
    ]
    return {name: value.value for name, value in found.metadata.items()}


def calculated_on(store: Engine, day: date) -> None:
    """Say that all that is stored was calculated on that day."""
    for name in KEYS:
        with store.begin() as connection:
            connection.execute(text(f"UPDATE {name} SET calculated_at = :at"), {"at": f"{day} 03:00+08"})


def stored(store: Engine) -> list[list[tuple[Any, ...]]]:
    """Return every row of the forecasts, of their accuracy and of the anomalies."""
    return [
        rows(store, f"SELECT t::text FROM {name} AS t ORDER BY 1") for name in (KEYS[0], "forecast_accuracy", KEYS[1])
    ]


def table(value: Any) -> list[dict[str, Any]]:
    return [dict(record.data) for record in value.records]


def test_both_lie_downstream_of_both_stats_in_a_group_of_their_own() -> None:
    graph = defs.resolve_asset_graph()
    for name in KEYS:
        node = graph.get(dg.AssetKey(name))
        assert node.group_name == "insight"
        assert {key.to_user_string() for key in node.parent_keys} == {"database_size_stats", "instance_size_stats"}
    assert insight.backfill_policy == dg.BackfillPolicy.single_run()


def test_the_daily_run_forecasts_after_it_has_aggregated(store: Engine, dagster_instance: dg.DagsterInstance) -> None:  # noqa: ARG001
    day = defs.resolve_job_def("sync_databases").partitions_def
    assert day is not None
    result = defs.resolve_job_def("sync_databases").execute_in_process(
        instance=dagster_instance, partition_key=day.get_last_partition_key()
    )
    steps = [event.step_key for event in result.all_events if event.is_step_success]
    aggregated = [steps.index(f"{level}_size_aggregations__daily") for level in ("database", "instance")]
    assert steps.index("insight") > max(aggregated)


def test_a_day_tells_status_soonest_accuracy_and_anomalies(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    put_history(store, 1, {"orders": line()}, 329)
    put_history(store, 2, {"orders": line(13)}, 200)
    put_history(store, 3, {"orders": [*line(199), 400]})
    found = metadata(run(dagster_instance, TODAY, TODAY), "capacity_forecasts", TODAY)
    assert (found["instances_dated"], found["instances_too_new"], found["instances_no_limit"]) == (1, 1, 1)
    (soonest,) = table(found["soonest"])
    assert (soonest["instance"], soonest["expected"], soonest["latest"]) == ("instance-1", "2026-07-30", "2026-08-04")
    assert (found["coverage_percent"], found["error_percent"], found["forecasts_looked_back_at"]) == (100, 0, 2)
    assert found["error_of_no_growth_percent"] > found["error_of_least_squares_percent"] >= 0
    assert (found["anomalies"], found["dagster/partition_row_count"]) == (1, 3)
    assert found["seconds"] >= 0


def test_a_range_is_one_run_and_a_second_one_changes_nothing(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    put_history(store, 1, {"orders": line()}, 329)
    first = TODAY - timedelta(days=30)
    run(dagster_instance, first, TODAY)
    expected = [
        forecast.expected_date for day in range(31) for forecast in forecasts_of_day(store, first + timedelta(day))
    ]
    assert set(expected) == {date(2026, 7, 30)}
    assert len(expected) == 31
    again = run(dagster_instance, first, TODAY)
    for name in KEYS:
        assert {metadata(again, name, first + timedelta(days=day))["rows_changed"] for day in range(31)} == {0}


def test_a_day_whose_sizes_were_retired_since_is_left_as_it_is(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    put_history(store, 1, {"orders": [*line(280), 480]}, 600)
    run(dagster_instance, TODAY, TODAY)
    calculated_on(store, TODAY)
    before = stored(store)
    # Of the stats, 13 months are kept: those from the autumn of 2025 to February are gone by now.
    upkeep(store, date(2027, 4, 20), confirmed=True)
    assert rows(store, "SELECT min(collected_date) FROM database_size_stats") == [(date(2026, 3, 1),)]
    again = run(dagster_instance, TODAY, TODAY)
    assert stored(store) == before
    assert [len(of_table) for of_table in before] == [1, 6, 1]
    forecasts, anomalies = (metadata(again, name, TODAY) for name in KEYS)
    assert (forecasts["sealed"], forecasts["rows_changed"], forecasts["instances_dated"]) == (True, 0, 1)
    assert (anomalies["sealed"], anomalies["rows_changed"], anomalies["jumps"]) == (True, 0, 1)


def test_a_day_calculated_after_its_sizes_were_retired_is_corrected_like_any_other(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    put_history(store, 1, {"orders": line(280)}, 600)
    upkeep(store, date(2027, 4, 20), confirmed=True)
    run(dagster_instance, TODAY, TODAY)
    calculated_on(store, date(2027, 4, 20))
    put_history(store, 1, {"orders": line(100)}, 600)
    corrected = metadata(run(dagster_instance, TODAY, TODAY), "capacity_forecasts", TODAY)
    assert "sealed" not in corrected
    assert corrected["rows_changed"] > 0
    (found,) = forecasts_of_day(store, TODAY)
    assert found.used_bytes == 199 * GIB


@pytest.mark.parametrize(("selected", "other"), [KEYS, KEYS[::-1]])
def test_one_of_both_can_be_materialized_alone(
    store: Engine, dagster_instance: dg.DagsterInstance, selected: str, other: str
) -> None:
    put_history(store, 1, {"orders": [*line(199), 400]}, 500)
    run(dagster_instance, TODAY, TODAY, asset_selection=[dg.AssetKey(selected)])
    assert rows(store, f"SELECT count(*) FROM {selected}") == [(1,)]
    assert rows(store, f"SELECT count(*) FROM {other}") == [(0,)]


def test_a_disk_that_is_full_within_a_month_warns_and_within_a_week_is_an_error(store: Engine) -> None:
    put_history(store, 1, {"orders": line()}, 329)
    put_history(store, 2, {"orders": line()}, 330)
    forecast(store)
    soon = full_soon_result(TODAY, forecasts_of_day(store, TODAY))
    assert (soon.passed, soon.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert soon.description is not None
    assert soon.description.startswith(
        "1 instances are full or expected to be within 30 days, as of 2026-06-30: instance-1 (2026-07-30). Make room"
    )
    put_history(store, 2, {"orders": line()}, 306)
    put_history(store, 3, {"orders": line()}, 299)
    forecast(store)
    urgent = full_soon_result(TODAY, forecasts_of_day(store, TODAY))
    assert urgent.severity == dg.AssetCheckSeverity.ERROR
    assert [row["instance"] for row in table(urgent.metadata["soonest"])] == ["instance-3", "instance-2", "instance-1"]


def test_a_fleet_in_which_the_forecasts_lose_is_told(store: Engine) -> None:
    # It grew until 90 days ago, and then no more: assuming no growth would have been right.
    for instance_id in range(1, 21):
        put_history(store, instance_id, {"orders": [100 + min(day, 110) for day in range(200)]})
    forecast(store)
    result = accuracy_result(TODAY, accuracy_of_days(store, TODAY, TODAY))
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description is not None
    assert "0.0 % of 20 instances ended in the range" in result.description
    assert "forecasts of instances were off by" in result.description


def test_of_ranges_that_were_too_wide_is_said_that_nothing_need_be_done(store: Engine) -> None:
    for instance_id in range(1, 21):
        put_history(store, instance_id, {"orders": line() if instance_id > 10 else [64] * 200})
    forecast(store)
    accuracy = accuracy_of_days(store, TODAY, TODAY)
    assert [found.coverage_percent for found in accuracy if found.level == "instance"] == [100, 100, 100]
    result = accuracy_result(TODAY, accuracy)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description == (
        "of the forecasts of 90 days before 2026-06-30: 100.0 % of 20 instances ended in the range, which was wider "
        "than this fleet needed. Nothing need be done: from 200 forecasts on, the fleet's own deviations set the width"
    )


def test_without_a_past_there_is_no_accuracy_to_complain_of() -> None:
    nothing: list[Accuracy] = []
    assert accuracy_result(TODAY, nothing).passed


def test_a_jump_warns_and_a_stall_does_not(store: Engine) -> None:
    put_history(store, 1, {"orders": [*line(199), 400], "stalled": [*line(190), *[289] * 20]})
    forecast(store, TODAY - timedelta(days=1), TODAY)
    stalled = anomaly_result(TODAY, anomalies_of_days(store, TODAY - timedelta(days=1), TODAY - timedelta(days=1)))
    assert stalled.passed
    assert stalled.metadata["databases_stalled"].value == 1
    jumped = anomaly_result(TODAY, anomalies_of_days(store, TODAY, TODAY))
    assert (jumped.passed, jumped.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert jumped.description is not None
    assert jumped.description.startswith(
        "1 databases grew or shrank on 2026-06-30 as they never do: instance-1/orders (+"
    )
