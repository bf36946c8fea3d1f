"""`whalefall-capacity aggregate`: the same assets from a terminal, and a table that says what became of each window."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import text

from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.store.past import put_sizes

MONDAY = date(2026, 3, 2)


def states(whalefall: CommandLine, *arguments: str) -> list[tuple[str, str, str]]:
    found = whalefall("aggregate", *arguments, "--json").json
    return [(window["level"], window["period_start"], window["state"]) for window in found]


def test_every_window_says_what_became_of_it(whalefall: CommandLine) -> None:
    put_sizes(whalefall.store, [(1, "shop", MONDAY, 100), (1, "shop", date(2026, 3, 16), 100)])
    first = ("weekly", "--from", "2026-03-04", "--to", "2026-03-16", "--scope", "database")
    assert states(whalefall, *first) == [
        ("database", "2026-03-02", "done"),
        ("database", "2026-03-09", "skipped"),
        ("database", "2026-03-16", "done"),
    ]
    with whalefall.store.begin() as connection:
        connection.execute(text("UPDATE aggregation_windows SET sealed_at = now() WHERE period_start = '2026-03-02'"))
    assert states(whalefall, *first)[0] == ("database", "2026-03-02", "sealed")


def test_both_levels_are_calculated_unless_one_is_asked_for(whalefall: CommandLine) -> None:
    put_sizes(whalefall.store, [(1, "shop", MONDAY, 100)])
    day = ("daily", "--from", str(MONDAY), "--to", str(MONDAY))
    assert {level for level, *_ in states(whalefall, *day)} == {"database", "instance"}
    assert states(whalefall, *day, "--scope", "instance") == [("instance", "2026-03-02", "done")]


def test_a_window_that_cannot_be_calculated_is_failed_and_so_is_the_command(whalefall: CommandLine) -> None:
    put_sizes(whalefall.store, [(1, "shop", MONDAY, 100)])
    with whalefall.store.begin() as connection:
        connection.execute(text("ALTER TABLE instance_size_aggregations ADD CHECK (sum_size_bytes > 1000)"))
    done = whalefall("aggregate", "daily", "--from", str(MONDAY), "--to", str(MONDAY))
    assert done.status == 1
    assert "done" in next(line for line in done.out.splitlines() if "database" in line)
    assert "failed" in next(line for line in done.out.splitlines() if "instance" in line)
    assert "error: run " in done.err
    assert "violates check constraint" in done.err


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        ("2026-03-02", "2026-03-01", "--from 2026-03-02 is after --to 2026-03-01"),
        ("2024-12-31", "2026-03-01", "days must be between 2025-01-01 (WHALEFALL_START_DATE) and "),
        ("2026-03-01", "2199-01-01", "days must be between 2025-01-01 (WHALEFALL_START_DATE) and "),
        ("yesterday", "2026-03-01", "'yesterday' does not match the formats '%Y-%m-%d'"),
    ],
)
def test_days_that_cannot_be_meant_are_wrong_usage(whalefall: CommandLine, first: str, last: str, message: str) -> None:
    done = whalefall("aggregate", "daily", "--from", first, "--to", last)
    assert done.status == 2
    assert message in " ".join(done.err.replace("│", " ").split())
