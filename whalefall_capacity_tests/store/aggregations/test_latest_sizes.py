"""Cards and charts on days that lack something: what counts, who is missing, and what is ranked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.console_series import largest_series
from whalefall_capacity.store.aggregations.ranking import ChangeRankings, Measure
from whalefall_capacity.store.aggregations.selection import Selection
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.aggregations.summaries import Missing, Summary, summary
from whalefall_capacity_tests.store.past import MIB, put_sizes, put_total

DAY = date(2026, 6, 25)
YESTERDAY, BEFORE = DAY - timedelta(days=1), DAY - timedelta(days=2)
RANGE = Selection(PeriodType.DAILY, DAY - timedelta(days=29), DAY)
TIB = 2**40
INVENTORY = """
INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)
SELECT instance_id, database_name, min(collected_date), max(collected_date) FROM database_size_stats GROUP BY 1, 2
ON CONFLICT (instance_id, database_name) DO UPDATE SET last_seen_date = excluded.last_seen_date
"""


def stored(store: Engine, sizes: Iterable[tuple[int, str, date, int]]) -> None:
    """Store *sizes* with their inventory and every aggregation."""
    put_sizes(store, sizes)
    aggregated(store, {size[2] for size in sizes})


def aggregated(store: Engine, days: set[date]) -> None:
    with store.begin() as connection:
        connection.execute(text(INVENTORY))
    for period_type in PeriodType:
        for level in Level:
            aggregate(store, level, days_to_windows(days, period_type))


def changed(store: Engine, statement: str) -> None:
    with store.begin() as connection:
        connection.execute(text(statement))


def figures(found: Summary) -> tuple[int, int, int]:
    return found.instances, found.databases, found.total_size_bytes // MIB


def ranked(store: Engine, level: Level, selection: Selection = RANGE, count: int = 5) -> dict[str, list[str]]:
    """Return the names in each chart, in their order."""
    found = largest_series(store, ChangeRankings(), level, selection, count)
    return {
        measure.value: list(dict.fromkeys(getattr(row, "database_name", row.instance) for row in rows))
        for measure, rows in found.items()
    }


@pytest.fixture
def gap_day(store: Engine) -> Engine:
    """Six servers with two databases each, 10 MiB and 20 MiB; on the last day the sixth did not answer."""
    days = [BEFORE, YESTERDAY, DAY]
    servers = range(1, 7)
    stored(
        store,
        [
            (server, name, day, size * MIB)
            for server in servers
            for day in days
            for name, size in (("crm", 10), ("shop", 20))
            if (server, day) != (6, DAY)
        ],
    )
    return store


@pytest.mark.parametrize("period_type", list(PeriodType))
@pytest.mark.parametrize("level", list(Level))
def test_no_card_falls_on_the_day_that_a_server_is_missing_and_it_is_named(
    gap_day: Engine, level: Level, period_type: PeriodType
) -> None:
    found = summary(gap_day, level, Selection(period_type, date(2026, 4, 1), DAY))
    assert figures(found) == (6, 12, 180)
    assert (found.newest_day, found.expected) == (DAY, 6 if level is Level.INSTANCE else 12)
    assert found.measured == (5 if level is Level.INSTANCE else 10)
    assert found.missing == [Missing(6, "instance-6", None, YESTERDAY)]


def test_a_server_that_alone_is_asked_for_is_missing_on_the_day_of_the_fleet(gap_day: Engine) -> None:
    only = Selection(PeriodType.DAILY, RANGE.first, DAY, instance_ids=[6])
    found = summary(gap_day, Level.INSTANCE, only)
    assert (found.period_start, found.newest_day, found.measured, found.expected) == (YESTERDAY, DAY, 0, 1)
    assert figures(found) == (1, 2, 30)


def test_a_server_that_was_never_measured_is_missing_and_one_that_came_later_is_not(gap_day: Engine) -> None:
    changed(gap_day, "INSERT INTO instances (id, name, db_type) VALUES (7, 'instance-7', 'mysql')")
    stored(gap_day, [(8, "crm", DAY, MIB)])
    assert Missing(7, "instance-7", None, None) in summary(gap_day, Level.INSTANCE, RANGE).missing
    earlier = summary(gap_day, Level.INSTANCE, Selection(PeriodType.DAILY, RANGE.first, YESTERDAY))
    assert [missing.instance for missing in earlier.missing] == ["instance-7"]


@pytest.mark.parametrize("period_type", list(PeriodType))
def test_a_server_that_left_the_fleet_counts_no_more_and_is_not_missing(
    gap_day: Engine, period_type: PeriodType
) -> None:
    changed(gap_day, "UPDATE instances SET is_active = false, deleted_at = now() WHERE id = 6")
    for level in Level:
        found = summary(gap_day, level, Selection(period_type, date(2026, 4, 1), DAY))
        assert figures(found) == (5, 10, 150)
        assert (found.measured, found.missing) == (found.expected, [])
        # Unless it is asked for.
        alone = Selection(period_type, date(2026, 4, 1), DAY, instance_ids=[6])
        assert figures(summary(gap_day, level, alone)) == (1, 2, 30)


def test_a_server_that_left_the_fleet_counts_on_the_days_on_which_it_was_there(gap_day: Engine) -> None:
    changed(gap_day, "UPDATE instances SET is_active = false, deleted_at = now() WHERE id = 6")
    then = summary(gap_day, Level.INSTANCE, Selection(PeriodType.DAILY, RANGE.first, YESTERDAY))
    assert figures(then) == (6, 12, 180)


def test_a_database_that_was_dropped_counts_no_more(store: Engine) -> None:
    stored(store, [(1, "crm", YESTERDAY, 10 * MIB), (1, "shop", YESTERDAY, 20 * MIB), (1, "shop", DAY, 20 * MIB)])
    for level in Level:
        found = summary(store, level, RANGE)
        assert figures(found) == (1, 1, 20)
        assert found.missing == []


@pytest.mark.parametrize("period_type", list(PeriodType))
def test_a_database_that_was_renamed_within_a_window_counts_once(store: Engine, period_type: PeriodType) -> None:
    stored(
        store,
        [(1, "orders", BEFORE, 2 * TIB), (1, "crm", BEFORE, MIB)]
        + [(1, name, day, size) for day in (YESTERDAY, DAY) for name, size in (("orders_v2", TIB), ("crm", MIB))],
    )
    selection = Selection(period_type, date(2026, 4, 1), DAY)
    found = summary(store, Level.DATABASE, selection)
    assert (found.databases, found.total_size_bytes, found.largest_database) == (2, TIB + MIB, "orders_v2")
    assert ranked(store, Level.DATABASE, selection)["size"] == ["orders_v2", "crm"]


def test_a_database_dropped_before_its_server_was_lost_does_not_come_back(store: Engine) -> None:
    stored(
        store,
        [
            (1, "crm", BEFORE, 10 * MIB),
            (1, "shop", BEFORE, 20 * MIB),
            (1, "shop", YESTERDAY, 20 * MIB),
            (2, "shop", DAY, 5 * MIB),
        ],
    )
    for level in Level:
        assert figures(summary(store, level, RANGE)) == (2, 2, 25)


def test_a_database_that_was_listed_and_not_measured_counts_with_its_latest_size(store: Engine) -> None:
    stored(store, [(1, "crm", YESTERDAY, 10 * MIB), (1, "shop", YESTERDAY, 20 * MIB), (1, "shop", DAY, 21 * MIB)])
    changed(store, f"UPDATE instance_databases SET last_seen_date = '{DAY}'")
    put_total(store, 1, DAY, 21 * MIB, 1, missing=1)
    aggregate(store, Level.INSTANCE, days_to_windows([DAY], PeriodType.DAILY))
    for level in Level:
        found = summary(store, level, RANGE)
        assert figures(found) == (1, 2, 31)
        assert found.missing == [Missing(1, "instance-1", "crm", YESTERDAY)]
    assert (found.measured, found.expected) == (1, 1)
    databases = summary(store, Level.DATABASE, RANGE)
    assert (databases.measured, databases.expected) == (1, 2)


def test_a_database_missing_and_then_its_server_too_counts_with_its_latest_size(store: Engine) -> None:
    stored(store, [(1, "crm", BEFORE, 10 * MIB), (1, "shop", BEFORE, 20 * MIB), (1, "shop", YESTERDAY, 21 * MIB)])
    changed(store, f"UPDATE instance_databases SET last_seen_date = '{YESTERDAY}'")
    put_total(store, 1, YESTERDAY, 21 * MIB, 1, missing=1)
    stored(store, [(2, "shop", DAY, 5 * MIB)])
    changed(store, f"UPDATE instance_databases SET last_seen_date = '{YESTERDAY}' WHERE instance_id = 1")
    put_total(store, 1, YESTERDAY, 21 * MIB, 1, missing=1)
    aggregate(store, Level.INSTANCE, days_to_windows([YESTERDAY], PeriodType.DAILY))
    for level in Level:
        assert figures(summary(store, level, RANGE)) == (2, 3, 36)


def test_imported_days_of_a_server_outside_the_fleet_count_where_they_are_the_newest(store: Engine) -> None:
    stored(store, [(1, "crm", BEFORE, 10 * MIB), (2, "shop", DAY, 5 * MIB)])
    changed(store, "UPDATE instances SET is_active = false WHERE id = 1")
    assert figures(summary(store, Level.DATABASE, RANGE)) == (1, 1, 5)
    then = summary(store, Level.DATABASE, Selection(PeriodType.DAILY, RANGE.first, BEFORE))
    assert (figures(then), then.missing) == ((1, 1, 10), [])


def test_each_chart_ranks_by_what_it_shows(store: Engine) -> None:
    stored(
        store,
        [(1, "archive", day, 40 * TIB) for day in (YESTERDAY, DAY)]
        + [(1, "grown", YESTERDAY, TIB), (1, "grown", DAY, TIB + 500 * MIB)]
        + [(1, "shrunk", YESTERDAY, 2000 * MIB), (1, "shrunk", DAY, 1000 * MIB)]
        + [(1, "tiny", YESTERDAY, MIB), (1, "tiny", DAY, 9 * MIB)],
    )
    assert ranked(store, Level.DATABASE) == {
        "size": ["archive", "grown", "shrunk", "tiny"],
        "change": ["shrunk", "grown", "tiny"],
        "percent": ["tiny", "shrunk", "grown"],
    }


def test_the_largest_change_of_the_range_counts_and_not_the_newest(store: Engine) -> None:
    stored(
        store,
        [
            (1, "once", BEFORE, 100 * MIB),
            (1, "once", YESTERDAY, 900 * MIB),
            (1, "once", DAY, 900 * MIB),
            (1, "now", BEFORE, 100 * MIB),
            (1, "now", YESTERDAY, 100 * MIB),
            (1, "now", DAY, 200 * MIB),
        ],
    )
    assert ranked(store, Level.DATABASE, count=1)["change"] == ["once"]
    newest = Selection(PeriodType.DAILY, DAY, DAY)
    assert ranked(store, Level.DATABASE, newest, count=1)["change"] == ["now"]


def test_a_change_across_a_gap_is_ranked(store: Engine) -> None:
    stored(store, [(1, "crm", DAY - timedelta(days=4), MIB), (1, "crm", DAY, 3 * MIB), (1, "shop", YESTERDAY, MIB)])
    assert ranked(store, Level.DATABASE)["change"] == ["crm"]
    far = [(2, "far", DAY - timedelta(days=8), MIB), (2, "far", DAY, 3 * MIB)]
    stored(store, far)
    assert ranked(store, Level.DATABASE)["change"] == ["crm"]


def test_a_large_database_without_a_size_on_the_newest_day_stays_in_the_chart(gap_day: Engine) -> None:
    stored(gap_day, [(6, "archive", YESTERDAY, TIB)])
    assert ranked(gap_day, Level.DATABASE)["size"][0] == "archive"
    assert ranked(gap_day, Level.INSTANCE)["size"][0] == "instance-6"


def test_a_ranking_follows_a_window_that_is_calculated_again(store: Engine) -> None:
    rankings = ChangeRankings()

    def most_changed() -> list[str]:
        rows = largest_series(store, rankings, Level.INSTANCE, RANGE, 1)[Measure.CHANGE]
        return sorted({row.instance for row in rows})

    stored(store, [(1, "crm", YESTERDAY, 10), (1, "crm", DAY, 30), (2, "crm", YESTERDAY, 10), (2, "crm", DAY, 20)])
    assert most_changed() == ["instance-1"]
    stored(store, [(2, "crm", YESTERDAY, 90)])
    assert most_changed() == ["instance-2"]


def test_engines_instances_and_databases_can_be_chosen_several_at_once(gap_day: Engine) -> None:
    changed(gap_day, "UPDATE instances SET db_type = 'mysql' WHERE id IN (1, 2)")
    chosen = Selection(
        PeriodType.DAILY,
        RANGE.first,
        DAY,
        instance_ids=[1, 3, 6],
        db_types=["mysql", "postgresql"],
        database_names=["crm", "x"],
    )
    assert figures(summary(gap_day, Level.DATABASE, chosen)) == (3, 3, 30)
    assert figures(summary(gap_day, Level.INSTANCE, chosen)) == (3, 6, 90)


def test_total_and_average_are_without_replicas_unless_instances_are_named(store: Engine) -> None:
    sizes = [(1, "crm", 10), (2, "crm", 10), (2, "late", 4), (3, "shop", 20)]
    stored(store, [(instance_id, name, DAY, size * MIB) for instance_id, name, size in sizes])
    changed(store, "UPDATE instances SET replica_of_id = 1 WHERE id = 2")
    by_level = {level: summary(store, level, RANGE) for level in Level}
    for found in by_level.values():
        assert figures(found) == (3, 4, 30)
        assert (found.replicas, found.replica_size_bytes) == (1, 14 * MIB)
    assert {level: found.average_size_bytes for level, found in by_level.items()} == dict.fromkeys(Level, 15 * MIB)
    both = Selection(PeriodType.DAILY, RANGE.first, DAY, instance_ids=[1, 2])
    for level in Level:
        found = summary(store, level, both)
        assert (figures(found), found.replicas) == ((2, 3, 24), 0)
    # Nothing but a replica has a database of this name.
    late = summary(store, Level.DATABASE, Selection(PeriodType.DAILY, RANGE.first, DAY, database_names=["late"]))
    assert (late.total_size_bytes, late.average_size_bytes, late.replica_size_bytes) == (0, None, 4 * MIB)
