"""Runs for the command line: the same jobs and executor as ever, recorded in the same Dagster instance."""

from __future__ import annotations

import getpass
import json
import os
import signal
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import uuid4

import dagster as dg

from whalefall_capacity.asset_keys import FORECAST_JOB_NAME, aggregation_key
from whalefall_capacity.assets.checks import FLEET_COVERAGE
from whalefall_capacity.dagster_private import ReconstructableRepository, execute_run
from whalefall_capacity.errors import StoreError, WhalefallError
from whalefall_capacity.execution_choices import ExecutorName
from whalefall_capacity.jobs import AGGREGATION_JOBS
from whalefall_capacity.mirror.follow import failure_text, mirror
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.periods import Window
from whalefall_capacity.resources.store import store_engine
from whalefall_capacity.run_tags import CREATED_BY_TAG, PARTITION_TAG, TRIGGER_TAG
from whalefall_capacity.signals import first_of_them
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance.plan import ChildOutcome
from whalefall_capacity.tasks import PARTITION_MAINTENANCE, STATS_STEP, SYNC_DATABASES
from whalefall_capacity.watching import Watcher, shown_by

# Where other processes find the jobs, and what they need as containers, by Dagster's own names.
DEFINITIONS = ("whalefall_capacity.definitions", "defs")
IMAGE_VARIABLE = "DAGSTER_CURRENT_IMAGE"
CONTAINER_VARIABLE = "DAGSTER_CONTAINER_CONTEXT"
# The command itself prints the outcome.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


Result = dg.ExecuteInProcessResult | dg.JobExecutionResult


@dataclass(frozen=True)
class LocalRun:
    """A finished run; *error* is set when it failed."""

    run_id: str
    error: str | None

    def raise_error(self, error_type: type[WhalefallError]) -> None:
        """Raise an *error_type* if the run failed."""
        if self.error is not None:
            raise error_type(f"run {self.run_id} failed: {self.error}")


@dataclass(frozen=True)
class LocalCollection(LocalRun):
    """A finished collection; *not_measured* maps instances to the reason."""

    not_measured: Mapping[str, str]


def run_collection(day: date, instance_ids: Sequence[int] | None = None, accept_empty: bool = False) -> LocalCollection:
    """Materialize the stats partition of *day*, which must be today, and wait for it."""
    config = {"instance_ids": list(instance_ids) if instance_ids else None, "accept_empty": accept_empty}
    result, error = _execute(SYNC_DATABASES.key, {STATS_STEP: {"config": config}}, partition_key=day.isoformat())
    return LocalCollection(
        run_id=result.run_id,
        error=error,
        not_measured={
            name: str(reason.value)
            for evaluation in result.get_asset_check_evaluations()
            if evaluation.asset_check_key == FLEET_COVERAGE.key
            for name, reason in evaluation.metadata.items()
        },
    )


@dataclass(frozen=True)
class AggregatedWindow:
    """The outcome of one window on one level; its state is done, skipped, sealed or failed."""

    level: str
    period_start: date
    state: str
    rows_written: int
    rows_removed: int


@dataclass(frozen=True)
class LocalAggregation(LocalRun):
    """A finished aggregation, with the outcome of each window."""

    windows: Sequence[AggregatedWindow]


def run_aggregation(windows: Sequence[Window], levels: Iterable[Level], watcher: Watcher[Any, Any]) -> LocalAggregation:
    """Materialize the aggregation assets of adjacent *windows* in one run and wait for it."""
    period_type = windows[0].period_type
    keys = {aggregation_key(level, period_type): level for level in levels}
    days = range_tags(windows[0].start, windows[-1].start)
    with shown_by(watcher):
        result, error = _execute(AGGREGATION_JOBS[period_type].name, tags=days, asset_selection=list(keys))
    found = {
        (materialization.asset_key, str(materialization.partition)): materialization.metadata
        for event in result.all_events
        if event.is_step_materialization and (materialization := event.step_materialization_data.materialization)
    }
    return LocalAggregation(
        run_id=result.run_id,
        error=error,
        windows=[
            _aggregated(level, window, found.get((key, window.start.isoformat())))
            for key, level in keys.items()
            for window in windows
        ],
    )


