"""What a Dagster run is about, read from its record: which task it is, who asked for it, which days it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import dagster as dg

from whalefall_capacity import current_period
from whalefall_capacity.asset_keys import KEYS_OF_JOB, STATS_KEYS, step_key
from whalefall_capacity.current_period import CurrentPeriod
from whalefall_capacity.dagster_private import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARENT_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    RETRY_NUMBER_TAG,
    SCHEDULE_NAME_TAG,
    SENSOR_NAME_TAG,
)
from whalefall_capacity.periods import PeriodType, today, window_of
from whalefall_capacity.run_tags import CREATED_BY_TAG, TRIGGER_TAG
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.task_runs.summary import TaskSummary, summary_of_days
from whalefall_capacity.tasks import AGGREGATE_CURRENT, CALCULATE_DATABASE, OP_JOBS, STATS_STEP, SYNC_DATABASES, Task


@dataclass(frozen=True)
class RunPlan:
    """What a run will do; *first* and *last* are the days it covers, None for a run without partitions."""

    task_key: str
    task_name: str
    task_category: str
    trigger_source: str
    created_by: str | None
    first: date | None
    last: date | None
    period_type: PeriodType | None
    levels: Sequence[Level]
    instance_ids: Sequence[int] | None
    current: CurrentPeriod | None = None

    @property
    def collects(self) -> bool:
        return self.task_key == SYNC_DATABASES.key

    def summary(self, timezone: str) -> TaskSummary:
        """Return the summary as it is before the work."""
        if self.current is not None:
            return self.current.summary(timezone)
        return summary_of_days(
            self.task_key,
            timezone,
            days=None if self.first is None or self.last is None else (self.first, self.last),
            instance_ids=self.instance_ids,
            levels=[level.value for level in self.levels],
            period_type=None if self.period_type is None else self.period_type.value,
        )


def read_plan(run: dg.DagsterRun) -> RunPlan:
    """Return what *run* will do."""
    if run.job_name == AGGREGATE_CURRENT.key:
        return _read_current(run)
    keys = asset_keys_of(run)
    collects = any(key in STATS_KEYS for key in keys)
    aggregations = [(Level(key.path[0].split("_")[0]), PeriodType(key.path[1])) for key in keys if len(key.path) == 2]
    period_type = aggregations[0][1] if aggregations else PeriodType.DAILY if collects else None
    first, last = _days(run.tags, period_type) if period_type else (None, None)
    task = _task(run.job_name, collects, period_type)
    return RunPlan(
        task_key=task.key,
        task_name=f"{task.name} {_span(first, last)}" if first and last else task.name,
        task_category=task.category,
        trigger_source=_trigger(run.tags),
        created_by=_created_by(run.tags),
        first=first,
        last=last,
        period_type=period_type,
        levels=[level for level, _ in aggregations],
        instance_ids=_instance_ids(run.run_config) if collects else None,
    )


def _read_current(run: dg.DagsterRun) -> RunPlan:
    period = current_period.read_run_config(run.run_config, today(load_settings().zone))
    return RunPlan(
        task_key=AGGREGATE_CURRENT.key,
        task_name=f"{AGGREGATE_CURRENT.name} {_span(period.day, period.day)}",
        task_category=AGGREGATE_CURRENT.category,
        trigger_source=_trigger(run.tags),
        created_by=_created_by(run.tags),
        first=period.day,
        last=period.day,
        period_type=PeriodType.DAILY,
        levels=period.levels,
        instance_ids=None,
        current=period,
    )


def asset_keys_of(run: dg.DagsterRun) -> list[dg.AssetKey]:
    """Return the assets that the run materializes, of a re-execution those of the steps that run again."""
    selected = run.asset_selection
    # Some are of two jobs.
    known = dict.fromkeys(key for keys in KEYS_OF_JOB.values() for key in keys)
    keys = [key for key in known if key in selected] if selected else list(KEYS_OF_JOB.get(run.job_name, ()))
    steps = run.step_keys_to_execute
    return [key for key in keys if steps is None or step_key(key) in steps]


def _task(job_name: str, collects: bool, period_type: PeriodType | None) -> Task:
    """Return the task, named for what the run does of it."""
    if collects:
        return SYNC_DATABASES
    if period_type is not None:
        return replace(CALCULATE_DATABASE, name=f"Calculate {period_type.value} aggregations")
    return OP_JOBS.get(job_name, Task("other", job_name, "maintenance"))


def _days(tags: Mapping[str, str], period_type: PeriodType) -> tuple[date | None, date | None]:
    first = tags.get(ASSET_PARTITION_RANGE_START_TAG) or tags.get(PARTITION_NAME_TAG)
    last = tags.get(ASSET_PARTITION_RANGE_END_TAG) or first
    if first is None or last is None:
        return None, None
    return date.fromisoformat(first), window_of(date.fromisoformat(last), period_type).end


def _span(first: date, last: date) -> str:
    return f"of {first}" if first == last else f"of {first} to {last}"


def _is_executed_again(tags: Mapping[str, str]) -> bool:
    """Did somebody execute an earlier run again? The UI copies its tags; a retry of Dagster's own has a number."""
    return PARENT_RUN_ID_TAG in tags and RETRY_NUMBER_TAG not in tags


def _created_by(tags: Mapping[str, str]) -> str | None:
    """Return who asked for the run; Dagster does not know who executes one again."""
    return None if _is_executed_again(tags) else tags.get(CREATED_BY_TAG)


def _trigger(tags: Mapping[str, str]) -> str:
    if _is_executed_again(tags):
        return "manual"
    if SCHEDULE_NAME_TAG in tags or SENSOR_NAME_TAG in tags:
        return "scheduled"
    return "api" if tags.get(TRIGGER_TAG) == "api" else "manual"


def _instance_ids(run_config: Mapping[str, Any]) -> list[int] | None:
    ids: list[int] | None = run_config.get("ops", {}).get(STATS_STEP, {}).get("config", {}).get("instance_ids")
    return ids
