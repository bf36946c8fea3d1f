"""The maintenance as the console starts it: table partitions are created at once, everything else is done by a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from whalefall_capacity.console.actions.launch import Launch, launch_task
from whalefall_capacity.console.http.envelope import ApiError, MessageCode
from whalefall_capacity.console.http.principals import Caller
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.errors import PlanError
from whalefall_capacity.store.maintenance.retire import make_plan
from whalefall_capacity.store.table_partitions.create import PARTITIONED_TABLES, create_ahead, ensure_children
from whalefall_capacity.store.task_runs.summary import Extension, TaskSummary
from whalefall_capacity.tasks import PARTITION_MAINTENANCE


@dataclass(frozen=True)
class MaintenanceRun:
    """The run of a maintenance."""

    run_id: str
    dry_run: bool


def create_table_partitions(console: Console, day: date | None) -> list[str]:
    """Create the table partitions that hold *day*, or all that are due, and return their names."""
    if day is None:
        return create_ahead(console.engine, console.settings, console.today())
    with console.engine.begin() as connection:
        return ensure_children(connection, PARTITIONED_TABLES, [day])


def start_maintenance(
    console: Console, caller: Caller, dry_run: bool, plan_id: str | None, confirm: bool
) -> MaintenanceRun:
    """Launch a maintenance. Raises ApiError when the plan is another one by now, DagsterError when none starts."""
    if plan_id is not None:
        try:
            make_plan(console.engine, console.settings, console.today()).require(plan_id)
        except PlanError as error:
            raise ApiError(MessageCode.CONFLICT, error.args[0]) from None
    config: dict[str, object] = {"dry_run": dry_run, "confirm": confirm}
    if plan_id is not None:
        config["plan_id"] = plan_id
    launch = Launch(
        task=PARTITION_MAINTENANCE,
        task_name=PARTITION_MAINTENANCE.name,
        run_config={"ops": {"plan": {"config": config}}},
        summary=TaskSummary(ext=Extension(type=PARTITION_MAINTENANCE.key)),
        caller=caller,
    )
    run_id, _ = launch_task(console, launch)
    return MaintenanceRun(run_id, dry_run)
