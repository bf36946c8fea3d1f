"""Days whose rows went with their table partition, or are on their way out, as the ledger has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

# An empty child took nothing with it.
LOST_DAYS = """
SELECT lower_bound AS lower, upper_bound AS upper, retired_on FROM retired_children
WHERE table_name = :table AND dropped_at IS NOT NULL AND restored_at IS NULL AND rows > 0
"""
# From the begin of a detach until the drop, or until the maintenance puts them back, nobody sees the rows.
LEAVING_DAYS = """
SELECT lower_bound AS lower, upper_bound AS upper, retired_on FROM retired_children
WHERE table_name = :table AND dropped_at IS NULL AND restored_at IS NULL
  AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = CAST(child_oid AS oid) AND NOT inhdetachpending)
"""


@dataclass(frozen=True)
class LostDays:
    """Days whose rows were dropped, or are hidden, with their child: lower <= day < upper."""

    lower: date
    upper: date
    retired_on: date

    def overlap(self, first: date, last: date) -> bool:
        """Tell whether any day of first..last, inclusive, is among them."""
        return self.lower <= last and first < self.upper


def lost_days(connection: Connection, table: str) -> list[LostDays]:
    """Return the days of *table* whose rows are gone and were not restored."""
    return [LostDays(**row) for row in connection.execute(text(LOST_DAYS), {"table": table}).mappings()]


def leaving_days(connection: Connection, table: str) -> list[LostDays]:
    """Return the days of *table* whose rows are hidden with a child that is being retired."""
    return [LostDays(**row) for row in connection.execute(text(LEAVING_DAYS), {"table": table}).mappings()]


def absent_days(connection: Connection, table: str) -> list[LostDays]:
    """Return both: the days of *table* of which a calculation now would see nothing, though they had rows."""
    return [*lost_days(connection, table), *leaving_days(connection, table)]
