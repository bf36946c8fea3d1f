"""Collect now: joins the run that measures the same today, or launches one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from whalefall_capacity.console.actions.launch import Launch, launch_task
from whalefall_capacity.console.http.envelope import not_found
from whalefall_capacity.console.http.principals import Caller
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.run_tags import PARTITION_TAG
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.fleet import is_in_fleet
from whalefall_capacity.store.task_runs.launch import open_run_collecting
from whalefall_capacity.store.task_runs.summary import summary_of_days
from whalefall_capacity.tasks import STATS_STEP, SYNC_DATABASES


@dataclass(frozen=True)
class CollectionRun:
    """The run that measures what was asked for."""

    run_id: str
    joined: Annotated[bool, Field(description="True when a run that was open already measures it.")]
    instance_id: Annotated[int | None, Field(description="Null: the whole fleet.")]


def collect_now(console: Console, caller: Caller, instance_id: int | None) -> CollectionRun:
    """Return the open run that measures the fleet today, or one instance of it, launched now if there is none.

    Raises ApiError for an instance that is not in the fleet, DagsterError when the webserver starts no run.
    """
    if instance_id is not None and not is_in_fleet(console.reading, instance_id):
        raise not_found("there is no such instance in the fleet")
    day = console.today()
    instance_ids = None if instance_id is None else [instance_id]
    launch = Launch(
        task=SYNC_DATABASES,
        task_name=f"{SYNC_DATABASES.name} of {day}",
        run_config={"ops": {STATS_STEP: {"config": {"instance_ids": instance_ids}}}},
        tags={PARTITION_TAG: day.isoformat()},
        # As the mirror of the run would write it.
        summary=summary_of_days(
            SYNC_DATABASES.key,
            console.settings.timezone,
            days=(day, day),
            instance_ids=instance_ids,
            levels=[level.value for level in Level],
            period_type=PeriodType.DAILY.value,
        ),
        caller=caller,
    )
    run_id, joined = launch_task(
        console, launch, open_run=lambda connection: open_run_collecting(connection, day, instance_id)
    )
    return CollectionRun(run_id, joined, instance_id)
