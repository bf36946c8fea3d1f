"""The day and the zone in which a test runs: those of the product, whatever `--clock` says."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

from whalefall_capacity import periods
from whalefall_capacity.partitions import DAILY

# That of this process: its partitions have it, and so have the settings of every test that sets no other.
ZONE = ZoneInfo(DAILY.timezone)


def today() -> date:
    """Return the day in ZONE."""
    return periods.today(ZONE)
