"""What the checks find in the store; sizes in MiB for reading. The latest day is a Thursday."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, window_of, windows_between
from whalefall_capacity.store.aggregation import aggregate
from whalefall_capacity.store.aggregation_statements import Level
from whalefall_capacity.store.check_queries import (
    ChangedDatabase,
    Difference,
    LostDatabase,
    MissingDays,
    Recomputation,
    ShrunkInstance,
    changed_databases,
    latest_stored_day,
    lost_databases,
    missing_days,
    recompute,
    shrunk_instances,
    unreadable_secrets,
)
from whalefall_capacity.store.fleet import set_credential
from whalefall_capacity.store.stats import write_visits
from whalefall_capacity_tests.registry import refusing, register
from whalefall_capacity_tests.store.past import MIB, put_sizes, put_total
from whalefall_capacity_tests.store.records import add_instance, visit

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


def test_a_change_is_unusual_beyond_percent_and_bytes(store: Engine) -> None:
    before = {"both": 100, "small": 1, "steady": 1000, "shrank": 100, "exact": 100}
    latest = {"both": 161, "small": 10, "steady": 1100, "shrank": 39, "exact": 150}
    put_sizes(store, [(1, name, ago(1), size * MIB) for name, size in before.items()])
    put_sizes(store, [(1, name, DAY, size * MIB) for name, size in latest.items()])
    assert changed_databases(store, DAY, 50, 10 * MIB) == [
        ChangedDatabase("instance-1", "both", 161 * MIB, 100 * MIB, ago(1), 61 * MIB, 61.0),
        ChangedDatabase("instance-1", "shrank", 39 * MIB, 100 * MIB, ago(1), -61 * MIB, -61.0),
    ]


def test_a_database_is_compared_with_its_own_nearest_day_of_a_week(store: Engine) -> None:
    put_sizes(store, [(1, "a", ago(3), 1), (1, "a", ago(5), 100), (1, "b", ago(8), 1), (1, "c", ago(1), 100)])
    put_sizes(store, [(1, name, DAY, 100) for name in ("a", "b", "c", "new")])
    assert changed_databases(store, DAY, 50, 10) == [ChangedDatabase("instance-1", "a", 100, 1, ago(3), 99, 9900.0)]


def test_growth_from_nothing_is_unusual_without_a_percent(store: Engine) -> None:
    put_sizes(store, [(1, "filled", ago(1), 0), (1, "filled", DAY, 11)])
    assert changed_databases(store, DAY, 50, 10) == [ChangedDatabase("instance-1", "filled", 11, 0, ago(1), 11, None)]


def test_sizes_as_great_as_the_store_takes_are_compared(store: Engine) -> None:
    put_sizes(store, [(1, "vast", ago(1), 1), (1, "vast", DAY, 2**63 - 1)])
    (change,) = changed_databases(store, DAY, 50, 10)
    assert change.change_bytes == 2**63 - 2


def test_a_secret_is_named_with_its_cause_and_who_needs_it(store: Engine, tmp_path: Path) -> None:
    key = SecretStr(Fernet.generate_key().decode())
    set_credential(store, "kept", "whalefall", SecretStr("hunter2"), key)
    fleet = [
        refusing("a") | {"credential": {"username": "u", "password_env": "NOT_THERE"}},
        refusing("b") | {"credential": {"username": "u", "password_file": str(tmp_path / "absent")}},
        refusing("c") | {"credential": {"stored": "kept"}},
        refusing("d"),
    ]
    register(store, *fleet)
    found = {secret.credential: secret for secret in unreadable_secrets(store, key)}
    assert {name: list(secret.instances) for name, secret in found.items()} == {
        "u (env:NOT_THERE)": ["a"],
        f"u (file:{tmp_path / 'absent'})": ["b"],
    }
    assert found["u (env:NOT_THERE)"].error == "environment variable NOT_THERE is not set"
    other = SecretStr(Fernet.generate_key().decode())
    wrong = {secret.credential: secret for secret in unreadable_secrets(store, other)}["kept"]
    assert wrong.error.startswith("stored credential kept cannot be decrypted")
    assert list(wrong.instances) == ["c"]
    register(store, *[entry for entry in fleet if entry["name"] != "c"])
    unneeded = {secret.credential: secret for secret in unreadable_secrets(store, other)}["kept"]
    assert list(unneeded.instances) == []


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


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("period_type", PeriodType)
def test_what_was_aggregated_equals_its_recomputation(store: Engine, level: Level, period_type: PeriodType) -> None:
    varied_past(store)
    aggregate(store, level, windows_between(ago(120), DAY, period_type))
    for seed in range(5):
        latest, earlier = recompute(store, level, period_type, seed)
        assert latest.window == window_of(DAY, period_type)
        assert earlier.window < latest.window
        assert (latest.differences, latest.behind, earlier.differences, earlier.behind) == ([], None, [], None)
        assert latest.keys > 0


@pytest.mark.parametrize("level", LEVELS)
def test_one_wrong_byte_is_a_difference(store: Engine, level: Level) -> None:
    put_sizes(store, [(1, "crm", DAY, 100), (1, "crm", ago(1), 90)])
    aggregate(store, level, [window_of(DAY, PeriodType.WEEKLY)])
    changed(store, f"UPDATE {level.value}_size_aggregations SET closing_size_bytes = 101")
    (latest,) = recompute(store, level, PeriodType.WEEKLY, 1)
    key = "instance-1 crm" if level is Level.DATABASE else "instance-1"
    assert latest == Recomputation(
        window_of(DAY, PeriodType.WEEKLY), None, 1, [Difference(key, "closing_size_bytes", 101, 100)]
    )


@pytest.mark.parametrize("measure", ["data_count", "sum_size_bytes", "min_size_bytes", "sum_log_size_bytes"])
def test_every_measure_is_compared_also_where_it_is_not_known(store: Engine, measure: str) -> None:
    put_sizes(store, [(1, "crm", DAY, 100)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.MONTHLY)])
    changed(store, f"UPDATE database_size_aggregations SET {measure} = 7")
    (latest,) = recompute(store, Level.DATABASE, PeriodType.MONTHLY, 1)
    assert [(d.measure, d.stored) for d in latest.differences] == [(measure, 7)]


def test_rows_that_are_missing_or_have_no_stats_are_differences(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY, 100), (1, "erp", DAY, 50)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    changed(store, "UPDATE database_size_aggregations SET database_name = 'ghost' WHERE database_name = 'erp'")
    (latest,) = recompute(store, Level.DATABASE, PeriodType.DAILY, 1)
    assert latest.differences == [
        Difference("instance-1 erp", "the whole row", None, "there"),
        Difference("instance-1 ghost", "the whole row", "there", None),
    ]


def test_one_key_in_a_hundred_is_compared_and_twenty_at_least(store: Engine) -> None:
    put_sizes(store, [(1, f"db{number}", DAY, number) for number in range(2101)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    (many,) = recompute(store, Level.DATABASE, PeriodType.DAILY, 1)
    assert many.keys == 22
    changed(store, "DELETE FROM database_size_stats WHERE size_bytes >= 300")
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    (few,) = recompute(store, Level.DATABASE, PeriodType.DAILY, 1)
    assert few.keys == 20


def test_the_seed_repeats_the_sample_and_another_one_takes_other_keys(store: Engine) -> None:
    put_sizes(store, [(1, f"db{number}", DAY, number) for number in range(500)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    changed(store, "UPDATE database_size_aggregations SET max_size_bytes = -1")
    first, again, other = (recompute(store, Level.DATABASE, PeriodType.DAILY, seed)[0] for seed in (4711, 4711, 1174))
    assert first == again
    assert {d.key for d in first.differences} != {d.key for d in other.differences}


def test_the_earlier_window_is_any_that_is_not_sealed(store: Engine) -> None:
    days = [ago(days) for days in range(10)]
    put_sizes(store, [(1, "crm", day, 1) for day in days])
    aggregate(store, Level.DATABASE, [window_of(day, PeriodType.DAILY) for day in sorted(days)])
    changed(store, f"UPDATE aggregation_windows SET sealed_at = now() WHERE period_start < '{ago(3)}'")
    chosen = {recompute(store, Level.DATABASE, PeriodType.DAILY, seed)[1].window.start for seed in range(30)}
    assert chosen == {ago(1), ago(2), ago(3)}


@pytest.mark.parametrize("level", LEVELS)
def test_a_window_whose_stats_changed_since_is_behind(store: Engine, level: Level) -> None:
    put_sizes(store, [(1, "crm", DAY, 100)])
    aggregate(store, level, [window_of(DAY, PeriodType.MONTHLY)])
    put_sizes(store, [(1, "crm", ago(1), 90)])
    (latest,) = recompute(store, level, PeriodType.MONTHLY, 1)
    assert latest.behind is not None
    assert latest.behind.startswith("2 rows of stats, the newest of ")


def test_stats_that_changed_but_add_up_to_the_same_leave_a_window_behind(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY, 100), (1, "erp", DAY, 50)])
    aggregate(store, Level.DATABASE, [window_of(DAY, PeriodType.DAILY)])
    put_sizes(store, [(1, "crm", DAY, 50), (1, "erp", DAY, 100)])
    (latest,) = recompute(store, Level.DATABASE, PeriodType.DAILY, 1)
    assert latest.behind is not None


def test_a_window_that_was_never_calculated_is_behind(store: Engine) -> None:
    put_sizes(store, [(1, "crm", DAY, 100)])
    (latest,) = recompute(store, Level.INSTANCE, PeriodType.QUARTERLY, 1)
    assert latest.behind == "1 rows of stats, and no calculation yet"


def test_without_stats_there_is_nothing_to_recompute(store: Engine) -> None:
    assert recompute(store, Level.DATABASE, PeriodType.DAILY, 1) == []


def registered(store: Engine, instance_id: int, at: datetime) -> None:
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET created_at = :at WHERE id = :id"), {"at": at, "id": instance_id})


def changed(store: Engine, statement: str) -> None:
    with store.begin() as connection:
        connection.execute(text(statement))


def varied_past(store: Engine) -> None:
    """Leave four months with gaps, databases that come and go, unknown logs and days with missing databases."""
    put_sizes(
        store,
        [
            (
                instance,
                f"db{number}",
                ago(days),
                1000 * number + 7 * days,
                500 + days if number % 2 else None,
                days if (number + days) % 3 else None,
            )
            for instance in (1, 2, 501)
            for number in range(8)
            for days in range(121)
            if (days + number * instance) % 5 and (number != 3 or days > 20)
        ],
    )
    changed(store, "UPDATE instance_size_stats SET missing_count = 2 WHERE instance_id = 2")
    changed(store, f"UPDATE instance_size_stats SET missing_count = 1 WHERE collected_date > '{ago(3)}'")
