"""The schedule of the collection, tick by tick, with a day of our own.

A tick of today starts today's collection, once, however late it comes. A tick of a day that is over reports it.
"""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from whalefall_capacity.automation import schedules
from whalefall_capacity.automation.schedules import daily_collection

ZONE = ZoneInfo("Asia/Shanghai")


def tick(due: datetime, this_day: date, monkeypatch: pytest.MonkeyPatch) -> dg.RunRequest | dg.SkipReason:
    """Evaluate the tick that was due at *due*, on *this_day*."""
    monkeypatch.setattr(schedules, "today", lambda _zone: this_day)
    with dg.build_schedule_context(scheduled_execution_time=due) as context:
        result = daily_collection(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def test_a_tick_starts_the_collection_of_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    request = tick(datetime(2026, 7, 1, 3, tzinfo=ZONE), date(2026, 7, 1), monkeypatch)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-07-01"
    assert request.run_key == "sync_databases 2026-07-01"


def test_a_tick_given_in_another_zone_is_of_the_day_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    request = tick(datetime(2026, 6, 30, 19, tzinfo=ZoneInfo("UTC")), date(2026, 7, 1), monkeypatch)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-07-01"


def test_every_tick_of_a_day_has_the_same_key_so_that_one_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [tick(datetime(2026, 7, 1, hour, tzinfo=ZONE), date(2026, 7, 1), monkeypatch) for hour in (0, 3, 23)]
    assert {request.run_key for request in requests if isinstance(request, dg.RunRequest)} == {
        "sync_databases 2026-07-01"
    }


@pytest.mark.parametrize("this_day", [date(2026, 7, 2), date(2026, 7, 9)])
def test_a_missed_tick_of_a_day_that_is_over_starts_nothing_and_says_so(
    this_day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = tick(datetime(2026, 7, 1, 3, tzinfo=ZONE), this_day, monkeypatch)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == (
        "2026-07-01 was missed: the daemon did not run at 03:00, when its collection was due, nor for the rest of the "
        "day. A past day cannot be measured; `whalefall-capacity history import FILE` brings sizes from elsewhere"
    )
