"""Dagster partition definitions: calendar days in the configured zone, today included."""

from __future__ import annotations

import dagster as dg

from whalefall_capacity.settings import Settings, load_settings

DAY_FORMAT = "%Y-%m-%d"


def daily_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Return one partition a day from the start date to today; the key of a partition is its day."""
    return dg.DailyPartitionsDefinition(
        start_date=settings.start_date.isoformat(), timezone=settings.timezone, fmt=DAY_FORMAT, end_offset=1
    )


DAILY = daily_partitions(load_settings())
