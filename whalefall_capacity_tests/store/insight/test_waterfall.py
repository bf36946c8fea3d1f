"""The growth of an instance, taken apart: rows in, rows out."""

from __future__ import annotations

from datetime import date, timedelta

from sqlalchemy import Engine, text

from whalefall_capacity.store.insight.waterfall import InstanceWaterfall, instance_waterfall
from whalefall_capacity_tests.store.past import put_sizes, put_total

GIB = 2**30
LAST = date(2026, 6, 25)
FIRST = LAST - timedelta(days=29)
INVENTORY = """
INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date, is_active)
VALUES (1, :name, :first, :last, :is_active)
"""


def put_days(store: Engine, name: str, first: date, last: date, size_gib: dict[int, int], per_day: int) -> None:
    """Store a database that begins with *size_gib* of day 0, grows *per_day* and jumps to what *size_gib* says."""
    sizes, size = [], 0
    for n in range((last - first).days + 1):
        size = size_gib.get(n, size + per_day)
        sizes.append((1, name, first + timedelta(days=n), size * GIB))
    put_sizes(store, sizes)


def list_database(store: Engine, name: str, first: date, last: date = LAST, is_active: bool = True) -> None:
    with store.begin() as connection:
        values = {"name": name, "first": first, "last": last, "is_active": is_active}
        connection.execute(text(INVENTORY), values)


def growth(store: Engine, first: date = FIRST, last: date = LAST) -> InstanceWaterfall:
    return instance_waterfall(store, 1, first, last, limit=20)


def shown(of: InstanceWaterfall) -> list[tuple[str | None, str, float, float | None]]:
    """Return name, cause, change in GiB and share of each row."""
    return [(row.database_name, row.cause.value, row.change_bytes / GIB, row.share_percent) for row in of.rows]


def test_a_jump_of_the_range_is_told_apart_from_the_steady_growth(store: Engine) -> None:
    begin = LAST - timedelta(days=199)
    put_days(store, "orders", begin, LAST, {0: 100}, 1)
    # 1 a day, and 40 more ten days before the last.
    put_days(store, "events", begin, LAST, {0: 50, 189: 50 + 189 + 40}, 1)
    found = growth(store)
    assert (found.since, found.until, found.change_bytes) == (FIRST, LAST, 98 * GIB)
    assert shown(found) == [
        ("events", "one_off", 40.0, 40.8),
        ("events", "steady", 29.0, 29.6),
        ("orders", "steady", 29.0, 29.6),
    ]


def test_a_jump_before_the_range_explains_nothing_of_it(store: Engine) -> None:
    put_days(store, "events", LAST - timedelta(days=199), LAST, {0: 50, 100: 400}, 1)
    assert shown(growth(store)) == [("events", "steady", 29.0, 100.0)]


def test_the_inventory_says_what_is_new_and_what_is_gone(store: Engine) -> None:
    middle = LAST - timedelta(days=10)
    put_days(store, "orders", FIRST, LAST, {0: 100}, 1)
    put_days(store, "crm", middle, LAST, {0: 5}, 1)
    put_days(store, "old", FIRST, middle, {0: 20}, 0)
    put_days(store, "failing", FIRST, middle, {0: 7}, 0)
    put_days(store, "known-before", middle, LAST, {0: 2}, 0)
    list_database(store, "crm", middle)
    list_database(store, "old", FIRST, middle, is_active=False)
    list_database(store, "failing", FIRST)
    list_database(store, "known-before", FIRST - timedelta(days=90))
    put_total(store, 1, LAST, 146 * GIB, 3, missing=1)
    found = growth(store)
    assert [row[:3] for row in shown(found)] == [
        ("orders", "steady", 29.0),
        ("old", "gone", -20.0),
        ("crm", "new", 15.0),
        ("failing", "not_measured", -7.0),
        ("known-before", "not_measured", 2.0),
    ]
    assert (found.change_bytes, found.missing_at_start, found.missing_at_end) == (19 * GIB, 0, 1)


def test_the_ends_are_the_measured_days_of_the_range_and_nothing_later_is_read(store: Engine) -> None:
    put_days(store, "orders", FIRST + timedelta(days=3), LAST - timedelta(days=2), {0: 100}, 1)
    put_sizes(store, [(1, "orders", LAST + timedelta(days=1), 900 * GIB)])
    found = growth(store)
    assert (found.since, found.until) == (FIRST + timedelta(days=3), LAST - timedelta(days=2))
    assert shown(found) == [("orders", "steady", 24.0, 100.0)]


def test_fewer_than_two_measured_days_explain_nothing(store: Engine) -> None:
    put_sizes(store, [(1, "orders", LAST, GIB)])
    assert growth(store) == InstanceWaterfall(None, None, None, 0, 0, [])
    assert growth(store, first=date(2001, 1, 1), last=date(2001, 2, 1)).rows == []


def test_a_range_that_is_longer_than_the_history_of_a_forecast_is_explained_too(store: Engine) -> None:
    begin = LAST - timedelta(days=399)
    put_days(store, "orders", begin, LAST, {0: 100, 50: 250}, 1)
    assert shown(growth(store, first=begin)) == [("orders", "steady", 399.0, 80.0), ("orders", "one_off", 100.0, 20.0)]
