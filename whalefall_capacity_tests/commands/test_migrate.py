"""`whalefall-capacity migrate-from whalefall`: a plan, the migration, and Dagster told of its days."""

from __future__ import annotations

import os
from datetime import date
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS
from whalefall_capacity.automation.sensors import aggregations_follow_stats
from whalefall_capacity.dagster_private import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from whalefall_capacity.periods import today
from whalefall_capacity.settings import PREFIX, load_settings
from whalefall_capacity.store.moving_in.mapping import OldKey
from whalefall_capacity.store.moving_in.move import Choices, move_in
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.commands.test_history import reported
from whalefall_capacity_tests.servers import MariadbFleetServer
from whalefall_capacity_tests.store.records import row_versions, rows
from whalefall_capacity_tests.whalefall_source import WhaleFall, make_whalefall, night

MIB = 2**20


@pytest.fixture
def source(empty_database: str, whalefall: CommandLine) -> WhaleFall:  # noqa: ARG001 - its environment is put back
    """WhaleFall with one PostgreSQL server of two databases, on both sides of the end of a month."""
    source = make_whalefall(empty_database)
    os.environ["OLD_KEY"] = source.key
    os.environ[f"{PREFIX}SECRET_KEY"] = source.key
    shop = source.instance("shop", credential_id=source.credential("monitor", "correct horse"))
    source.database(shop, "orders", date(2025, 5, 1), date(2025, 6, 2))
    source.sizes(shop, date(2025, 5, 31), {"orders": 100})
    source.sizes(shop, date(2025, 6, 1), {"orders": 101, "users": 7}, total=101)
    return source


def migrate(whalefall: CommandLine, source: WhaleFall, *arguments: str) -> Any:
    return whalefall("migrate-from", "whalefall", source.url, "--key-env", "OLD_KEY", *arguments)


def told() -> dict[str, int]:
    """Return how often Dagster was told of each day of the sizes of databases."""
    counts: dict[str, int] = {}
    with dg.DagsterInstance.get() as instance:
        for record in instance.fetch_materializations(DATABASE_SIZE_STATS, limit=1000).records:
            counts[str(record.partition_key)] = counts.get(str(record.partition_key), 0) + 1
    return counts


def test_the_sizes_of_both_months_come_along_with_their_totals_and_times(
    whalefall: CommandLine, source: WhaleFall
) -> None:
    done = migrate(whalefall, source, "--apply")
    assert (done.status, done.err) == (0, "")
    assert rows(
        whalefall.store,
        "SELECT database_name, collected_date, size_bytes, data_size_bytes, source, collected_at "
        "FROM database_size_stats ORDER BY 1, 2",
    ) == [
        ("orders", date(2025, 5, 31), 100 * MIB, None, "imported", night(date(2025, 5, 31))),
        ("orders", date(2025, 6, 1), 101 * MIB, None, "imported", night(date(2025, 6, 1))),
        ("users", date(2025, 6, 1), 7 * MIB, None, "imported", night(date(2025, 6, 1))),
    ]
    assert rows(
        whalefall.store, "SELECT collected_date, total_size_bytes, database_count FROM instance_size_stats ORDER BY 1"
    ) == [(date(2025, 5, 31), 100 * MIB, 1), (date(2025, 6, 1), 108 * MIB, 2)]


def test_a_plan_is_printed_and_nothing_is_written_or_reported(whalefall: CommandLine, source: WhaleFall) -> None:
    whalefall("fleet", "list")
    before = row_versions(whalefall.store)
    plan = whalefall("migrate-from", "whalefall", source.url)
    assert (plan.status, plan.err) == (0, "")
    lines = plan.out.splitlines()
    assert lines[0].strip() == "would be moved"
    assert "  WHALEFALL_POSTGRESQL_EXCLUDE=postgres" in lines
    assert lines[-1] == "Nothing was written; --apply moves it."
    assert "2025-06-01 │      1 │           7.00 MiB" in plan.out
    assert row_versions(whalefall.store) == before
    assert "correct horse" not in plan.out
    assert source.key not in plan.out


def test_json_has_the_whole_account(whalefall: CommandLine, source: WhaleFall) -> None:
    report = migrate(whalefall, source, "--json").json
    assert report["applied"] is False
    assert report["tables"] == [
        {"table": "credentials", "rows": 1, "created": 1, "changed": 0, "kept": 0, "skipped": 0},
        {"table": "instances", "rows": 1, "created": 1, "changed": 0, "kept": 0, "skipped": 0},
        {"table": "databases known from sizes alone", "rows": 1, "created": 1, "changed": 0, "kept": 0, "skipped": 0},
        {"table": "instance_databases", "rows": 1, "created": 1, "changed": 0, "kept": 0, "skipped": 0},
        {"table": "database_size_stats", "rows": 3, "created": 3, "changed": 0, "kept": 0, "skipped": 0},
        {"table": "instance_size_stats", "rows": 2, "created": 0, "changed": 0, "kept": 2, "skipped": 0},
    ]
    assert report["differing_totals"] == [
        {
            "instance": "shop",
            "first": "2025-06-01",
            "last": "2025-06-01",
            "days": 1,
            "largest_difference_bytes": 7 * MIB,
        }
    ]
    assert report["settings"][0] == "WHALEFALL_POSTGRESQL_EXCLUDE=postgres"


