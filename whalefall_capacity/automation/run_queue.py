"""The order in which queued runs start: those requested by hand, then of schedules, of sensors, and of backfills.

`dagster.yaml` names the class. Dagster starts runs with a higher `dagster/priority` first; without the tag it is 0.
Dagster creates the runs of a backfill itself and offers no hook for their tags: only the queue sees all runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from dagster import DagsterRun, QueuedRunCoordinator, SubmitRunContext

from whalefall_capacity.dagster_private import BACKFILL_ID_TAG, PRIORITY_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG

# A run gets the lowest priority among its tags; one requested by hand has none of them.
PRIORITIES: Mapping[str, int] = {SCHEDULE_NAME_TAG: -1, SENSOR_NAME_TAG: -2, BACKFILL_ID_TAG: -3}


class PrioritizedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, which gives every run without a priority one by its origin."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        run = context.dagster_run
        priority = min((PRIORITIES[tag] for tag in PRIORITIES if tag in run.tags), default=0)
        if priority and PRIORITY_TAG not in run.tags:
            self._instance.add_run_tags(run.run_id, {PRIORITY_TAG: str(priority)})
        return super().submit_run(context)
