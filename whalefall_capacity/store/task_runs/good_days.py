"""Days whose collection of the whole fleet succeeded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from sqlalchemy import Engine, text

from whalefall_capacity.tasks import SYNC_DATABASES

# A collection lasts hours at most.
LONGEST_RUN = timedelta(days=1)

# By task_runs_created_at_idx. A run is of the last day that it covers, and of the day itself when it was asked for on
# that day: one over past days only reports again what is stored. Its row may be written some seconds later.
GOOD_DAYS = """
SELECT DISTINCT run.day FROM (
    SELECT CAST(summary_json #>> '{common,inputs,last}' AS date) AS day, created_at AT TIME ZONE :zone AS asked, *
    FROM task_runs
    WHERE created_at > now() - CAST(:within AS interval) - CAST(:longest AS interval) AND task_key = :task_key
) AS run
WHERE run.status IN ('completed', 'completed_with_errors') AND run.closed_at > now() - CAST(:within AS interval)
  AND run.summary_json #> '{common,scope,target,instance_ids}' IS NULL
  AND run.day IN (run.asked::date, (run.asked - CAST('1 minute' AS interval))::date)
ORDER BY run.day
"""


def good_days(engine: Engine, zone: str, within: timedelta) -> Sequence[date]:
    """Return the days on which a collection of the fleet for that very day ended *within* the time until now, in order.

    A run counts in which some servers failed, and others did not: Dagster calls it a success.
    """
    values = {"zone": zone, "within": within, "longest": LONGEST_RUN, "task_key": SYNC_DATABASES.key}
    with engine.connect() as connection:
        return list(connection.execute(text(GOOD_DAYS), values).scalars())
