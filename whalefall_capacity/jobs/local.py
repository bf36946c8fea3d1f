"""Runs in this process, for the command line: the same job, recorded in the same Dagster instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import dagster as dg

from whalefall_capacity.errors import StoreError


@dataclass(frozen=True)
class LocalRun:
    """How a run went: *error* when it failed, *not_measured* gives the reason per instance."""

    run_id: str
    error: str | None
    not_measured: Mapping[str, str]


def run_collection(day: date, instance_ids: Sequence[int] | None = None, accept_empty: bool = False) -> LocalRun:
    """Materialize the stats partition of *day*, which must be today, and wait for it."""
    from whalefall_capacity.definitions import defs

    config = {"instance_ids": list(instance_ids) if instance_ids else None, "accept_empty": accept_empty}
    with _dagster_instance() as instance:
        result = defs.resolve_job_def("sync_databases").execute_in_process(
            run_config={
                "ops": {"size_stats": {"config": config}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            partition_key=day.isoformat(),
            instance=instance,
            raise_on_error=False,
        )
    return LocalRun(
        run_id=result.run_id,
        error=None if result.success else _error(result),
        not_measured={
            name: str(reason.value)
            for evaluation in result.get_asset_check_evaluations()
            for name, reason in evaluation.metadata.items()
        },
    )


def _dagster_instance() -> dg.DagsterInstance:
    try:
        return dg.DagsterInstance.get()
    except Exception as error:
        raise StoreError(
            f"Dagster's storage cannot be opened: {error}; WHALEFALL_DAGSTER_URL says where it is"
        ) from error


def _error(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_node_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                return str(data.user_failure_data.description)
            if data.error is not None:
                return data.error.message.strip()
    return "the run failed; the Dagster UI shows its log"
