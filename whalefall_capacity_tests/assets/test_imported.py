"""Imported days in Dagster's own storage: all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from sqlalchemy import Engine, text

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS
from whalefall_capacity.assets.imported import report_stored_days, unreported_days
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import history, rows

DAYS = [date(2026, 3, 1) + timedelta(days=n) for n in range(40)]
# Rows of one transaction have the same xmin: whoever reads sees all of them, or none.
WRITTEN = """
SELECT asset_key, count(*), count(DISTINCT partition), count(DISTINCT xmin::text) FROM event_logs
GROUP BY asset_key ORDER BY min(id)
"""


@pytest.fixture
def instance(store: Engine, store_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster on a storage of the test's own, beside a store with the imported days."""
    put_sizes(store, [(1, "shop", day, 100) for day in DAYS])
    database = f"imported_{store.url.database}"
    store_server.create_databases(database)
    storage = {"postgres": {"postgres_url": store_server.url(database).get_secret_value()}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"storage": storage}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def change_totals(store: Engine, when: str) -> None:
    """Let the totals of the first two days be imported ones, written at *when* by the store's clock."""
    changed = f"SET source = 'imported', updated_at = {when} WHERE collected_date = ANY (:days)"
    with store.begin() as connection:
        connection.execute(text(f"UPDATE instance_size_stats {changed}"), {"days": DAYS[:2]})


def test_a_day_that_was_imported_again_is_told_whatever_the_clocks_say(
    store: Engine, instance: dg.DagsterInstance
) -> None:
    change_totals(store, "now() - interval '1 hour'")
    assert unreported_days(instance, store) == DAYS[:2]
    report_stored_days(instance, store, DAYS)
    assert unreported_days(instance, store) == []
    # The store's clock is behind that of the process which told: the rows still look older than the event.
    change_totals(store, "now() - interval '30 minutes'")
    assert unreported_days(instance, store) == DAYS[:2]


def test_an_import_into_measured_days_is_told_and_a_new_measurement_is_left_to_its_run(
    store: Engine, instance: dg.DagsterInstance
) -> None:
    report_stored_days(instance, store, DAYS)
    # Killed before it could tell Dagster: the totals of these days still count as measured.
    lines = [("instance-1", "attic", day, 70) for day in DAYS[3:5]]
    assert import_history(store, history(*lines), "sizes.csv").changed_days == tuple(DAYS[3:5])
    put_sizes(store, [(1, "shop", DAYS[9], 120)])
    assert rows(store, "SELECT DISTINCT source FROM instance_size_stats") == [("measured",)]
    assert unreported_days(instance, store) == DAYS[3:5]
    report_stored_days(instance, store, DAYS[3:5])
    assert unreported_days(instance, store) == []


def test_all_days_of_an_import_appear_at_once_and_those_that_the_sensor_follows_last(
    store: Engine, store_server: EmbeddedPostgres, instance: dg.DagsterInstance
) -> None:
    report_stored_days(instance, store, DAYS)
    events = create_store_engine(store_server.url(f"imported_{store.url.database}"))
    assert rows(events, WRITTEN) == [('["instance_size_stats"]', 40, 40, 1), ('["database_size_stats"]', 40, 40, 1)]
    events.dispose()
    for key in (DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS):
        assert instance.get_materialized_partitions(key) == {day.isoformat() for day in DAYS}
        latest = instance.get_latest_materialization_event(key)
        assert latest is not None
        assert latest.asset_materialization is not None
        assert latest.asset_materialization.partition == "2026-04-09"
        assert latest.asset_materialization.metadata["total_size_bytes"].value == 100
