"""Aggregate the current period: joins the run that does it already, or launches one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.console.state import Console
from whalefall_capacity.errors import DagsterError
from whalefall_capacity.store.task_runs_read import insert_pending, launching, open_run_covering

TASK_KEY = "capacity_aggregate_current"
TASK_NAME = "Aggregate current period"
TASK_CATEGORY = "aggregation"
TRIGGER_TAG, CREATED_BY_TAG = "whalefall/trigger", "whalefall/created_by"
SCOPES = ("instance", "database", "all")
EFFECTIVE_PERIOD_TYPE = "daily"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CurrentRun:
    """A run that covers what was asked for; *joined* when it was open already."""

    run_id: str
    joined: bool
    scope: str


def aggregate_current(console: Console, scope: str, period_type: str | None, created_by: str) -> CurrentRun:
    """Return the open run that covers *scope* today, launched now if there is none.

    One at a time looks and launches, so that two who ask at once share a run. Raises DagsterError when the webserver
    starts none; then nothing is recorded.
    """
    day = console.today()
    config = {"ops": {"aggregate_current": {"config": {"scope": scope, "day": day.isoformat()}}}}
    run_id = None
    try:
        with launching(console.engine, TASK_KEY) as connection:
            run_id = open_run_covering(connection, TASK_KEY, scope, day)
            if run_id is not None:
                return CurrentRun(run_id, joined=True, scope=scope)
            run_id = console.dagster.launch(TASK_KEY, config, {TRIGGER_TAG: "api", CREATED_BY_TAG: created_by})
            summary = _summary(scope, period_type, day.isoformat(), console.settings.timezone)
            insert_pending(connection, run_id, TASK_KEY, TASK_NAME, TASK_CATEGORY, created_by, summary)
    except (DagsterError, SQLAlchemyError):
        logger.exception("aggregating the current period failed: run_id=%s scope=%s", run_id, scope)
        raise
    return CurrentRun(run_id, joined=False, scope=scope)


def _summary(scope: str, period_type: str | None, day: str, timezone: str) -> dict[str, Any]:
    return {
        "version": 1,
        "common": {
            "inputs": {
                "scope": scope,
                "requested_period_type": period_type,
                "effective_period_type": EFFECTIVE_PERIOD_TYPE,
            },
            "scope": {"time": {"type": "date", "timezone": timezone, "date": day}, "target": {"scope": scope}},
            "metrics": [],
            "highlights": [],
            "flags": {"skipped": False, "skip_reason": None},
        },
        "ext": {"type": TASK_KEY, "version": 1, "data": {}},
    }
