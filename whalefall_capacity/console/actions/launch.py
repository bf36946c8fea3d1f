"""Launching the run of a task in somebody's name, and recording its task run at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.console.http.principals import Caller
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.errors import DagsterError
from whalefall_capacity.run_tags import CREATED_BY_TAG, TRIGGER_TAG
from whalefall_capacity.store.task_runs.launch import launching
from whalefall_capacity.store.task_runs.summary import TaskSummary
from whalefall_capacity.store.task_runs.write import NewTaskRun, insert_task_run
from whalefall_capacity.tasks import Task

TRIGGER = "api"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launch:
    """A run to launch: *task_name* is what the run centre shows, *summary* what it says before the work."""

    task: Task
    task_name: str
    run_config: Mapping[str, object]
    summary: TaskSummary
    caller: Caller
    tags: Mapping[str, str] = field(default_factory=dict)


def launch_task(
    console: Console, launch: Launch, open_run: Callable[[Connection], str | None] = lambda _: None
) -> tuple[str, bool]:
    """Return the id of the run that *open_run* finds to do the same, and True; or launch one and return False.

    One at a time looks and launches, so that two who ask at once share a run. Raises DagsterError when the webserver
    starts none; then nothing is recorded.
    """
    run_id = None
    try:
        with launching(console.engine, launch.task.key) as connection:
            run_id = open_run(connection)
            if run_id is not None:
                return run_id, True
            tags = {**launch.tags, TRIGGER_TAG: TRIGGER, CREATED_BY_TAG: launch.caller.principal.name}
            run_id = console.dagster.launch(launch.task.key, launch.run_config, tags, launch.caller.credential)
            # The run's own mirror may have been quicker, and says the same.
            insert_task_run(connection, _task_run(console, launch, run_id))
    except (DagsterError, SQLAlchemyError):
        inputs = " ".join(f"{name}={value}" for name, value in launch.summary.common.inputs.items())
        logger.exception("%s did not start: run_id=%s %s", launch.task_name, run_id, inputs)
        raise
    return run_id, False


def _task_run(console: Console, launch: Launch, run_id: str) -> NewTaskRun:
    return NewTaskRun(
        run_id=run_id,
        task_key=launch.task.key,
        task_name=launch.task_name,
        task_category=launch.task.category,
        trigger_source=TRIGGER,
        summary=launch.summary,
        created_by=launch.caller.principal.name,
        result_url=console.settings.run_url.format(run_id=run_id),
    )