@pytest.mark.real_clock
def test_the_days_become_materialized_partitions_once_and_the_windows_follow(
    whalefall: CommandLine, source: WhaleFall
) -> None:
    whalefall("runs", "audit")
    with dg.DagsterInstance.get() as instance:
        newest = instance.fetch_materializations(DATABASE_SIZE_STATS, limit=1).records
        cursor = str(newest[0].storage_id if newest else 0)
    before = told()
    migrate(whalefall, source, "--apply")
    metadata = reported("2025-06-01")[DATABASE_SIZE_STATS]
    assert metadata["total_size_bytes"] == 108 * MIB
    assert metadata["dagster/partition_row_count"] == 2
    with (
        dg.DagsterInstance.get() as instance,
        dg.build_sensor_context(instance, cursor=cursor) as context,
    ):
        result = aggregations_follow_stats(context)
    assert isinstance(result, dg.SensorResult)
    ranges = [
        (request.tags[ASSET_PARTITION_RANGE_START_TAG], request.tags[ASSET_PARTITION_RANGE_END_TAG])
        for request in result.run_requests or []
    ]
    # Days, a week, two months, a quarter.
    assert ranges == [
        ("2025-05-31", "2025-06-01"),
        ("2025-05-26", "2025-05-26"),
        ("2025-05-01", "2025-06-01"),
        ("2025-04-01", "2025-04-01"),
    ]
    once = told()
    assert {day: once[day] - before.get(day, 0) for day in ("2025-05-31", "2025-06-01")} == {
        "2025-05-31": 1,
        "2025-06-01": 1,
    }
    migrate(whalefall, source, "--apply")
    assert told() == once


@pytest.mark.real_clock
def test_days_of_which_dagster_was_not_told_because_of_a_kill_are_told_by_the_next_migration(
    whalefall: CommandLine, source: WhaleFall
) -> None:
    whalefall("runs", "audit")
    before = told()
    settings = load_settings()
    choices = Choices(apply=True, old_key=OldKey("OLD_KEY", SecretStr(source.key)))
    move_in(whalefall.store, SecretStr(source.url), choices, settings, today(settings.zone))
    assert told() == before
    migrate(whalefall, source, "--apply")
    after = told()
    assert after["2025-05-31"] == before.get("2025-05-31", 0) + 1


def test_a_server_is_measured_with_a_credential_that_came_along(
    whalefall: CommandLine, source: WhaleFall, mariadb: MariadbFleetServer
) -> None:
    os.environ[f"{PREFIX}MYSQL_EXCLUDE_REGEX"] = "(?!moved_orders$).*"
    with mariadb.connect() as cursor:
        cursor.execute("CREATE USER mover@localhost IDENTIFIED BY 'open sesame'")
        cursor.execute("GRANT PROCESS, SELECT ON *.* TO mover@localhost")
        cursor.execute("CREATE DATABASE moved_orders")
        cursor.execute("CREATE TABLE moved_orders.t (id INT PRIMARY KEY)")
    source.instance(
        "maria",
        "mysql",
        host=str(mariadb.target().host),
        port=3306,
        credential_id=source.credential("mover", "open sesame", username="mover"),
    )
    try:
        assert migrate(whalefall, source, "--apply").status == 0
        collected = whalefall("collect", "--instance", "maria")
        assert (collected.status, collected.err) == (0, "")
    finally:
        with mariadb.connect() as cursor:
            cursor.execute("DROP DATABASE moved_orders")
            cursor.execute("DROP USER mover@localhost")
    assert rows(
        whalefall.store,
        "SELECT s.source, s.total_size_bytes > 0, s.database_count FROM instance_size_stats AS s "
        "JOIN instances AS i ON i.id = instance_id WHERE i.name = 'maria'",
    ) == [("measured", True, 1)]


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("nonsense", "the URL of WhaleFall's database must be like postgresql://user@host:5432/whalefall"),
        ("postgresql://me:top-secret@127.0.0.1:1/x", "WhaleFall's database cannot be reached: connection to server at"),
    ],
)
def test_a_wrong_url_is_one_line_without_the_password(whalefall: CommandLine, url: str, error: str) -> None:
    failed = whalefall("migrate-from", "whalefall", url, "--apply")
    assert (failed.status, failed.out) == (1, "")
    assert failed.err.startswith(f"error: {error}")
    assert failed.err.endswith("; nothing was written\n")
    assert failed.err.count("\n") == 1
    assert "top-secret" not in failed.err


@pytest.mark.parametrize("value", [None, "", "no-key"])
def test_a_variable_without_a_key_is_one_line(whalefall: CommandLine, source: WhaleFall, value: str | None) -> None:
    os.environ.pop("OLD_KEY")
    if value is not None:
        os.environ["OLD_KEY"] = value
    failed = migrate(whalefall, source, "--apply")
    assert (failed.status, failed.out) == (1, "")
    assert failed.err == (
        "error: environment variable OLD_KEY does not hold a Fernet key: set it to WhaleFall's "
        "PASSWORD_ENCRYPTION_KEY; nothing was written\n"
    )


def test_when_dagster_cannot_be_told_the_error_says_that_the_rows_are_there_and_what_to_do(
    whalefall: CommandLine, source: WhaleFall, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable() -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(dg.DagsterInstance, "get", unreachable)
    failed = migrate(whalefall, source, "--apply")
    assert (failed.status, failed.out) == (1, "")
    assert failed.err == (
        "error: the rows are written, but could not be reported to Dagster's storage: no route to host; once it can be "
        "reached, run the same command again: it reports what is missing\n"
    )
    assert rows(whalefall.store, "SELECT count(*) FROM database_size_stats") == [(3,)]
