"""Alerts in the store: one a cause, day and channel; none twice, none lost; and what the store knows of failures."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from whalefall_capacity.alerts.message import Alert
from whalefall_capacity.store.alerts import (
    alert_was_not_sent,
    alert_was_sent,
    claim_alert,
    delete_old_alerts,
    failed_runs,
    file_alerts,
    give_up_unknown,
    missed_days,
)
from whalefall_capacity_tests.registry import refusing, register
from whalefall_capacity_tests.store.past import put_sizes

DAY = date(2026, 7, 1)
BOTH = ("webhook", "email")
HOUR = timedelta(hours=1)


def alert(cause: str = "run failed", day: date = DAY) -> Alert:
    return Alert(cause=cause, day=day, title=f"{cause} of {day}", what="broken", remedy="mend it")


def execute(store: Engine, statement: str, **values: Any) -> list[Any]:
    with store.begin() as connection:
        result = connection.execute(text(statement), values)
        return list(result.scalars()) if result.returns_rows else []


def states(store: Engine) -> list[Any]:
    return execute(store, "SELECT state FROM alerts ORDER BY id")


def test_an_alert_is_filed_once_a_cause_day_and_channel(store: Engine) -> None:
    assert file_alerts(store, [alert(), alert("other"), alert()], BOTH) == 4
    assert file_alerts(store, [alert()], BOTH) == 0
    assert file_alerts(store, [alert(day=DAY + timedelta(days=1))], ["webhook"]) == 1


def test_a_claimed_alert_comes_back_whole_and_is_nobody_elses(store: Engine) -> None:
    file_alerts(store, [alert()], ["webhook"])
    claimed = claim_alert(store, BOTH)
    assert claimed is not None
    assert (claimed.alert, claimed.channel, claimed.attempts) == (alert(), "webhook", 1)
    assert claim_alert(store, BOTH) is None


def test_a_way_that_is_not_open_gets_nothing(store: Engine) -> None:
    file_alerts(store, [alert()], ["email"])
    assert claim_alert(store, ["webhook"]) is None


def test_what_was_sent_is_never_sent_again(store: Engine) -> None:
    file_alerts(store, [alert()], ["webhook"])
    claimed = claim_alert(store, BOTH)
    assert claimed is not None
    alert_was_sent(store, claimed, None)
    file_alerts(store, [alert()], ["webhook"])
    assert claim_alert(store, BOTH) is None
    assert states(store) == ["sent"]


@pytest.mark.parametrize(("attempts", "pause"), [(0, 1), (1, 2), (3, 8), (6, 60), (2000, 60)])
def test_what_was_not_sent_is_tried_again_later_and_later_up_to_an_hour(
    store: Engine, attempts: int, pause: int
) -> None:
    file_alerts(store, [alert()], ["webhook"])
    execute(store, "UPDATE alerts SET attempts = :attempts", attempts=attempts)
    claimed = claim_alert(store, BOTH)
    assert claimed is not None
    assert alert_was_not_sent(store, claimed, "the webhook answered 500") == timedelta(minutes=pause)
    assert claim_alert(store, BOTH) is None
    execute(store, "UPDATE alerts SET next_attempt_at = next_attempt_at - make_interval(mins => :pause)", pause=pause)
    again = claim_alert(store, BOTH)
    assert again is not None
    assert again.attempts == attempts + 2


def test_a_message_that_nobody_wants_holds_up_no_other(store: Engine) -> None:
    file_alerts(store, [alert("unwanted"), alert("fine")], ["webhook"])
    first = claim_alert(store, BOTH)
    assert first is not None
    alert_was_not_sent(store, first, "the webhook answered 400")
    second = claim_alert(store, BOTH)
    assert second is not None
    assert second.alert.cause == "fine"


def test_what_a_dead_sender_may_have_sent_is_given_up_and_not_sent_again(store: Engine) -> None:
    file_alerts(store, [alert()], ["webhook"])
    assert claim_alert(store, BOTH)
    assert give_up_unknown(store) == []
    execute(store, "UPDATE alerts SET updated_at = now() - interval '6 minutes'")
    assert give_up_unknown(store) == [("run failed", "webhook")]
    assert give_up_unknown(store) == []
    assert claim_alert(store, BOTH) is None
    assert states(store) == ["unknown"]


def test_alerts_are_kept_for_ninety_days(store: Engine) -> None:
    file_alerts(store, [alert("old"), alert("young")], ["webhook"])
    execute(store, "UPDATE alerts SET updated_at = now() - interval '91 days' WHERE cause = 'old'")
    execute(store, "UPDATE alerts SET updated_at = now() - interval '89 days' WHERE cause = 'young'")
    delete_old_alerts(store)
    assert execute(store, "SELECT cause FROM alerts") == ["young"]


def test_failed_runs_come_with_the_names_of_what_failed(store: Engine) -> None:
    now = datetime.now(timezone.utc)
    for run_id, status, closed in (
        ("some", "completed_with_errors", now),
        ("all", "failed", now + HOUR),
        ("fine", "completed", now),
        ("stopped", "cancelled", now),
        ("old", "failed", now - 2 * HOUR),
    ):
        execute(
            store,
            "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, completed_at, "
            "closed_at, error_message) VALUES (:run_id, 'sync_databases', 'Collect sizes', 'capacity', 'manual', "
            ":status, :closed, :closed, CASE :run_id WHEN 'all' THEN 'all of 2 items failed' END)",
            run_id=run_id,
            status=status,
            closed=closed,
        )
    for run_id, name, status in (
        ("some", "wiki", "completed"),
        ("some", "shop", "failed"),
        ("some", "crm", "failed"),
    ):
        execute(
            store,
            "INSERT INTO task_run_items (run_id, item_type, item_key, item_name, status, error_message) "
            "VALUES (:run_id, 'collection', :name, :name, :status, :name || ' is away')",
            run_id=run_id,
            name=name,
            status=status,
        )
    found = failed_runs(store, now - HOUR)
    assert [(run.run_id, run.names, run.error) for run in found] == [
        ("some", ["crm", "shop"], "crm is away"),
        ("all", [], "all of 2 items failed"),
    ]


def missed(store: Engine) -> list[date]:
    return missed_days(store, DAY, DAY + timedelta(days=4), "Asia/Shanghai")


def test_days_without_sizes_are_missed_from_the_day_after_the_first_server_came(store: Engine) -> None:
    register(store, refusing("crm"))
    # 15:59 UTC is 23:59 of the same day in the zone.
    execute(store, "UPDATE instances SET created_at = '2026-07-01 15:59+00'")
    put_sizes(store, [(1, "shop", DAY + timedelta(days=2), 100)])
    assert missed(store) == [date(2026, 7, 2), date(2026, 7, 4), date(2026, 7, 5)]
    execute(store, "UPDATE instances SET created_at = '2026-07-01 16:00+00'")
    assert missed(store) == [date(2026, 7, 4), date(2026, 7, 5)]


def test_a_day_that_has_no_midnight_costs_no_other_day(store: Engine) -> None:
    register(store, refusing("crm"))
    execute(store, "UPDATE instances SET created_at = '2023-04-01'")
    # There, 28 April 2023 began at 1 o'clock.
    in_cairo = create_engine(store.url, connect_args={"options": "-c timezone=Africa/Cairo"})
    try:
        days = missed_days(in_cairo, date(2023, 4, 27), date(2023, 4, 30), "Africa/Cairo")
    finally:
        in_cairo.dispose()
    assert days == [date(2023, 4, day) for day in (27, 28, 29, 30)]


def test_without_a_fleet_nothing_is_missed(store: Engine) -> None:
    assert missed(store) == []
    register(store, refusing("crm"))
    execute(store, "UPDATE instances SET created_at = '2026-06-01', is_active = false")
    assert missed(store) == []
