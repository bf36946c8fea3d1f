"""Importing sizes of past days.

An import is one transaction: all of a file or nothing. It never overwrites a measured size unless asked, marks
what it writes as imported, computes the totals of the touched days again from all that is stored of them, and
changes nothing when it comes a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from whalefall_capacity.collection.sizes import Visit
from whalefall_capacity.errors import HistoryFileError
from whalefall_capacity.history_file import HistoryRows, SizeUnit, read_history
from whalefall_capacity.store.sizes.history_import import HistoryImport, import_history
from whalefall_capacity.store.sizes.stats import Coverage, coverage, write_visits
from whalefall_capacity_tests.registry import refusing, register
from whalefall_capacity_tests.store.records import (
    Row,
    add_instance,
    at_once,
    children,
    held_up,
    history,
    row_versions,
    rows,
    visit,
)

MONDAY = date(2026, 3, 9)
TUESDAY = date(2026, 3, 10)
WEDNESDAY = date(2026, 3, 11)

SIZES = """
SELECT database_name, collected_date, size_bytes, source FROM database_size_stats
ORDER BY instance_id, database_name, collected_date
"""
TOTALS = """
SELECT collected_date, total_size_bytes, database_count, missing_count, source FROM instance_size_stats
ORDER BY instance_id, collected_date
"""
MEASURED_AT = "SELECT CAST(collected_at AT TIME ZONE 'UTC' AS text) FROM database_size_stats"
TOTAL_AT = "SELECT CAST(collected_at AT TIME ZONE 'UTC' AS text) FROM instance_size_stats"
INVENTORY = """
SELECT database_name, is_active, first_seen_date, last_seen_date, deleted_at IS NULL FROM instance_databases
ORDER BY instance_id, database_name
"""


def load(store: Engine, *lines: Row, **options: Any) -> HistoryImport:
    return import_history(store, history(*lines), "sizes.csv", **options)


@pytest.fixture
def shop(store: Engine) -> int:
    return add_instance(store, "shop")


# What is written


@pytest.mark.usefixtures("shop")
def test_imported_rows_are_marked_and_summed(store: Engine) -> None:
    result = load(store, ("shop", "orders", MONDAY, 100), ("shop", "users", MONDAY, 50), ("shop", "users", TUESDAY, 60))
    assert result == HistoryImport(3, 3, 0, (), (MONDAY, TUESDAY))
    assert rows(store, SIZES) == [
        ("orders", MONDAY, 100, "imported"),
        ("users", MONDAY, 50, "imported"),
        ("users", TUESDAY, 60, "imported"),
    ]
    assert rows(store, TOTALS) == [(MONDAY, 150, 2, 0, "imported"), (TUESDAY, 60, 1, 0, "imported")]


@pytest.mark.usefixtures("shop")
def test_data_and_log_sizes_are_kept_where_they_are_known(store: Engine) -> None:
    import_history(store, history(("shop", "orders", MONDAY, 100), data="70", logs="30"), "sizes.csv")
    import_history(store, history(("shop", "users", MONDAY, 100)), "sizes.csv")
    assert rows(
        store, "SELECT database_name, data_size_bytes, log_size_bytes FROM database_size_stats ORDER BY database_name"
    ) == [("orders", 70, 30), ("users", None, None)]
    # What a database says of its logs is not what the server's logs take.
    assert rows(store, "SELECT log_size_bytes FROM instance_size_stats") == [(None,)]


@pytest.mark.usefixtures("shop")
def test_a_file_of_several_chunks_is_one_import(store: Engine) -> None:
    chunks = history(("shop", "orders", MONDAY, 100)) + history(("shop", "users", MONDAY, 50))
    assert import_history(store, chunks, "sizes.csv").written == 2
    assert rows(store, TOTALS) == [(MONDAY, 150, 2, 0, "imported")]


@pytest.mark.usefixtures("shop")
def test_a_file_without_rows_imports_nothing(store: Engine) -> None:
    before = row_versions(store)
    assert load(store) == HistoryImport(0, 0, 0, (), ())
    assert import_history(store, [], "sizes.csv") == HistoryImport(0, 0, 0, (), ())
    assert row_versions(store) == before


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "name",
    [
        "tab\there",
        "line\nbreak",
        "carriage\rreturn",
        "a\n\\.\nb",
        'quo"ted',
        "com,ma",
        "\\N",
        "Orders",
        " padded ",
        "库",
    ],
)
def test_names_are_stored_as_the_file_has_them(store: Engine, name: str) -> None:
    load(store, ("shop", name, MONDAY, 1))
    assert rows(store, SIZES) == [(name, MONDAY, 1, "imported")]


@pytest.mark.usefixtures("shop")
def test_table_partitions_of_old_days_are_created(store: Engine) -> None:
    load(store, ("shop", "orders", date(2025, 1, 31), 1), ("shop", "orders", date(2025, 2, 1), 2))
    assert children(store) == [
        "database_size_stats_2025_01",
        "database_size_stats_2025_02",
        "instance_size_stats_2025_01",
        "instance_size_stats_2025_02",
    ]


def test_only_the_totals_of_touched_instances_and_days_are_computed_again(store: Engine, shop: int) -> None:
    bank = add_instance(store, "bank")
    write_visits(store, MONDAY, [visit(shop, {"orders": 100}), visit(bank, {"ledger": 7})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    versions = "SELECT instance_id, collected_date, xmin FROM instance_size_stats ORDER BY 1, 2"
    before = rows(store, versions)
    load(store, ("shop", "users", MONDAY, 50))
    assert [row[:2] for row, old in zip(rows(store, versions), before, strict=True) if row != old] == [(shop, MONDAY)]


# Measured rows


def test_a_measured_row_is_never_overwritten(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100})])
    before = row_versions(store)
    assert load(store, ("shop", "orders", MONDAY, 999)) == HistoryImport(1, 0, 1, (), ())
    assert row_versions(store) == before


def test_a_measured_row_is_overwritten_when_asked_and_marked(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": 50}, log_size_bytes=16)])
    result = load(store, ("shop", "orders", MONDAY, 999), replace=True)
    assert result == HistoryImport(1, 1, 0, (), (MONDAY,))
    assert rows(store, SIZES) == [("orders", MONDAY, 999, "imported"), ("users", MONDAY, 50, "measured")]
    assert rows(store, TOTALS) == [(MONDAY, 1049, 2, 0, "measured")]
    assert rows(store, "SELECT log_size_bytes FROM instance_size_stats") == [(16,)]


def test_replacing_by_the_same_size_still_marks_the_row(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100})])
    assert load(store, ("shop", "orders", MONDAY, 100), replace=True).written == 1
    assert rows(store, TOTALS) == [(MONDAY, 100, 1, 0, "imported")]


def test_an_imported_row_beside_measured_ones_is_added_to_their_total(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100})])
    result = load(store, ("shop", "orders", MONDAY, 999), ("shop", "old", MONDAY, 5))
    assert result == HistoryImport(2, 1, 1, (), (MONDAY,))
    assert result.unchanged == 0
    assert rows(store, TOTALS) == [(MONDAY, 105, 2, 0, "measured")]


def test_an_imported_row_is_corrected_by_a_later_import(store: Engine, shop: int) -> None:
    del shop
    load(store, ("shop", "orders", MONDAY, 100), ("shop", "users", MONDAY, 50))
    result = load(store, ("shop", "orders", MONDAY, 101), ("shop", "users", MONDAY, 50))
    assert (result.written, result.unchanged, result.changed_days) == (1, 1, (MONDAY,))
    assert rows(store, TOTALS) == [(MONDAY, 151, 2, 0, "imported")]


# The unit of the sizes, and when they were measured


@pytest.mark.parametrize(
    ("unit", "size_bytes"),
    [(SizeUnit.BYTES, 7), (SizeUnit.KIB, 7_168), (SizeUnit.MIB, 7_340_032), (SizeUnit.GIB, 7_516_192_768)],
)
@pytest.mark.usefixtures("shop")
def test_sizes_are_stored_in_bytes_whatever_the_unit_of_the_file(
    store: Engine, unit: SizeUnit, size_bytes: int
) -> None:
    import_history(store, history(("shop", "orders", MONDAY, 7), data="7", logs="7"), "sizes.csv", unit=unit)
    assert rows(store, "SELECT size_bytes, data_size_bytes, log_size_bytes FROM database_size_stats") == [
        (size_bytes, size_bytes, size_bytes)
    ]
    assert rows(store, TOTALS) == [(MONDAY, size_bytes, 1, 0, "imported")]


@pytest.mark.usefixtures("shop")
def test_when_a_size_was_measured_is_kept_where_it_is_known(store: Engine) -> None:
    known = history(("shop", "orders", MONDAY, 100), ("shop", "users", MONDAY, 50), time="2026-03-09T03:00:12+08:00")
    assert import_history(store, known, "sizes.csv").written == 2
    assert rows(store, MEASURED_AT) == [("2026-03-08 19:00:12",), ("2026-03-08 19:00:12",)]
    assert rows(store, TOTAL_AT) == [("2026-03-08 19:00:12",)]


@pytest.mark.usefixtures("shop")
def test_a_file_that_knows_no_times_leaves_those_that_are_known(store: Engine) -> None:
    known = history(("shop", "orders", MONDAY, 100), time="2026-03-09T03:00:12Z")
    import_history(store, known, "sizes.csv")
    before = row_versions(store)
    assert load(store, ("shop", "orders", MONDAY, 100)).written == 0
    assert import_history(store, known, "sizes.csv").written == 0
    assert row_versions(store) == before


@pytest.mark.usefixtures("shop")
def test_a_time_that_becomes_known_or_other_is_written(store: Engine) -> None:
    load(store, ("shop", "orders", MONDAY, 100))
    for hour in ("03", "04"):
        later = history(("shop", "orders", MONDAY, 100), time=f"2026-03-09T{hour}:00:00Z")
        assert import_history(store, later, "sizes.csv").written == 1
        assert rows(store, MEASURED_AT) == rows(store, TOTAL_AT) == [(f"2026-03-09 {hour}:00:00",)]


# Databases that were listed but not measured


def test_a_size_for_a_listed_database_that_was_missing_fills_the_gap(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": None, "logs": None})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": 52, "logs": 8})])
    load(store, ("shop", "users", MONDAY, 50))
    assert rows(store, TOTALS)[0] == (MONDAY, 150, 2, 1, "measured")
    load(store, ("shop", "logs", MONDAY, 7))
    assert rows(store, TOTALS) == [(MONDAY, 157, 3, 0, "measured"), (TUESDAY, 160, 3, 0, "measured")]


def test_a_gap_is_filled_once(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": None, "logs": None})])
    load(store, ("shop", "users", MONDAY, 50))
    load(store, ("shop", "users", MONDAY, 51))
    assert rows(store, TOTALS) == [(MONDAY, 151, 2, 1, "measured")]


def test_a_size_for_a_database_that_was_measured_fills_no_gap(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": None})])
    load(store, ("shop", "orders", MONDAY, 101), replace=True)
    assert rows(store, TOTALS) == [(MONDAY, 101, 1, 1, "imported")]


def test_a_size_for_a_database_that_was_never_listed_fills_no_gap(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": None})])
    load(store, ("shop", "old", MONDAY, 5))
    assert rows(store, TOTALS) == [(MONDAY, 105, 2, 1, "measured")]


def test_a_database_known_only_from_earlier_imports_fills_no_gap(store: Engine, shop: int) -> None:
    load(store, ("shop", "old", date(2026, 3, 1), 5), ("shop", "old", date(2026, 3, 31), 5))
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": None})])
    load(store, ("shop", "old", MONDAY, 5))
    assert rows(store, TOTALS)[1] == (MONDAY, 105, 2, 1, "measured")


def test_a_database_that_was_gone_by_then_fills_no_gap(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": 50, "old": 5})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": None})])
    load(store, ("shop", "old", TUESDAY, 5))
    assert rows(store, TOTALS)[1] == (TUESDAY, 105, 2, 1, "measured")


def test_a_database_first_listed_later_fills_no_gap(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": None})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": 50, "new": 5})])
    load(store, ("shop", "new", MONDAY, 5))
    assert rows(store, TOTALS)[0] == (MONDAY, 105, 2, 1, "measured")


# Days without a visit


def test_a_day_without_a_visit_lacks_the_listed_databases_that_an_import_does_not_bring(
    store: Engine, shop: int
) -> None:
    everything = {"orders": 100, "users": 50, "logs": 7}
    write_visits(store, MONDAY, [visit(shop, everything)])
    write_visits(store, WEDNESDAY, [visit(shop, everything)])
    load(store, ("shop", "orders", TUESDAY, 100))
    assert rows(store, TOTALS)[1] == (TUESDAY, 100, 1, 2, "imported")
    load(store, ("shop", "users", TUESDAY, 50), ("shop", "logs", TUESDAY, 7))
    assert rows(store, TOTALS)[1] == (TUESDAY, 157, 3, 0, "imported")


@pytest.mark.parametrize("replace", [False, True])
def test_a_day_without_a_visit_lacks_as_many_when_an_import_is_corrected(
    store: Engine, shop: int, replace: bool
) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": 50})])
    write_visits(store, WEDNESDAY, [visit(shop, {"orders": 100, "users": 50})])
    for size in (100, 100, 101):
        load(store, ("shop", "orders", TUESDAY, size), replace=replace)
    assert rows(store, TOTALS)[1] == (TUESDAY, 101, 1, 1, "imported")


def test_a_day_after_the_last_visit_lacks_the_databases_that_are_still_listed(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": 50, "old": 5})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100, "users": 50})])
    load(store, ("shop", "orders", WEDNESDAY, 100))
    assert rows(store, TOTALS)[2] == (WEDNESDAY, 100, 1, 1, "imported")


def test_a_day_lacks_no_database_that_was_listed_later_only_or_that_imports_alone_know(
    store: Engine, shop: int
) -> None:
    load(store, ("shop", "old", date(2026, 3, 1), 5), ("shop", "old", date(2026, 3, 31), 5))
    write_visits(store, WEDNESDAY, [visit(shop, {"orders": 100, "users": 50})])
    load(store, ("shop", "orders", TUESDAY, 90))
    load(store, ("shop", "orders", TUESDAY, 91))
    assert rows(store, TOTALS)[1] == (TUESDAY, 91, 1, 0, "imported")


def test_a_database_that_an_import_dates_back_hides_no_other_that_is_lacking(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"users": 50})])
    write_visits(store, WEDNESDAY, [visit(shop, {"orders": 100, "users": 50, "new": 5})])
    load(store, ("shop", "orders", TUESDAY, 100))
    load(store, ("shop", "new", date(2026, 3, 1), 5))
    load(store, ("shop", "new", TUESDAY, 5))
    assert rows(store, TOTALS)[2] == (TUESDAY, 105, 2, 1, "imported")


# The inventory


def test_a_database_that_is_not_known_is_registered_inactive(store: Engine, shop: int) -> None:
    del shop
    load(store, ("shop", "orders", TUESDAY, 1), ("shop", "orders", MONDAY, 1), ("shop", "Orders", TUESDAY, 1))
    assert rows(store, INVENTORY) == [
        ("Orders", False, TUESDAY, TUESDAY, True),
        ("orders", False, MONDAY, TUESDAY, True),
    ]


def test_a_known_database_stays_active_and_is_known_from_earlier_on(store: Engine, shop: int) -> None:
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    load(store, ("shop", "orders", MONDAY, 90))
    assert rows(store, INVENTORY) == [("orders", True, MONDAY, TUESDAY, True)]


def test_an_import_does_not_say_that_a_dropped_database_was_seen_later(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "old": 5})])
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    load(store, ("shop", "old", WEDNESDAY, 5))
    assert rows(store, INVENTORY)[0] == ("old", False, MONDAY, MONDAY, False)


def test_an_import_says_that_a_listed_database_was_there_and_the_next_visit_may_drop_it(
    store: Engine, shop: int
) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "old": 5})])
    load(store, ("shop", "old", TUESDAY, 5))
    assert rows(store, INVENTORY) == [("old", True, MONDAY, TUESDAY, True), ("orders", True, MONDAY, MONDAY, True)]
    write_visits(store, TUESDAY, [visit(shop, {"orders": 100})])
    assert rows(store, INVENTORY) == [("old", False, MONDAY, TUESDAY, False), ("orders", True, MONDAY, TUESDAY, True)]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("days", [(MONDAY, TUESDAY, WEDNESDAY), (WEDNESDAY, MONDAY, TUESDAY)])
def test_days_that_come_in_files_of_their_own_end_as_if_they_came_in_one(store: Engine, days: list[date]) -> None:
    for day in days:
        load(store, ("shop", "orders", day, 100))
    assert rows(store, INVENTORY) == [("orders", False, MONDAY, WEDNESDAY, True)]
    assert [row[:3] for row in rows(store, TOTALS)] == [(MONDAY, 100, 1), (TUESDAY, 100, 1), (WEDNESDAY, 100, 1)]


# Unknown instances


@pytest.mark.usefixtures("shop")
def test_unknown_instances_are_refused(store: Engine) -> None:
    before = row_versions(store)
    with pytest.raises(HistoryFileError) as caught:
        load(store, ("shop", "orders", MONDAY, 1), ("Shop", "orders", MONDAY, 1), ("bank", "ledger", MONDAY, 1))
    assert str(caught.value) == (
        "sizes.csv: instances Shop, bank are not registered: apply a fleet file that has them, or pass "
        "--create-instances to register them as inactive; nothing was written"
    )
    assert row_versions(store) == before


@pytest.mark.usefixtures("shop")
def test_only_so_many_unknown_instances_are_named(store: Engine) -> None:
    with pytest.raises(HistoryFileError, match=r"instances bank 00, .*, bank 19 and 5 more are not registered"):
        load(store, *((f"bank {number:02}", "ledger", MONDAY, 1) for number in range(25)))


def test_unknown_instances_are_registered_inactive_when_asked(store: Engine) -> None:
    result = load(store, ("bank", "ledger", MONDAY, 7), create_instances=True)
    assert result == HistoryImport(1, 1, 0, ("bank",), (MONDAY,))
    assert rows(store, "SELECT name, db_type, host, port, is_active, deleted_at, credential_id FROM instances") == [
        ("bank", "unknown", None, None, False, None, None)
    ]
    assert coverage(store, MONDAY, 9) == Coverage(0, 0, [])
    assert rows(store, TOTALS) == [(MONDAY, 7, 1, 0, "imported")]


@pytest.mark.usefixtures("shop")
def test_a_registered_instance_is_left_as_it_is(store: Engine) -> None:
    before = rows(store, "SELECT xmin, i::text FROM instances AS i")
    result = load(store, ("shop", "orders", MONDAY, 1), create_instances=True)
    assert result.created_instances == ()
    assert rows(store, "SELECT xmin, i::text FROM instances AS i") == before


def test_a_disabled_instance_can_be_imported(store: Engine) -> None:
    add_instance(store, "gone", is_active=False)
    assert load(store, ("gone", "orders", MONDAY, 1)).written == 1


# All or nothing


def test_sizes_of_a_day_that_no_server_can_hold_together_are_refused(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 2**53 - 3})])
    before = row_versions(store)
    load(store, ("shop", "users", TUESDAY, 2**53 - 1), dry_run=True)
    with pytest.raises(HistoryFileError) as caught:
        load(store, ("shop", "users", MONDAY, 3), ("shop", "a", TUESDAY, 2**53 - 1), ("shop", "b", TUESDAY, 2**53 - 1))
    assert str(caught.value).splitlines() == [
        "sizes.csv: shop, 2026-03-09: the sizes add up to 9007199254740992 bytes, which no server can hold",
        "sizes.csv: shop, 2026-03-10: the sizes add up to 18014398509481982 bytes, which no server can hold",
        "nothing was written",
    ]
    assert row_versions(store) == before


@pytest.mark.usefixtures("shop")
def test_repeated_rows_are_refused_with_their_lines(store: Engine) -> None:
    before = row_versions(store)
    orders, users = ("shop", "orders", MONDAY, 1), ("shop", "users", MONDAY, 1)
    with pytest.raises(HistoryFileError) as caught:
        load(store, orders, users, orders, ("shop", "Orders", MONDAY, 1), users, ("shop", "orders", TUESDAY, 1))
    assert str(caught.value).splitlines() == [
        "sizes.csv: line 4: shop, orders, 2026-03-09 again, first at 2",
        "sizes.csv: line 6: shop, users, 2026-03-09 again, first at 3",
        "nothing was written",
    ]
    assert row_versions(store) == before


@pytest.mark.usefixtures("shop")
def test_repeated_rows_are_found_across_chunks_and_in_parquet_by_row(store: Engine) -> None:
    with pytest.raises(HistoryFileError, match=r"sizes\.parquet: row 3: shop, orders, 2026-03-09 again, first at 2"):
        import_history(
            store,
            [HistoryRows([place], [["shop"], ["orders"], ["2026-03-09"], ["1"], [""], [""], [""]]) for place in (2, 3)],
            "sizes.parquet",
        )


@pytest.mark.usefixtures("shop")
def test_repeated_rows_beyond_twenty_are_counted(store: Engine) -> None:
    lines = [("shop", f"db {number:02}", MONDAY, 1) for number in range(23)]
    with pytest.raises(HistoryFileError) as caught:
        load(store, *lines, *lines)
    assert len(str(caught.value).splitlines()) == 22
    assert str(caught.value).splitlines()[19:] == [
        "sizes.csv: line 44: shop, db 19, 2026-03-09 again, first at 21",
        "and 3 more",
        "nothing was written",
    ]


def test_a_bad_row_at_the_end_of_a_file_takes_everything_back(store: Engine, tmp_path: Path) -> None:
    file = tmp_path / "sizes.csv"
    file.write_text("instance,database,date,size_bytes\nbank,ledger,2025-01-02,1\nbank,ledger,2025-01-03,?\n")
    before, parents = row_versions(store), children(store)
    with pytest.raises(HistoryFileError, match="line 3: size_bytes"):
        import_history(store, read_history(file, date(2025, 1, 1), TUESDAY), str(file), create_instances=True)
    assert row_versions(store) == before
    assert children(store) == parents


@pytest.mark.usefixtures("shop")
def test_a_row_that_no_store_can_hold_is_an_error_of_its_line(store: Engine, tmp_path: Path) -> None:
    file = tmp_path / "sizes.csv"
    file.write_text("instance,database,date,size_bytes\nshop,or\0ders,2026-03-09,1\nshop,users,2026-03-09,1\n")
    with pytest.raises(HistoryFileError) as caught:
        import_history(store, read_history(file, date(2025, 1, 1), TUESDAY), str(file))
    assert str(caught.value).splitlines() == [
        f"{file}: line 2: database: 'or\\x00ders': must not contain a NUL character",
        "nothing was written",
    ]


def test_a_file_that_stops_coming_takes_everything_back(store: Engine, shop: int) -> None:
    del shop

    def broken() -> Iterator[HistoryRows]:
        yield from history(("shop", "orders", MONDAY, 1))
        raise OSError("the disk is gone")

    before = row_versions(store)
    with pytest.raises(OSError, match="the disk is gone"):
        import_history(store, broken(), "sizes.csv")
    assert row_versions(store) == before


def test_a_dry_run_says_what_would_happen_and_leaves_nothing(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100})])
    lines = (
        ("shop", "orders", MONDAY, 999),
        ("shop", "users", MONDAY, 50),
        ("bank", "ledger", date(2025, 5, 5), 7),
    )
    before, parents = row_versions(store), children(store)
    foreseen = load(store, *lines, create_instances=True, dry_run=True)
    assert foreseen == HistoryImport(3, 2, 1, ("bank",), (date(2025, 5, 5), MONDAY))
    assert row_versions(store) == before
    assert children(store) == parents
    assert load(store, *lines, create_instances=True) == foreseen


@pytest.mark.usefixtures("shop")
def test_a_dry_run_finds_the_same_errors(store: Engine) -> None:
    with pytest.raises(HistoryFileError, match="again"):
        load(store, *[("shop", "orders", MONDAY, 1)] * 2, dry_run=True)
    with pytest.raises(HistoryFileError, match="bank are not registered"):
        load(store, ("bank", "orders", MONDAY, 1), dry_run=True)


# A second time


@pytest.mark.parametrize("replace", [False, True])
def test_importing_a_file_twice_touches_no_row(store: Engine, shop: int, replace: bool) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 100, "users": None})])
    lines = (
        ("shop", "orders", MONDAY, 999),
        ("shop", "users", MONDAY, 50),
        ("shop", "users", TUESDAY, 50),
        ("bank", "ledger", date(2025, 5, 5), 7),
    )
    load(store, *lines, create_instances=True, replace=replace)
    before = row_versions(store)
    again = load(store, *lines, create_instances=True, replace=replace)
    assert (again.written, again.created_instances, again.changed_days) == (0, (), ())
    assert row_versions(store) == before


@pytest.mark.usefixtures("shop")
def test_changed_days_are_those_with_a_written_row(store: Engine) -> None:
    load(store, ("shop", "orders", MONDAY, 1), ("shop", "orders", TUESDAY, 1))
    result = load(
        store, ("shop", "orders", MONDAY, 1), ("shop", "orders", TUESDAY, 2), ("shop", "orders", WEDNESDAY, 1)
    )
    assert (result.written, result.unchanged) == (2, 1)
    assert result.changed_days == (TUESDAY, WEDNESDAY)


# Two at once


def test_two_imports_of_the_same_file_at_once_are_one_import(store: Engine) -> None:
    for number in range(10):
        lines = [(f"bank {number}", f"db {place:02}", MONDAY, place) for place in range(40)]
        one, two = at_once(
            partial(load, store, *lines, create_instances=True),
            partial(load, store, *lines[::-1], create_instances=True),
        )
        assert sorted([one.written, two.written]) == [0, 40]
        assert sorted([one.created_instances, two.created_instances]) == [(), (f"bank {number}",)]
    assert {row[1:] for row in rows(store, TOTALS)} == {(780, 40, 0, "imported")}


def test_imports_of_overlapping_instances_do_not_wait_for_each_other_in_a_circle(store: Engine) -> None:
    names = [f"bank {number}" for number in range(8)]
    for year in range(2010, 2020):
        # Each in its own order, and all need the same new table partition.
        day = date(year, 1, 1)
        results = at_once(
            partial(load, store, *((name, "a", day, 1) for name in names), create_instances=True),
            partial(load, store, *((name, "b", day, 2) for name in names[::-1]), create_instances=True),
            partial(load, store, *((name, "c", day, 4) for name in names[3:]), create_instances=True),
        )
        assert [result.written for result in results] == [8, 8, 5]
    assert {row[1:3] for row in rows(store, TOTALS)} == {(3, 2), (7, 3)}


def test_an_import_beside_a_collection_of_the_same_instance_and_day_leaves_one_total(store: Engine, shop: int) -> None:
    for day in (date(2026, 3, number) for number in range(1, 21)):
        written, imported = at_once(
            partial(write_visits, store, day, [visit(shop, {"orders": 100, "users": 50})]),
            partial(load, store, ("shop", "users", day, 70)),
        )
        assert [type(outcome) for outcome in written] == [Visit]
        assert imported.written + imported.kept_measured == 1
    # Whoever was first, the measured size counts.
    assert {row[1:] for row in rows(store, TOTALS)} == {(150, 2, 0, "measured")}


def test_a_collection_waits_for_an_import_of_its_instance(store: Engine, shop: int) -> None:
    write_visits(store, MONDAY, [visit(shop, {"orders": 90, "users": None})])
    load(store, ("shop", "users", MONDAY, 50))
    held_up(
        store,
        "SELECT FROM database_size_stats WHERE database_name = 'users' FOR UPDATE",
        partial(load, store, ("shop", "users", MONDAY, 70)),
        # Nothing of this touches the row that holds the import up.
        partial(write_visits, store, MONDAY, [visit(shop, {"orders": 100, "users": None})]),
    )
    assert rows(store, TOTALS) == [(MONDAY, 170, 2, 0, "measured")]


def test_a_fleet_file_can_be_applied_while_its_instances_are_imported(store: Engine) -> None:
    register(store, refusing("shop"))
    load(store, ("shop", "orders", MONDAY, 1))
    held_up(
        store,
        "SELECT FROM database_size_stats FOR UPDATE",
        partial(load, store, ("shop", "orders", MONDAY, 2)),
        partial(register, store, refusing("shop") | {"host": "new.example"}),
    )
    assert rows(store, "SELECT host FROM instances") == [("new.example",)]
    assert rows(store, SIZES) == [("orders", MONDAY, 2, "imported")]
