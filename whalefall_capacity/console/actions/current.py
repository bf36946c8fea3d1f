"""Aggregate the current period: joins the run that does it already, or launches one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.console.http.state import Console
from whalefall_capacity.current_period import TASK_CATEGORY, TASK_KEY, TASK_NAME, AggregationScope, CurrentPeriod
from whalefall_capacity.errors import DagsterError
from whalefall_capacity.run_tags import CREATED_BY_TAG, TRIGGER_TAG
from whalefall_capacity.store.task_runs.launch import launching, open_run_covering
from whalefall_capacity.store.task_runs.write import NewTaskRun, insert_task_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CurrentRun:
    """The run that does what was asked for."""

    run_id: str
    joined: Annotated[bool, Field(description="True when a run that was open already does it.")]
    scope: AggregationScope


def aggregate_current(
    console: Console, scope: AggregationScope, period_type: str | None, created_by: str
) -> CurrentRun:
    """Return the open run that covers *scope* today, launched now if there is none.

    One at a time looks and launches, so that two who ask at once share a run. Raises DagsterError when the webserver
    starts none; then nothing is recorded.
    """
    period = CurrentPeriod(scope, console.today(), period_type)
    run_id = None
    try:
        with launching(console.engine, TASK_KEY) as connection:
            run_id = open_run_covering(connection, TASK_KEY, scope, period.day)
            if run_id is not None:
                return CurrentRun(run_id, joined=True, scope=scope)
            tags = {TRIGGER_TAG: "api", CREATED_BY_TAG: created_by}
            run_id = console.dagster.launch(TASK_KEY, period.run_config(), tags)
            # The run's own mirror may have been quicker, and says the same.
            insert_task_run(
                connection,
                NewTaskRun(
                    run_id=run_id,
                    task_key=TASK_KEY,
                    task_name=f"{TASK_NAME} of {period.day}",
                    task_category=TASK_CATEGORY,
                    trigger_source="api",
                    summary=period.summary(console.settings.timezone),
                    created_by=created_by,
                    result_url=console.settings.run_url.format(run_id=run_id),
                ),
            )
    except (DagsterError, SQLAlchemyError):
        logger.exception("aggregating the current period failed: run_id=%s scope=%s", run_id, scope)
        raise
    return CurrentRun(run_id, joined=False, scope=scope)
