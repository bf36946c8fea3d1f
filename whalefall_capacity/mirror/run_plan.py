"""Plan of a Dagster run, read from its record: its task, who requested it, the days and instances that it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import dagster as dg

from whalefall_capacity import current_period
from whalefall_capacity.asset_keys import INSIGHT_KEYS, KEYS_OF_JOB, STATS_KEYS, materializes
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
from whalefall_capacity.tasks import (
    AGGREGATE_CURRENT,
    CALCULATE_DATABASE,
    INSIGHT,
    OP_JOBS,
    STATS_STEP,
    SYNC_DATABASES,
    Task,
)


@dataclass(frozen=True)
class RunPlan:
    """The work of a run; *days* are the first and the last that it covers, None for a run without partitions."""

    task: Task
    tags: Mapping[str, str]
    days: tuple[date, date] | None
    period_type: PeriodType | None
    levels: Sequence[Level]
    instance_ids: Sequence[int] | None = None
    current: CurrentPeriod | None = None

    @property
    def task_name(self) -> str:
        """The name of the task with the days that it covers."""
        if self.days is None:
            return self.task.name
        first, last = self.days
        return f"{self.task.name} of {first}" + ("" if first == last else f" to {last}")

    @property
    def created_by(self) -> str | None:
        """The name of the user who requested the run; for a re-execution Dagster does not know it."""
        return None if self._is_reexecution else self.tags.get(CREATED_BY_TAG)

    @property
    def trigger_source(self) -> str:
        """The kind of trigger: scheduled, api or manual."""
        if self._is_reexecution:
            return "manual"
        if SCHEDULE_NAME_TAG in self.tags or SENSOR_NAME_TAG in self.tags:
            return "scheduled"
        return "api" if self.tags.get(TRIGGER_TAG) == "api" else "manual"

    @property
    def _is_reexecution(self) -> bool:
        """True if a user re-executed an earlier run: the UI copies its tags; Dagster's own retries have a number."""
        return PARENT_RUN_ID_TAG in self.tags and RETRY_NUMBER_TAG not in self.tags

    @property
    def collects(self) -> bool:
        return self.task == SYNC_DATABASES

    def summary(self, timezone: str) -> TaskSummary:
        """Return the summary of the run before its work begins."""
        if self.current is not None:
            return self.current.summary(timezone)
        return summary_of_days(
            self.task.key,
            timezone,
            days=self.days,
            instance_ids=self.instance_ids,
            levels=[level.value for level in self.levels],
            period_type=None if self.period_type is None else self.period_type.value,
        )


def read_plan(run: dg.DagsterRun) -> RunPlan:
    """Return what *run* will do."""
    if run.job_name == AGGREGATE_CURRENT.key:
        period = current_period.read_run_config(run.run_config, today(load_settings().zone))
        day, daily = period.day, PeriodType.DAILY
        return RunPlan(AGGREGATE_CURRENT, run.tags, (day, day), daily, period.levels, current=period)
    keys = asset_keys_of(run)
    collects = any(key in STATS_KEYS for key in keys)
    aggregations = [(Level(key.path[0].split("_")[0]), PeriodType(key.path[1])) for key in keys if len(key.path) == 2]
    forecasts = any(key in INSIGHT_KEYS for key in keys)
    period_type = aggregations[0][1] if aggregations else PeriodType.DAILY if collects or forecasts else None
    return RunPlan(
        task=INSIGHT if forecasts and not (collects or aggregations) else _task(run.job_name, collects, period_type),
        tags=run.tags,
        days=_days(run.tags, period_type) if period_type else None,
        period_type=period_type,
        levels=[level for level, _ in aggregations],
        instance_ids=_instance_ids(run.run_config) if collects else None,
    )


def asset_keys_of(run: dg.DagsterRun) -> list[dg.AssetKey]:
    """Return the assets that the run materializes; for a re-execution, those of the steps that run again."""
    selected = run.asset_selection
    # Some assets belong to two jobs.
    known = dict.fromkeys(key for keys in KEYS_OF_JOB.values() for key in keys)
    keys = [key for key in known if key in selected] if selected else list(KEYS_OF_JOB.get(run.job_name, ()))
    steps = run.step_keys_to_execute
    return [key for key in keys if steps is None or any(materializes(step, key) for step in steps)]


def _task(job_name: str, collects: bool, period_type: PeriodType | None) -> Task:
    """Return the task, named after the part of it that the run does."""
    if collects:
        return SYNC_DATABASES
    if period_type is not None:
        return replace(CALCULATE_DATABASE, name=f"Calculate {period_type.value} aggregations")
    return OP_JOBS.get(job_name, Task("other", job_name, "maintenance"))


def _days(tags: Mapping[str, str], period_type: PeriodType) -> tuple[date, date] | None:
    first = tags.get(ASSET_PARTITION_RANGE_START_TAG) or tags.get(PARTITION_NAME_TAG)
    last = tags.get(ASSET_PARTITION_RANGE_END_TAG) or first
    if first is None or last is None:
        return None
    return date.fromisoformat(first), window_of(date.fromisoformat(last), period_type).end


def _instance_ids(run_config: Mapping[str, Any]) -> list[int] | None:
    ids: list[int] | None = run_config.get("ops", {}).get(STATS_STEP, {}).get("config", {}).get("instance_ids")
    return ids
