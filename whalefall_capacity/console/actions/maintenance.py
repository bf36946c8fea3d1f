"""The maintenance of the table partitions as the console starts it: children at once, everything else as a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.console.http.envelope import ApiError, MessageCode
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.errors import DagsterError
from whalefall_capacity.run_tags import CREATED_BY_TAG, TRIGGER_TAG
from whalefall_capacity.store.maintenance.retire import make_plan
from whalefall_capacity.store.table_partitions.create import PARTITIONED_TABLES, create_ahead, ensure_children
from whalefall_capacity.store.task_runs.launch import launching
from whalefall_capacity.store.task_runs.summary import Extension, TaskSummary
from whalefall_capacity.store.task_runs.write import NewTaskRun, insert_task_run

TASK_KEY = "partition_maintenance"
TASK_NAME = "Table partition maintenance"
TASK_CATEGORY = "maintenance"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaintenanceRun:
    """The run of a maintenance."""

    run_id: str
    dry_run: bool


def create_children(console: Console, day: date | None) -> list[str]:
    """Create the children that hold *day*, or all that are due, and return their names."""
    if day is None:
        return create_ahead(console.engine, console.settings, console.today())
    with console.engine.begin() as connection:
        return ensure_children(connection, PARTITIONED_TABLES, [day])


def start_maintenance(
    console: Console, dry_run: bool, plan_id: str | None, confirm: bool, created_by: str
) -> MaintenanceRun:
    """Launch a maintenance. Raises ApiError when the plan is another one by now, DagsterError when none starts."""
    if plan_id is not None:
        now = make_plan(console.engine, console.settings, console.today()).id
        if now != plan_id:
            raise ApiError(
                409, MessageCode.CONFLICT, f"the plan {plan_id} no longer holds, it is {now} now; nothing was changed"
            )
    config: dict[str, object] = {"dry_run": dry_run, "confirm": confirm}
    if plan_id is not None:
        config["plan_id"] = plan_id
    tags: Mapping[str, str] = {TRIGGER_TAG: "api", CREATED_BY_TAG: created_by}
    run_id = None
    try:
        with launching(console.engine, TASK_KEY) as connection:
            run_id = console.dagster.launch(TASK_KEY, {"ops": {"plan": {"config": config}}}, tags)
            insert_task_run(
                connection,
                NewTaskRun(
                    run_id=run_id,
                    task_key=TASK_KEY,
                    task_name=TASK_NAME,
                    task_category=TASK_CATEGORY,
                    trigger_source="api",
                    summary=TaskSummary(ext=Extension(type=TASK_KEY)),
                    created_by=created_by,
                    result_url=console.settings.run_url.format(run_id=run_id),
                ),
            )
    except (DagsterError, SQLAlchemyError):
        logger.exception("the maintenance did not start: run_id=%s", run_id)
        raise
    return MaintenanceRun(run_id, dry_run)
