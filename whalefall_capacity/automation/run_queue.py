"""The order in which queued runs start: made by hand, then of a schedule, of a sensor, and of a backfill.

`dagster.yaml` names the class. Dagster starts runs of a higher `dagster/priority` first, 0 without the tag. The runs of
a backfill are made by Dagster itself, which asks nobody for their tags: the queue is the one place that sees them all.
"""

from __future__ import annotations

from collections.abc import Mapping

from dagster import DagsterRun, QueuedRunCoordinator, SubmitRunContext

from whalefall_capacity.dagster_private import BACKFILL_ID_TAG, PRIORITY_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG

# A run has the lowest of those whose tag it carries; one that somebody made by hand carries none.
PRIORITIES: Mapping[str, int] = {SCHEDULE_NAME_TAG: -1, SENSOR_NAME_TAG: -2, BACKFILL_ID_TAG: -3}


class PrioritizedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, with a priority for every run that has none of its own."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        run = context.dagster_run
        priority = min((PRIORITIES[tag] for tag in PRIORITIES if tag in run.tags), default=0)
        if priority and PRIORITY_TAG not in run.tags:
            self._instance.add_run_tags(run.run_id, {PRIORITY_TAG: str(priority)})
        return super().submit_run(context)
