"""Rows that a day's visits leave in the store.

A visit brings the inventory up to date and is stored under the run's day, whatever the clock says. For an
instance the last listing of a day counts. A database that is listed but gave no size is counted as missing,
never stored as 0, and an empty listing changes nothing unless someone confirms it. What the store cannot
take of one instance never costs another one its sizes.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from whalefall_capacity.collection.sizes import DatabaseSize, FailedVisit, Visit
from whalefall_capacity.store.sizes.stats import (
    Coverage,
    DayTotals,
    InstanceTotal,
    StoredSize,
    biggest_databases,
    coverage,
    database_sizes,
    day_totals,
    instance_totals,
    write_visits,
)
from whalefall_capacity_tests.registry import refusing, register
from whalefall_capacity_tests.store.records import (
    NOON,
    add_instance,
    at_once,
    children,
    held_up,
    row_versions,
    rows,
    visit,
)

MONDAY = date(2026, 3, 9)
TUESDAY = date(2026, 3, 10)
WEDNESDAY = date(2026, 3, 11)

INVENTORY = """
SELECT database_name, is_active, deleted_at IS NOT NULL, first_seen_date, last_seen_date
FROM instance_databases WHERE instance_id = :instance ORDER BY database_name
"""
SIZES = """
SELECT database_name, size_bytes FROM database_size_stats
WHERE instance_id = :instance AND collected_date = :day ORDER BY database_name
"""
TOTAL = """
SELECT total_size_bytes, database_count, missing_count, log_size_bytes FROM instance_size_stats
WHERE instance_id = :instance AND collected_date = :day
"""


@pytest.fixture
def shop(store: Engine) -> int:
    return add_instance(store, "shop")


def inventory(store: Engine, instance: int) -> list[tuple[Any, ...]]:
    return rows(store, INVENTORY, instance=instance)


def sizes(store: Engine, instance: int, day: date) -> dict[str, int]:
    return dict(rows(store, SIZES, instance=instance, day=day))


def total(store: Engine, instance: int, day: date) -> tuple[Any, ...]:
    (found,) = rows(store, TOTAL, instance=instance, day=day)
    return found


def add_imported(store: Engine, instance: int, database: str, day: date) -> None:
    statement = text(
        "INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, data_size_bytes, "
        "log_size_bytes, source, collected_at) VALUES (:instance, :database, :day, 70, 60, 10, 'imported', now())"
    )
    with store.begin() as connection:
        connection.execute(statement, {"instance": instance, "database": database, "day": day})


# The inventory


def test_a_database_seen_for_the_first_time_is_created(store: Engine, shop: int) -> None:
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    assert inventory(store, shop) == [("orders", True, False, TUESDAY, TUESDAY)]


def test_a_database_seen_again_is_refreshed(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100})])
    write_visits(store, WEDNESDAY, [visit(shop, {"orders": 110})])
    assert inventory(store, shop) == [("orders", True, False, MONDAY, WEDNESDAY)]


def test_a_database_no_longer_listed_is_deactivated(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "temp": 5})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    assert inventory(store, shop) == [("orders", True, False, MONDAY, TUESDAY), ("temp", False, True, MONDAY, MONDAY)]


def test_a_database_that_comes_back_is_reactivated(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "temp": 5})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    write_visits(store, WEDNESDAY, [visit(shop, {"orders": 100, "temp": 6})])
    assert inventory(store, shop)[1] == ("temp", True, False, MONDAY, WEDNESDAY)


def test_a_database_known_only_from_imports_becomes_active_when_it_is_listed(store: Engine, shop: int) -> None:
    statement = text(
        "INSERT INTO instance_databases (instance_id, database_name, is_active, first_seen_date, last_seen_date) "
        "VALUES (:shop, 'orders', false, '2026-01-01', '2026-01-31')"
    )
    with store.begin() as connection:
        connection.execute(statement, {"shop": shop})
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    assert inventory(store, shop) == [("orders", True, False, date(2026, 1, 1), TUESDAY)]


def test_a_database_that_is_listed_but_not_measured_stays_active(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": 50})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": None})])
    assert inventory(store, shop)[1] == ("users", True, False, MONDAY, TUESDAY)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Orders", "orders"), ("orders", "orders "), ("café", "cafe\u0301"), ("a_b", "axb"), ("ß", "ss")],
)
def test_names_that_differ_at_all_are_two_databases(store: Engine, shop: int, one: str, other: str) -> None:
    write_visits(store, MONDAY, [visit(shop, {one: 1, other: 2})])
    write_visits(store, TUESDAY, [visit(shop, {one: 3})])
    assert sizes(store, shop, MONDAY) == {one: 1, other: 2}
    assert {name: is_active for name, is_active, *_ in inventory(store, shop)} == {one: True, other: False}


@pytest.mark.parametrize(
    "name",
    [
        "tab\there",
        "line\nbreak",
        "carriage\rreturn",
        "a\n\\.\nb",
        'quo"ted',
        "com,ma",
        "back\\slash",
        "\\N",
        "\\.",
        "NULL",
        "'; DROP",
        "库",
        "🐳",
    ],
)
def test_a_name_is_stored_as_the_server_gave_it(store: Engine, shop: int, name: str) -> None:
    write_visits(store, TUESDAY, [visit(shop, {name: 1})])
    assert sizes(store, shop, TUESDAY) == {name: 1}


def test_a_visit_leaves_the_databases_of_other_instances_alone(store: Engine, shop: int) -> None:
    bank = add_instance(store, "bank")
    write_visits(store, MONDAY, [visit(shop, {"orders": 100}), visit(bank, {"orders": 7, "ledger": 8})])
    write_visits(store, TUESDAY, [visit(shop, {"users": 50})])
    assert inventory(store, bank) == [
        ("ledger", True, False, MONDAY, MONDAY),
        ("orders", True, False, MONDAY, MONDAY),
    ]


def test_a_second_visit_of_a_day_touches_no_inventory_row(store: Engine, shop: int) -> None:
    versions = "SELECT ctid, xmin FROM instance_databases"
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": 50})])
    before = rows(store, versions)
    write_visits(store, TUESDAY, [visit(shop, {"orders": 101, "users": 51})])
    assert rows(store, versions) == before


def test_a_run_of_an_earlier_day_that_ends_late_does_not_turn_the_inventory_back(store: Engine, shop: int) -> None:
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "new": 1})])
    write_visits(store, MONDAY, [visit(shop, {"orders": 99})])
    assert inventory(store, shop) == [("new", True, False, TUESDAY, TUESDAY), ("orders", True, False, MONDAY, TUESDAY)]
    assert sizes(store, shop, TUESDAY) == {"orders": 100, "new": 1}


def test_a_run_of_an_earlier_day_that_ends_late_brings_back_no_database_that_was_dropped_since(
    store: Engine, shop: int
) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "temp": 5})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    write_visits(store, MONDAY, [visit(shop, {"orders": 99, "temp": 6, "brief": 1})])
    assert inventory(store, shop) == [
        ("brief", False, True, MONDAY, MONDAY),
        ("orders", True, False, MONDAY, TUESDAY),
        ("temp", False, True, MONDAY, MONDAY),
    ]
    assert sizes(store, shop, MONDAY) == {"orders": 99, "temp": 6, "brief": 1}


def test_a_visit_says_which_version_the_server_has_and_when_it_answered(store: Engine, shop: int) -> None:
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100}, at=NOON, version="18.1")])
    assert rows(store, "SELECT version, last_connected_at FROM instances") == [("18.1", NOON)]


# The empty listing


def test_an_empty_listing_from_a_server_with_active_databases_changes_nothing(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": 50})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": 50})])
    before = row_versions(store)
    (outcome,) = write_visits(store, TUESDAY, [visit(shop, {})])
    assert outcome == FailedVisit(
        shop,
        "shop",
        "shop: inventory shrank from 2 to 0; nothing was changed. If the server really was emptied: "
        "`whalefall-capacity collect --instance shop --accept-empty`",
        0.1,
    )
    assert row_versions(store) == before


def test_an_empty_listing_costs_the_other_instances_of_the_batch_nothing(store: Engine, shop: int) -> None:
    bank = add_instance(store, "bank")
    write_visits(store, MONDAY, [visit(shop, {"orders": 100})])
    outcomes = write_visits(store, TUESDAY, [visit(shop, {}), visit(bank, {"ledger": 8})])
    assert [type(outcome) for outcome in outcomes] == [FailedVisit, Visit]
    assert total(store, bank, TUESDAY) == (8, 1, 0, None)
    assert rows(store, TOTAL, instance=shop, day=TUESDAY) == []


def test_a_confirmed_empty_listing_is_stored_as_nothing_at_all(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": 50})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    (outcome,) = write_visits(store, TUESDAY, [visit(shop, {}, log_size_bytes=16)], accept_empty=True)
    assert isinstance(outcome, Visit)
    assert total(store, shop, TUESDAY) == (0, 0, 0, 16)
    assert sizes(store, shop, TUESDAY) == {}
    assert [is_active for _, is_active, *_ in inventory(store, shop)] == [False, False]
    assert sizes(store, shop, MONDAY) == {"orders": 100, "users": 50}


def test_an_emptied_server_needs_to_be_confirmed_once(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100})])
    write_visits(store, TUESDAY, [visit(shop, {})], accept_empty=True)
    (outcome,) = write_visits(store, WEDNESDAY, [visit(shop, {})])
    assert isinstance(outcome, Visit)
    assert total(store, shop, WEDNESDAY) == (0, 0, 0, None)


def test_a_confirmation_does_not_last_for_a_server_that_was_filled_again(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {})], accept_empty=True)
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    (outcome,) = write_visits(store, WEDNESDAY, [visit(shop, {})])
    assert isinstance(outcome, FailedVisit)


def test_a_new_server_without_any_database_is_stored(store: Engine, shop: int) -> None:
    (outcome,) = write_visits(store, TUESDAY, [visit(shop, {})])
    assert isinstance(outcome, Visit)
    assert total(store, shop, TUESDAY) == (0, 0, 0, None)


def test_sizes_of_data_and_logs_are_stored_where_the_engine_tells_them(store: Engine, shop: int) -> None:
    parts = "SELECT database_name, size_bytes, data_size_bytes, log_size_bytes FROM database_size_stats ORDER BY 1"
    write_visits(store, TUESDAY, [visit(shop, [DatabaseSize("a", 30, None, 20, 10), DatabaseSize("b", 5, None, 5)])])
    assert rows(store, parts) == [("a", 30, 20, 10), ("b", 5, 5, None)]
    write_visits(store, TUESDAY, [visit(shop, [DatabaseSize("a", 30, None, 25, 5), DatabaseSize("b", 5)])])
    assert rows(store, parts) == [("a", 30, 25, 5), ("b", 5, None, None)]


# Databases without a size


def test_a_database_without_a_size_is_counted_and_never_stored_as_zero(store: Engine, shop: int) -> None:
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": None, "empty": 0})])
    assert sizes(store, shop, TUESDAY) == {"orders": 100, "empty": 0}
    assert total(store, shop, TUESDAY) == (100, 2, 1, None)


def test_a_database_without_a_size_keeps_an_earlier_size_of_the_same_day(store: Engine, shop: int) -> None:
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": 50})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 101, "users": None}, at=NOON + timedelta(hours=1))])
    assert sizes(store, shop, TUESDAY) == {"orders": 101, "users": 50}
    assert total(store, shop, TUESDAY) == (151, 2, 0, None)
    assert rows(store, "SELECT collected_at FROM database_size_stats WHERE database_name = 'users'") == [(NOON,)]


def test_a_database_without_a_size_does_not_borrow_one_from_another_day(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": 50})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": None})])
    assert total(store, shop, TUESDAY) == (100, 1, 1, None)


def test_a_database_without_a_size_keeps_an_imported_one(store: Engine, shop: int) -> None:
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    add_imported(store, shop, "users", TUESDAY)
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": None})])
    assert total(store, shop, TUESDAY) == (170, 2, 0, None)
    assert rows(store, "SELECT source FROM database_size_stats WHERE database_name = 'users'") == [("imported",)]


def test_logs_that_could_not_be_read_are_not_known_rather_than_nothing(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100}, log_size_bytes=0)])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100}, log_size_bytes=None)])
    assert total(store, shop, MONDAY)[3] == 0
    assert total(store, shop, TUESDAY)[3] is None


def test_logs_that_could_not_be_read_again_keep_what_was_read_that_day(store: Engine, shop: int) -> None:
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100}, log_size_bytes=16)])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 110}, log_size_bytes=None)])
    assert total(store, shop, TUESDAY) == (110, 1, 0, 16)


# The same day again, and the run's day


def test_collecting_a_day_again_overwrites_sizes_and_keeps_when_the_rows_were_made(store: Engine, shop: int) -> None:
    times = "SELECT created_at, updated_at, collected_at, {size} FROM {table}"
    databases = times.format(size="size_bytes", table="database_size_stats")
    instances = times.format(size="total_size_bytes", table="instance_size_stats")
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100}, log_size_bytes=1, at=NOON)])
    first = rows(store, databases) + rows(store, instances)
    later = NOON + timedelta(hours=2)
    write_visits(store, TUESDAY, [visit(shop, {"orders": 130}, log_size_bytes=2, at=later)])
    second = rows(store, databases) + rows(store, instances)
    assert [created for created, *_ in second] == [created for created, *_ in first]
    assert [updated > before for (_, updated, *_), (_, before, *_) in zip(second, first, strict=True)] == [True, True]
    assert [(collected, size) for *_, collected, size in second] == [(later, 130), (later, 130)]


def test_a_batch_may_bring_instances_that_were_measured_that_day_beside_others(store: Engine, shop: int) -> None:
    crm = add_instance(store, "crm")
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "temp": 5})])
    outcomes = write_visits(store, TUESDAY, [visit(shop, {"orders": 101}), visit(crm, {"people": 7})])
    assert [type(outcome) for outcome in outcomes] == [Visit, Visit]
    assert (sizes(store, shop, TUESDAY), sizes(store, crm, TUESDAY)) == ({"orders": 101}, {"people": 7})


def test_sizes_of_a_day_that_were_put_there_by_hand_are_overwritten(store: Engine, shop: int) -> None:
    crm = add_instance(store, "crm")
    # So that the month has its table partition.
    write_visits(store, MONDAY, [visit(crm, {"people": 7})])
    add_imported(store, shop, "orders", TUESDAY)
    outcomes = write_visits(store, TUESDAY, [visit(shop, {"orders": 101}), visit(crm, {"people": 7})])
    assert [type(outcome) for outcome in outcomes] == [Visit, Visit]
    assert (sizes(store, shop, TUESDAY), total(store, shop, TUESDAY)) == ({"orders": 101}, (101, 1, 0, None))


def test_a_database_no_longer_listed_leaves_the_day_and_only_that_day(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "temp": 5})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "temp": 5})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 101})])
    assert sizes(store, shop, TUESDAY) == {"orders": 101}
    assert total(store, shop, TUESDAY) == (101, 1, 0, None)
    assert sizes(store, shop, MONDAY) == {"orders": 100, "temp": 5}
    assert total(store, shop, MONDAY) == (105, 2, 0, None)


def test_a_visit_after_midnight_is_stored_under_the_day_of_its_run(store: Engine, shop: int) -> None:
    after_midnight = datetime(2026, 3, 11, 0, 5, tzinfo=timezone.utc)
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100}, at=after_midnight)])
    assert rows(store, "SELECT collected_date, collected_at FROM database_size_stats") == [(TUESDAY, after_midnight)]
    assert rows(store, "SELECT collected_date, collected_at FROM instance_size_stats") == [(TUESDAY, after_midnight)]


def test_what_is_measured_takes_the_place_of_what_was_imported(store: Engine, shop: int) -> None:
    write_visits(store, TUESDAY, [visit(shop, {})])
    add_imported(store, shop, "orders", TUESDAY)
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    assert rows(store, "SELECT size_bytes, data_size_bytes, log_size_bytes, source FROM database_size_stats") == [
        (100, None, None, "measured")
    ]


def test_a_day_whose_table_partition_is_not_there_gets_one(store: Engine, shop: int) -> None:
    write_visits(store, date(2031, 7, 15), [visit(shop, {"orders": 100})])
    assert children(store) == ["database_size_stats_2031_07", "instance_size_stats_2031_07"]
    assert sizes(store, shop, date(2031, 7, 15)) == {"orders": 100}


@pytest.mark.usefixtures("shop")
def test_no_visit_at_all_is_stored_as_nothing(store: Engine) -> None:
    before = row_versions(store)
    assert write_visits(store, TUESDAY, []) == []
    assert row_versions(store) == before


# What the store cannot take


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        ({"nul\0": 1}, "invalid byte sequence"),
        ({"half": 2**63 - 1, "other half": 1}, "bigint out of range"),
        ({"less than nothing": -1}, "violates check constraint"),
    ],
)
def test_what_the_store_refuses_costs_that_instance_alone(
    store: Engine, shop: int, refused: dict[str, int | None], reason: str
) -> None:
    bank = add_instance(store, "bank")
    stock = add_instance(store, "stock")
    outcomes = write_visits(
        store,
        TUESDAY,
        [visit(shop, {"orders": 1}), visit(bank, refused, name="bank"), visit(stock, {"parts": 2}, name="stock")],
    )
    assert [type(outcome) for outcome in outcomes] == [Visit, FailedVisit, Visit]
    assert isinstance(outcomes[1], FailedVisit)
    assert outcomes[1].error.startswith("bank: the store refused its sizes: ")
    assert reason in outcomes[1].error
    assert "\n" not in outcomes[1].error
    assert (outcomes[1].instance_id, outcomes[1].name) == (bank, "bank")
    assert coverage(store, TUESDAY, 9) == Coverage(3, 2, ["bank"])
    assert inventory(store, bank) == []


def test_an_instance_removed_from_the_registry_by_hand_costs_itself_alone(store: Engine, shop: int) -> None:
    outcomes = write_visits(store, TUESDAY, [visit(4711, {"ghost": 1}, name="ghost"), visit(shop, {"orders": 1})])
    assert [type(outcome) for outcome in outcomes] == [FailedVisit, Visit]
    assert sizes(store, shop, TUESDAY) == {"orders": 1}


# Many at once


def test_two_writers_of_the_same_instances_leave_the_state_of_one_of_them(store: Engine, shop: int) -> None:
    bank = add_instance(store, "bank")
    states = (
        {f"left {number}": 1 for number in range(20)} | {"shared": 10},
        {f"right {number}": 2 for number in range(30)} | {"shared": 20},
    )
    for _ in range(25):
        left, right = ([visit(shop, state), visit(bank, state)] for state in states)
        # In opposite orders: whoever locks as they come ends in a deadlock.
        outcomes = at_once(
            partial(write_visits, store, TUESDAY, left), partial(write_visits, store, TUESDAY, right[::-1])
        )
        assert {type(outcome) for batch in outcomes for outcome in batch} == {Visit}
        for instance in (shop, bank):
            state = sizes(store, instance, TUESDAY)
            assert state in states
            assert total(store, instance, TUESDAY) == (sum(state.values()), len(state), 0, None)
            assert {name for name, is_active, *_ in inventory(store, instance) if is_active} == state.keys()


def test_two_writers_that_need_the_same_new_table_partition_both_get_it(store: Engine, shop: int) -> None:
    bank = add_instance(store, "bank")
    for year in range(2040, 2050):
        day = date(year, 1, 1)
        at_once(
            partial(write_visits, store, day, [visit(shop, {"orders": 1})]),
            partial(write_visits, store, day, [visit(bank, {"ledger": 1})]),
        )
        assert coverage(store, day, 9) == Coverage(2, 2, [])


def test_a_fleet_file_can_be_applied_while_its_instances_are_written(store: Engine) -> None:
    shop = register(store, refusing("shop"))["shop"]
    write_visits(store, MONDAY, [visit(shop, {"orders": 100})])
    held_up(
        store,
        "SELECT FROM instance_databases FOR UPDATE",
        partial(write_visits, store, TUESDAY, [visit(shop, {"orders": 110})]),
        partial(register, store, refusing("shop") | {"host": "new.example"}),
    )
    assert rows(store, "SELECT host FROM instances") == [("new.example",)]
    assert sizes(store, shop, TUESDAY) == {"orders": 110}


def test_ten_thousand_databases_take_as_few_statements_as_one(store: Engine, shop: int) -> None:
    bank = add_instance(store, "bank")
    statements: list[str] = []

    @event.listens_for(store, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    write_visits(store, TUESDAY, [visit(bank, {"ledger": 1})])
    for_one = len(statements)
    statements.clear()
    write_visits(store, TUESDAY, [visit(shop, {f"db {number}": number for number in range(10_000)})])
    assert len(statements) <= for_one
    assert total(store, shop, TUESDAY) == (49_995_000, 10_000, 0, None)
    assert len(inventory(store, shop)) == 10_000


# What is stored of a day


@pytest.fixture
def week(store: Engine, shop: int) -> int:
    """Monday and Tuesday of *shop* and *bank*; returns the id of bank, which is disabled since."""
    bank = add_instance(store, "bank")
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": 50}), visit(bank, {"ledger": 50}, 7)])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 200, "users": None}, at=NOON)])
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET is_active = false WHERE name = 'bank'"))
    return bank


@pytest.mark.usefixtures("week")
def test_day_totals_are_over_all_instances_oldest_first_and_only_of_stored_days(store: Engine) -> None:
    written = dict(rows(store, "SELECT collected_date, max(updated_at) FROM instance_size_stats GROUP BY 1"))
    assert day_totals(store, [TUESDAY, WEDNESDAY, MONDAY]) == [
        DayTotals(MONDAY, 2, 3, 0, 200, 7, 1, written[MONDAY]),
        DayTotals(TUESDAY, 1, 1, 1, 200, None, 1, written[TUESDAY]),
    ]


@pytest.mark.usefixtures("week")
def test_the_biggest_databases_come_by_day_then_by_size_then_by_name(store: Engine) -> None:
    assert biggest_databases(store, [TUESDAY, MONDAY, WEDNESDAY]) == [
        StoredSize(MONDAY, "shop", "orders", 100, "measured"),
        StoredSize(MONDAY, "bank", "ledger", 50, "measured"),
        StoredSize(MONDAY, "shop", "users", 50, "measured"),
        StoredSize(TUESDAY, "shop", "orders", 200, "measured"),
    ]


@pytest.mark.usefixtures("week")
def test_the_biggest_databases_are_at_most_as_many_as_asked_for_per_day(store: Engine) -> None:
    assert biggest_databases(store, [MONDAY, TUESDAY], count=1) == [
        StoredSize(MONDAY, "shop", "orders", 100, "measured"),
        StoredSize(TUESDAY, "shop", "orders", 200, "measured"),
    ]


@pytest.mark.usefixtures("week")
def test_instance_totals_are_by_name_and_keep_disabled_instances(store: Engine) -> None:
    assert instance_totals(store, MONDAY) == [
        InstanceTotal("bank", "postgresql", "16.4", 1, 0, 50, 7, NOON),
        InstanceTotal("shop", "postgresql", "16.4", 2, 0, 150, None, NOON),
    ]


@pytest.mark.usefixtures("week")
def test_database_sizes_are_by_instance_and_name(store: Engine) -> None:
    assert database_sizes(store, MONDAY) == [
        StoredSize(MONDAY, "bank", "ledger", 50, "measured"),
        StoredSize(MONDAY, "shop", "orders", 100, "measured"),
        StoredSize(MONDAY, "shop", "users", 50, "measured"),
    ]


@pytest.mark.usefixtures("week")
def test_coverage_is_about_todays_fleet(store: Engine) -> None:
    add_instance(store, "new")
    assert coverage(store, MONDAY, 9) == Coverage(2, 1, ["new"])
    assert coverage(store, WEDNESDAY, 9) == Coverage(2, 0, ["new", "shop"])
    assert coverage(store, WEDNESDAY, 1) == Coverage(2, 0, ["new"])


def test_a_server_that_was_visited_again_has_to_have_answered_since(store: Engine, shop: int) -> None:
    bank = add_instance(store, "bank")
    write_visits(store, TUESDAY, [visit(shop, {"orders": 1}, at=NOON), visit(bank, {"ledger": 1}, at=NOON)])
    later = NOON + timedelta(hours=1)
    assert coverage(store, TUESDAY, 9, NOON) == Coverage(2, 2, [])
    assert coverage(store, TUESDAY, 9, later) == Coverage(2, 0, ["bank", "shop"])
    assert coverage(store, TUESDAY, 9, later, [shop]) == Coverage(2, 1, ["shop"])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 1}, at=later)])
    assert coverage(store, TUESDAY, 9, later) == Coverage(2, 1, ["bank"])


def test_a_soft_deleted_instance_is_not_of_the_fleet(store: Engine, shop: int) -> None:
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET deleted_at = now() WHERE id = :shop"), {"shop": shop})
    assert coverage(store, MONDAY, 9) == Coverage(0, 0, [])


def test_an_empty_store_has_nothing_of_any_day(store: Engine) -> None:
    assert day_totals(store, [MONDAY]) == []
    assert biggest_databases(store, [MONDAY]) == []
    assert instance_totals(store, MONDAY) == []
    assert database_sizes(store, MONDAY) == []
    assert coverage(store, MONDAY, 9) == Coverage(0, 0, [])
