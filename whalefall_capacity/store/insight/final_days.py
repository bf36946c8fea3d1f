"""Days that stay as they are: part of the sizes that they were calculated from has been retired since."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from sqlalchemy import Connection, Engine, text

from whalefall_capacity.insight.statuses import HISTORY_DAYS
from whalefall_capacity.store.postgres.engine import again_if_connection_lost
from whalefall_capacity.store.table_partitions.create import STATS_TABLES
from whalefall_capacity.store.table_partitions.retired import LostDays, absent_days

# The oldest row of a day counts: a later one is of the same sizes, or of fewer.
CALCULATED_ON = """
SELECT day, (min(calculated_at) AT TIME ZONE :zone)::date AS calculated_on
FROM (SELECT forecast_date AS day, calculated_at FROM capacity_forecasts WHERE forecast_date BETWEEN :first AND :last
      UNION ALL
      SELECT day, calculated_at FROM size_anomalies WHERE day BETWEEN :first AND :last) AS stored
GROUP BY day
"""


@again_if_connection_lost
def final_days(engine: Engine, days: Sequence[date], zone: str) -> list[date]:
    """Return those of *days*, oldest first, that are stored and could only be calculated from less than they were."""
    with engine.connect() as connection:
        lost = [each for table in STATS_TABLES for each in absent_days(connection, table.name)]
        # On most days nothing that matters is lost, and there is nothing to look up.
        cut = [day for day in sorted(days) if _lost_of(day, lost)]
        calculated = _calculated_on(connection, cut, zone) if cut else {}
    return [
        day
        for day in cut
        # What went on the day of the calculation itself may have gone before it, as on the day of every maintenance.
        if day in calculated and any(each.retired_on > calculated[day] for each in _lost_of(day, lost))
    ]


def _lost_of(day: date, lost: Sequence[LostDays]) -> list[LostDays]:
    first = day - timedelta(days=HISTORY_DAYS - 1)
    return [each for each in lost if each.overlap(first, day)]


def _calculated_on(connection: Connection, days: Sequence[date], zone: str) -> dict[date, date]:
    values = {"first": days[0], "last": days[-1], "zone": zone}
    return {row.day: row.calculated_on for row in connection.execute(text(CALCULATED_ON), values)}
