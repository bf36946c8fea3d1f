"""A partition is a calendar day in the configured zone; today has one from its first second."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import dagster as dg
import pytest

from whalefall_capacity.partitions import DAILY, DAYS_OF_PERIOD, partitions
from whalefall_capacity.periods import PeriodType, window_of, windows_between
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
    assert DAILY.timezone == settings.timezone
    assert DAILY.get_first_partition_key() == "2025-01-01"


def _keys(zone: str, now: datetime) -> list[str]:
    days = partitions(build_settings(timezone=zone, start_date=START), PeriodType.DAILY)
    with dg.partition_loading_context(effective_dt=now):
        return list(days.get_partition_keys())


# Berlin and Santiago change their clocks in different halves of the year; Santiago at midnight.
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago", "Asia/Shanghai"])
@pytest.mark.parametrize("period_type", PeriodType)
def test_every_window_from_the_start_date_to_now_has_one_partition(zone: str, period_type: PeriodType) -> None:
    definition = partitions(build_settings(timezone=zone, start_date=date(2025, 1, 15)), period_type)
    now = datetime(2026, 11, 18, 15, 0, tzinfo=timezone.utc)
    with dg.partition_loading_context(effective_dt=now):
        keys = list(definition.get_partition_keys())
    windows = windows_between(date(2025, 1, 15), date(2026, 11, 18), period_type)
    assert keys == [window.start.isoformat() for window in windows]
    for key, window in zip(keys, windows, strict=True):
        ends = definition.time_window_for_partition_key(key).end
        assert ends.date() - timedelta(days=1) == window.end


@pytest.mark.parametrize(
    ("zone", "monday"),
    [
        ("Europe/Berlin", date(2026, 3, 23)),  # 23 hours on Sunday
        ("Europe/Berlin", date(2026, 10, 19)),  # 25 hours on Sunday
        ("America/Santiago", date(2026, 9, 1)),  # 23 hours on 6 September
        ("America/Santiago", date(2026, 3, 30)),  # 25 hours on 4 April
    ],
)
@pytest.mark.parametrize("period_type", [PeriodType.WEEKLY, PeriodType.MONTHLY, PeriodType.QUARTERLY])
def test_a_window_depends_on_its_own_days_also_where_a_day_has_23_or_25_hours(
    zone: str, monday: date, period_type: PeriodType
) -> None:
    settings = build_settings(timezone=zone, start_date=date(2025, 1, 1))
    days, periods = partitions(settings, PeriodType.DAILY), partitions(settings, period_type)
    window = window_of(monday, period_type)
    now = datetime(2026, 12, 31, 12, 0, tzinfo=timezone.utc)
    with dg.partition_loading_context(effective_dt=now):
        upstream = DAYS_OF_PERIOD.get_upstream_mapped_partitions_result_for_partitions(
            periods.subset_with_partition_keys([window.start.isoformat()]), periods, days
        )
    expected = [str(window.start + timedelta(days=n)) for n in range((window.end - window.start).days + 1)]
    assert sorted(upstream.partitions_subset.get_partition_keys()) == expected


def test_the_period_in_progress_may_be_materialized_before_all_of_its_days_are_there() -> None:
    settings = build_settings(start_date=date(2025, 1, 1))
    days, weeks = partitions(settings, PeriodType.DAILY), partitions(settings, PeriodType.WEEKLY)
    with dg.partition_loading_context(effective_dt=datetime(2026, 11, 17, 12, 0, tzinfo=timezone.utc)):
        upstream = DAYS_OF_PERIOD.get_upstream_mapped_partitions_result_for_partitions(
            weeks.subset_with_partition_keys(["2026-11-16"]), weeks, days
        )
    assert sorted(upstream.partitions_subset.get_partition_keys()) == ["2026-11-16", "2026-11-17"]
    assert upstream.required_but_nonexistent_subset.is_empty
