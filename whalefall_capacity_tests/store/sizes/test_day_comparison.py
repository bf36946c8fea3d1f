"""Findings of the checks in the store; sizes in MiB for reading. The latest day is a Thursday."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.sizes.day_comparison import (
    LostDatabase,
    MissingDays,
    ShrunkInstance,
    latest_stored_day,
    lost_databases,
    missing_days,
    shrunk_instances,
)
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity_tests.store.past import MIB, put_sizes, put_total
from whalefall_capacity_tests.store.records import add_instance, history, visit

DAY = date(2026, 6, 25)
ZONE = ZoneInfo("Asia/Shanghai")
LEVELS = [Level.DATABASE, Level.INSTANCE]


def ago(days: int) -> date:
    return DAY - timedelta(days=days)


@pytest.fixture
def shop(store: Engine) -> int:
    return add_instance(store, "shop")


def test_without_stats_there_is_no_latest_day(store: Engine) -> None:
    assert latest_stored_day(store) is None
    put_sizes(store, [(1, "crm", ago(1), MIB), (1, "crm", DAY, MIB)])
    assert latest_stored_day(store) == DAY


def test_an_instance_that_lists_fewer_databases_than_the_day_before_has_shrunk(store: Engine) -> None:
    put_total(store, 1, ago(1), MIB, databases=12)
    put_total(store, 1, DAY, MIB, databases=9)
    put_total(store, 2, ago(1), MIB, databases=3)
    put_total(store, 2, DAY, MIB, databases=3)
    assert shrunk_instances(store, DAY) == [ShrunkInstance("instance-1", 9, 12, ago(1))]


def test_a_database_that_is_listed_but_not_measured_shrinks_no_inventory(store: Engine) -> None:
    put_total(store, 1, ago(1), MIB, databases=3)
    put_total(store, 1, DAY, MIB, databases=1, missing=2)
    assert shrunk_instances(store, DAY) == []


def test_an_import_of_fewer_databases_shrinks_no_inventory(store: Engine, shop: int) -> None:
    write_visits(store, ago(2), [visit(shop, {"crm": MIB, "erp": MIB})])
    import_history(store, history(("shop", "crm", ago(1), MIB), ("shop", "old", ago(1), MIB)), "sizes.csv")
    import_history(store, history(("shop", "crm", ago(3), MIB)), "sizes.csv")
    assert [shrunk_instances(store, day) for day in (ago(1), ago(2), ago(3))] == [[], [], []]
    write_visits(store, DAY, [visit(shop, {"crm": MIB, "erp": MIB})])
    assert shrunk_instances(store, DAY) == []


@pytest.mark.parametrize(("days", "found"), [(7, 1), (8, 0)])
def test_the_day_before_is_the_nearest_of_a_week(store: Engine, days: int, found: int) -> None:
    put_total(store, 1, ago(days), MIB, databases=5)
    put_total(store, 1, DAY, MIB, databases=4)
    assert len(shrunk_instances(store, DAY)) == found


def test_a_database_that_went_away_is_lost_on_the_first_day_without_it(store: Engine, shop: int) -> None:
    write_visits(store, ago(1), [visit(shop, {"crm": 5 * MIB, "erp": 7 * MIB})])
    write_visits(store, DAY, [visit(shop, {"crm": 5 * MIB})])
    assert lost_databases(store, DAY) == [LostDatabase("shop", "erp", False, ago(1), 7 * MIB)]
    write_visits(store, DAY + timedelta(days=1), [visit(shop, {"crm": 5 * MIB})])
    assert lost_databases(store, DAY + timedelta(days=1)) == []


def test_a_database_that_is_listed_without_a_size_is_lost_for_a_week(store: Engine, shop: int) -> None:
    write_visits(store, ago(7), [visit(shop, {"crm": 5 * MIB, "erp": 7 * MIB})])
    for days in range(6, -2, -1):
        write_visits(store, ago(days), [visit(shop, {"crm": 5 * MIB, "erp": None})])
    assert lost_databases(store, DAY) == [LostDatabase("shop", "erp", True, ago(7), 7 * MIB)]
    assert lost_databases(store, DAY + timedelta(days=1)) == []


def test_the_databases_of_an_instance_that_was_not_measured_are_not_lost(store: Engine, shop: int) -> None:
    other = add_instance(store, "other")
    write_visits(store, ago(1), [visit(shop, {"crm": MIB}), visit(other, {"erp": MIB})])
    write_visits(store, DAY, [visit(other, {"erp": MIB})])
    assert lost_databases(store, DAY) == []


def test_days_are_missing_from_the_day_on_which_the_instance_was_registered(store: Engine, shop: int) -> None:
    monday = ago(3)
    registered(store, shop, datetime(2026, 6, 22, 17, 0, tzinfo=timezone.utc))  # Tuesday in Shanghai
    put_total(store, shop, ago(1), MIB, databases=1)
    assert missing_days(store, monday, DAY, ZONE) == [MissingDays("shop", 2, ago(2), DAY)]


def test_no_day_is_missing_of_an_instance_that_was_disabled_by_then(store: Engine, shop: int) -> None:
    registered(store, shop, datetime(2026, 1, 1, tzinfo=timezone.utc))
    with store.begin() as connection:
        connection.execute(
            text("UPDATE instances SET is_active = false, deleted_at = '2026-06-24 12:00+08' WHERE id = :id"),
            {"id": shop},
        )
    assert missing_days(store, ago(3), DAY, ZONE) == [MissingDays("shop", 2, ago(3), ago(2))]


def test_no_day_is_missing_of_an_instance_that_history_alone_knows(store: Engine) -> None:
    historic = add_instance(store, "historic", is_active=False)
    registered(store, historic, datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert missing_days(store, ago(3), DAY, ZONE) == []


def registered(store: Engine, instance_id: int, at: datetime) -> None:
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET created_at = :at WHERE id = :id"), {"at": at, "id": instance_id})
