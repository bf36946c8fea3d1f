"""Contents of the catalog and their faults: each oddity is reported, none is dropped."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.maintenance.health import PartitionHealth, PartitionState, read_status
from whalefall_capacity.store.table_partitions.catalog import look_alikes
from whalefall_capacity.store.table_partitions.create import Bounds, create_ahead, parse_bounds
from whalefall_capacity_tests.store.maintenance.upkeep import (
    JANUARY,
    JANUARY_OF_STATS,
    TODAY,
    calculate,
    ends,
    put_month,
    reason_of,
    settings_for,
    tables_like,
    upkeep,
)
from whalefall_capacity_tests.store.records import rows


@pytest.fixture
def store(either_store: Engine) -> Engine:
    return either_store


def problems(status: PartitionHealth, table: str = "database_size_stats") -> tuple[str, ...]:
    (health,) = [health for health in status.tables if health.table == table]
    return health.problems


def status_of(store: Engine, day: date = TODAY, exact: bool = False) -> PartitionHealth:
    return read_status(store, settings_for(), day, exact)


def execute(store: Engine, *statements: str) -> None:
    with store.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_a_store_that_was_maintained_is_healthy_and_has_no_problem(store: Engine) -> None:
    upkeep(store)
    status = status_of(store)
    assert status.healthy
    assert [table.problems for table in status.tables] == [()] * 12


def test_a_store_without_children_is_not_healthy(store: Engine) -> None:
    status = status_of(store)
    assert not status.healthy
    assert problems(status) == (
        "no table partition holds 2026-05-20, today",
        "no table partition holds 2026-06-01, the next month",
    )


def test_a_missing_next_child_is_a_problem(store: Engine) -> None:
    create_ahead(store, settings_for(), TODAY)
    status = status_of(store, date(2026, 8, 10))
    assert problems(status) == ("no table partition holds 2026-09-01, the next month",)
    assert problems(status, "database_size_aggregations_monthly") == ()


def test_a_child_beyond_retention_is_a_problem_from_the_day_after_it_should_have_gone(store: Engine) -> None:
    create_ahead(store, settings_for(), date(2026, 2, 10))
    put_month(store, JANUARY)
    assert problems(status_of(store, date(2026, 3, 1))) == ()
    assert problems(status_of(store, date(2026, 3, 2))) == (
        "table partitions beyond retention: 1, the oldest is database_size_stats_2025_01",
    )


def test_every_child_has_its_state_rows_and_size(store: Engine) -> None:
    upkeep(store)
    put_month(store, JANUARY)
    execute(store, "ANALYZE database_size_stats_2025_01")
    found = {child.child: child for child in status_of(store).children}
    january = found["database_size_stats_2025_01"]
    assert (january.state, january.rows, january.rows_exact, january.note) == (
        PartitionState.PAST,
        20,
        False,
        "beyond retention",
    )
    assert january.bytes > 8192
    assert found["database_size_stats_2026_04"].state is PartitionState.PAST
    assert found["database_size_stats_2026_05"].state is PartitionState.CURRENT
    assert found["database_size_stats_2026_06"].state is PartitionState.FUTURE
    assert found["database_size_aggregations_monthly_2026"].state is PartitionState.CURRENT
    put_month(store, JANUARY, size=7)
    exact = {child.child: child for child in status_of(store, exact=True).children}
    assert (exact["instance_size_stats_2025_01"].rows, exact["instance_size_stats_2025_01"].rows_exact) == (10, True)


def test_a_look_alike_is_reported_and_never_dropped(store: Engine) -> None:
    put_month(store, JANUARY)
    execute(
        store,
        "CREATE TABLE database_size_stats_2023_01_backup AS SELECT * FROM database_size_stats",
        "CREATE TABLE database_size_stats_2022_01 AS SELECT * FROM database_size_stats",
        "CREATE SCHEMA other",
        "CREATE TABLE other.database_size_stats_2021_01 AS SELECT * FROM database_size_stats",
    )
    assert ends(upkeep(store)) == dict.fromkeys(JANUARY_OF_STATS, "dropped")
    assert tables_like(store, "database_size_stats_202")[:3] == [
        "database_size_stats_2021_01",
        "database_size_stats_2022_01",
        "database_size_stats_2023_01_backup",
    ]
    assert problems(status_of(store)) == (
        "other.database_size_stats_2021_01 is named like a table partition and is none",
        "public.database_size_stats_2022_01 is named like a table partition and is none",
        "public.database_size_stats_2023_01_backup is named like a table partition and is none",
    )


def test_a_child_with_odd_bounds_is_reported_and_never_dropped(store: Engine) -> None:
    execute(
        store,
        "CREATE TABLE database_size_stats_2023_01 PARTITION OF database_size_stats "
        "FOR VALUES FROM ('2023-01-05') TO ('2023-02-10')",
        "CREATE TABLE oldest PARTITION OF instance_size_stats FOR VALUES FROM (MINVALUE) TO ('2020-01-01')",
    )
    outcomes = upkeep(store)
    assert ends(outcomes) == {"database_size_stats_2023_01": "kept", "oldest": "kept"}
    assert reason_of(outcomes, "database_size_stats_2023_01") == (
        "has bounds of its own, 2023-01-05 to 2023-02-10: drop it by hand"
    )
    status = status_of(store)
    assert problems(status) == ("database_size_stats_2023_01 has bounds of its own, 2023-01-05 to 2023-02-10",)
    assert problems(status, "instance_size_stats") == ("oldest has bounds without a limit",)


def test_a_child_in_another_schema_is_reported_and_never_dropped(store: Engine) -> None:
    execute(
        store,
        "CREATE SCHEMA other",
        "CREATE TABLE other.database_size_stats_2023_01 PARTITION OF database_size_stats "
        "FOR VALUES FROM ('2023-01-01') TO ('2023-02-01')",
    )
    outcomes = upkeep(store)
    assert ends(outcomes) == {"database_size_stats_2023_01": "kept"}
    assert problems(status_of(store)) == ("database_size_stats_2023_01 is in another schema, other",)


def test_a_default_partition_is_reported_and_keeps_the_children_of_its_table(store: Engine) -> None:
    put_month(store, JANUARY)
    execute(store, "CREATE TABLE rest PARTITION OF database_size_stats DEFAULT")
    outcomes = upkeep(store)
    assert ends(outcomes) == {"database_size_stats_2025_01": "kept", "instance_size_stats_2025_01": "dropped"}
    assert reason_of(outcomes, "database_size_stats_2025_01") == (
        "database_size_stats has a default partition, rest: nothing can be detached"
    )
    assert "rest is a default partition, added by hand" in problems(status_of(store))
    assert rows(store, "SELECT count(*) FROM rest") == [(0,)]


def test_a_child_that_is_detached_and_not_dropped_yet_is_a_leftover_and_no_look_alike(store: Engine) -> None:
    put_month(store, JANUARY)
    # Its table cannot be dropped as long as a view reads it.
    execute(store, "CREATE VIEW january AS SELECT * FROM database_size_stats_2025_01")
    upkeep(store)
    assert problems(status_of(store)) == ("database_size_stats_2025_01 is detached and not dropped yet",)
    with store.connect() as connection:
        assert look_alikes(connection) == []


def test_a_month_without_a_place_among_odd_children_fails_alone(store: Engine, tmp_path: Path) -> None:
    execute(
        store,
        "CREATE TABLE middle PARTITION OF database_size_stats FOR VALUES FROM ('2026-06-10') TO ('2026-06-20')",
    )
    outcomes = upkeep(store, archive_dir=tmp_path)
    failed = [outcome for outcome in outcomes if outcome.outcome.value == "failed"]
    assert [outcome.table for outcome in failed] == ["database_size_stats"]
    assert "would overlap partition" in failed[0].reason
    calculate(store, [TODAY])


@pytest.mark.parametrize(
    ("expression", "bounds"),
    [
        ("FOR VALUES FROM ('2026-05-01') TO ('2026-06-01')", Bounds(date(2026, 5, 1), date(2026, 6, 1))),
        ("FOR VALUES FROM (MINVALUE) TO ('2026-06-01')", Bounds(None, date(2026, 6, 1))),
        ("FOR VALUES FROM ('2026-05-01') TO (MAXVALUE)", Bounds(date(2026, 5, 1), None)),
        ("DEFAULT", Bounds(None, None, is_default=True)),
    ],
)
def test_bounds_are_read_as_the_catalog_spells_them(expression: str, bounds: Bounds) -> None:
    assert parse_bounds(expression) == bounds


@pytest.mark.parametrize(
    ("bounds", "held"),
    [
        (Bounds(date(2026, 5, 1), date(2026, 6, 1)), [False, True, True, False]),
        (Bounds(None, date(2026, 6, 1)), [True, True, True, False]),
        (Bounds(date(2026, 5, 1), None), [False, True, True, True]),
        (Bounds(None, None, is_default=True), [False, False, False, False]),
    ],
)
def test_a_lower_bound_is_inside_and_an_upper_bound_is_not(bounds: Bounds, held: list[bool]) -> None:
    days = [date(2026, 4, 30), date(2026, 5, 1), date(2026, 5, 31), date(2026, 6, 1)]
    assert [bounds.hold(day) for day in days] == held
