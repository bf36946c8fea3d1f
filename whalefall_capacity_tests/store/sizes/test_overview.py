"""The fleet as a whole: who was measured on a day, the total day by day, and what grew."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.growth import instance_growth
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.sizes.fleet_day import fleet_day
from whalefall_capacity.store.sizes.fleet_totals import DayTotal, TotalChange, fleet_totals, total_changes
from whalefall_capacity.store.sizes.fleet_watch import watched_fleet
from whalefall_capacity.store.sizes.growers import growing_databases, growing_instances
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity.store.task_runs.attention import failed_runs, open_runs
from whalefall_capacity_tests.store.past import MIB, put_sizes, put_total
from whalefall_capacity_tests.store.records import add_instance, history, visit

DAY = date(2026, 6, 25)
YESTERDAY = DAY - timedelta(days=1)
INVENTORY = """
INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)
SELECT DISTINCT instance_id, database_name, CAST(:first AS date), CAST(:last AS date) FROM database_size_stats
"""
NIGHT = datetime(2026, 6, 25, 1, 0, tzinfo=timezone.utc)


def changed(store: Engine, statement: str, **values: Any) -> None:
    with store.begin() as connection:
        connection.execute(text(statement), values)


def put_run(store: Engine, run_id: str, status: str, created_at: datetime, name: str = "Collect sizes") -> None:
    changed(
        store,
        "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, created_at,"
        " completed_at, closed_at) SELECT CAST(:run_id AS text), 'sync_databases', :name, 'capacity', 'scheduled',"
        " CAST(:status AS text), :created_at, ended, ended"
        " FROM (SELECT CASE WHEN :status IN ('pending', 'running') THEN NULL ELSE CAST(:created_at AS timestamptz) END"
        " AS ended) AS run",
        run_id=run_id,
        name=name,
        status=status,
        created_at=created_at,
    )


def put_visit(store: Engine, run_id: str, instance_id: int, status: str, error: str | None) -> None:
    changed(
        store,
        "INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status, error_message,"
        " completed_at) VALUES (:run_id, 'collection', CAST(:id AS text), 'server', :id, :status, :error, now())",
        run_id=run_id,
        id=instance_id,
        status=status,
        error=error,
    )


def totals(store: Engine, first: date, last: date = DAY) -> list[tuple[int | None, int, int]]:
    """Return total in MiB, measured and counted servers of each day."""
    return [
        (None if one.total_size_bytes is None else one.total_size_bytes // MIB, one.measured, one.servers)
        for one in fleet_totals(store, first, last)
    ]


def test_who_was_not_measured_is_named_with_the_reason_of_the_newest_visit(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY, MIB), (2, "crm", YESTERDAY, MIB), (3, "crm", DAY, MIB)])
    put_total(store, 3, DAY, MIB, 1, missing=2)
    changed(store, "INSERT INTO instances (id, name, db_type) VALUES (4, 'never', 'mysql')")
    changed(store, "INSERT INTO instances (id, name, db_type, is_active) VALUES (5, 'switched-off', 'mysql', false)")
    put_run(store, "earlier", "completed", NIGHT - timedelta(hours=20))
    put_visit(store, "earlier", 2, "completed", None)
    put_run(store, "night", "completed_with_errors", NIGHT)
    put_visit(store, "night", 2, "failed", "connection refused")
    found = fleet_day(store, DAY)
    assert (found.fleet, found.measured, found.missing_databases, found.newest_day) == (4, 2, 2, DAY)
    assert [(one.instance, one.last_day, one.missing_databases, one.reason) for one in found.unmeasured] == [
        ("instance-2", YESTERDAY, 0, "connection refused"),
        ("never", None, 0, None),
        ("instance-3", DAY, 2, None),
    ]
    assert (found.unmeasured[0].run_id, found.unmeasured[0].visit_status) == ("night", "failed")


def test_before_the_first_visit_of_a_day_the_newest_day_is_said(store: Engine) -> None:
    put_sizes(store, [(1, "crm", YESTERDAY, MIB)])
    found = fleet_day(store, DAY)
    assert (found.measured, found.fleet, found.newest_day) == (0, 1, YESTERDAY)
    assert fleet_day(store, YESTERDAY - timedelta(days=1)).newest_day is None


def test_a_server_that_was_not_measured_counts_with_its_size_of_before(store: Engine) -> None:
    days = [DAY - timedelta(days=n) for n in (3, 2, 1, 0)]
    put_sizes(store, [(1, "crm", day, 10 * MIB) for day in days])
    put_sizes(store, [(2, "crm", days[0], 100 * MIB), (2, "crm", days[3], 130 * MIB)])
    assert totals(store, days[0]) == [(110, 2, 2), (110, 1, 2), (110, 1, 2), (140, 2, 2)]


def test_a_size_from_before_the_range_stands_on_its_first_day(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY - timedelta(days=9), 10 * MIB), (2, "crm", DAY, 5 * MIB)])
    assert totals(store, YESTERDAY) == [(None, 0, 1), (15, 1, 2)]


def test_a_day_on_which_nothing_was_measured_is_not_known(store: Engine) -> None:
    before = DAY - timedelta(days=2)
    put_sizes(store, [(1, "crm", before, 10 * MIB), (1, "crm", DAY, 12 * MIB)])
    assert totals(store, before) == [(10, 1, 1), (None, 0, 1), (12, 1, 1)]


def test_a_server_that_left_the_fleet_ends_with_its_last_day(store: Engine) -> None:
    put_sizes(store, [(1, "crm", day, 10 * MIB) for day in (YESTERDAY, DAY)] + [(2, "crm", YESTERDAY, 7 * MIB)])
    changed(store, "UPDATE instances SET is_active = false, deleted_at = now() WHERE id = 2")
    assert totals(store, YESTERDAY) == [(17, 2, 2), (10, 1, 1)]


def test_a_server_silent_for_longer_than_the_range_counts_with_what_it_had(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY - timedelta(days=200), 10 * MIB), (2, "crm", DAY, 5 * MIB)])
    assert totals(store, YESTERDAY) == [(None, 0, 1), (15, 1, 2)]


def partial_days(store: Engine, days: int) -> None:
    """Store two databases of 100 MiB and 7 MiB; of the last *days* the larger could not be measured."""
    past = [DAY - timedelta(days=n) for n in range(days + 2)][::-1]
    put_sizes(store, [(1, "crm", day, 7 * MIB) for day in past] + [(1, "shop", day, 100 * MIB) for day in past[:2]])
    changed(store, INVENTORY, first=past[0], last=DAY)
    for day in past[2:]:
        put_total(store, 1, day, 7 * MIB, 1, missing=1)


def test_a_database_that_was_not_measured_counts_with_its_own_latest_size(store: Engine) -> None:
    partial_days(store, 20)
    assert totals(store, DAY - timedelta(days=21)) == [(107, 1, 1)] * 22
    # Its last size may lie before the range.
    assert totals(store, DAY - timedelta(days=3)) == [(107, 1, 1)] * 4


def test_a_database_that_comes_back_counts_with_its_new_size(store: Engine) -> None:
    partial_days(store, 3)
    put_sizes(store, [(1, "shop", DAY, 150 * MIB)])
    put_total(store, 1, DAY, 157 * MIB, 2)
    assert totals(store, DAY - timedelta(days=3)) == [(107, 1, 1)] * 3 + [(157, 1, 1)]


def test_a_database_that_was_dropped_counts_until_it_was_last_listed(store: Engine) -> None:
    partial_days(store, 3)
    changed(store, "UPDATE instance_databases SET last_seen_date = :day WHERE database_name = 'shop'", day=YESTERDAY)
    put_total(store, 1, DAY, 7 * MIB, 1)
    assert totals(store, DAY - timedelta(days=2)) == [(107, 1, 1), (107, 1, 1), (7, 1, 1)]


def test_a_server_lost_after_a_partial_day_counts_with_the_databases_that_it_lacked(store: Engine) -> None:
    partial_days(store, 2)
    put_sizes(store, [(2, "crm", DAY, 5 * MIB)])
    changed(store, "DELETE FROM instance_size_stats WHERE instance_id = 1 AND collected_date = :day", day=DAY)
    changed(store, "DELETE FROM database_size_stats WHERE instance_id = 1 AND collected_date = :day", day=DAY)
    put_total(store, 1, YESTERDAY, 7 * MIB, 1, missing=1)
    assert totals(store, YESTERDAY) == [(107, 1, 1), (112, 1, 2)]
    changed(store, "UPDATE instances SET is_active = false WHERE id = 1")
    assert totals(store, DAY) == [(5, 1, 1)]


def test_an_import_of_one_database_after_the_last_visit_lowers_no_total(store: Engine) -> None:
    shop = add_instance(store, "shop")
    write_visits(store, DAY - timedelta(days=2), [visit(shop, {"crm": 7 * MIB, "shop": 100 * MIB})])
    import_history(store, history(("shop", "crm", YESTERDAY, 8 * MIB)), "sizes.csv")
    write_visits(store, DAY, [visit(add_instance(store, "other"), {"erp": 5 * MIB})])
    assert totals(store, DAY - timedelta(days=2)) == [(107, 1, 1), (108, 1, 1), (113, 1, 2)]
    assert watched_fleet(store, DAY).total_size_bytes == 113 * MIB


def test_a_database_that_was_never_measured_adds_nothing(store: Engine) -> None:
    put_sizes(store, [(1, "crm", YESTERDAY, 7 * MIB), (1, "crm", DAY, 7 * MIB)])
    changed(store, INVENTORY, first=YESTERDAY, last=DAY)
    changed(
        store,
        "INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)"
        " VALUES (1, 'dark', :day, :day)",
        day=DAY,
    )
    put_total(store, 1, DAY, 7 * MIB, 1, missing=1)
    assert totals(store, YESTERDAY) == [(7, 1, 1), (7, 1, 1)]


def test_the_data_of_a_replica_counts_apart(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY, 10 * MIB), (2, "crm", YESTERDAY, 9 * MIB), (2, "crm", DAY, 10 * MIB)])
    changed(store, "UPDATE instances SET replica_of_id = 1 WHERE id = 2")
    assert totals(store, YESTERDAY) == [(None, 0, 0), (10, 1, 1)]
    apart = fleet_totals(store, YESTERDAY, DAY, replicas=True)
    assert [one.total_size_bytes for one in apart] == [9 * MIB, 10 * MIB]


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [(800, 801, 0.13), (800, 799, -0.13), (1000, 1051, 5.1), (2**53, 2**53 - 1, 0.0), (1, 2**53, 900719925474099100.0)],
)
def test_the_total_changes_by_the_same_percent_as_its_only_instance(
    store: Engine, before: int, after: int, percent: float
) -> None:
    put_sizes(store, [(1, "crm", DAY - timedelta(days=7), before), (1, "crm", DAY, after)])
    days = [DAY - timedelta(days=7), DAY]
    aggregate(store, Level.INSTANCE, days_to_windows(days, PeriodType.DAILY))
    (growth,) = instance_growth(store, PeriodType.DAILY, DAY, DAY, 1)
    week, *_ = total_changes(fleet_totals(store, DAY - timedelta(days=9), DAY))
    assert growth.total_size_change_percent is not None
    assert float(growth.total_size_change_percent) == week.change_percent == percent
    assert str(week.change_percent) != "-0.0"


def test_changes_are_taken_from_the_nearest_known_day_before() -> None:
    known = {0: 300, 8: 200, 30: 150}
    days = [DAY - timedelta(days=n) for n in range(98)][::-1]
    found = total_changes([DayTotal(day, known.get((DAY - day).days), 1, 1) for day in days])
    assert found == [
        TotalChange(7, DAY - timedelta(days=8), 100, 50.0),
        TotalChange(30, DAY - timedelta(days=30), 150, 100.0),
        TotalChange(90, None, None, None),
    ]
    assert total_changes([]) == [TotalChange(days, None, None, None) for days in (7, 30, 90)]


def test_what_grew_is_compared_with_its_own_day_a_month_before(store: Engine) -> None:
    month = DAY - timedelta(days=30)
    not_measured_on_either_day = [
        (2, "crm", month - timedelta(days=3), 10 * MIB),
        (2, "crm", YESTERDAY, 30 * MIB),
    ]
    put_sizes(store, [(1, "crm", month, 10 * MIB), (1, "crm", DAY, 15 * MIB), (1, "shop", month, 90 * MIB)])
    put_sizes(store, [(1, "shop", DAY, MIB), (3, "new", DAY, 500 * MIB), *not_measured_on_either_day])
    found = growing_databases(store, DAY, 5)
    assert [(one.instance, one.database_name, one.change_bytes // MIB) for one in found] == [
        ("instance-2", "crm", 20),
        ("instance-1", "crm", 5),
    ]
    assert (found[0].day, found[0].since) == (YESTERDAY, month - timedelta(days=3))
    assert [(one.instance, one.change_bytes // MIB) for one in growing_instances(store, DAY, 5)] == [("instance-2", 20)]


@pytest.mark.real_clock
def test_runs_under_way_and_failed_runs_that_were_not_made_good_are_named(store: Engine) -> None:
    now = datetime.now(timezone.utc)
    put_run(store, "failed", "failed", now - timedelta(hours=5), "Collect sizes of 2026-06-25")
    put_run(store, "made-good", "failed", now - timedelta(hours=5), "Collect sizes of 2026-06-24")
    put_run(store, "again", "completed", now - timedelta(hours=4), "Collect sizes of 2026-06-24")
    put_run(store, "long-ago", "failed", now - timedelta(days=4), "Collect sizes of 2026-06-20")
    put_run(store, "waiting", "pending", now)
    assert [run.run_id for run in failed_runs(store, 10)] == ["failed"]
    assert [run.run_id for run in open_runs(store, 10)] == ["waiting"]
