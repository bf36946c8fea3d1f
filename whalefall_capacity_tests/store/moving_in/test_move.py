"""Everything that WhaleFall holds comes along exactly; the plan says the same; a second time nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.periods import PeriodType, windows_between
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.fleet import fleet_ids, load_roster
from whalefall_capacity.store.moving_in.report import DifferingDays, Outcome, Report
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity_tests.store.maintenance.upkeep import leave_detached, upkeep
from whalefall_capacity_tests.store.moving_in.conftest import DAYS, DROPPED_AT, LONG_NAME, START, Migrate
from whalefall_capacity_tests.store.records import children, history, row_versions, rows, visit
from whalefall_capacity_tests.whalefall_source import WhaleFall, night

MIB = 2**20
RETIRED = "its month was dropped here by its retention, or is on its way out; `partitions restore` brings it back"
TABLES = ("credentials", "instances", "instance_databases", "database_size_stats", "instance_size_stats")


def counts(report: Report, table: str) -> tuple[int, int, int, int, int]:
    (found,) = [summary for summary in report.tables if summary.table == table]
    return (found.rows, found.created, found.changed, found.kept, found.skipped)


def reasons(report: Report, table: str, outcome: Outcome) -> list[tuple[str | None, int, str]]:
    return [
        (line.instance, line.rows, line.reason)
        for line in report.lines
        if (line.table, line.outcome) == (table, outcome)
    ]


def test_every_row_of_every_table_is_accounted_for(house: WhaleFall, migrate: Migrate) -> None:
    report = migrate()
    for table in TABLES:
        assert counts(report, table)[0] == house.count(table), table
    assert counts(report, "credentials") == (4, 2, 0, 0, 2)
    assert counts(report, "instances") == (8, 8, 0, 0, 0)
    assert counts(report, "instance_databases") == (5, 5, 0, 0, 0)
    assert counts(report, "database_size_stats") == (46, 38, 0, 0, 8)
    assert counts(report, "instance_size_stats") == (28, 1, 0, 21, 6)


@pytest.mark.usefixtures("house")
def test_what_stays_behind_is_said_with_its_reason(migrate: Migrate) -> None:
    report = migrate()
    placeholder = "0 of MySQL: WhaleFall saw no InnoDB file, so the size is not known"
    impossible = "a size that no database has: not from 0 to 8589934591 MiB"
    assert reasons(report, "database_size_stats", Outcome.SKIPPED) == [
        (None, 1, "its instance is not there"),
        ("my-a", 2, placeholder),
        ("my-b", 2, impossible),
        ("my-b", 1, "the name of its database is blank"),
        ("pg-a", 1, "after today (2025-07-15)"),
        ("pg-a", 1, "before WHALEFALL_START_DATE (2025-01-01)"),
    ]
    assert reasons(report, "instance_size_stats", Outcome.SKIPPED) == [
        (None, 1, "its instance is not there"),
        ("my-a", 1, placeholder),
        ("pg-a", 1, impossible),
        ("pg-a", 1, "after today (2025-07-15)"),
        ("pg-a", 1, "before WHALEFALL_START_DATE (2025-01-01)"),
        ("pg-a", 1, "deleted there"),
    ]
    assert reasons(report, "credentials", Outcome.SKIPPED) == [
        (None, 1, "jump host: of type ssh: only those of type database log in"),
        (None, 1, "old: deleted there"),
    ]


@pytest.mark.usefixtures("house")
def test_sizes_are_whole_mebibytes_to_the_byte(migrate: Migrate, store: Engine) -> None:
    migrate()
    found = rows(
        store,
        "SELECT i.name, s.database_name, collected_date, size_bytes, data_size_bytes, log_size_bytes, source, "
        "collected_at FROM database_size_stats AS s JOIN instances AS i ON i.id = instance_id",
    )
    expected = [
        (instance, database, day, size * MIB, None, None, "imported", night(day))
        for instance in ("pg-a", "my-b", "ms-a", "ora-a")
        for number, day in enumerate(DAYS)
        for database, size in (("orders", 100 + number), (LONG_NAME, 3))
    ]
    others = [
        ("pg-b", "legacy", DAYS[0], 7),
        ("my-a", "shop", DAYS[0], 40),
        ("ms-b", "tiny", DAYS[0], 0),
        ("ora-b", "a", DAYS[1], 10),
        ("ora-b", "b", DAYS[1], 5),
        # The largest that a server can hold: 2^53 - 2^20 bytes.
        ("my-b", "sound", date(2025, 6, 7), 2**33 - 1),
    ]
    expected += [(name, db, day, size * MIB, None, None, "imported", night(day)) for name, db, day, size in others]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert ("my-b", "sound", date(2025, 6, 7), 9_007_199_253_692_416) in [row[:4] for row in found]


@pytest.mark.usefixtures("house")
def test_totals_are_computed_from_the_databases_and_days_that_differ_are_listed(
    migrate: Migrate, store: Engine
) -> None:
    report = migrate()
    found = rows(
        store,
        "SELECT i.name, collected_date, total_size_bytes / 1048576, database_count, missing_count, t.source "
        "FROM instance_size_stats AS t JOIN instances AS i ON i.id = instance_id "
        "WHERE i.name IN ('my-a', 'ora-b') OR collected_date BETWEEN '2025-06-02' AND '2025-06-04' ORDER BY 1, 2",
    )
    assert found == [
        ("my-a", DAYS[0], 40, 1, 0, "imported"),
        ("ora-b", DAYS[1], 15, 2, 0, "imported"),
        ("pg-a", date(2025, 6, 2), 250, 3, 0, "imported"),
    ]
    assert list(report.differing_totals) == [
        DifferingDays("my-b", date(2025, 6, 7), date(2025, 6, 7), 1, 8_589_934_587 * MIB),
        DifferingDays("ora-b", DAYS[1], DAYS[1], 1, 5 * MIB),
    ]


def test_each_instance_comes_as_it_can_be_visited_and_no_secret_is_lost(
    house: WhaleFall, migrate: Migrate, store: Engine
) -> None:
    report = migrate()
    found = rows(
        store,
        "SELECT i.name, db_type, host, port, database_name, version, is_active, deleted_at, c.name "
        "FROM instances AS i LEFT JOIN credentials AS c ON c.id = credential_id ORDER BY i.name",
    )
    assert found == [
        ("ms-a", "sqlserver", "ms-a.example", 1433, None, None, True, None, "monitor"),
        ("ms-b", "sqlserver", "ms-b.example", 1433, None, None, False, DROPPED_AT, "monitor"),
        ("my-a", "mysql", "my-a.example", 3307, None, "8.0", True, None, "sleepy"),
        ("my-b", "mysql", "my-b.example", 3306, None, None, False, None, "monitor"),
        ("ora-a", "oracle", "ora-a.example", 1521, "ORCL", None, True, None, "monitor"),
        ("ora-b", "oracle", "ora-b.example", 1521, None, None, False, None, None),
        ("pg-a", "postgresql", "pg-a.example", 5432, "app", "16.4", True, None, "monitor"),
        ("pg-b", "postgresql", "pg-b.example", 5432, None, "PostgreSQL 12.1 on x86", False, DROPPED_AT, None),
    ]
    roster = load_roster(store, SecretStr(house.key), fleet_ids(store))
    assert [(t.name, t.engine, t.password.get_secret_value()) for t in roster.targets] == [
        ("ms-a", "sqlserver", "correct horse"),
        ("my-a", ServerEngine.MYSQL, "nap"),
        ("ora-a", "oracle", "correct horse"),
        ("pg-a", ServerEngine.POSTGRESQL, "correct horse"),
    ]
    told = {instance.instance: (instance.state, instance.reason) for instance in report.instances}
    assert told["pg-a"] == ("active", "")
    assert told["ms-a"] == ("active", "")
    assert told["pg-b"] == ("inactive", "deleted there")
    assert told["my-b"] == ("inactive", "inactive there")


def test_an_instance_of_an_engine_that_is_not_known_here_comes_with_its_history_alone(
    house: WhaleFall, migrate: Migrate, store: Engine
) -> None:
    source = create_engine(house.url)
    with source.begin() as connection:
        connection.execute(text("UPDATE instances SET db_type = 'Hana' WHERE name = 'ms-a'"))
    source.dispose()
    told = {instance.instance: (instance.state, instance.reason) for instance in migrate().instances}
    assert told["ms-a"] == ("inactive", "Hana is not measured here: registered as inactive, with its history")
    assert rows(store, "SELECT db_type, is_active FROM instances WHERE name = 'ms-a'") == [("unknown", False)]


@pytest.mark.usefixtures("house")
def test_the_inventory_keeps_its_dates_and_gains_what_only_the_sizes_know(migrate: Migrate, store: Engine) -> None:
    migrate()
    found = rows(
        store,
        "SELECT i.name, d.database_name, d.is_active, first_seen_date, last_seen_date, d.deleted_at "
        "FROM instance_databases AS d JOIN instances AS i ON i.id = instance_id "
        "WHERE i.name IN ('pg-a', 'pg-b', 'ora-b') ORDER BY 1, 2",
    )
    assert found == [
        ("ora-b", "a", False, DAYS[1], DAYS[1], None),
        ("ora-b", "b", False, DAYS[1], DAYS[1], None),
        ("pg-a", "orders", True, DAYS[0], DAYS[-1], None),
        ("pg-a", LONG_NAME, False, DAYS[0], DAYS[-1], None),
        ("pg-b", "legacy", False, DAYS[0], DAYS[1], DROPPED_AT),
    ]


@pytest.mark.usefixtures("house")
def test_a_second_time_changes_nothing_and_says_so(migrate: Migrate, store: Engine) -> None:
    migrate()
    before = row_versions(store)
    again = migrate()
    assert row_versions(store) == before
    assert [(table.created, table.changed) for table in again.tables] == [(0, 0)] * len(again.tables)
    assert counts(again, "database_size_stats") == (46, 0, 0, 38, 8)
    assert counts(again, "instance_size_stats") == (28, 0, 0, 22, 6)


@pytest.mark.usefixtures("house")
def test_a_month_that_the_maintenance_has_dropped_stays_dropped(migrate: Migrate, store: Engine) -> None:
    migrate()
    # Thirteen months after May 2025 its rows are rolled up and go; those of June and July stay.
    upkeep(store, date(2026, 7, 2), start_date=START)
    before = (row_versions(store), children(store))
    again = migrate()
    assert (row_versions(store), children(store)) == before
    assert [(table.created, table.changed) for table in again.tables] == [(0, 0)] * len(again.tables)
    skipped = reasons(again, "database_size_stats", Outcome.SKIPPED)
    assert {name: number for name, number, reason in skipped if reason == RETIRED} == {
        "ms-a": 4, "ms-b": 1, "my-a": 3, "my-b": 4, "ora-a": 4, "ora-b": 2, "pg-a": 4, "pg-b": 1,
    }  # fmt: skip


@pytest.mark.usefixtures("house")
def test_a_month_that_is_being_dropped_is_not_filled_again(migrate: Migrate, store: Engine) -> None:
    migrate()
    leave_detached(store, day=date(2026, 7, 2), start_date=START)
    before = (row_versions(store), children(store))
    again = migrate()
    assert (row_versions(store), children(store)) == before
    skipped = reasons(again, "database_size_stats", Outcome.SKIPPED)
    assert sum(number for _, number, reason in skipped if reason == RETIRED) == 23


@pytest.mark.usefixtures("house")
def test_the_plan_says_what_the_migration_does_and_writes_nothing(migrate: Migrate, store: Engine) -> None:
    before = (row_versions(store), children(store))
    plan = migrate(apply=False)
    assert (row_versions(store), children(store)) == before
    done = migrate()
    assert (plan.tables, plan.instances, plan.lines, plan.differing_totals) == (
        done.tables,
        done.instances,
        done.lines,
        done.differing_totals,
    )


def test_whalefalls_database_is_left_without_a_trace(house: WhaleFall, migrate: Migrate) -> None:
    before = house.everything()
    migrate()
    assert house.everything() == before


def test_a_day_that_was_measured_here_stays_as_it_was_measured(
    house: WhaleFall, migrate: Migrate, store: Engine
) -> None:
    migrate()
    ((shop,),) = rows(store, "SELECT id FROM instances WHERE name = 'pg-a'")
    write_visits(store, DAYS[-1], [visit(shop, {"orders": 12_345}, name="pg-a")])
    house.execute("UPDATE database_size_stats SET size_mb = 555 WHERE database_name = 'orders'")
    report = migrate()
    assert rows(
        store,
        "SELECT collected_date, database_name, size_bytes, source FROM database_size_stats "
        "WHERE instance_id = :id AND database_name = 'orders' ORDER BY 1",
        id=shop,
    ) == [
        *((day, "orders", 555 * MIB, "imported") for day in DAYS[:-1]),
        (DAYS[-1], "orders", 12_345, "measured"),
    ]
    assert rows(
        store,
        "SELECT total_size_bytes, source FROM instance_size_stats WHERE instance_id = :id AND collected_date = :day",
        id=shop,
        day=DAYS[-1],
    ) == [(12_345, "measured")]
    assert ("pg-a", 2, "the instance was measured here on that day") in reasons(
        report, "database_size_stats", Outcome.KEPT
    )
    # What a visit knows of the inventory is newer than what WhaleFall knows.
    assert rows(
        store, "SELECT is_active FROM instance_databases WHERE instance_id = :id AND database_name <> 'orders'", id=shop
    ) == [(False,)]


@pytest.mark.usefixtures("house")
def test_sizes_of_a_history_file_are_corrected(migrate: Migrate, store: Engine) -> None:
    import_history(
        store,
        history(("ms-b", "tiny", DAYS[0], 17), ("ms-b", "other", DAYS[0], 5), data="3"),
        "sizes.csv",
        create_instances=True,
    )
    report = migrate()
    assert [(i.outcome, i.state) for i in report.instances if i.instance == "ms-b"] == [(Outcome.CHANGED, "inactive")]
    assert rows(
        store,
        "SELECT s.database_name, size_bytes, data_size_bytes, s.collected_at FROM database_size_stats AS s "
        "JOIN instances AS i ON i.id = instance_id WHERE i.name = 'ms-b' AND s.database_name = 'tiny'",
    ) == [("tiny", 0, None, night(DAYS[0]))]
    assert rows(
        store,
        "SELECT total_size_bytes, database_count, host FROM instance_size_stats "
        "JOIN instances AS i ON i.id = instance_id WHERE i.name = 'ms-b'",
    ) == [(5, 2, "ms-b.example")]


@pytest.mark.usefixtures("house")
def test_an_instance_that_is_registered_here_stays_as_it_is(migrate: Migrate, store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(
            text("INSERT INTO instances (name, db_type, host, port) VALUES ('my-a', 'mariadb', 'new.example', 3306)")
        )
    report = migrate()
    assert rows(store, "SELECT db_type, host, port FROM instances WHERE name = 'my-a'") == [
        ("mariadb", "new.example", 3306)
    ]
    (line,) = [instance for instance in report.instances if instance.instance == "my-a"]
    assert (line.outcome, line.state) == (Outcome.KEPT, "as it is")
    assert line.reason == (
        "registered here already; stays as it is: engine mariadb here, mysql there, host new.example here, "
        "my-a.example there, port 3306 here, 3307 there, credential None here, sleepy there"
    )
    assert rows(
        store,
        "SELECT size_bytes FROM database_size_stats JOIN instances AS i ON i.id = instance_id WHERE i.name = 'my-a'",
    ) == [(40 * MIB,)]


def test_a_later_run_brings_what_whalefall_has_collected_since(
    whale: WhaleFall, migrate: Migrate, store: Engine
) -> None:
    shop = whale.instance("shop", credential_id=whale.credential("monitor", "secret"))
    whale.database(shop, "orders", DAYS[0], DAYS[0])
    whale.sizes(shop, DAYS[0], {"orders": 1})
    migrate()
    whale.execute("UPDATE instance_databases SET last_seen_date = %s", DAYS[1])
    whale.sizes(shop, DAYS[1], {"orders": 2})
    report = migrate(key="")
    assert counts(report, "instance_databases") == (1, 0, 1, 0, 0)
    assert counts(report, "database_size_stats") == (2, 1, 0, 1, 0)
    assert rows(store, "SELECT last_seen_date FROM instance_databases") == [(DAYS[1],)]


@pytest.mark.parametrize("period_type", [PeriodType.WEEKLY, PeriodType.QUARTERLY])
def test_the_windows_equal_a_calculation_from_whalefalls_own_rows(
    whale: WhaleFall, migrate: Migrate, store: Engine, period_type: PeriodType
) -> None:
    shop = whale.instance("shop", credential_id=whale.credential("monitor", "secret"))
    days = [date(2025, 3, 24) + timedelta(days=number) for number in range(20)]
    sizes = {day: 1000 + 37 * number % 100 for number, day in enumerate(days)}
    for day, size in sizes.items():
        whale.sizes(shop, day, {"orders": size, "users": 11})
    migrate()
    windows = windows_between(days[0], days[-1], period_type)
    for level in Level:
        aggregate(store, level, windows)
    inside = {window.start: [day for day in days if window.start <= day <= window.end] for window in windows}
    columns = "period_start, data_count, sum_size_bytes, max_size_bytes, min_size_bytes, closing_size_bytes"
    assert rows(
        store,
        f"SELECT {columns} FROM database_size_aggregations "
        "WHERE period_type = :type AND database_name = 'orders' ORDER BY 1",
        type=period_type.value,
    ) == [figures(start, [sizes[day] for day in found]) for start, found in inside.items()]
    assert rows(
        store,
        f"SELECT {columns} FROM instance_size_aggregations WHERE period_type = :type ORDER BY 1",
        type=period_type,
    ) == [figures(start, [sizes[day] + 11 for day in found]) for start, found in inside.items()]


def figures(start: date, sizes: Sequence[int]) -> tuple[Any, ...]:
    """Return the figures of a window, from sizes in MiB."""
    return (start, len(sizes), sum(sizes) * MIB, max(sizes) * MIB, min(sizes) * MIB, sizes[-1] * MIB)


def test_a_day_whose_sizes_add_up_to_more_than_a_server_can_hold_stays_behind(
    whale: WhaleFall, migrate: Migrate, store: Engine
) -> None:
    shop, day = whale.instance("shop"), DAYS[0]
    whale.sizes(shop, day, {"a": 2**33 - 1, "b": 1}, total=1)
    whale.sizes(shop, day + timedelta(days=1), {"a": 2**33 - 2, "b": 1}, total=1)
    report = migrate()
    assert reasons(report, "database_size_stats", Outcome.SKIPPED) == [
        ("shop", 2, "the sizes of its day add up to more than a server can hold")
    ]
    assert rows(store, "SELECT collected_date, total_size_bytes FROM instance_size_stats") == [
        (day + timedelta(days=1), (2**33 - 1) * MIB)
    ]
    assert counts(migrate(), "database_size_stats") == (4, 0, 0, 2, 2)


def test_the_plan_tells_the_settings_that_do_what_whalefall_did(whale: WhaleFall, migrate: Migrate) -> None:
    whale.insert(
        "email_alert_settings",
        recipients_json='["dba@example.com"]',
        global_enabled=True,
        database_capacity_enabled=True,
    )
    whale.insert("users", username="li wei", password="$2b$12$x", role="admin")
    whale.insert("users", username="guest", password="$2b$12$x")
    whale.sizes(whale.instance("shop"), date(2024, 2, 3), {"orders": 1})
    plan = migrate(apply=False)
    assert list(plan.settings) == [
        "WHALEFALL_POSTGRESQL_EXCLUDE=postgres",
        "WHALEFALL_POSTGRESQL_EXCLUDE_REGEX='(?i)pg..*'",
        r"WHALEFALL_MYSQL_EXCLUDE_REGEX='(?i)tmp..*|temp..*|\#sql.*'",
        r"WHALEFALL_MARIADB_EXCLUDE_REGEX='(?i)tmp..*|temp..*|\#sql.*'",
        "# WhaleFall's limits of growth, 30 % and 20 GiB, have no setting here: size_anomaly knows how each database "
        "usually grows.",
        "# WhaleFall mails to dba@example.com: WHALEFALL_ALERT_URLS",
        "WHALEFALL_START_DATE=2024-02-03",
    ]
    assert plan.notes[0].startswith("Totals step on the day of the switch")
    assert (
        "Users need new passwords; `whalefall-capacity user set guest --role view`, "
        "`whalefall-capacity user set 'li wei' --role admin`" in plan.notes
    )
    assert any(note.startswith("Daily sizes before 2024-06-15 are older than WHALEFALL_RET") for note in plan.notes)
    assert plan.not_carried[0].startswith("database_size_aggregations, instance_size_aggregations: calculated again")
