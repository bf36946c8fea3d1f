"""A partition is a calendar day in the configured zone; today has one from its first second."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import dagster as dg
import pytest

from whalefall_capacity.partitions import DAILY, partitions
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.settings import build_settings

START = date(2026, 1, 1)
MIDNIGHTS = [
    # Zone, the first second of a day in UTC, that day.
    ("Asia/Shanghai", "2026-05-19T16:00:00", date(2026, 5, 20)),
    ("UTC", "2026-05-20T00:00:00", date(2026, 5, 20)),
    # New York: 8 March has 23 hours, 1 November has 25.
    ("America/New_York", "2026-03-08T05:00:00", date(2026, 3, 8)),
    ("America/New_York", "2026-03-09T04:00:00", date(2026, 3, 9)),
    ("America/New_York", "2026-11-01T04:00:00", date(2026, 11, 1)),
    ("America/New_York", "2026-11-02T05:00:00", date(2026, 11, 2)),
    # Cairo: 24 April begins at 01:00, and the last hour of 29 October comes twice.
    ("Africa/Cairo", "2026-04-23T22:00:00", date(2026, 4, 24)),
    ("Africa/Cairo", "2026-04-24T21:00:00", date(2026, 4, 25)),
    ("Africa/Cairo", "2026-10-29T22:00:00", date(2026, 10, 30)),
    # Lord Howe Island: half an hour.
    ("Australia/Lord_Howe", "2026-04-05T13:30:00", date(2026, 4, 6)),
]


@pytest.mark.parametrize(("zone", "first_second", "day"), MIDNIGHTS)
def test_a_day_has_its_partition_from_its_first_second_and_not_before(zone: str, first_second: str, day: date) -> None:
    midnight = datetime.fromisoformat(first_second).replace(tzinfo=timezone.utc)
    assert _keys(zone, midnight - timedelta(seconds=1))[-1] == str(day - timedelta(days=1))
    assert _keys(zone, midnight)[-1] == str(day)


@pytest.mark.parametrize(("zone", "first_second", "day"), MIDNIGHTS)
def test_every_day_from_the_start_date_to_today_has_one_partition(zone: str, first_second: str, day: date) -> None:
    keys = _keys(zone, datetime.fromisoformat(first_second).replace(tzinfo=timezone.utc))
    assert keys == [str(START + timedelta(days=offset)) for offset in range((day - START).days + 1)]


@pytest.mark.parametrize("hour", range(25))
def test_today_has_its_partition_at_every_hour_of_a_day_with_25(hour: int) -> None:
    first = datetime(2026, 11, 1, 4, 0, tzinfo=timezone.utc)
    assert _keys("America/New_York", first + timedelta(hours=hour, minutes=59, seconds=59))[-1] == "2026-11-01"


def test_on_the_start_date_itself_there_is_one_partition() -> None:
    assert _keys("UTC", datetime(2026, 1, 1, 0, 0, tzinfo=timezone.utc)) == ["2026-01-01"]


def test_the_partitions_of_the_project_are_those_of_its_settings() -> None:
    settings = build_settings()
    assert partitions(settings, PeriodType.DAILY) == DAILY
    assert DAILY.timezone == "Asia/Shanghai"
    assert DAILY.get_first_partition_key() == "2025-01-01"


def _keys(zone: str, now: datetime) -> list[str]:
    days = partitions(build_settings(timezone=zone, start_date=START), PeriodType.DAILY)
    with dg.partition_loading_context(effective_dt=now):
        return list(days.get_partition_keys())