def run_forecast(day: date) -> LocalRun:
    """Materialize forecasts and anomalies of *day* and wait for it."""
    result, error = _execute(FORECAST_JOB_NAME, partition_key=day.isoformat())
    return LocalRun(result.run_id, error)


def run_maintenance(config: Mapping[str, object], watcher: Watcher[str, ChildOutcome]) -> LocalRun:
    """Run the job `partition_maintenance` with the *config* of its launchpad and wait for it."""
    with shown_by(watcher):
        result, error = _execute(PARTITION_MAINTENANCE.key, {"plan": {"config": dict(config)}})
    return LocalRun(result.run_id, error)


def _execute(
    job_name: str,
    ops: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
    **selection: Any,
) -> tuple[Result, str | None]:
    """Run a job and wait for it; return its result, and the reason if it failed."""
    from whalefall_capacity.definitions import defs

    job = defs.resolve_job_def(job_name)
    in_this_process = job.executor_def.name == ExecutorName.IN_PROCESS
    with dagster_instance() as instance, _mirrored(instance) as run_id:
        run_config = {"ops": dict(ops or {}), **QUIET}
        all_tags = {**(tags or {}), CREATED_BY_TAG: _user_name(), TRIGGER_TAG: "cli"}
        result: Result = (
            job.execute_in_process(
                run_config, instance, run_id=run_id, tags=all_tags, raise_on_error=False, **selection
            )
            if in_this_process
            else _execute_elsewhere(instance, run_id, job_name, run_config, all_tags, **selection)
        )
        return result, None if result.success else failure_text(instance, run_id)


def _execute_elsewhere(
    instance: dg.DagsterInstance,
    run_id: str,
    job_name: str,
    run_config: Mapping[str, object],
    tags: Mapping[str, str],
    partition_key: str | None = None,
    asset_selection: Collection[dg.AssetKey] = (),
) -> dg.JobExecutionResult:
    """Run a job whose executor hands its steps to other processes, which load the job by its name."""
    container = os.environ.get(CONTAINER_VARIABLE)
    repository = ReconstructableRepository.for_module(
        *DEFINITIONS,
        container_image=os.environ.get(IMAGE_VARIABLE),
        container_context=json.loads(container) if container else None,
    )
    job = repository.get_reconstructable_job(job_name)
    run = instance.create_run_for_job(
        job.get_definition(),
        run_id=run_id,
        run_config=run_config,
        tags=tags if partition_key is None else {**tags, PARTITION_TAG: partition_key},
        asset_selection=frozenset(asset_selection) or None,
        job_code_origin=job.get_python_origin(),
    )
    return execute_run(job, run, instance)


def _aggregated(level: Level, window: Window, metadata: Mapping[str, dg.MetadataValue] | None) -> AggregatedWindow:
    if metadata is None:
        return AggregatedWindow(level.value, window.start, "failed", 0, 0)
    # The metadata of a sealed window has neither.
    counts = (int(str(metadata[name].value)) if name in metadata else 0 for name in ("rows_written", "rows_removed"))
    return AggregatedWindow(level.value, window.start, str(metadata["state"].value), *counts)


def dagster_instance() -> dg.DagsterInstance:
    """Return Dagster's instance. Raises StoreError when its storage cannot be opened."""
    try:
        return dg.DagsterInstance.get()
    except Exception as error:
        raise StoreError(
            f"Dagster's storage cannot be opened: {error}; WHALEFALL_DAGSTER_URL says where it is"
        ) from error


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a signal cancel the run, and then end the command as signals end any other.

    During a run Dagster handles SIGINT and SIGTERM; a terminal that closes (SIGHUP) is made to do the same.
    """
    with first_of_them() as first:
        before = signal.getsignal(signal.SIGHUP)
        if before is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)
            if (number := first()) is not None:
                raise SystemExit(128 + number) from None


@contextmanager
def _mirrored(instance: dg.DagsterInstance) -> Iterator[str]:
    """Yield the id for a run in this process; however the run ends, its task run is then brought up to date."""
    run_id = str(uuid4())
    try:
        with _ended_by_signals():
            yield run_id
    finally:
        with store_engine() as engine:
            mirror(engine, instance, run_id)


def _user_name() -> str:
    """Return the name of the user, or the uid where there is no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
