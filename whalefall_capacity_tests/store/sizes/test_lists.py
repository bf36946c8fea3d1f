"""The lists of instances and databases: every row has its own latest size, its changes and its status."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.selection import Selection
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.aggregations.summaries import summary
from whalefall_capacity.store.sizes import instance_list
from whalefall_capacity.store.sizes.database_list import database_lines, get_database, list_databases
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity.store.sizes.instance_list import get_instance, list_instances
from whalefall_capacity.store.sizes.listing import ListFilter, SizeStatus
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity_tests.store.past import MIB, put_sizes, put_total
from whalefall_capacity_tests.store.records import add_instance, history, visit

TODAY = date(2026, 3, 20)
EVERYTHING = ListFilter()
SHOP = 1
CRM = 2
OLD = 3
IDLE = 4


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def put_visit(store: Engine, instance_id: int, status: str, at: datetime, error: str | None = None) -> None:
    """Store a task run with the visit of one server."""
    run_id = f"{instance_id}-{at:%Y%m%dT%H%M}"
    values = {"run_id": run_id, "id": instance_id, "status": status, "at": at, "error": error}
    with store.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, created_at)"
                " VALUES (:run_id, 'sync_databases', 'Collect sizes', 'capacity', 'scheduled', 'completed', :at)"
            ),
            values,
        )
        connection.execute(
            text(
                "INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status, completed_at,"
                " error_message) VALUES (:run_id, 'collection', CAST(:id AS text), 'x', :id, :status, :at, :error)"
            ),
            values,
        )


@pytest.fixture
def store(either_store: Engine) -> Engine:
    """Four instances: one up to date, one whose visit failed, one that is gone, one never visited."""
    put_sizes(either_store, [(SHOP, "shop", ago(n), (100 - n) * MIB) for n in range(40) if n not in (7, 3)])
    put_sizes(either_store, [(SHOP, "wiki", ago(n), 5 * MIB) for n in range(1, 3)])
    put_sizes(either_store, [(SHOP, "gone", ago(n), 7 * MIB) for n in range(10, 20)])
    put_sizes(either_store, [(CRM, "shop", ago(n), 1000 * MIB) for n in range(2, 10)])
    put_sizes(either_store, [(OLD, "past", date(2025, 6, 1), 3 * MIB)])
    with either_store.begin() as connection:
        for statement in (
            "INSERT INTO instances (id, name, db_type) VALUES (4, 'idle_1', 'mariadb')",
            "UPDATE instances SET name = 'Shop', host = 'shop.example', port = 5432 WHERE id = 1",
            "UPDATE instances SET name = 'crm', db_type = 'mysql' WHERE id = 2",
            "UPDATE instances SET name = 'old', is_active = false, deleted_at = now() WHERE id = 3",
            "INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)"
            " SELECT instance_id, database_name, min(collected_date), max(collected_date)"
            " FROM database_size_stats GROUP BY 1, 2",
            f"UPDATE instance_databases SET last_seen_date = '{TODAY}' WHERE database_name = 'wiki'",
            "UPDATE instance_databases SET is_active = false, deleted_at = now() WHERE database_name = 'gone'",
            "INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)"
            f" VALUES (1, 'dark', '{ago(3)}', '{TODAY}'), (4, 'new', '{TODAY}', '{TODAY}')",
        ):
            connection.execute(text(statement))
    put_visit(either_store, SHOP, "failed", datetime(2026, 3, 19, 1, tzinfo=timezone.utc), "no route")
    put_visit(either_store, SHOP, "completed", datetime(2026, 3, 20, 1, tzinfo=timezone.utc))
    put_visit(either_store, CRM, "completed", datetime(2026, 3, 18, 1, tzinfo=timezone.utc))
    put_visit(either_store, CRM, "failed", datetime(2026, 3, 20, 1, tzinfo=timezone.utc), "crm: no answer")
    return either_store


def names(rows: Any) -> list[str]:
    return [f"{row.instance}/{row.database_name}" for row in rows]


def file_rows(store: Engine, wanted: ListFilter, sort: str, columns: Sequence[str]) -> list[list[str]]:
    """Return the cells of the CSV file of all databases."""
    return list(csv.reader(io.StringIO("".join(database_lines(store, wanted, TODAY, sort, columns, "=+-@\t\r")))))


def named_in_file(store: Engine, wanted: ListFilter, sort: str) -> list[str]:
    return ["/".join(row) for row in file_rows(store, wanted, sort, ("instance", "database_name"))]


def test_each_instance_has_its_own_latest_size_with_its_day_and_status(store: Engine) -> None:
    found = list_instances(store, EVERYTHING, TODAY, "instance", 20)
    assert [(row.instance, row.day, row.size_bytes, row.status) for row in found.rows] == [
        ("Shop", TODAY, 100 * MIB, "measured"),
        ("crm", ago(2), 1000 * MIB, "failed"),
        ("idle_1", None, None, "never_measured"),
        ("old", date(2025, 6, 1), 3 * MIB, "dropped"),
    ]
    assert found.total == 4
    assert [row.failure for row in found.rows] == [None, "crm: no answer", None, None]


def test_a_change_is_against_the_nearest_size_before_and_unknown_without_one(store: Engine) -> None:
    shop, crm, idle, old = list_instances(store, EVERYTHING, TODAY, "instance", 20).rows
    # Nothing was measured seven days ago: the day before stands in.
    assert shop.change_7_days_bytes == 100 * MIB - 92 * MIB
    # Thirty days ago the database that is gone now was not there yet.
    assert shop.change_30_days_bytes == 30 * MIB
    assert (crm.change_7_days_bytes, crm.change_30_days_bytes) == (0, None)
    assert (idle.change_7_days_bytes, old.change_7_days_bytes) == (None, None)


def test_a_change_is_against_the_nearest_day_on_which_every_database_was_measured(store: Engine) -> None:
    put_total(store, SHOP, ago(8), 2 * MIB, 1, missing=1)
    put_total(store, SHOP, ago(30), 2 * MIB, 1, missing=1)
    shop = list_instances(store, EVERYTHING, TODAY, "-change_7_days", 1).rows[0]
    assert (shop.instance, shop.change_7_days_bytes, shop.change_30_days_bytes) == ("Shop", 9 * MIB, 31 * MIB)


def test_the_change_of_a_day_on_which_a_database_could_not_be_measured_is_not_known(store: Engine) -> None:
    put_total(store, SHOP, TODAY, 2 * MIB, 1, missing=1)
    for sort in ("change_7_days", "-change_30_days"):
        rows = list_instances(store, EVERYTHING, TODAY, sort, 20).rows
        shop = next(row for row in rows if row.instance == "Shop")
        assert (shop.change_7_days_bytes, shop.change_30_days_bytes) == (None, None)
        assert (shop.size_bytes, shop.missing_count) == (2 * MIB, 1)
    # Sorted by it, it comes last with all that is not known.
    assert list_instances(store, EVERYTHING, TODAY, "change_7_days", 20).rows[0].instance == "crm"


def test_the_trend_has_a_gap_where_no_size_is_known(store: Engine) -> None:
    shop = get_instance(store, SHOP, TODAY)
    assert shop is not None
    assert len(shop.trend) == 30
    assert shop.trend[-1] == 100 * MIB
    assert [n for n, size in enumerate(shop.trend) if size is None] == [22, 26]


def test_an_instance_nobody_knows_is_none(store: Engine) -> None:
    assert get_instance(store, 99, TODAY) is None
    assert get_instance(store, 2**40, TODAY) is None
    assert get_database(store, SHOP, "nothing", TODAY) is None


def test_each_database_has_its_own_latest_size_with_its_day_and_status(store: Engine) -> None:
    found = list_databases(store, EVERYTHING, TODAY, "instance", 20)
    assert [(f"{row.instance}/{row.database_name}", row.day, row.size_bytes, row.status) for row in found.rows] == [
        ("Shop/dark", None, None, "failed"),
        ("Shop/gone", ago(10), 7 * MIB, "dropped"),
        ("Shop/shop", TODAY, 100 * MIB, "measured"),
        ("Shop/wiki", ago(1), 5 * MIB, "failed"),
        ("crm/shop", ago(2), 1000 * MIB, "failed"),
        ("idle_1/new", None, None, "never_measured"),
        ("old/past", date(2025, 6, 1), 3 * MIB, "dropped"),
    ]
    assert found.total == 7


def test_a_server_that_was_not_visited_makes_its_databases_late(store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(text("DELETE FROM task_run_items WHERE instance_id = 2"))
    row = get_database(store, CRM, "shop", TODAY)
    assert row is not None
    assert row.status is SizeStatus.LATE
    yesterday = get_database(store, CRM, "shop", ago(1))
    assert yesterday is not None
    assert yesterday.status is SizeStatus.MEASURED


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("-size", ["crm/shop", "Shop/shop", "Shop/gone", "Shop/wiki", "old/past", "Shop/dark", "idle_1/new"]),
        ("size", ["old/past", "Shop/wiki", "Shop/gone", "Shop/shop", "crm/shop", "Shop/dark", "idle_1/new"]),
        ("day", ["old/past", "Shop/gone", "crm/shop", "Shop/wiki", "Shop/shop", "Shop/dark", "idle_1/new"]),
        ("-change_7_days", ["Shop/shop", "Shop/gone", "crm/shop", "Shop/dark", "Shop/wiki", "idle_1/new", "old/past"]),
        ("-change_30_days", ["Shop/shop", "Shop/dark", "Shop/gone", "Shop/wiki", "crm/shop", "idle_1/new", "old/past"]),
        ("database", ["Shop/dark", "Shop/gone", "idle_1/new", "old/past", "Shop/shop", "crm/shop", "Shop/wiki"]),
        ("-instance", ["old/past", "idle_1/new", "crm/shop", "Shop/dark", "Shop/gone", "Shop/shop", "Shop/wiki"]),
    ],
)
def test_databases_are_sorted_and_what_is_not_known_comes_last(store: Engine, sort: str, expected: list[str]) -> None:
    assert names(list_databases(store, EVERYTHING, TODAY, sort, 20).rows) == expected


@pytest.mark.parametrize("day", [TODAY, ago(1), ago(5)])
@pytest.mark.parametrize("sort", ["size", "day", "change_7_days", "change_30_days", "status"])
def test_the_order_agrees_with_the_figures_that_are_shown(store: Engine, sort: str, day: date) -> None:
    column = {"size": "size_bytes", "change_7_days": "change_7_days_bytes", "change_30_days": "change_30_days_bytes"}
    shown = [getattr(row, column.get(sort, sort)) for row in list_databases(store, EVERYTHING, day, sort, 20).rows]
    known = [value for value in shown if value is not None]
    assert shown == sorted(known) + [None] * (len(shown) - len(known))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ListFilter(search="SHO"), ["Shop/dark", "Shop/gone", "Shop/shop", "Shop/wiki", "crm/shop"]),
        (ListFilter(search="e_1"), ["idle_1/new"]),
        (ListFilter(search="%"), []),
        (ListFilter(db_types=["mysql", "mariadb"]), ["crm/shop", "idle_1/new"]),
        (ListFilter(instance_ids=[2, 3, 2**40]), ["crm/shop", "old/past"]),
        (ListFilter(statuses=[SizeStatus.FAILED]), ["Shop/dark", "Shop/wiki", "crm/shop"]),
        (ListFilter(statuses=[SizeStatus.DROPPED], instance_ids=[1]), ["Shop/gone"]),
        (ListFilter(instance_ids=[]), []),
    ],
)
def test_filters_narrow_the_list_and_its_total(store: Engine, wanted: ListFilter, expected: list[str]) -> None:
    for sort in ("instance", "-size"):
        found = list_databases(store, wanted, TODAY, sort, 20)
        assert sorted(names(found.rows)) == expected
        assert found.total == len(expected)
        assert sorted(named_in_file(store, wanted, sort)) == expected


def test_the_file_of_all_databases_has_the_figures_of_the_list(store: Engine) -> None:
    columns = ("database_name", "status", "day", "size_bytes", "change_7_days_bytes", "change_30_days_bytes")
    rows = list_databases(store, EVERYTHING, TODAY, "-size", 20).rows
    shown = [["" if (value := getattr(row, column)) is None else str(value) for column in columns] for row in rows]
    assert file_rows(store, EVERYTHING, "-size", columns) == shown


def test_names_stay_one_cell_of_the_file_and_are_no_formulas(store: Engine) -> None:
    odd = ["a,b", 'say "hi"', "two\nlines", "=1+1", '@"x"', "\tTab", "plain", "caf\u00e9 '"]
    with store.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)"
                " SELECT 4, name, :day, :day FROM unnest(CAST(:names AS text[])) AS name"
            ),
            {"names": odd, "day": TODAY},
        )
    found = file_rows(store, ListFilter(instance_ids=[IDLE]), "database", ("database_name", "instance", "size_bytes"))
    harmless = ["a,b", 'say "hi"', "two\nlines", "'=1+1", '\'@"x"', "'\tTab", "plain", "caf\u00e9 '", "new"]
    assert sorted(found) == sorted([name, "idle_1", ""] for name in harmless)


def test_pages_follow_each_other_and_one_behind_the_last_knows_the_total(store: Engine) -> None:
    for sort in ("instance", "-size"):
        pages = [list_databases(store, EVERYTHING, TODAY, sort, 3, offset) for offset in (0, 3, 6, 9)]
        assert [len(page.rows) for page in pages] == [3, 3, 1, 0]
        assert {page.total for page in pages} == {7}
        together = [name for page in pages for name in names(page.rows)]
        assert together == named_in_file(store, EVERYTHING, sort)
    beyond = list_instances(store, EVERYTHING, TODAY, "-size", 3, 9)
    assert (beyond.rows, beyond.total) == ([], 4)


@pytest.mark.parametrize("sort", [*instance_list.ORDERS, *(f"-{key}" for key in instance_list.ORDERS)])
def test_instances_can_be_sorted_by_every_column(store: Engine, sort: str) -> None:
    assert {row.instance for row in list_instances(store, EVERYTHING, TODAY, sort, 20).rows} == {
        "Shop",
        "crm",
        "idle_1",
        "old",
    }


def test_instances_are_searched_and_filtered_by_status(store: Engine) -> None:
    for wanted, expected in (
        (ListFilter(search="sh"), ["Shop"]),
        (ListFilter(statuses=[SizeStatus.FAILED, SizeStatus.DROPPED]), ["crm", "old"]),
        (ListFilter(db_types=["mysql"]), ["crm"]),
    ):
        assert [row.instance for row in list_instances(store, wanted, TODAY, "instance", 20).rows] == expected


@pytest.fixture
def imported_yesterday(either_store: Engine) -> tuple[Engine, int]:
    """A server that was visited two days ago, and whose sizes of yesterday come from a file, but for one."""
    bank = add_instance(either_store, "bank")
    sizes: dict[str, int | None] = {"ledger": 10 * MIB, "loans": 20 * MIB, "tills": 5 * MIB}
    write_visits(either_store, ago(2), [visit(bank, sizes)])
    lines = history(("bank", "ledger", ago(1), 11 * MIB), ("bank", "loans", ago(1), 21 * MIB))
    import_history(either_store, lines, "sizes.csv")
    return either_store, bank


@pytest.mark.parametrize("sort", ["database", "-size"])
def test_an_imported_day_is_no_visit_that_failed(imported_yesterday: tuple[Engine, int], sort: str) -> None:
    store, _ = imported_yesterday
    listed = list_databases(store, EVERYTHING, TODAY, sort, 20).rows
    assert sorted((row.database_name, row.day, row.size_bytes, row.status) for row in listed) == [
        ("ledger", ago(1), 11 * MIB, "measured"),
        ("loans", ago(1), 21 * MIB, "measured"),
        ("tills", ago(2), 5 * MIB, "late"),
    ]
    columns = ("database_name", "day", "size_bytes", "status")
    assert sorted(file_rows(store, EVERYTHING, sort, columns)) == [
        ["ledger", "2026-03-19", str(11 * MIB), "measured"],
        ["loans", "2026-03-19", str(21 * MIB), "measured"],
        ["tills", "2026-03-18", str(5 * MIB), "late"],
    ]
    assert list_databases(store, ListFilter(statuses=[SizeStatus.FAILED]), TODAY, sort, 20).total == 0


def test_a_size_imported_today_is_the_latest_on_the_page_and_in_the_file(either_store: Engine) -> None:
    bank, shop = add_instance(either_store, "bank"), add_instance(either_store, "shop")
    for day in (ago(2), ago(1)):
        write_visits(either_store, day, [visit(bank, {"ledger": 10 * MIB}), visit(shop, {"orders": MIB})])
    import_history(either_store, history(("bank", "ledger", TODAY, 12 * MIB)), "sizes.csv")
    for sort in ("database", "-size"):
        rows = list_databases(either_store, ListFilter(instance_ids=[bank]), TODAY, sort, 20).rows
        assert [(row.day, row.size_bytes) for row in rows] == [(TODAY, 12 * MIB)]
        wanted = ListFilter(instance_ids=[bank])
        assert file_rows(either_store, wanted, sort, ("day", "size_bytes")) == [["2026-03-20", str(12 * MIB)]]


def test_a_dropped_database_has_the_size_of_its_last_listing_on_the_page_and_in_the_file(either_store: Engine) -> None:
    bank = add_instance(either_store, "bank")
    write_visits(either_store, ago(2), [visit(bank, {"ledger": 10 * MIB, "old": 7 * MIB})])
    write_visits(either_store, ago(1), [visit(bank, {"ledger": 10 * MIB})])
    import_history(either_store, history(("bank", "old", ago(1), 8 * MIB)), "sizes.csv")
    rows = list_databases(either_store, ListFilter(search="old"), TODAY, "-size", 20).rows
    assert [(row.day, row.size_bytes, row.status) for row in rows] == [(ago(2), 7 * MIB, "dropped")]
    columns = ("day", "size_bytes", "status")
    assert file_rows(either_store, ListFilter(search="old"), "-size", columns) == [
        ["2026-03-18", str(7 * MIB), "dropped"]
    ]


@pytest.mark.parametrize("level", list(Level))
def test_databases_with_an_imported_day_stay_in_the_cards_when_the_next_visit_fails(
    imported_yesterday: tuple[Engine, int], level: Level
) -> None:
    store, _ = imported_yesterday
    write_visits(store, TODAY, [visit(add_instance(store, "shop"), {"orders": MIB})])
    aggregate(store, level, days_to_windows([ago(2), ago(1), TODAY], PeriodType.DAILY))
    aggregate(store, Level.DATABASE, days_to_windows([ago(2), ago(1), TODAY], PeriodType.DAILY))
    found = summary(store, level, Selection(PeriodType.DAILY, ago(29), TODAY))
    assert (found.instances, found.databases, found.total_size_bytes) == (2, 4, 38 * MIB)
