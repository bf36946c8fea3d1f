"""Aggregate the current period: joins the run that does it already, or launches one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from whalefall_capacity.console.actions.launch import Launch, launch_task
from whalefall_capacity.console.http.principals import Caller
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.current_period import AggregationScope, CurrentPeriod
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.task_runs.launch import open_run_covering
from whalefall_capacity.tasks import AGGREGATE_CURRENT


@dataclass(frozen=True)
class CurrentRun:
    """The run that does what was asked for."""

    run_id: str
    joined: Annotated[bool, Field(description="True when a run that was open already does it.")]
    scope: AggregationScope


def aggregate_current(
    console: Console, caller: Caller, scope: AggregationScope, period_type: PeriodType | None
) -> CurrentRun:
    """Return the open run that covers *scope* today, launched now if there is none.

    Raises DagsterError when the webserver starts none; then nothing is recorded.
    """
    period = CurrentPeriod(scope, console.today(), period_type)
    launch = Launch(
        task=AGGREGATE_CURRENT,
        task_name=f"{AGGREGATE_CURRENT.name} of {period.day}",
        run_config=period.run_config(),
        summary=period.summary(console.settings.timezone),
        caller=caller,
    )
    run_id, joined = launch_task(
        console,
        launch,
        open_run=lambda connection: open_run_covering(connection, AGGREGATE_CURRENT.key, scope, period.day),
    )
    return CurrentRun(run_id, joined, scope)
