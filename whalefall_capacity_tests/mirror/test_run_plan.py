"""Plan of a Dagster run, read from nothing but its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import pytest

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS, aggregation_key
from whalefall_capacity.definitions import defs
from whalefall_capacity.mirror.run_plan import RunPlan, read_plan
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.aggregations.statements import Level

STATS = (DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS)
DATABASES, INSTANCES = (aggregation_key(level, PeriodType.DAILY) for level in Level)
WEEKLY_DATABASES = aggregation_key(Level.DATABASE, PeriodType.WEEKLY)
# The implicit job of all assets, in which the UI materializes what is picked by hand.
PICKED = "__ASSET_JOB"
BOTH = [Level.DATABASE, Level.INSTANCE]


def run(
    job: str,
    selection: Sequence[dg.AssetKey] = (),
    steps: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    **config: Any,
) -> dg.DagsterRun:
    return dg.DagsterRun(
        job_name=job,
        asset_selection=frozenset(selection) or None,
        step_keys_to_execute=list(steps) if steps else None,
        tags=tags,
        run_config={"ops": {"size_stats": {"config": config}}} if config else {},
    )


def plan(
    job: str = "sync_databases",
    selection: Sequence[dg.AssetKey] = (),
    steps: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    **config: Any,
) -> RunPlan:
    return read_plan(run(job, selection, steps, tags, **config))


def day(key: str) -> dict[str, str]:
    return {"dagster/partition": key}


def days(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


@pytest.mark.parametrize(
    ("job", "selection", "steps", "key", "category", "levels", "period"),
    [
        ("sync_databases", (), None, "sync_databases", "capacity", BOTH, "daily"),
        ("aggregate_daily", (), None, "calculate_database", "aggregation", BOTH, "daily"),
        ("aggregate_weekly", (), None, "calculate_database", "aggregation", BOTH, "weekly"),
        ("aggregate_monthly", (), None, "calculate_database", "aggregation", BOTH, "monthly"),
        ("aggregate_quarterly", (), None, "calculate_database", "aggregation", BOTH, "quarterly"),
        ("capacity_aggregate_current", (), None, "capacity_aggregate_current", "aggregation", BOTH, "daily"),
        ("partition_maintenance", (), None, "partition_maintenance", "maintenance", [], None),
        ("forecast_capacity", (), None, "other", "maintenance", [], "daily"),
        ("somebody_elses_job", (), None, "other", "maintenance", [], None),
        # Picked by hand
        (PICKED, STATS, None, "sync_databases", "capacity", [], "daily"),
        (PICKED, [*STATS, DATABASES, INSTANCES], None, "sync_databases", "capacity", BOTH, "daily"),
        (PICKED, [DATABASES, INSTANCES], None, "calculate_database", "aggregation", BOTH, "daily"),
        (PICKED, [INSTANCES], None, "calculate_database", "aggregation", [Level.INSTANCE], "daily"),
        (PICKED, [WEEKLY_DATABASES], None, "calculate_database", "aggregation", [Level.DATABASE], "weekly"),
        (PICKED, [dg.AssetKey("elsewhere")], None, "other", "maintenance", [], None),
        ("sync_databases", [DATABASES], None, "calculate_database", "aggregation", [Level.DATABASE], "daily"),
        ("aggregate_weekly", [WEEKLY_DATABASES], None, "calculate_database", "aggregation", [Level.DATABASE], "weekly"),
        # Re-executed from a step
        ("sync_databases", (), ["size_stats.report"], "sync_databases", "capacity", [], "daily"),
        (
            "sync_databases",
            (),
            ["size_stats.visits[501_1000]", "size_stats.visits[1501_2000]"],
            "sync_databases",
            "capacity",
            [],
            "daily",
        ),
        ("sync_databases", (), ["stats_checks"], "other", "maintenance", [], None),
        # As earlier versions called it.
        ("sync_databases", (), ["size_stats"], "sync_databases", "capacity", [], "daily"),
        (
            "sync_databases",
            (),
            ["database_size_aggregations__daily"],
            "calculate_database",
            "aggregation",
            [Level.DATABASE],
            "daily",
        ),
        (
            "sync_databases",
            [*STATS, DATABASES, INSTANCES],
            ["size_stats.report", "instance_size_aggregations__daily"],
            "sync_databases",
            "capacity",
            [Level.INSTANCE],
            "daily",
        ),
    ],
)
def test_assets_decide_what_task_a_run_is(
    job: str,
    selection: Sequence[dg.AssetKey],
    steps: Sequence[str] | None,
    key: str,
    category: str,
    levels: list[Level],
    period: str | None,
) -> None:
    found = plan(job, selection, steps)
    assert (found.task.key, found.task.category) == (key, category)
    assert list(found.levels) == levels
    assert found.period_type == (PeriodType(period) if period else None)
    assert found.collects == (key == "sync_databases")


def test_the_names_of_steps_are_those_of_the_jobs() -> None:
    steps = {
        name
        for job in ("sync_databases", "aggregate_weekly", "aggregate_monthly", "aggregate_quarterly")
        for name in defs.resolve_job_def(job).graph.node_dict
        if not name.endswith("checks")
    }
    assert steps == {
        "size_stats",
        "insight",
        *(f"{level}_size_aggregations__{p.value}" for level in ("database", "instance") for p in PeriodType),
    }


@pytest.mark.parametrize(
    ("job", "tags", "first", "last", "name"),
    [
        ("sync_databases", day("2026-06-22"), "2026-06-22", "2026-06-22", "Collect sizes of 2026-06-22"),
        (
            "sync_databases",
            days("2026-06-01", "2026-06-30"),
            "2026-06-01",
            "2026-06-30",
            "Collect sizes of 2026-06-01 to 2026-06-30",
        ),
        (
            "aggregate_daily",
            day("2026-06-22"),
            "2026-06-22",
            "2026-06-22",
            "Calculate daily aggregations of 2026-06-22",
        ),
        (
            "aggregate_weekly",
            day("2026-06-22"),
            "2026-06-22",
            "2026-06-28",
            "Calculate weekly aggregations of 2026-06-22 to 2026-06-28",
        ),
        (
            "aggregate_monthly",
            days("2026-01-01", "2026-02-01"),
            "2026-01-01",
            "2026-02-28",
            "Calculate monthly aggregations of 2026-01-01 to 2026-02-28",
        ),
        (
            "aggregate_quarterly",
            day("2026-04-01"),
            "2026-04-01",
            "2026-06-30",
            "Calculate quarterly aggregations of 2026-04-01 to 2026-06-30",
        ),
        ("sync_databases", {}, None, None, "Collect sizes"),
        ("partition_maintenance", {}, None, None, "Table partition maintenance"),
        ("somebody_elses_job", day("2026-06-22"), None, None, "somebody_elses_job"),
    ],
)
def test_partitions_are_the_days_that_they_cover(
    job: str, tags: dict[str, str], first: str | None, last: str | None, name: str
) -> None:
    found = plan(job, tags=tags)
    assert found.days == ((date.fromisoformat(first), date.fromisoformat(last)) if first and last else None)
    assert found.task_name == name


@pytest.mark.parametrize(
    ("tags", "trigger"),
    [
        ({}, "manual"),
        ({"dagster/schedule_name": "daily_collection"}, "scheduled"),
        ({"dagster/sensor_name": "aggregations_follow_stats"}, "scheduled"),
        ({"dagster/backfill": "abcdefgh"}, "manual"),
        ({"whalefall/trigger": "api"}, "api"),
        ({"whalefall/trigger": "anything else"}, "manual"),
        ({"dagster/auto_materialize": "true", "dagster/sensor_name": "automation"}, "scheduled"),
        # The UI copies the tags of the run that is executed again; Dagster's own retries are counted.
        ({"dagster/schedule_name": "daily_collection", "dagster/parent_run_id": "r"}, "manual"),
        ({"whalefall/trigger": "api", "dagster/parent_run_id": "r"}, "manual"),
        (
            {
                "dagster/schedule_name": "daily_collection",
                "dagster/parent_run_id": "r",
                "dagster/retry_number": "1",
            },
            "scheduled",
        ),
    ],
)
def test_tags_tell_who_asked_for_the_run(tags: dict[str, str], trigger: str) -> None:
    assert plan(tags=tags).trigger_source == trigger


def test_whoever_launched_the_run_for_somebody_says_for_whom() -> None:
    asked = {"whalefall/created_by": "dba"}
    assert plan(tags=asked).created_by == "dba"
    again = asked | {"dagster/parent_run_id": "r"}
    assert plan(tags=again).created_by is None
    assert plan(tags=again | {"dagster/retry_number": "1"}).created_by == "dba"
    assert plan().created_by is None


def test_a_targeted_collection_names_its_instances() -> None:
    assert plan(instance_ids=[7, 8]).instance_ids == [7, 8]
    assert plan(instance_ids=None).instance_ids is None
    assert plan().instance_ids is None
    assert plan(steps=["database_size_aggregations__daily"], instance_ids=[7]).instance_ids is None


@pytest.mark.parametrize(
    ("found", "inputs", "time", "target"),
    [
        (
            plan(tags=day("2026-06-22"), instance_ids=[7]),
            {"first": "2026-06-22", "last": "2026-06-22"},
            {"type": "date", "timezone": "Asia/Shanghai", "date": "2026-06-22"},
            {"instance_ids": [7], "levels": ["database", "instance"], "period_type": "daily"},
        ),
        (
            plan("aggregate_weekly", [WEEKLY_DATABASES], tags=day("2026-06-22")),
            {"first": "2026-06-22", "last": "2026-06-28"},
            None,
            {"levels": ["database"], "period_type": "weekly"},
        ),
        (plan("partition_maintenance"), {}, None, {}),
    ],
)
def test_the_summary_says_beforehand_what_the_run_is_about(
    found: RunPlan, inputs: dict[str, Any], time: dict[str, Any] | None, target: dict[str, Any]
) -> None:
    assert found.summary("Asia/Shanghai").model_dump(mode="json") == {
        "version": 1,
        "common": {
            "inputs": inputs,
            "scope": {"time": time, "target": target},
            "metrics": [],
            "highlights": [],
            "flags": {"skipped": False, "skip_reason": None},
        },
        "ext": {"type": found.task.key, "version": 1, "data": {}},
    }
