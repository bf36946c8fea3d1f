"""The checks of the aggregations: severity, remedy, and that a seed repeats them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine

from whalefall_capacity.asset_keys import aggregation_key
from whalefall_capacity.assets.aggregation_checks import (
    AGGREGATION_CHECKS,
    last_day_due,
    missing_days_result,
    recomputed_result,
)
from whalefall_capacity.definitions import defs
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.periods import PeriodType, today, window_of
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.recompute import Difference, Recomputation
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.sizes.day_comparison import MissingDays
from whalefall_capacity_tests.store.past import put_sizes

DAY = date(2026, 6, 25)
WEEK = window_of(DAY, PeriodType.WEEKLY)
KEY = aggregation_key(Level.DATABASE, PeriodType.WEEKLY)
WRONG = [Difference("shop crm", "max_size_bytes", 2**63, 100)]


def run(instance: dg.DagsterInstance, period_type: PeriodType, day: date, **config: Any) -> dict[str, Any]:
    """Aggregate the window of *day* and return what the checks of both levels said, by asset and check."""
    start = window_of(day, period_type).start
    names = [f"{level.value}_size_aggregations__{period_type.value}__checks" for level in Level]
    result = defs.resolve_job_def(f"aggregate_{period_type.value}").execute_in_process(
        instance=instance,
        tags=range_tags(start, start),
        run_config={"ops": {name: {"config": config} for name in names}},
    )
    return {f"{e.asset_key.path[0]} {e.check_name}": e for e in result.get_asset_check_evaluations()}


def test_every_aggregation_is_recomputed_and_longer_periods_look_for_days() -> None:
    found = {
        (spec.asset_key.to_user_string(), spec.name) for checks in AGGREGATION_CHECKS for spec in checks.check_specs
    }
    keys = [aggregation_key(level, period_type) for level in Level for period_type in PeriodType]
    assert found == {(key.to_user_string(), "recomputed") for key in keys} | {
        (key.to_user_string(), "days_missing") for key in keys if key.path[1] != "daily"
    }
    for checks in AGGREGATION_CHECKS:
        for spec in checks.check_specs:
            assert not spec.blocking
            assert f"docs/checks.md#{spec.name}" in str(spec.description)


@pytest.mark.real_clock
def test_a_run_evaluates_the_checks_of_both_levels(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    this_day = today(load_settings().zone)
    put_sizes(store, [(1, "crm", this_day, 100)])
    found = run(dagster_instance, PeriodType.MONTHLY, this_day)
    assert {name: evaluation.passed for name, evaluation in found.items()} == {
        "database_size_aggregations days_missing": True,
        "database_size_aggregations recomputed": True,
        "instance_size_aggregations days_missing": True,
        "instance_size_aggregations recomputed": True,
    }


def test_a_given_seed_is_used_and_told(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    put_sizes(store, [(1, "crm", DAY, 100)])
    found = run(dagster_instance, PeriodType.DAILY, DAY, seed=4711)["database_size_aggregations recomputed"]
    assert found.metadata["seed"].value == 4711


def test_a_difference_is_an_error_with_figures_and_remedy() -> None:
    result = recomputed_result(KEY, [Recomputation(WEEK, None, 20, WRONG)], 4711)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert result.description == (
        "figures of the windows 2026-06-22 do not match their stats: materialize these partitions again, and report "
        "a bug if the check still fails"
    )
    table = result.metadata["differences"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [dict(record.data) for record in table.records] == [
        {
            "window": "2026-06-22",
            "key": "shop crm",
            "figure": "max_size_bytes",
            "stored": "9223372036854775808",
            "recomputed": "100",
        }
    ]
    assert (result.metadata["seed"].value, result.metadata["rows_compared"].value) == (4711, 20)


def test_a_window_that_is_behind_its_stats_is_a_warning_also_with_differences() -> None:
    result = recomputed_result(KEY, [Recomputation(WEEK, "3 rows of stats, and no calculation yet", 20, WRONG)], 1)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(result.description).startswith("2026-06-22: 3 rows of stats, and no calculation yet. The sensor")


def test_one_window_behind_does_not_excuse_another() -> None:
    other = Recomputation(window_of(DAY - timedelta(days=7), PeriodType.WEEKLY), None, 20, WRONG)
    result = recomputed_result(KEY, [Recomputation(WEEK, "behind", 20, []), other], 1)
    assert result.severity == dg.AssetCheckSeverity.ERROR


def test_with_nothing_to_recompute_the_check_passes() -> None:
    assert recomputed_result(KEY, [], 1).passed


@pytest.mark.parametrize(
    ("latest", "due"), [(DAY, DAY), (DAY - timedelta(days=1), DAY - timedelta(days=1)), (None, DAY - timedelta(days=1))]
)
def test_today_is_due_once_its_first_sizes_are_there(latest: date | None, due: date) -> None:
    assert last_day_due(DAY, latest) == due


def test_missing_days_are_a_warning_with_the_worst_instances() -> None:
    found = [MissingDays("a", 3, DAY - timedelta(days=3), DAY), MissingDays("b", 1, DAY, DAY)]
    result = missing_days_result(KEY, WEEK, DAY, found)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.metadata["days_missing"].value == 4
    assert str(result.description).startswith("2 instances lack days from 2026-06-22 to 2026-06-25. A past day cannot")


def test_before_the_first_day_of_a_period_is_due_nothing_is_missing() -> None:
    result = missing_days_result(KEY, WEEK, WEEK.start - timedelta(days=1), [])
    assert result.passed
    assert result.description == "no day of the period that starts on 2026-06-22 is due yet"
