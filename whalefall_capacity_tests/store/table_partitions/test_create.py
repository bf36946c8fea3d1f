"""Children of the partitioned tables are there before a row needs them, and nobody waits for one to be made.

Ahead: from the later of the start of the current quarter and the table's cut-off, to N months ahead. On
demand: before a write that brings rows for a past child. Only true children of the parent count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from whalefall_capacity.errors import StoreError
from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.postgres.advisory_locks import lock_child_creation
from whalefall_capacity.store.table_partitions.create import (
    DATABASE_SIZE_STATS,
    INSTANCE_SIZE_STATS,
    PARTITIONED_TABLES,
    STATS_TABLES,
    PartitionedTable,
    create_ahead,
    ensure_children,
)
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.store.records import WAITING_FOR_ADVISORY_LOCKS, rows

TABLES = {table.name: table for table in PARTITIONED_TABLES}
BY_MONTH = (
    "database_size_stats",
    "instance_size_stats",
    "database_size_aggregations_daily",
    "database_size_aggregations_weekly",
    "instance_size_aggregations_daily",
    "instance_size_aggregations_weekly",
    "capacity_forecasts",
    "size_anomalies",
)
BY_YEAR = (
    "database_size_aggregations_monthly",
    "database_size_aggregations_quarterly",
    "instance_size_aggregations_monthly",
    "instance_size_aggregations_quarterly",
)
BOUNDS = """
SELECT child.relname, inhparent::regclass::text, pg_get_expr(child.relpartbound, child.oid)
FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
JOIN pg_partitioned_table ON partrelid = inhparent AND partstrat = 'r'
ORDER BY 1
"""
INSERT_SIZE = """
INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
VALUES (1, 'orders', :day, 7, 'measured', now())
"""


@pytest.mark.parametrize(
    ("table", "day", "name", "bounds"),
    [
        ("database_size_stats", date(2026, 5, 20), "database_size_stats_2026_05", ("2026-05-01", "2026-06-01")),
        ("database_size_stats", date(2026, 5, 1), "database_size_stats_2026_05", ("2026-05-01", "2026-06-01")),
        ("instance_size_stats", date(2025, 12, 31), "instance_size_stats_2025_12", ("2025-12-01", "2026-01-01")),
        ("instance_size_stats", date(2024, 2, 29), "instance_size_stats_2024_02", ("2024-02-01", "2024-03-01")),
        (
            "database_size_aggregations_daily",
            date(2026, 5, 20),
            "database_size_aggregations_daily_2026_05",
            ("2026-05-01", "2026-06-01"),
        ),
        (
            "instance_size_aggregations_weekly",
            date(2025, 12, 29),
            "instance_size_aggregations_weekly_2025_12",
            ("2025-12-01", "2026-01-01"),
        ),
        (
            "database_size_aggregations_monthly",
            date(2026, 5, 1),
            "database_size_aggregations_monthly_2026",
            ("2026-01-01", "2027-01-01"),
        ),
        (
            "instance_size_aggregations_quarterly",
            date(2026, 10, 1),
            "instance_size_aggregations_quarterly_2026",
            ("2026-01-01", "2027-01-01"),
        ),
    ],
)
def test_a_child_spans_a_month_or_a_year_and_is_named_after_it(
    table: str, day: date, name: str, bounds: tuple[str, str], store: Engine
) -> None:
    assert _ensure(store, [TABLES[table]], day) == [name]
    assert rows(store, BOUNDS) == [(name, table, "FOR VALUES FROM ('{}') TO ('{}')".format(*bounds))]


@pytest.mark.parametrize(
    ("today", "months", "years"),
    [
        (date(2026, 4, 1), ["2026_04", "2026_05", "2026_06", "2026_07"], ["2026"]),
        (date(2026, 5, 20), ["2026_04", "2026_05", "2026_06", "2026_07", "2026_08"], ["2026"]),
        (date(2026, 6, 30), ["2026_04", "2026_05", "2026_06", "2026_07", "2026_08", "2026_09"], ["2026"]),
        (date(2026, 11, 30), ["2026_10", "2026_11", "2026_12", "2027_01", "2027_02"], ["2026", "2027"]),
    ],
    ids=str,
)
def test_every_table_has_its_children_from_the_start_of_the_quarter_to_three_months_ahead(
    today: date, months: list[str], years: list[str], store: Engine
) -> None:
    expected = [f"{table}_{month}" for table in BY_MONTH for month in months]
    expected += [f"{table}_{year}" for table in BY_YEAR for year in years]
    assert sorted(create_ahead(store, build_settings(), today)) == sorted(expected)
    assert [name for name, _, _ in rows(store, BOUNDS)] == sorted(expected)


def test_how_many_months_ahead_is_a_setting(store: Engine) -> None:
    created = create_ahead(store, build_settings(create_ahead_months=1), date(2026, 4, 30))
    assert [name for name in created if name.startswith("database_size_stats")] == [
        "database_size_stats_2026_04",
        "database_size_stats_2026_05",
    ]


def test_a_cut_off_after_the_start_of_the_quarter_is_where_children_begin(store: Engine) -> None:
    settings = build_settings(retention_daily_months=1, create_ahead_months=1)
    created = create_ahead(store, settings, date(2026, 6, 20))
    assert [name for name in created if name.startswith("database_size_aggregations_daily")] == [
        "database_size_aggregations_daily_2026_05",
        "database_size_aggregations_daily_2026_06",
        "database_size_aggregations_daily_2026_07",
    ]
    assert "database_size_aggregations_weekly_2026_04" in created


def test_creating_ahead_again_creates_nothing_and_a_month_later_only_what_is_new(store: Engine) -> None:
    create_ahead(store, build_settings(), date(2026, 5, 20))
    assert create_ahead(store, build_settings(), date(2026, 5, 31)) == []
    assert create_ahead(store, build_settings(), date(2026, 6, 1)) == [f"{table}_2026_09" for table in BY_MONTH]


def test_the_retention_of_a_table_is_that_of_its_kind() -> None:
    settings = build_settings(
        retention_stats_months=14,
        retention_daily_months=15,
        retention_weekly_months=37,
        retention_monthly_months=121,
        retention_quarterly_months=122,
        retention_forecasts_months=25,
    )
    assert {name: table.retention_months(settings) for name, table in TABLES.items()} == {
        "database_size_stats": 14,
        "instance_size_stats": 14,
        "database_size_aggregations_daily": 15,
        "database_size_aggregations_weekly": 37,
        "database_size_aggregations_monthly": 121,
        "database_size_aggregations_quarterly": 122,
        "instance_size_aggregations_daily": 15,
        "instance_size_aggregations_weekly": 37,
        "instance_size_aggregations_monthly": 121,
        "instance_size_aggregations_quarterly": 122,
        "capacity_forecasts": 25,
        "size_anomalies": 25,
    }


def test_a_past_child_is_made_when_rows_for_it_come(store: Engine) -> None:
    create_ahead(store, build_settings(), date(2026, 5, 20))
    with store.begin() as connection:
        assert ensure_children(connection, [DATABASE_SIZE_STATS], [date(2025, 3, 10)]) == [
            "database_size_stats_2025_03"
        ]
        connection.execute(text(INSERT_SIZE), {"day": date(2025, 3, 10)})
    assert rows(store, "SELECT tableoid::regclass::text, collected_date FROM database_size_stats") == [
        ("database_size_stats_2025_03", date(2025, 3, 10))
    ]


def test_the_days_of_a_month_share_one_child_of_each_table(store: Engine) -> None:
    year = [date(2026, 1, 1) + timedelta(days=offset) for offset in range(365)]
    assert _ensure(store, STATS_TABLES, *year, *year) == sorted(
        f"{table.name}_2026_{month:02}" for table in STATS_TABLES for month in range(1, 13)
    )


def test_no_day_needs_no_child(store: Engine) -> None:
    assert _ensure(store, PARTITIONED_TABLES) == []
    assert rows(store, BOUNDS) == []


def test_a_child_that_is_there_is_left_as_it_is(store: Engine) -> None:
    _ensure(store, [DATABASE_SIZE_STATS], date(2026, 5, 20))
    before = rows(store, "SELECT 'database_size_stats_2026_05'::regclass::oid")
    assert _ensure(store, STATS_TABLES, date(2026, 5, 21)) == ["instance_size_stats_2026_05"]
    assert rows(store, "SELECT 'database_size_stats_2026_05'::regclass::oid") == before


def test_a_child_goes_with_the_transaction_that_made_it(store: Engine) -> None:
    with store.connect() as connection:
        ensure_children(connection, [DATABASE_SIZE_STATS], [date(2026, 5, 20)])
        connection.rollback()
    assert rows(store, BOUNDS) == []


def test_a_row_of_a_day_without_a_child_is_refused(store: Engine) -> None:
    _ensure(store, [DATABASE_SIZE_STATS], date(2026, 5, 20))
    with pytest.raises(IntegrityError, match="no partition of relation"), store.begin() as connection:
        connection.execute(text(INSERT_SIZE), {"day": date(2026, 6, 1)})


def test_a_child_has_the_columns_defaults_keys_checks_and_indexes_of_its_parent(store: Engine) -> None:
    for table in PARTITIONED_TABLES:
        (child,) = _ensure(store, [table], date(2026, 5, 20))
        assert _shape(store, child) == _shape(store, table.name)


def test_a_child_keeps_no_check_of_its_own_for_its_bounds(store: Engine) -> None:
    _ensure(store, STATS_TABLES, date(2026, 5, 20))
    assert rows(store, "SELECT conname FROM pg_constraint WHERE conname LIKE '%bounds%'") == []


def test_a_key_is_unique_within_a_child(store: Engine) -> None:
    with store.begin() as connection:
        ensure_children(connection, [DATABASE_SIZE_STATS], [date(2026, 5, 20)])
        connection.execute(text(INSERT_SIZE), {"day": date(2026, 5, 20)})
    with pytest.raises(IntegrityError, match="database_size_stats_2026_05_pkey"), store.begin() as connection:
        connection.execute(text(INSERT_SIZE), {"day": date(2026, 5, 20)})


def test_of_two_writers_that_need_the_same_child_one_makes_it_and_the_other_uses_it(store: Engine) -> None:
    day = date(2026, 5, 20)
    with ThreadPoolExecutor(1) as threads, store.connect() as first:
        assert ensure_children(first, [DATABASE_SIZE_STATS], [day]) == ["database_size_stats_2026_05"]
        second = threads.submit(_ensure, store, [DATABASE_SIZE_STATS], day)
        wait_for(lambda: rows(store, WAITING_FOR_ADVISORY_LOCKS) == [(1,)], "second writer at the lock")
        first.commit()
        assert second.result(timeout=60) == []
    assert len(rows(store, BOUNDS)) == 1


def test_a_child_is_made_by_the_other_writer_when_the_first_gives_up(store: Engine) -> None:
    day = date(2026, 5, 20)
    with ThreadPoolExecutor(1) as threads, store.connect() as first:
        ensure_children(first, [DATABASE_SIZE_STATS], [day])
        second = threads.submit(_ensure, store, [DATABASE_SIZE_STATS], day)
        wait_for(lambda: rows(store, WAITING_FOR_ADVISORY_LOCKS) == [(1,)], "second writer at the lock")
        first.rollback()
        assert second.result(timeout=60) == ["database_size_stats_2026_05"]


def test_a_writer_whose_children_are_there_waits_for_nobody_who_makes_others(store: Engine) -> None:
    _ensure(store, [DATABASE_SIZE_STATS], date(2026, 5, 20))
    with store.begin() as maker, _impatient(store) as writer:
        lock_child_creation(maker)
        assert ensure_children(writer, [DATABASE_SIZE_STATS], [date(2026, 5, 20)]) == []


def test_making_a_child_waits_for_no_open_writer_or_reader_of_the_parent(store: Engine) -> None:
    _ensure(store, STATS_TABLES, date(2026, 5, 20))
    with store.begin() as writer, store.begin() as reader, _impatient(store) as maker:
        writer.execute(text(INSERT_SIZE), {"day": date(2026, 5, 20)})
        reader.execute(text("SELECT * FROM database_size_stats, instance_size_stats"))
        assert ensure_children(maker, STATS_TABLES, [date(2026, 6, 1)]) == [
            "database_size_stats_2026_06",
            "instance_size_stats_2026_06",
        ]


def test_writers_and_readers_of_the_parent_do_not_wait_for_a_child_that_is_being_made(store: Engine) -> None:
    _ensure(store, [DATABASE_SIZE_STATS], date(2026, 5, 20))
    with store.begin() as maker, _impatient(store) as other:
        ensure_children(maker, [DATABASE_SIZE_STATS], [date(2026, 6, 1)])
        other.execute(text(INSERT_SIZE), {"day": date(2026, 5, 20)})
        assert other.execute(text("SELECT count(*) FROM database_size_stats")).scalar_one() == 1


def test_making_children_of_aggregations_waits_for_no_open_writer_either(store: Engine) -> None:
    tables = [table for table in PARTITIONED_TABLES if table not in STATS_TABLES]
    with store.begin() as writer, _impatient(store) as maker:
        writer.execute(text("LOCK TABLE database_size_aggregations, instance_size_aggregations IN ROW EXCLUSIVE MODE"))
        assert len(ensure_children(maker, tables, [date(2026, 5, 20)])) == 10


@pytest.mark.parametrize(
    "impostor",
    [
        "CREATE TABLE database_size_stats_2026_05 (LIKE database_size_stats)",
        "CREATE VIEW database_size_stats_2026_05 AS SELECT 1",
    ],
)
def test_something_else_under_the_name_of_a_child_is_a_clear_error_and_is_left_alone(
    impostor: str, store: Engine
) -> None:
    with store.begin() as connection:
        connection.execute(text(impostor))
    with pytest.raises(StoreError) as raised:
        _ensure(store, STATS_TABLES, date(2026, 5, 20))
    assert str(raised.value) == (
        "a table named database_size_stats_2026_05 exists but is no table partition of database_size_stats: "
        "rename it, so that the table partition of that name can be made"
    )
    assert rows(store, BOUNDS) == []
    assert rows(store, "SELECT to_regclass('database_size_stats_2026_05') IS NOT NULL") == [(True,)]


def test_rows_in_a_default_partition_are_a_clear_error_and_what_it_says_helps(store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(text("CREATE TABLE rest PARTITION OF database_size_stats DEFAULT"))
        connection.execute(text(INSERT_SIZE), {"day": date(2026, 5, 3)})
    with pytest.raises(StoreError) as raised:
        _ensure(store, STATS_TABLES, date(2026, 5, 20))
    assert str(raised.value) == (
        "database_size_stats_2026_05 cannot be made: rows of its days are in rest, a default partition of "
        "database_size_stats that was added by hand. Detach that (`ALTER TABLE database_size_stats DETACH PARTITION "
        "rest`), try again, and then insert its rows into database_size_stats"
    )
    # Another month does not need its rows.
    assert _ensure(store, STATS_TABLES, date(2026, 6, 1)) == [
        "database_size_stats_2026_06",
        "instance_size_stats_2026_06",
    ]
    with store.begin() as connection:
        connection.execute(text("ALTER TABLE database_size_stats DETACH PARTITION rest"))
    _ensure(store, STATS_TABLES, date(2026, 5, 20))
    with store.begin() as connection:
        connection.execute(text("INSERT INTO database_size_stats SELECT * FROM rest"))
    assert rows(store, "SELECT tableoid::regclass::text FROM database_size_stats") == [("database_size_stats_2026_05",)]


def test_a_table_with_a_similar_name_is_not_taken_for_a_child(store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(text("CREATE TABLE database_size_stats_2026_05_backup (LIKE database_size_stats)"))
        connection.execute(text("CREATE TABLE instance_size_stats_2026_5 (LIKE instance_size_stats)"))
    assert _ensure(store, STATS_TABLES, date(2026, 5, 20)) == [
        "database_size_stats_2026_05",
        "instance_size_stats_2026_05",
    ]


def test_a_detached_child_is_none(store: Engine) -> None:
    _ensure(store, [INSTANCE_SIZE_STATS], date(2026, 5, 20))
    with store.begin() as connection:
        connection.execute(text("ALTER TABLE instance_size_stats DETACH PARTITION instance_size_stats_2026_05"))
    with pytest.raises(
        StoreError, match="instance_size_stats_2026_05 exists but is no table partition of instance_size"
    ):
        _ensure(store, [INSTANCE_SIZE_STATS], date(2026, 5, 20))


def _ensure(store: Engine, tables: Sequence[PartitionedTable], *days: date) -> list[str]:
    with store.begin() as connection:
        return ensure_children(connection, tables, days)


@contextmanager
def _impatient(store: Engine) -> Iterator[Connection]:
    """Yield a connection in whose transaction everything that would wait for a lock fails."""
    with store.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '1s'"))
        yield connection


def _shape(store: Engine, table: str) -> dict[str, list[tuple[object, ...]]]:
    """Return columns, keys, checks and indexes of a table, without the names that differ between tables."""
    columns = """
        SELECT attname, format_type(atttypid, atttypmod), attnotnull, attcollation, pg_get_expr(adbin, adrelid)
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 ORDER BY attnum
    """
    constraints = """
        SELECT contype, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = CAST(:table AS regclass) AND contype IN ('p', 'c') ORDER BY 1, 2
    """
    indexes = """
        SELECT amname, indkey::text, indisprimary FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
        WHERE indrelid = CAST(:table AS regclass) AND indisvalid ORDER BY 1, 2
    """
    return {
        "columns": rows(store, columns, table=table),
        "constraints": rows(store, constraints, table=table),
        "indexes": rows(store, indexes, table=table),
    }
