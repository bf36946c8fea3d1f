"""Runs in this process: of the project's own jobs, which a task run follows, and of assets that do nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from sqlalchemy import Engine, text

from whalefall_capacity.asset_keys import step_key
from whalefall_capacity.definitions import defs
from whalefall_capacity.resources.task_runs import TaskRunsResource

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
ENDED_ITEMS = "SELECT count(*) FROM task_run_items WHERE run_id = :run_id AND completed_at IS NOT NULL"


def materialize(
    instance: dg.DagsterInstance,
    job: str,
    keys: Sequence[dg.AssetKey],
    *,
    partition_key: str | None = None,
    tags: Mapping[str, str] | None = None,
    task_runs: TaskRunsResource | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialize the assets of *keys*, and do nothing else of *job*, in one partition or in the range of the tags."""
    result = defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        op_selection=sorted({step_key(key) for key in keys}),
        resources={} if task_runs is None else {"task_runs": task_runs},
        partition_key=partition_key,
        tags=dict(tags or {}),
        run_config=QUIET,
    )
    assert result.success
    return result


def materialize_idle(
    instance: dg.DagsterInstance, assets: Sequence[dg.AssetsDefinition], **options: Any
) -> dg.ExecuteInProcessResult:
    """Materialize *assets* that need nothing of ours, with options of dagster.materialize such as a partition_key."""
    result = dg.materialize(assets, instance=instance, run_config=QUIET, **options)
    assert result.success
    return result


def ended_items(engine: Engine, run_id: str) -> int:
    """Return how many items of its task run a run has brought to an end."""
    with engine.connect() as connection:
        return int(connection.execute(text(ENDED_ITEMS), {"run_id": run_id}).scalar_one())
