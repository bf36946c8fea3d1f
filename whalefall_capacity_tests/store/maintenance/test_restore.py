"""A restored month is the one that went, its windows are open again, and it goes again when its time is over.

On PostgreSQL 18 and 16.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance.restore import restore
from whalefall_capacity_tests.store.maintenance.upkeep import (
    JANUARY,
    JANUARY_OF_STATS,
    TODAY,
    aggregations,
    calculate,
    days_of,
    ends,
    leave_detached,
    put_month,
    reason_of,
    sealed,
    stats,
    tables_like,
    upkeep,
)
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import children, rows

FEBRUARY, MARCH = date(2025, 2, 1), date(2025, 3, 1)
ALL_JANUARY = [JANUARY + timedelta(days=offset) for offset in range(31)]


@pytest.fixture
def store(either_store: Engine) -> Engine:
    return either_store


def archive_of(folder: Path, child: str) -> Path:
    (path,) = folder.glob(f"{child}-*.parquet")
    return path


def restore_all(store: Engine, folder: Path, month: str, day: date = TODAY) -> None:
    for table in ("database_size_stats", "instance_size_stats"):
        restore(store, archive_of(folder, f"{table}_{month}"), day)


def test_a_month_comes_back_byte_for_byte_as_the_same_kind_of_child(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    before, names = stats(store), children(store)
    assert set(ends(upkeep(store, archive_dir=tmp_path)).values()) == {"dropped"}
    assert stats(store) == []
    done = restore(store, archive_of(tmp_path, "database_size_stats_2025_01"), TODAY)
    assert (done.table, done.child, done.rows) == ("database_size_stats", "database_size_stats_2025_01", 20)
    restore(store, archive_of(tmp_path, "instance_size_stats_2025_01"), TODAY)
    assert stats(store) == before
    assert set(names) <= set(children(store))
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = CAST(:t AS regclass)"
    for name in JANUARY_OF_STATS:
        assert rows(store, indexes, t=name) == rows(store, indexes, t=name.removesuffix("_2025_01"))


def test_the_windows_of_a_whole_month_are_open_again_and_calculate_to_the_same(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    upkeep(store, archive_dir=tmp_path)
    before = aggregations(store)
    restore_all(store, tmp_path, "2025_01")
    assert sealed(store) == []
    calculate(store, ALL_JANUARY)
    assert aggregations(store) == before
    put_sizes(store, [(1, "shop", JANUARY, 5000)])
    calculate(store, ALL_JANUARY)
    assert aggregations(store) != before


def test_a_window_that_lacks_days_of_another_month_stays_sealed_until_that_is_back_too(
    store: Engine, tmp_path: Path
) -> None:
    for month in (JANUARY, FEBRUARY, MARCH):
        put_month(store, month)
        calculate(store, days_of(month))
    for day in (date(2026, 3, 1), date(2026, 4, 1)):
        upkeep(store, day, archive_dir=tmp_path)
    before = aggregations(store)
    done = restore(store, archive_of(tmp_path, "database_size_stats_2025_01"), TODAY)
    assert (done.windows_open, done.windows_sealed) == (31 + 4 + 1, 1 + 1)
    calculate(store, ALL_JANUARY)
    assert aggregations(store) == before
    done = restore(store, archive_of(tmp_path, "database_size_stats_2025_02"), TODAY)
    assert done.windows_sealed == 0
    calculate(store, [JANUARY, FEBRUARY, MARCH])
    assert aggregations(store) == before
    assert [row for row in sealed(store) if row[0] == "database"] == []


def test_a_window_stays_sealed_while_another_month_of_it_is_on_its_way_out(store: Engine, tmp_path: Path) -> None:
    put_month(store, MARCH)
    upkeep(store, archive_dir=tmp_path)
    put_month(store, JANUARY)
    leave_detached(store)
    done = restore(store, archive_of(tmp_path, "database_size_stats_2025_03"), TODAY)
    # The days, weeks and month of March; not its quarter.
    assert (done.windows_open, done.windows_sealed) == (31 + 6 + 1, 1)


def test_a_restored_month_is_kept_for_its_days_and_then_goes_again(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    upkeep(store, archive_dir=tmp_path)
    before = aggregations(store)
    restore_all(store, tmp_path, "2025_01")
    outcomes = upkeep(store, TODAY + timedelta(days=6), archive_dir=tmp_path)
    assert ends(outcomes) == dict.fromkeys(JANUARY_OF_STATS, "kept")
    assert reason_of(outcomes, JANUARY_OF_STATS[0]) == "was restored, and is kept until 2026-05-27"
    assert ends(upkeep(store, TODAY + timedelta(days=7), archive_dir=tmp_path)) == dict.fromkeys(
        JANUARY_OF_STATS, "dropped"
    )
    assert len(list(tmp_path.iterdir())) == 4
    assert aggregations(store) == before
    restore_all(store, tmp_path, "2025_01")
    assert len(stats(store)) == 30


def test_an_archive_of_another_store_is_restored_too(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    upkeep(store, archive_dir=tmp_path)
    with store.begin() as connection:
        connection.execute(text("TRUNCATE retired_children, aggregation_windows"))
    restore_all(store, tmp_path, "2025_01")
    assert set(ends(upkeep(store)).values()) == {"kept"}
    assert set(ends(upkeep(store, TODAY + timedelta(days=7))).values()) == {"dropped"}


def test_aggregations_can_be_archived_and_restored(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    calculate(store, ALL_JANUARY)
    before = aggregations(store)
    upkeep(store, archive_dir=tmp_path, retention_daily_months=12, retention_stats_months=30)
    assert aggregations(store) != before
    for level in ("database", "instance"):
        restore(store, archive_of(tmp_path, f"{level}_size_aggregations_daily_2025_01"), TODAY)
    assert aggregations(store) == before


def test_the_sizes_of_databases_can_be_aggregated_before_those_of_their_instances_are_restored_too(
    store: Engine, tmp_path: Path
) -> None:
    put_month(store, JANUARY)
    calculate(store, ALL_JANUARY)
    before = aggregations(store)
    upkeep(store, archive_dir=tmp_path, retention_daily_months=13)
    restore(store, archive_of(tmp_path, "database_size_stats_2025_01"), TODAY)
    aggregate(store, Level.DATABASE, days_to_windows(ALL_JANUARY, PeriodType.DAILY))
    daily = [row for row in aggregations(store) if row[3] == "daily"]
    assert daily == [row for row in before if row[0] == "database" and row[3] == "daily"]
    assert len(daily) == 20


def test_a_month_that_is_there_is_not_overwritten(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    upkeep(store, archive_dir=tmp_path)
    put_sizes(store, [(1, "shop", JANUARY, 1)])
    with pytest.raises(StoreError) as raised:
        restore(store, archive_of(tmp_path, "database_size_stats_2025_01"), TODAY)
    assert str(raised.value) == (
        "database_size_stats_2025_01 already holds days from 2025-01-01 to 2025-01-31: nothing was restored"
    )
    assert len(stats(store)) == 2


def test_a_table_in_the_way_is_left_alone(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    upkeep(store, archive_dir=tmp_path)
    with store.begin() as connection:
        connection.execute(text("CREATE TABLE database_size_stats_2025_01 (n integer)"))
    with pytest.raises(StoreError, match="exists but is no table partition of database_size_stats: rename it first"):
        restore(store, archive_of(tmp_path, "database_size_stats_2025_01"), TODAY)


def test_an_archive_that_does_not_hold_what_it_says_changes_nothing(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    upkeep(store, archive_dir=tmp_path)
    before = sealed(store)
    manifest = archive_of(tmp_path, "database_size_stats_2025_01").with_suffix(".json")
    manifest.write_text(manifest.read_text().replace('"rows": 20', '"rows": 21'))
    with pytest.raises(StoreError, match=r"says 21 rows .* but reading its file gives 20"):
        restore(store, manifest, TODAY)
    assert tables_like(store, "database_size_stats_2025_01") == []
    assert sealed(store) == before
