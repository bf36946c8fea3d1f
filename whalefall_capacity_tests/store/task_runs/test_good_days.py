"""Days whose collection of the fleet succeeded: by the run's days, its end, and the day on which it was asked for."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.task_runs.good_days import good_days
from whalefall_capacity.store.task_runs.summary import summary_of_days

DAY = timedelta(days=1)
# The clock of these rows is the store's own: in one of these zones it is between two and three in the night.
ZONE = next(
    zone for zone in (f"Etc/GMT{offset:+d}" for offset in range(-12, 13)) if datetime.now(ZoneInfo(zone)).hour == 2
)
NOW = datetime.now(ZoneInfo(ZONE))
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
TODAY, YESTERDAY = MIDNIGHT.date(), MIDNIGHT.date() - DAY
ADD = """
INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, created_at, closed_at,
                       summary_json)
VALUES (gen_random_uuid()::text, :task, 'Collect sizes', 'capacity', 'scheduled', :status, :created, :closed,
        CAST(:summary AS jsonb))
"""

pytestmark = pytest.mark.real_clock


def add(
    store: Engine,
    days: tuple[date, date],
    created: datetime,
    closed: datetime | None,
    status: str = "completed",
    instance_ids: list[int] | None = None,
    task: str = "sync_databases",
) -> None:
    summary = summary_of_days(task, ZONE, days=days, instance_ids=instance_ids).model_dump_json()
    values = {"task": task, "status": status, "created": created, "closed": closed, "summary": summary}
    with store.begin() as connection:
        connection.execute(text(ADD), values)


def found(store: Engine) -> list[date]:
    return list(good_days(store, ZONE, DAY))


@pytest.mark.parametrize("status", ["completed", "completed_with_errors"])
def test_a_day_whose_collection_succeeded_is_good(store: Engine, status: str) -> None:
    add(store, (TODAY, TODAY), MIDNIGHT + timedelta(hours=1), NOW, status)
    assert found(store) == [TODAY]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_day_whose_collection_did_not_is_not(store: Engine, status: str) -> None:
    add(store, (TODAY, TODAY), MIDNIGHT + timedelta(hours=1), NOW, status)
    assert found(store) == []


def test_a_day_is_good_once_its_collection_is_over(store: Engine) -> None:
    add(store, (TODAY, TODAY), MIDNIGHT + timedelta(hours=1), None, "running")
    assert found(store) == []


def test_a_collection_that_crosses_midnight_is_of_the_day_on_which_it_began(store: Engine) -> None:
    add(store, (YESTERDAY, YESTERDAY), MIDNIGHT - timedelta(hours=1), MIDNIGHT + timedelta(hours=1))
    assert found(store) == [YESTERDAY]


@pytest.mark.parametrize("day", [YESTERDAY, TODAY])
def test_one_that_was_asked_for_around_midnight_is_of_its_own_day(store: Engine, day: date) -> None:
    add(store, (day, day), MIDNIGHT + timedelta(seconds=5), NOW)
    assert found(store) == [day]


def test_a_range_that_ends_today_measures_today(store: Engine) -> None:
    add(store, (TODAY - 9 * DAY, TODAY), MIDNIGHT + timedelta(hours=1), NOW)
    assert found(store) == [TODAY]


def test_past_days_that_are_reported_again_are_none(store: Engine) -> None:
    add(store, (YESTERDAY, YESTERDAY), MIDNIGHT + timedelta(hours=1), NOW)
    add(store, (TODAY - 9 * DAY, YESTERDAY), MIDNIGHT + timedelta(hours=1), NOW)
    assert found(store) == []


def test_neither_some_of_the_servers_nor_another_task_make_a_day_good(store: Engine) -> None:
    add(store, (TODAY, TODAY), MIDNIGHT + timedelta(hours=1), NOW, instance_ids=[1])
    add(store, (TODAY, TODAY), MIDNIGHT + timedelta(hours=1), NOW, task="calculate_database")
    assert found(store) == []


def test_what_ended_more_than_a_day_ago_is_no_news(store: Engine) -> None:
    long_ago = datetime.now(timezone.utc) - timedelta(hours=25)
    day = long_ago.astimezone(ZoneInfo(ZONE)).date()
    add(store, (day, day), long_ago - timedelta(minutes=1), long_ago)
    assert found(store) == []
