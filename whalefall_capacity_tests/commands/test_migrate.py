"""`whalefall-capacity migrate-from whalefall`: a plan that writes nothing, and a migration that says the same."""

from __future__ import annotations

import os
from datetime import date

import pytest

from whalefall_capacity.settings import PREFIX
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.store.records import row_versions, rows
from whalefall_capacity_tests.whalefall_source import WhaleFall, make_whalefall, night

MIB = 2**20


@pytest.fixture
def source(empty_database: str) -> WhaleFall:
    """WhaleFall with one PostgreSQL server of two databases, on both sides of the end of a month."""
    source = make_whalefall(empty_database)
    os.environ["OLD_KEY"] = source.key
    os.environ[f"{PREFIX}SECRET_KEY"] = source.key
    shop = source.instance("shop", credential_id=source.credential("monitor", "secret"))
    source.database(shop, "orders", date(2025, 5, 1), date(2025, 6, 2))
    source.sizes(shop, date(2025, 5, 31), {"orders": 100})
    source.sizes(shop, date(2025, 6, 1), {"orders": 101, "users": 7}, total=101)
    return source


def test_the_sizes_of_both_months_come_along_with_their_totals_and_times(
    whalefall: CommandLine, source: WhaleFall
) -> None:
    done = whalefall("migrate-from", "whalefall", source.url, "--apply", "--key-env", "OLD_KEY")
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


def test_a_plan_writes_nothing(whalefall: CommandLine, source: WhaleFall) -> None:
    whalefall("fleet", "list")
    before = row_versions(whalefall.store)
    plan = whalefall("migrate-from", "whalefall", source.url)
    assert (plan.status, plan.err) == (0, "")
    assert plan.out.endswith("Nothing was written; --apply moves it.\n")
    assert row_versions(whalefall.store) == before
