"""`whalefall-capacity forecast`: when disks are full, or why that cannot be said."""

from __future__ import annotations

from datetime import date

from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.store.insight.golden import GIB, forecast, line, put_history
from whalefall_capacity_tests.store.records import rows

DAY = date(2026, 6, 30)


def test_the_soonest_comes_first_and_a_refusal_reads_like_an_answer(whalefall: CommandLine) -> None:
    put_history(whalefall.store, 1, {"orders": line()}, 359)
    put_history(whalefall.store, 2, {"orders": [100 + day + 100 * (day >= 189) for day in range(200)]}, 429)
    put_history(whalefall.store, 3, {"orders": line(13)}, 200)
    put_history(whalefall.store, 4, {"orders": line()})
    put_history(whalefall.store, 5, {"orders": line(13)})
    forecast(whalefall.store)
    found = whalefall("forecast", "--json").json
    assert [(each["instance"], each["status"], each["expected_date"]) for each in found] == [
        ("instance-2", "dated", "2026-07-30"),
        ("instance-1", "dated", "2026-08-29"),
        ("instance-3", "too_new", None),
        ("instance-4", "no_limit", None),
        ("instance-5", "no_limit", None),
    ]
    assert found[0] == {
        "instance": "instance-2",
        "status": "dated",
        "used_bytes": 399 * GIB,
        "limit_bytes": 429 * GIB,
        "rate_bytes_per_day": GIB,
        "expected_date": "2026-07-30",
        "earliest_date": "2026-07-27",
        "latest_date": "2026-08-04",
        "reason": "orders 100.0 %; left out: +100.00 GiB in orders on 2026-06-20",
    }
    assert (found[2]["used_bytes"], found[2]["rate_bytes_per_day"]) == (112 * GIB, None)
    assert found[2]["reason"] == "13 measured days, 14 are needed"
    assert [each["rate_bytes_per_day"] for each in found[3:]] == [GIB, None]
    assert found[3]["reason"] == "no capacity_limit in the fleet file"


def test_an_answer_says_how_many_databases_it_has_no_pace_of(whalefall: CommandLine) -> None:
    put_history(whalefall.store, 1, {"flat": [64] * 200, "launched": [10, 20, 30]}, 500)
    forecast(whalefall.store)
    (found,) = whalefall("forecast", "--json").json
    assert found["reason"] == "not full within a year; 1 databases too new to have a pace"


def test_a_day_of_which_nothing_is_stored_is_calculated_and_not_stored(whalefall: CommandLine) -> None:
    put_history(whalefall.store, 1, {"orders": line()}, 329)
    outcome = whalefall("forecast", "--day", "2026-06-20", "--json")
    assert outcome.err == "nothing is stored of 2026-06-20: calculated now\n"
    assert [each["expected_date"] for each in outcome.json] == ["2026-07-30"]
    assert rows(whalefall.store, "SELECT count(*) FROM capacity_forecasts") == [(0,)]


def test_one_instance_can_be_asked_for_and_must_be_known(whalefall: CommandLine) -> None:
    put_history(whalefall.store, 1, {"orders": line()}, 359)
    put_history(whalefall.store, 2, {"orders": line()}, 359)
    forecast(whalefall.store)
    assert [each["instance"] for each in whalefall("forecast", "--instance", "instance-2", "--json").json] == [
        "instance-2"
    ]
    unknown = whalefall("forecast", "--instance", "nobody")
    assert unknown.status == 1
    assert unknown.err == "error: there is no instance nobody; `whalefall-capacity fleet list` names them\n"


def test_a_table_shows_sizes_in_binary_units(whalefall: CommandLine) -> None:
    put_history(whalefall.store, 1, {"orders": line()}, 329)
    forecast(whalefall.store)
    printed = whalefall("forecast").out
    assert "forecast of 2026-06-30" in printed
    for cell in ("299.00 GiB", "329.00 GiB", "+1.00 GiB", "2026-07-30"):
        assert cell in printed


def test_a_day_in_the_future_is_wrong_usage(whalefall: CommandLine) -> None:
    outcome = whalefall("forecast", "--day", "2999-01-01")
    assert outcome.status == 2
    assert "(today)" in outcome.err
