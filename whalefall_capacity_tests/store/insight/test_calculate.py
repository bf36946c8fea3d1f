"""Forecasts through the store: sizes in, forecasts, accuracy and anomalies out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.insight.read import (
    accuracy_of_days,
    anomalies_of_days,
    database_forecasts,
    forecasts_of_day,
    newest_forecast_day,
)
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity_tests.store.insight.golden import (
    GIB,
    TODAY,
    Sizes,
    days_until,
    forecast,
    forecasts_of_instance,
    line,
    put_history,
    set_limit,
    the_forecast,
)
from whalefall_capacity_tests.store.past import put_sizes, put_total
from whalefall_capacity_tests.store.records import add_instance, history, rows, visit

IMPORTED = [100 + day + (100 if day >= 189 else 0) for day in range(200)]
PURGED = [100 + (day + 1) - 20 * sum(earlier % 28 == 27 for earlier in range(day + 1)) for day in range(200)]
LISTED = """
INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date, is_active, deleted_at)
VALUES (1, 'replaced', '2025-12-13', :last, false, :deleted)
"""
MADE_BY_FORECASTS = ("capacity_forecasts", "database_forecasts", "forecast_accuracy", "size_anomalies")


def uneven(days: int, pace: float = 1, noise: float = 5) -> list[float]:
    """Return sizes that grow, now faster and now slower."""
    return [100 + pace * day + noise * (day * day * 7919 % 101) / 101 for day in range(days)]


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


@pytest.mark.parametrize(
    ("databases", "limit", "days"),
    [
        ({"orders": line()}, 329, (30, 27, 35)),
        ({"orders": IMPORTED}, 459, (60, 53, 69)),
        ({"orders": PURGED}, 200, (104, 91, 199)),
        ({"old": line(), "young": line(20, 50, 2)}, 450, (21, 20, 24)),
    ],
    ids=["steady", "import", "purge", "old and young"],
)
def test_a_disk_that_fills_is_dated(
    store: Engine, databases: Mapping[str, Sizes], limit: float, days: Sequence[int]
) -> None:
    put_history(store, 1, databases, limit)
    forecast(store)
    found = the_forecast(store)
    assert (found.status, days_until(found)) == ("dated", days)
    assert found.limit_bytes == limit * GIB


@pytest.mark.parametrize(
    ("sizes", "limit", "status"),
    [
        ([64] * 200, 65, "not_within_a_year"),
        (line(slope=-1, start=400), 500, "not_within_a_year"),
        (line(), 299, "full"),
        (line(13), 300, "too_new"),
        ([*line(), None, None, None, None], 329, "stale"),
        (line(), None, "no_limit"),
    ],
)
def test_what_cannot_be_dated_says_why(store: Engine, sizes: Sizes, limit: float | None, status: str) -> None:
    put_history(store, 1, {"orders": sizes}, limit)
    forecast(store)
    found = the_forecast(store)
    assert (found.status, days_until(found)) == (status, (None, None, None))


def test_figures_and_reason_of_an_import(store: Engine) -> None:
    put_history(store, 1, {"orders": IMPORTED, "events": line(200, 10, 0.5), "flat": [1] * 200}, 459)
    forecast(store)
    found = the_forecast(store)
    assert (found.used_bytes, found.databases, found.measured_days) == (round(509.5 * GIB), 3, 200)
    assert found.rate_bytes_per_day == round(1.5 * GIB)
    assert [(g.database, g.rate_bytes_per_day, g.percent) for g in found.reason.growers] == [
        ("orders", GIB, 66.7),
        ("events", GIB // 2, 33.3),
    ]
    (left_out,) = found.reason.one_offs
    assert (left_out.database, left_out.day, left_out.size_bytes) == ("orders", ago(10), 100 * GIB)
    assert (found.reason.one_offs_left_out, found.reason.young, found.reason.stale) == (1, 0, 0)
    of_databases = {each.database_name: each for each in database_forecasts(store, 1)}
    assert list(of_databases) == ["orders", "events", "flat"]
    assert (of_databases["orders"].one_offs, of_databases["orders"].one_off_bytes) == (1, 100 * GIB)
    assert of_databases["flat"].rate_bytes_per_day == 0


def test_a_gap_is_bridged_and_a_jump_over_it_left_out(store: Engine) -> None:
    sizes = [None if 60 <= day < 70 else 100 + day + (50 if day >= 70 else 0) for day in range(120)]
    put_history(store, 1, {"orders": sizes}, 400)
    forecast(store)
    found = the_forecast(store)
    assert (found.measured_days, found.rate_bytes_per_day) == (110, GIB)
    assert [jump.size_bytes for jump in found.reason.one_offs] == [50 * GIB]


def test_a_jump_is_stored_with_what_would_have_been_usual(store: Engine) -> None:
    sizes = line(120)
    put_history(store, 1, {"orders": [*sizes[:-1], 219 * 1.2], "calm": sizes})
    forecast(store)
    (found,) = anomalies_of_days(store, TODAY, TODAY)
    assert (found.instance, found.database, found.kind) == ("instance-1", "orders", "jump")
    assert found.change_bytes == pytest.approx(43.8 * GIB, abs=2)
    assert found.usual_bytes == GIB
    assert found.threshold_bytes == pytest.approx(10.9 * GIB, abs=2)


def test_of_a_load_of_every_month_the_first_is_flagged_and_the_fourth_not(store: Engine) -> None:
    put_history(store, 1, {"orders": [100 + day + 30 * ((day + 1) // 30) for day in range(120)]})
    forecast(store, *(ago(days) for days in (90, 60, 30, 0)))
    assert [found.day for found in anomalies_of_days(store, ago(120), TODAY)] == [ago(90)]


def test_another_limit_changes_the_dates_and_not_the_pace(store: Engine) -> None:
    put_history(store, 1, {"orders": line()}, 329)
    forecast(store)
    before = the_forecast(store)
    set_limit(store, 1, 359)
    at_once = the_forecast(store)
    forecast(store)
    after = the_forecast(store)
    assert (days_until(before)[0], days_until(after)[0]) == (30, 60)
    assert at_once == after
    assert (after.rate_bytes_per_day, after.spread_bytes) == (before.rate_bytes_per_day, before.spread_bytes)


def test_a_day_calculated_again_touches_no_row(store: Engine) -> None:
    put_history(store, 1, {"orders": IMPORTED, "purged": PURGED}, 459)
    put_history(store, 2, {"orders": line(13)}, 200)
    assert forecast(store) > 0
    before = _row_versions(store)
    assert forecast(store) == 0
    assert _row_versions(store) == before


def test_a_longer_future_never_changes_a_past_day(store: Engine) -> None:
    sizes = uneven(200)
    put_history(store, 1, {"orders": sizes, "went": sizes[:150]}, 329)
    forecast(store, ago(20))
    before = the_forecast(store, day=ago(20))
    put_sizes(store, [(1, "orders", TODAY + timedelta(days=days), 7) for days in range(1, 40)])
    put_sizes(store, [(1, "new", ago(19 - days), days * GIB) for days in range(20)])
    assert forecast(store, ago(20)) == 0
    assert the_forecast(store, day=ago(20)) == before


def test_a_range_says_what_each_of_its_days_alone_would_have_said(store: Engine) -> None:
    sizes = uneven(300)
    put_history(store, 1, {"orders": sizes, "jumpy": [s + 40 * (day > 200) for day, s in enumerate(sizes)]}, 1000)
    days = [ago(days) for days in range(40, -1, -1)]
    forecast(store, *days)
    at_once = forecasts_of_instance(store, 1, days[0], TODAY), accuracy_of_days(store, days[0], TODAY)
    for day in days:
        assert forecast(store, day) == 0
    assert at_once == (forecasts_of_instance(store, 1, days[0], TODAY), accuracy_of_days(store, days[0], TODAY))


def test_the_paces_of_databases_are_those_of_the_newest_day(store: Engine) -> None:
    put_history(store, 1, {"orders": line()}, 329)
    forecast(store)
    forecast(store, ago(5))
    assert [each.forecast_date for each in database_forecasts(store, 1)] == [TODAY]
    assert newest_forecast_day(store) == TODAY


def test_an_import_of_history_makes_the_accuracy_known_at_once(store: Engine) -> None:
    add_instance(store, "shop")
    lines = [("shop", "orders", ago(199 - day), round(size * GIB)) for day, size in enumerate(IMPORTED)]
    import_history(store, history(*lines), "past.csv")
    forecast(store)
    found = {(each.level, each.horizon_days): each for each in accuracy_of_days(store, TODAY, TODAY)}
    assert sorted(found) == [(level, days) for level in ("database", "instance") for days in (30, 60, 90)]
    of_90_days = found["instance", 90]
    assert of_90_days.forecasts == 1
    assert of_90_days.mean_error_percent == 0
    assert of_90_days.coverage_percent == 100
    # 90 GiB on the 209 GiB of then; a line through the last 90 days knows better, and nothing came in between.
    assert float(of_90_days.no_growth_mean_error_percent or 0) == pytest.approx(100 * 90 / 209, abs=1e-4)
    assert of_90_days.least_squares_mean_error_percent == 0
    assert of_90_days.one_off_bytes == 100 * GIB


def test_with_200_forecasts_the_range_is_the_fleets_own(store: Engine) -> None:
    for instance_id in range(1, 71):
        put_history(store, instance_id, {"orders": uneven(280, pace=instance_id / 70, noise=instance_id % 7)}, 500)
    forecast(store)
    found = accuracy_of_days(store, TODAY, TODAY)
    assert {each.forecasts for each in found} == {70}
    assert {(float(each.range_low), float(each.range_high)) for each in found} != {(1.2, 1.35)}
    forecasts = forecasts_of_day(store, TODAY)
    (of_instances,) = {(each.range_low, each.range_high) for each in found if each.level == "instance"}
    assert {(each.range_low, each.range_high) for each in forecasts} == {tuple(map(float, of_instances))}


def test_what_stands_still_does_not_make_the_range_of_what_grows_a_single_day(store: Engine) -> None:
    # Of what is idle, half is so to the byte, and half but for a page.
    exact, with_a_page = [1 / 128] * 280, [1 / 128] * 200 + [1 / 128 + 2**-17] * 80
    for instance_id in range(1, 71):
        orders = [64] * 280 if instance_id <= 60 else line(280)
        put_history(store, instance_id, {"orders": orders, "postgres": exact if instance_id % 2 else with_a_page}, 410)
    forecast(store)
    accuracy = [each for each in accuracy_of_days(store, TODAY, TODAY) if each.level == "instance"]
    assert [(each.forecasts, each.coverage_percent) for each in accuracy] == [(70, Decimal(100))] * 3
    found = the_forecast(store, 70)
    assert (found.range_low, found.range_high, days_until(found)) == (1.2, 1.35, (31, 28, 36))


def test_a_short_history_has_a_wide_range(store: Engine) -> None:
    put_history(store, 1, {"orders": line(28)}, 300)
    forecast(store)
    found = the_forecast(store)
    assert (found.range_low, found.range_high) == (6.1, 5.8)


def test_a_database_that_a_visit_does_not_list_any_more_leaves_the_sum_that_day(store: Engine) -> None:
    shop = add_instance(store, "shop")
    for days in range(30, 0, -1):
        write_visits(store, ago(days), [visit(shop, {"orders": (130 - days) * GIB, "archive": 50 * GIB})])
    write_visits(store, TODAY, [visit(shop, {"orders": 130 * GIB})])
    forecast(store, ago(1), TODAY)
    used = [(each.used_bytes, each.databases) for each in forecasts_of_instance(store, shop, ago(1), TODAY)]
    assert used == [(179 * GIB, 2), (130 * GIB, 1)]
    # It comes back, and the days without it stay without it.
    write_visits(store, TODAY + timedelta(days=1), [visit(shop, {"orders": 131 * GIB, "archive": 50 * GIB})])
    assert forecast(store, ago(1), TODAY) == 0


def test_a_database_that_could_not_be_measured_bridges_its_gap(store: Engine) -> None:
    shop = add_instance(store, "shop")
    for days in range(30, 0, -1):
        write_visits(store, ago(days), [visit(shop, {"orders": (130 - days) * GIB, "archive": 50 * GIB})])
    for days in range(5):
        write_visits(
            store, TODAY + timedelta(days=days), [visit(shop, {"orders": (130 + days) * GIB, "archive": None})]
        )
    forecast(store, TODAY, TODAY + timedelta(days=4))
    one_day, five_days = forecasts_of_instance(store, shop, TODAY, TODAY + timedelta(days=4))
    assert (one_day.used_bytes, one_day.databases, one_day.reason.stale) == (180 * GIB, 2, 0)
    assert (five_days.used_bytes, five_days.databases, five_days.reason.stale) == (184 * GIB, 2, 1)


def test_logs_count_as_last_measured(store: Engine) -> None:
    shop = add_instance(store, "shop")
    for days in range(30, 0, -1):
        write_visits(store, ago(days), [visit(shop, {"orders": (130 - days) * GIB}, log_size_bytes=7 * GIB)])
    write_visits(store, TODAY, [visit(shop, {"orders": 130 * GIB})])
    forecast(store)
    found = the_forecast(store, shop)
    assert (found.used_bytes, found.reason.log_size_bytes) == (137 * GIB, 7 * GIB)


def test_a_database_with_too_few_days_counts_with_its_size_alone(store: Engine) -> None:
    put_history(store, 1, {"orders": line(), "launched": [10, 60, 110]}, 500)
    forecast(store)
    found = the_forecast(store)
    assert (found.used_bytes, found.rate_bytes_per_day, found.reason.young) == (409 * GIB, GIB, 1)
    launched = next(each for each in database_forecasts(store, 1) if each.database_name == "launched")
    assert (launched.size_bytes, launched.rate_bytes_per_day, launched.spread_bytes) == (110 * GIB, None, None)


def test_an_instance_of_the_fleet_that_was_never_measured_is_too_new(store: Engine) -> None:
    shop = add_instance(store, "shop")
    set_limit(store, shop, 100)
    registered = "UPDATE instances SET created_at = '2026-06-29 12:00+08'"
    with store.begin() as connection:
        connection.execute(text(registered))
    forecast(store, ago(2), TODAY)
    found = the_forecast(store, shop)
    assert (found.status, found.used_bytes, found.measured_days, found.databases) == ("too_new", None, 0, 0)
    assert forecasts_of_day(store, ago(2)) == []


def test_an_instance_without_databases_is_empty_and_not_unknown(store: Engine) -> None:
    for days in range(30):
        put_total(store, 1, ago(days), total=0, databases=0)
    set_limit(store, 1, 100)
    forecast(store)
    found = the_forecast(store)
    assert (found.status, found.used_bytes, found.measured_days) == ("not_within_a_year", 0, 30)


def test_an_instance_that_left_the_fleet_is_told_until_that_day(store: Engine) -> None:
    put_history(store, 1, {"orders": line()}, 329)
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET is_active = false, deleted_at = '2026-06-30 00:30+08'"))
    forecast(store, ago(1), TODAY)
    assert [each.status for each in forecasts_of_day(store, ago(1))] == ["dated"]
    assert forecasts_of_day(store, TODAY) == []


def test_an_instance_whose_databases_are_all_new_has_no_pace_yet(store: Engine) -> None:
    launched = [None] * 190 + [10 + 50 * day for day in range(10)]
    put_history(store, 1, {"replaced": [*line(190), *[None] * 10], "launched": launched}, 1000)
    with store.begin() as connection:
        connection.execute(text(LISTED), {"last": ago(10), "deleted": "2026-06-21 12:00+08"})
    forecast(store, ago(11), TODAY)
    before, after = forecasts_of_instance(store, 1, ago(11), TODAY)
    assert (before.status, before.measured_days) == ("not_within_a_year", 189)
    assert (after.status, after.measured_days, after.databases, after.reason.young) == ("too_new", 10, 1, 1)


@pytest.mark.parametrize(("share_of_the_new", "answer"), [(0.51, ("too_new", 6)), (0.49, ("not_within_a_year", 200))])
def test_an_instance_is_too_new_when_most_of_its_bytes_are_in_new_databases(
    store: Engine, share_of_the_new: float, answer: tuple[str, int]
) -> None:
    new, old = 1000 * share_of_the_new, 1000 * (1 - share_of_the_new)
    put_history(store, 1, {"postgres": [old] * 200, "orders": [new - 20 * days for days in range(5, -1, -1)]}, 1050)
    forecast(store)
    found = the_forecast(store)
    assert (found.status, found.measured_days) == answer
    assert (found.used_bytes, found.databases, found.reason.young) == (1000 * GIB, 2, 1)


def test_an_instance_that_was_last_measured_long_ago_is_stale_and_not_new(store: Engine) -> None:
    put_history(store, 1, {"orders": line()}, 329, last=ago(290))
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET created_at = '2025-01-01 12:00+08'"))
    forecast(store, ago(11), ago(10), TODAY)
    found = forecasts_of_instance(store, 1, ago(11), TODAY)
    assert [(each.status, each.last_measured_date, each.measured_days) for each in found] == [
        ("stale", ago(290), 1),
        ("stale", ago(290), 0),
        ("stale", ago(290), 0),
    ]
    put_sizes(store, [(1, "orders", TODAY, 500 * GIB)])
    assert forecast(store, ago(11), ago(10)) == 0
    assert forecast(store, ago(10)) == 0


def test_a_database_that_came_and_went_again_is_not_counted_on_the_days_between(store: Engine) -> None:
    shop = add_instance(store, "shop")
    for days in range(30, -1, -1):
        there = days > 20 or 5 <= days <= 10
        write_visits(store, ago(days), [visit(shop, {"orders": 130 * GIB} | ({"archive": 50 * GIB} if there else {}))])
    forecast(store, ago(21), ago(15), ago(7), TODAY)
    used = [each.databases for each in forecasts_of_instance(store, shop, ago(21), TODAY)]
    assert used == [2, 1, 2, 1]


def test_the_same_name_on_two_instances_is_two_databases(store: Engine) -> None:
    put_history(store, 1, {"orders": line()}, 329)
    put_history(store, 2, {"orders": line(200, 10, 2)}, 428)
    forecast(store)
    assert [(each.instance, days_until(each)[0]) for each in forecasts_of_day(store, TODAY)] == [
        ("instance-2", 10),
        ("instance-1", 30),
    ]


def test_sizes_as_great_as_the_store_takes_are_forecast(store: Engine) -> None:
    largest = 2**63 - 1
    sizes = [(1, "vast", ago(days), largest if days % 2 == 0 else 0) for days in range(30)]
    put_sizes(store, [*sizes, *((2, "zero", ago(days), 0) for days in range(30))])
    set_limit(store, 1, 2**33 - 1)
    set_limit(store, 2, 1)
    forecast(store)
    assert (the_forecast(store).status, the_forecast(store).used_bytes) == ("full", largest)
    assert the_forecast(store, 2).status == "not_within_a_year"


def test_names_of_databases_come_back_as_they_are(store: Engine) -> None:
    names = ["", " ", "Größe", "a,b", 'q"q', "x\r\ny", "\\N", "数据库"]
    put_history(store, 1, {name: line(20) for name in names}, 2000)
    forecast(store)
    assert sorted(each.database_name for each in database_forecasts(store, 1)) == sorted(names)


def test_a_store_without_sizes_says_nothing(store: Engine) -> None:
    assert forecast(store) == 0
    assert forecasts_of_day(store, TODAY) == []
    assert accuracy_of_days(store, TODAY, TODAY) == []


def _row_versions(store: Engine) -> list[tuple[object, ...]]:
    return [
        row
        for table in MADE_BY_FORECASTS
        for row in rows(store, f"SELECT CAST(tableoid::regclass AS text), ctid, xmin, t::text FROM {table} AS t")
    ]
