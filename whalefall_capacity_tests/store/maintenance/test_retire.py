"""Past children go when their windows are sealed, and not before; what cannot go stays, and is reported.

On PostgreSQL 18 and 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, Window, window_of
from whalefall_capacity.store.aggregations.calculate import WindowResult, WindowState, aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance import retire
from whalefall_capacity.store.maintenance.ledger import begin_retirement
from whalefall_capacity.store.maintenance.plan import ChildOutcome, Outcome
from whalefall_capacity.store.maintenance.retire import (
    Maintenance,
    detach_and_drop,
    finish_leftovers,
    make_plan,
    seal_children,
)
from whalefall_capacity.store.maintenance.seal import LEVELS, unseal_what_lost_nothing, windows_left_behind
from whalefall_capacity.store.table_partitions.catalog import COUNT
from whalefall_capacity.store.table_partitions.create import DATABASE_SIZE_STATS, STATS_TABLES, ensure_children
from whalefall_capacity_tests.store.maintenance.upkeep import (
    JANUARY,
    JANUARY_OF_STATS,
    PATIENCE,
    TODAY,
    aggregations,
    calculate,
    days_of,
    ends,
    leave_detached,
    maintain,
    put_month,
    reason_of,
    sealed,
    settings_for,
    stats,
    tables_like,
    upkeep,
)
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import children, rows

FEBRUARY, MARCH = date(2025, 2, 1), date(2025, 3, 1)
DROPPED = dict.fromkeys(JANUARY_OF_STATS, "dropped")
# On these days January, February and March 2025 have just become past.
DAY_OF_JANUARY, DAY_OF_FEBRUARY, DAY_OF_MARCH = date(2026, 3, 1), date(2026, 4, 1), date(2026, 5, 1)
LATE = "INSERT INTO database_size_stats SELECT 1, 'late', '2025-01-04', 7, NULL, NULL, 'imported', now()"


@pytest.fixture
def store(either_store: Engine) -> Engine:
    return either_store


def test_a_past_month_of_stats_goes_and_everything_that_was_made_of_it_stays(store: Engine) -> None:
    put_month(store, JANUARY)
    put_month(store, FEBRUARY)
    calculate(store, days_of(JANUARY) + days_of(FEBRUARY))
    before = aggregations(store)
    assert ends(upkeep(store, DAY_OF_JANUARY)) == DROPPED
    assert tables_like(store, "database_size_stats_2025") == ["database_size_stats_2025_02"]
    assert aggregations(store) == before


def test_what_was_never_calculated_is_calculated_before_its_days_go(store: Engine) -> None:
    put_month(store, JANUARY)
    upkeep(store, DAY_OF_JANUARY)
    months = [(*row[:3], *row[5:8]) for row in aggregations(store) if row[3] == "monthly"]
    assert months == [
        ("database", 1, "crm", 10, 1145, 128),
        ("database", 1, "shop", 10, 1145, 128),
        ("instance", 1, "", 10, 2290, 256),
    ]


def test_windows_are_final_once_their_days_are_gone(store: Engine) -> None:
    put_month(store, JANUARY)
    upkeep(store, DAY_OF_JANUARY)
    before = aggregations(store)
    calculate(store, [JANUARY + timedelta(days=offset) for offset in range(31)])
    assert aggregations(store) == before
    (result,) = aggregate(store, Level.DATABASE, [window_of(JANUARY, PeriodType.QUARTERLY)])
    assert result.state is WindowState.SEALED


def test_every_window_with_a_day_of_the_month_is_sealed_and_no_other(store: Engine) -> None:
    put_month(store, JANUARY)
    put_month(store, FEBRUARY)
    calculate(store, days_of(JANUARY) + days_of(FEBRUARY))
    upkeep(store, DAY_OF_JANUARY)
    starts = [(period_type, start) for level, period_type, start in sealed(store) if level == "database"]
    assert [start for period_type, start in starts if period_type == "daily"] == [
        JANUARY + timedelta(days=offset) for offset in range(31)
    ]
    assert [start for period_type, start in starts if period_type == "weekly"] == [
        date(2024, 12, 30) + timedelta(weeks=n) for n in range(5)
    ]
    assert [row for row in starts if row[0] in ("monthly", "quarterly")] == [
        ("monthly", JANUARY),
        ("quarterly", JANUARY),
    ]


def test_a_quarter_keeps_what_it_was_when_its_first_month_went(store: Engine) -> None:
    for month in (JANUARY, FEBRUARY, MARCH):
        put_month(store, month)
    upkeep(store, DAY_OF_JANUARY)
    quarters = [row for row in aggregations(store) if row[3] == "quarterly"]
    put_sizes(store, [(1, "shop", FEBRUARY, 999_999), (1, "new", MARCH, 5)])
    calculate(store, [FEBRUARY, MARCH])
    assert [row for row in aggregations(store) if row[3] == "quarterly"] == quarters
    assert ends(upkeep(store, DAY_OF_FEBRUARY)) == {f"{name[:-2]}02": "dropped" for name in JANUARY_OF_STATS}
    assert ends(upkeep(store, DAY_OF_MARCH)) == {f"{name[:-2]}03": "dropped" for name in JANUARY_OF_STATS}
    assert [row for row in aggregations(store) if row[3] == "quarterly"] == quarters
    assert [row[5:8] for row in aggregations(store) if row[3:5] == ("monthly", FEBRUARY)][1] == (
        10,
        1145 + 999_898,
        999_999,
    )


def test_an_empty_child_goes_too(store: Engine) -> None:
    with store.begin() as connection:
        ensure_children(connection, STATS_TABLES, [JANUARY])
    assert ends(upkeep(store)) == DROPPED


def test_nothing_goes_that_has_a_day_within_retention(store: Engine) -> None:
    put_month(store, JANUARY)
    assert ends(upkeep(store, date(2026, 2, 28))) == {}
    assert ends(upkeep(store, date(2026, 3, 1))) == DROPPED


def test_aggregations_go_by_their_own_retention(store: Engine) -> None:
    put_month(store, JANUARY)
    calculate(store, days_of(JANUARY))
    outcomes = ends(upkeep(store, DAY_OF_JANUARY, retention_daily_months=13, retention_weekly_months=13))
    assert outcomes == DROPPED | {
        f"{level}_size_aggregations_{month}": "dropped"
        for level in ("database", "instance")
        for month in ("daily_2025_01", "weekly_2024_12", "weekly_2025_01")
    }
    assert {row[3] for row in aggregations(store)} == {"monthly", "quarterly"}


def test_aggregations_that_a_calculation_brought_back_go_at_the_next_maintenance(store: Engine) -> None:
    put_month(store, JANUARY)
    overrides: dict[str, Any] = {"retention_daily_months": 12, "retention_stats_months": 20}
    calculate(store, days_of(JANUARY))
    assert ends(upkeep(store, DAY_OF_JANUARY, **overrides))["database_size_aggregations_daily_2025_01"] == "dropped"
    calculate(store, days_of(JANUARY))
    assert "daily" in {row[3] for row in aggregations(store)}
    assert ends(upkeep(store, DAY_OF_JANUARY, **overrides))["database_size_aggregations_daily_2025_01"] == "dropped"
    assert "daily" not in {row[3] for row in aggregations(store)}


def test_a_second_maintenance_on_the_same_day_finds_nothing_to_do(store: Engine) -> None:
    put_month(store, JANUARY)
    upkeep(store)
    again = upkeep(store)
    assert {outcome.outcome for outcome in again} == {Outcome.EXISTS}


def test_every_outcome_is_told_as_it_happens(store: Engine) -> None:
    put_month(store, JANUARY)
    heard: list[ChildOutcome] = []
    outcomes = upkeep(store, on_outcome=heard.append)
    assert heard == outcomes
    events = [(o.outcome.value, o.rows) for o in heard if o.child == "database_size_stats_2025_01"]
    assert events == [("detached", None), ("dropped", 20)]


def test_a_maintenance_can_be_stopped_between_two_children(store: Engine) -> None:
    put_month(store, JANUARY)
    touched = []

    def stop() -> None:
        touched.append(1)
        if len(touched) == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upkeep(store, before_child=stop)
    assert len(children(store)) == 12
    assert ends(upkeep(store)) == DROPPED


def test_children_are_created_before_anything_is_dropped_and_stay_when_a_drop_fails(
    store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_month(store, JANUARY)
    monkeypatch.setattr(retire, "DROP", COUNT)

    def break_off(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(retire, "mark_dropped", break_off)
    outcomes = upkeep(store)
    assert ends(outcomes) == dict.fromkeys(JANUARY_OF_STATS, "failed")
    assert reason_of(outcomes, "database_size_stats_2025_01") == "no space left on device"
    assert [o.child for o in outcomes if o.outcome is Outcome.CREATED][:2] == [
        "database_size_stats_2026_04",
        "database_size_stats_2026_05",
    ]
    monkeypatch.undo()
    assert ends(upkeep(store)) == DROPPED


def test_stats_that_are_committed_between_calculation_and_seal_are_noticed(
    store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_month(store, JANUARY)

    def and_then_a_commit(engine: Engine, level: Level, windows: Sequence[Window]) -> list[WindowResult]:
        results = aggregate(engine, level, windows)
        if level is Level.DATABASE and windows[0].period_type is PeriodType.QUARTERLY:
            with store.begin() as connection:
                connection.execute(text(LATE))
        return results

    monkeypatch.setattr("whalefall_capacity.store.maintenance.seal.aggregate", and_then_a_commit)
    outcomes = upkeep(store)
    assert ends(outcomes) == {"database_size_stats_2025_01": "kept", "instance_size_stats_2025_01": "dropped"}
    assert reason_of(outcomes, "database_size_stats_2025_01").startswith(
        "stats changed while 4 windows were being sealed"
    )
    assert [row for row in sealed(store) if row[0] == "database"] == []
    monkeypatch.undo()
    assert ends(upkeep(store)) == {"database_size_stats_2025_01": "dropped"}
    assert [row[6] for row in aggregations(store) if row[2:4] == ("late", "monthly")] == [7]


@pytest.mark.parametrize("archived", [False, True])
def test_stats_that_are_committed_between_seal_and_detach_bring_their_child_back(
    store: Engine, tmp_path: Path, archived: bool
) -> None:
    put_month(store, JANUARY)
    told: list[ChildOutcome] = []
    committed: list[int] = []

    def commit_before_the_detach() -> None:
        is_sealed = {row[0] for row in sealed(store)} == {level.value for level in Level}
        archives = [outcome for outcome in told if outcome.outcome is Outcome.ARCHIVED]
        if is_sealed and len(archives) == 2 * archived and not committed:
            with store.begin() as connection:
                committed.append(connection.execute(text(LATE)).rowcount)

    overrides: dict[str, Any] = {"archive_dir": tmp_path} if archived else {}
    outcomes = upkeep(store, on_outcome=told.append, before_child=commit_before_the_detach, **overrides)
    assert ends(outcomes) == {"database_size_stats_2025_01": "kept", "instance_size_stats_2025_01": "dropped"}
    assert reason_of(outcomes, "database_size_stats_2025_01") == (
        "rows changed after its windows were sealed; it is back, and the next maintenance calculates them"
    )
    assert ("late",) in rows(store, "SELECT database_name FROM database_size_stats")
    assert ends(upkeep(store, **overrides)) == {"database_size_stats_2025_01": "dropped"}
    assert [row[6] for row in aggregations(store) if row[2:4] == ("late", "monthly")] == [7]


def test_rows_that_come_for_days_that_are_gone_are_kept_and_never_spoil_what_is_sealed(store: Engine) -> None:
    put_month(store, JANUARY)
    upkeep(store)
    before = aggregations(store)
    put_sizes(store, [(1, "shop", JANUARY, 1)])
    calculate(store, [JANUARY])
    outcomes = upkeep(store)
    assert ends(outcomes) == dict.fromkeys(JANUARY_OF_STATS, "kept")
    assert reason_of(outcomes, "database_size_stats_2025_01") == (
        "1 rows came after these days were retired on 2026-05-20; their windows are final, and no aggregation has "
        "these rows: restore the archive and bring them again, or drop the table by hand"
    )
    assert aggregations(store) == before
    assert len(stats(store)) == 2


def test_rows_of_an_instance_that_nobody_knows_keep_their_child(store: Engine) -> None:
    put_month(store, JANUARY)
    with store.begin() as connection:
        connection.execute(text("DELETE FROM instances"))
    outcomes = upkeep(store)
    assert ends(outcomes) == dict.fromkeys(JANUARY_OF_STATS, "kept")
    assert "stats changed while" in reason_of(outcomes, "database_size_stats_2025_01")


def test_no_more_children_go_in_one_run_than_are_allowed_and_the_oldest_go_first(store: Engine) -> None:
    for month in (FEBRUARY, JANUARY):
        put_month(store, month)
    outcomes = upkeep(store, max_drops=3)
    assert ends(outcomes) == DROPPED | {"database_size_stats_2025_02": "dropped", "instance_size_stats_2025_02": "kept"}
    assert reason_of(outcomes, "instance_size_stats_2025_02") == "no more than 3 go in one run, the oldest first"
    assert ends(upkeep(store, max_drops=3)) == {"instance_size_stats_2025_02": "dropped"}


def test_far_more_than_last_time_goes_only_when_that_is_confirmed(store: Engine) -> None:
    for month in range(1, 13):
        put_sizes(store, [(1, "shop", date(2023, month, 1), 100)])
    outcomes = upkeep(store)
    assert set(ends(outcomes).values()) == {"kept"}
    assert reason_of(outcomes, "database_size_stats_2023_01") == (
        "not confirmed: 24 table partitions would be dropped (0 last time). Was the retention shortened on purpose?"
    )
    assert len([o for o in outcomes if o.outcome is Outcome.CREATED]) == 8 * 5 + 4
    assert len(stats(store)) == 24
    assert list(ends(upkeep(store, confirmed=True)).values()) == ["dropped"] * 24
    assert TODAY in {day for (day,) in rows(store, "SELECT retired_on FROM retired_children")}


def test_a_write_that_needs_a_child_on_its_way_out_gets_a_new_one(store: Engine) -> None:
    put_month(store, JANUARY)
    leave_detached(store)
    put_sizes(store, [(1, "shop", JANUARY, 1)])
    assert len(tables_like(store, "database_size_stats_2025_01")) == 2
    outcomes = upkeep(store)
    assert tables_like(store, "database_size_stats_2025_01") == ["database_size_stats_2025_01"]
    assert ("database_size_stats_2025_01", "dropped") in [(o.child, o.outcome.value) for o in outcomes]
    assert rows(store, "SELECT size_bytes FROM database_size_stats") == [(1,)]


def test_a_month_that_was_detached_and_not_dropped_comes_back_when_the_retention_is_longer_again(
    store: Engine,
) -> None:
    put_month(store, JANUARY)
    before = stats(store)
    leave_detached(store)
    assert len(stats(store)) == 10
    assert ends(upkeep(store, retention_stats_months=24)) == {"database_size_stats_2025_01": "kept"}
    assert stats(store) == before


def test_a_plan_that_is_carried_out_after_the_retention_became_longer_drops_and_seals_nothing(store: Engine) -> None:
    put_month(store, JANUARY)
    planned = make_plan(store, settings_for(), TODAY)
    longer = Maintenance(store, settings_for(retention_stats_months=24), TODAY)
    assert ends(maintain(longer, planned, confirmed=True)) == dict.fromkeys(JANUARY_OF_STATS, "kept")
    assert sealed(store) == []
    # As a run does that is executed again from its last step on.
    detach_and_drop(longer, planned.drops, {})
    assert len(stats(store)) == 30


def test_windows_that_were_sealed_for_a_month_that_stayed_are_calculated_like_any_other(store: Engine) -> None:
    put_month(store, JANUARY)
    stopped = Maintenance(store, settings_for(), TODAY)
    seal_children(stopped, make_plan(store, settings_for(), TODAY).drops)
    put_sizes(store, [(1, "shop", JANUARY, 5000)])
    assert ends(upkeep(store, retention_stats_months=24)) == {}
    assert sealed(store) == []
    maxima = {(row[2], row[3]): row[7] for row in aggregations(store) if row[0] == "database"}
    assert maxima["shop", "monthly"] == maxima["shop", "quarterly"] == 5000
    assert maxima["crm", "monthly"] == 128


def test_windows_that_a_killed_maintenance_had_unsealed_are_calculated_by_the_next_one(store: Engine) -> None:
    put_month(store, JANUARY)
    seal_children(Maintenance(store, settings_for(), TODAY), make_plan(store, settings_for(), TODAY).drops)
    put_sizes(store, [(1, "shop", JANUARY, 5000)])
    # Killed here: what it committed stays.
    for table in LEVELS:
        unseal_what_lost_nothing(store, table, date(2024, 5, 20), PATIENCE)
    assert ends(upkeep(store, retention_stats_months=24)) == {}
    with_first = [row for row in aggregations(store) if row[3] == "quarterly" or row[4] == JANUARY]
    assert {row[7] for row in with_first if row[2] == "shop"} == {5000}
    assert {row[7] for row in with_first if row[0] == "instance"} == {5101}


def test_stats_that_no_run_aggregated_are_aggregated_by_the_next_maintenance(store: Engine) -> None:
    yesterday = TODAY - timedelta(days=1)
    put_sizes(store, [(1, "shop", day, 100) for day in (date(2026, 3, 31), yesterday, TODAY)])
    upkeep(store)
    # The week, the month and the quarter of today are not over: their days are still to come.
    assert [row[:6] for row in aggregations(store)] == [
        (level, 1, name, period_type, start, 1)
        for level, name in (("database", "shop"), ("instance", ""))
        for period_type, start in (
            ("daily", date(2026, 3, 31)),
            ("daily", yesterday),
            ("monthly", date(2026, 3, 1)),
            ("quarterly", date(2026, 1, 1)),
            ("weekly", date(2026, 3, 30)),
        )
    ]


def test_only_what_was_written_since_its_calculation_is_behind_and_nothing_is_without_a_size(store: Engine) -> None:
    sunday, monday, tuesday = date(2026, 4, 12), date(2026, 4, 13), date(2026, 4, 14)
    put_sizes(store, [(1, "shop", day, 100) for day in (sunday, monday)])
    upkeep(store)
    with store.begin() as connection:
        for table, size in (("database_size_stats", "size_bytes"), ("instance_size_stats", "total_size_bytes")):
            connection.execute(
                text(f"UPDATE {table} SET {size} = 101, updated_at = now() WHERE collected_date = :day"),
                {"day": monday},
            )
        # A server on which there was no database.
        connection.execute(
            text(
                "INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count,"
                " missing_count, source, collected_at) VALUES (1, :day, 0, 0, 0, 'measured', now())"
            ),
            {"day": tuesday},
        )
    found = {
        table: [
            (window.period_type.value, window.start) for window in windows_left_behind(store, table, JANUARY, TODAY)
        ]
        for table in LEVELS
    }
    week, month = ("weekly", monday), ("monthly", date(2026, 4, 1))
    assert found == {
        "database_size_stats": [("daily", monday), week, month],
        "instance_size_stats": [("daily", monday), ("daily", tuesday), week, month],
    }


def test_windows_of_an_empty_month_that_is_gone_take_what_is_imported_later(store: Engine) -> None:
    with store.begin() as connection:
        ensure_children(connection, STATS_TABLES, [JANUARY])
    assert ends(upkeep(store)) == DROPPED
    upkeep(store, retention_stats_months=24)
    assert sealed(store) == []
    put_month(store, JANUARY)
    calculate(store, [JANUARY])
    assert [row[5:7] for row in aggregations(store) if row[3] == "quarterly"] == [(10, 1145), (10, 1145), (10, 2290)]


def test_windows_stay_sealed_when_days_are_gone_of_which_the_ledger_knows_nothing(store: Engine) -> None:
    put_month(store, JANUARY)
    upkeep(store)
    before = aggregations(store)
    with store.begin() as connection:
        connection.execute(text("TRUNCATE retired_children"))
    upkeep(store)
    calculate(store, days_of(JANUARY))
    assert aggregations(store) == before


def test_windows_of_a_past_month_that_waits_for_its_turn_stay_sealed(store: Engine) -> None:
    put_month(store, JANUARY)
    planned = make_plan(store, settings_for(), TODAY)
    seal_children(Maintenance(store, settings_for(), TODAY), planned.drops)
    before = sealed(store)
    finish_leftovers(Maintenance(store, settings_for(), TODAY))
    assert sealed(store) == before
    assert len(before) == 2 * (31 + 5 + 1 + 1)


def test_a_child_whose_archive_is_gone_before_the_drop_comes_back(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    before = stats(store)

    def lose_the_archive(outcome: ChildOutcome) -> None:
        if outcome.outcome is Outcome.DETACHED:
            for file in tmp_path.iterdir():
                file.unlink()

    outcomes = upkeep(store, archive_dir=tmp_path, on_outcome=lose_the_archive)
    assert set(ends(outcomes).values()) == {"kept"}
    assert "its archive cannot be read" in reason_of(outcomes, "database_size_stats_2025_01")
    assert stats(store) == before


def test_a_detach_that_somebody_began_by_hand_is_completed_and_the_table_left(store: Engine) -> None:
    put_month(store, JANUARY)
    put_month(store, FEBRUARY)
    _leave_a_pending_detach(store, "database_size_stats_2025_02")
    outcomes = upkeep(store, DAY_OF_JANUARY)
    assert ends(outcomes) == DROPPED | {"database_size_stats_2025_02": "finalized"}
    assert rows(store, "SELECT count(*) FROM database_size_stats_2025_02") == [(20,)]


def _leave_a_pending_detach(store: Engine, child: str) -> None:
    with store.begin() as reader:
        reader.execute(text("SELECT count(*) FROM database_size_stats"))
        with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET lock_timeout = '100ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                connection.execute(text(f"ALTER TABLE database_size_stats DETACH PARTITION {child} CONCURRENTLY"))
            connection.execute(text("RESET lock_timeout"))


@pytest.mark.parametrize(
    ("table", "relation"),
    [
        ("database_size_aggregations_daily", "instance_databases"),
        ("database_size_stats", "instance_databases"),
        ("database_size_stats", "retired_children_id_seq"),
    ],
)
def test_in_a_store_restored_from_a_backup_an_oid_that_is_another_relation_now_is_that_of_no_child(
    store: Engine, table: str, relation: str
) -> None:
    with store.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO retired_children (table_name, child_name, child_oid, lower_bound, upper_bound, "
                "retired_on) VALUES (:table, :child, CAST(CAST(:relation AS regclass) AS bigint), '2025-01-01', "
                "'2025-02-01', :day)"
            ),
            {"table": table, "child": f"{table}_2025_01", "relation": relation, "day": TODAY},
        )
    assert ends(upkeep(store)) == {}
    assert rows(store, "SELECT count(*) FROM instance_databases") == [(0,)]
    query = "SELECT child_name FROM retired_children WHERE dropped_at IS NOT NULL"
    assert rows(store, query) == [(f"{table}_2025_01",)]


def test_in_a_store_restored_from_a_backup_a_month_that_is_attached_under_another_oid_is_not_lost(
    store: Engine,
) -> None:
    put_month(store, JANUARY)
    planned = make_plan(store, settings_for(), TODAY).drops
    seal_children(Maintenance(store, settings_for(), TODAY), planned)
    # As when the backup was made while the detach waited for others.
    with store.begin() as connection:
        for drop in planned:
            begin_retirement(connection, replace(drop, oid=drop.oid + 100_000), TODAY, None)
    assert ends(upkeep(store, retention_stats_months=24)) == {}
    assert sealed(store) == []
    put_sizes(store, [(1, "shop", JANUARY, 5000)])
    calculate(store, [JANUARY])
    assert {row[7] for row in aggregations(store) if row[2:4] == ("shop", "quarterly")} == {5000}
    assert ends(upkeep(store)) == DROPPED


def test_a_month_that_was_dropped_by_hand_and_made_anew_by_a_write_stays_lost(store: Engine) -> None:
    put_month(store, JANUARY)
    leave_detached(store)
    with store.begin() as connection:
        connection.execute(text("DROP TABLE database_size_stats_2025_01"))
    put_sizes(store, [(1, "shop", JANUARY, 5000)])
    before = [row for row in aggregations(store) if row[0] == "database"]
    upkeep(store)
    assert [row for row in aggregations(store) if row[0] == "database"] == before


def test_the_ledger_says_what_went_when(store: Engine) -> None:
    put_month(store, JANUARY)
    upkeep(store)
    query = "SELECT child_name, retired_on, rows, dropped_at IS NOT NULL FROM retired_children ORDER BY 1"
    assert rows(store, query) == [
        ("database_size_stats_2025_01", TODAY, 20, True),
        ("instance_size_stats_2025_01", TODAY, 10, True),
    ]


def test_a_child_under_another_name_goes_by_its_bounds(store: Engine) -> None:
    put_month(store, JANUARY)
    with store.begin() as connection:
        connection.execute(text("ALTER TABLE database_size_stats_2025_01 RENAME TO january"))
        assert ensure_children(connection, [DATABASE_SIZE_STATS], [JANUARY]) == []
    assert ends(upkeep(store)) == {"january": "dropped", "instance_size_stats_2025_01": "dropped"}
