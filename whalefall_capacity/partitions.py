"""Dagster partition definitions: calendar periods in the configured zone, the one in progress included.

The key of a partition is the first day of its period. All four start with the period that contains the start
date, and share zone and end offset: otherwise the mapping to the days would not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import dagster as dg

from whalefall_capacity.dagster_private import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from whalefall_capacity.periods import PeriodType, window_of
from whalefall_capacity.settings import Settings, load_settings


def partitions(settings: Settings, period_type: PeriodType) -> dg.TimeWindowPartitionsDefinition:
    """Return one partition a period, from the one with the start date to the one with today."""
    return dg.TimeWindowPartitionsDefinition(
        start=window_of(settings.start_date, period_type).start.isoformat(),
        cron_schedule=period_type.calendar.cron_schedule,
        timezone=settings.timezone,
        fmt="%Y-%m-%d",
        end_offset=1,
    )


PARTITIONS: Mapping[PeriodType, dg.TimeWindowPartitionsDefinition] = {
    period_type: partitions(load_settings(), period_type) for period_type in PeriodType
}
DAILY = PARTITIONS[PeriodType.DAILY]


def range_tags(first: date, last: date) -> dict[str, str]:
    """Return the tags of one run over the partitions whose windows start on *first* to *last*."""
    return {ASSET_PARTITION_RANGE_START_TAG: first.isoformat(), ASSET_PARTITION_RANGE_END_TAG: last.isoformat()}


# The period in progress has days that do not exist yet; without this the UI refuses to materialize it.
DAYS_OF_PERIOD = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


def partition_days(context: dg.AssetExecutionContext) -> list[date]:
    """Return the days by which the partitions of a run are called. Raises dagster.Failure when it has none."""
    if not (context.has_partition_key or context.has_partition_key_range):
        raise dg.Failure(
            "this run has no partition, which says what day it is for: the UI asks for one, "
            "`dagster asset materialize` has --partition, and `dagster job execute` has "
            """--tags '{"dagster/partition": "2026-01-31"}'""",
            allow_retries=False,
        )
    return [date.fromisoformat(key) for key in context.partition_keys]
