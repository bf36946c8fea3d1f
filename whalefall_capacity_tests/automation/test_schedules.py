"""The schedule of the collection, tick by tick, with a day of our own.

A tick of today starts today's collection, once, however late it comes. A tick of a day that is over reports it.
"""

from __future__ import annotations

from datetime import date, datetime, time, timezone

import dagster as dg
import pytest
import time_machine

from whalefall_capacity.automation.schedules import daily_collection
from whalefall_capacity_tests.clock import ZONE


def tick(due: datetime, this_day: date) -> dg.RunRequest | dg.SkipReason:
    """Evaluate the tick that was due at *due*, in the last hour of *this_day*."""
    now = datetime.combine(this_day, time(23, 30), ZONE)
    with time_machine.travel(now, tick=False), dg.build_schedule_context(scheduled_execution_time=due) as context:
        result = daily_collection(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def test_a_tick_starts_the_collection_of_its_day() -> None:
    request = tick(datetime(2026, 7, 1, 3, tzinfo=ZONE), date(2026, 7, 1))
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-07-01"
    assert request.run_key == "sync_databases 2026-07-01"


@pytest.mark.parametrize(
    "due",
    [
        datetime(2026, 12, 31, 0, 30, tzinfo=ZONE),
        datetime(2028, 2, 29, 0, 30, tzinfo=ZONE),
        datetime(2026, 3, 8, 3, 0, tzinfo=ZONE),
        datetime(2026, 10, 25, 23, 30, tzinfo=ZONE),
    ],
)
def test_a_tick_is_of_its_day_on_every_day_and_at_every_hour(due: datetime) -> None:
    request = tick(due, due.date())
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == due.date().isoformat()


def test_a_tick_given_in_another_zone_is_of_the_day_of_ours() -> None:
    request = tick(datetime(2026, 7, 1, 3, tzinfo=ZONE).astimezone(timezone.utc), date(2026, 7, 1))
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-07-01"


def test_every_tick_of_a_day_has_the_same_key_so_that_one_run_starts() -> None:
    requests = [tick(datetime(2026, 7, 1, hour, tzinfo=ZONE), date(2026, 7, 1)) for hour in (0, 3, 23)]
    assert {request.run_key for request in requests if isinstance(request, dg.RunRequest)} == {
        "sync_databases 2026-07-01"
    }


@pytest.mark.parametrize("this_day", [date(2026, 7, 2), date(2026, 7, 9)])
def test_a_missed_tick_of_a_day_that_is_over_starts_nothing_and_says_so(this_day: date) -> None:
    skipped = tick(datetime(2026, 7, 1, 3, tzinfo=ZONE), this_day)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == (
        "2026-07-01 was missed: the daemon did not run at 03:00, when its collection was due, nor for the rest of the "
        "day. A past day cannot be measured; `whalefall-capacity history import FILE` imports sizes from other sources"
    )
