"""Days whose rows went with their table partition, as the ledger of the maintenance has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

# An empty child took nothing with it.
LOST_DAYS = """
SELECT lower_bound AS lower, upper_bound AS upper, retired_on FROM retired_children
WHERE table_name = :table AND dropped_at IS NOT NULL AND restored_at IS NULL AND rows > 0
"""


@dataclass(frozen=True)
class LostDays:
    """Days whose rows were dropped with their child: lower <= day < upper."""

    lower: date
    upper: date
    retired_on: date

    def overlap(self, first: date, last: date) -> bool:
        """Tell whether any day of first..last, inclusive, is among them."""
        return self.lower <= last and first < self.upper


def lost_days(connection: Connection, table: str) -> list[LostDays]:
    """Return the days of *table* whose rows are gone and were not restored."""
    return [LostDays(**row) for row in connection.execute(text(LOST_DAYS), {"table": table}).mappings()]
