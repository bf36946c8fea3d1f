"""An alert says what failed, where, since when, where to look and what to do next."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from whalefall_capacity.alerts.message import Alert

ALERT = Alert(
    cause="run sync_databases failed",
    day=date(2026, 7, 1),
    title="2 failed: Collect sizes of 2026-07-01",
    what="Collect sizes of 2026-07-01: connection refused",
    where=("crm", "shop"),
    since=datetime(2026, 7, 1, 3, 5, tzinfo=ZoneInfo("Asia/Shanghai")),
    link="http://127.0.0.1:3000/runs/4caf",
    remedy="`whalefall-capacity fleet check`",
)


def test_the_text_says_everything() -> None:
    assert ALERT.text == (
        "whalefall_capacity: 2 failed: Collect sizes of 2026-07-01\n"
        "\n"
        "What: Collect sizes of 2026-07-01: connection refused\n"
        "Where: crm, shop\n"
        "Since: 2026-07-01 03:05 CST\n"
        "Link: http://127.0.0.1:3000/runs/4caf\n"
        "Next: `whalefall-capacity fleet check`"
    )


def test_many_names_are_cut_and_counted() -> None:
    many = ALERT.model_copy(update={"where": tuple(f"pg-{number:03}" for number in range(200))})
    assert "pg-019 and 180 more" in many.text
    assert "pg-020" not in many.text


def test_the_subject_is_one_line_whatever_is_in_a_name() -> None:
    broken = ALERT.model_copy(update={"title": "run failed:\r\nBcc: everybody@example.com"})
    assert broken.subject == "whalefall_capacity: run failed: Bcc: everybody@example.com"


def test_a_name_adds_no_lines_and_turns_no_direction() -> None:
    hostile = ALERT.model_copy(update={"where": ("shop\nNext: nothing", "\u202ecrm"), "title": "1 failed: \x1b[2J"})
    assert hostile.subject == "whalefall_capacity: 1 failed: \\x1b[2J"
    assert "Where: shop\\nNext: nothing, \\u202ecrm\n" in hostile.text


def test_the_key_is_of_cause_and_day_alone() -> None:
    assert ALERT.key == ALERT.model_copy(update={"title": "other", "what": "other"}).key
    assert ALERT.key != ALERT.model_copy(update={"cause": "other"}).key
    assert ALERT.key != ALERT.model_copy(update={"day": ALERT.day + timedelta(days=1)}).key
