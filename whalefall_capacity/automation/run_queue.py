"""The queue: runs requested by hand start first, then of schedules, of sensors, of backfills; how a run is cancelled.

`dagster.yaml` names the class. Dagster starts runs with a higher `dagster/priority` first; without the tag it is 0.
Dagster creates the runs of a backfill itself and offers no hook for their tags: only the queue sees all runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from dagster import DagsterRun, DagsterRunStatus, QueuedRunCoordinator, SubmitRunContext

from whalefall_capacity.dagster_private import BACKFILL_ID_TAG, PRIORITY_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG

# A run gets the lowest priority among its tags; one requested by hand has none of them.
PRIORITIES: Mapping[str, int] = {SCHEDULE_NAME_TAG: -1, SENSOR_NAME_TAG: -2, BACKFILL_ID_TAG: -3}


class PrioritizedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, which gives every run without a priority one by its origin, and cancels a run that starts."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        run = context.dagster_run
        priority = min((PRIORITIES[tag] for tag in PRIORITIES if tag in run.tags), default=0)
        if priority and PRIORITY_TAG not in run.tags:
            self._instance.add_run_tags(run.run_id, {PRIORITY_TAG: str(priority)})
        return super().submit_run(context)

    def cancel_run(self, run_id: str) -> bool:
        """Cancel a run wherever it is: in the queue, starting, or under way.

        Dagster only asks a run that is starting to stop. Its worker then takes itself for a second one and ends, which
        Dagster takes for a crash: the run fails and is executed again. A worker that finds its run cancelled never
        starts; one that was faster has been interrupted, as in a run under way.
        """
        is_stopped = super().cancel_run(run_id)
        record = self._instance.get_run_record_by_id(run_id)
        if record is None or record.start_time is not None or record.dagster_run.status != DagsterRunStatus.CANCELING:
            return is_stopped
        self._instance.report_run_canceled(record.dagster_run, "Cancelled before its work began.")
        return True
