"""The checks of the stats: what they say, how grave it is, and that they run with their assets and block nothing."""

from __future__ import annotations

from datetime import date

import dagster as dg
import pytest
from sqlalchemy import Engine

from whalefall_capacity.assets.stats import size_stats
from whalefall_capacity.assets.stats_checks import (
    inventory_result,
    missing_result,
    secrets_result,
    stats_checks,
)
from whalefall_capacity.definitions import defs
from whalefall_capacity.partitions import DAILY
from whalefall_capacity.periods import today
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.settings import PROJECT_ROOT, load_settings
from whalefall_capacity.store.sizes.day_comparison import LostDatabase, ShrunkInstance
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.store.records import visit

DAY = date(2026, 6, 25)
BEFORE = date(2026, 6, 24)


def run(instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    """Materialize today's daily assets and return what each check said."""
    result = defs.resolve_job_def("sync_databases").execute_in_process(
        instance=instance, partition_key=DAILY.get_last_partition_key(), raise_on_error=False
    )
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def rows(evaluation: dg.AssetCheckResult | dg.AssetCheckEvaluation, table: str) -> list[dict[str, object]]:
    value = evaluation.metadata[table]
    assert isinstance(value, dg.TableMetadataValue)
    return [dict(record.data) for record in value.records]


def test_the_run_of_the_day_evaluates_every_check_of_its_assets(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    found = run(dagster_instance)
    assert sorted(found) == [
        "databases_missing",
        "disk_full_soon",
        "fleet_coverage",
        "forecast_accuracy",
        "inventory_shrank",
        "recomputed",
        "secrets_readable",
        "size_anomaly",
    ]
    assert all(evaluation.passed and not evaluation.blocking for evaluation in found.values())


def test_a_lost_database_warns_with_its_name_and_blocks_nothing(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, entry("pg", postgresql.target()))
    yesterday = date.fromordinal(today(load_settings().zone).toordinal() - 1)
    write_visits(store, yesterday, [visit(ids["pg"], {"postgres": 1000, "orders": 2000})])
    found = run(dagster_instance)
    missing = found["databases_missing"]
    assert not missing.passed
    assert missing.severity == dg.AssetCheckSeverity.WARN
    assert missing.description is not None
    assert "1 databases have no size on" in missing.description
    assert rows(missing, "databases") == [
        {
            "instance": "pg",
            "database": "orders",
            "state": "no longer listed",
            "last_day": yesterday.isoformat(),
            "size_bytes": 2000,
        }
    ]
    assert found["inventory_shrank"].metadata["databases_fewer"].value == 1
    assert found["recomputed"].passed


def test_secrets_are_checked_also_when_no_server_could_be_visited(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    register(store, refusing("gone") | {"credential": {"username": "u", "password_env": "NOT_THERE"}})
    found = run(dagster_instance)
    secrets = found["secrets_readable"]
    assert (secrets.passed, secrets.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert secrets.description == (
        "1 secrets cannot be read; instances affected: gone. Set what the table names, then collect again"
    )
    assert rows(secrets, "secrets") == [
        {
            "credential": "u (env:NOT_THERE)",
            "error": "environment variable NOT_THERE is not set",
            "instances": "gone",
        }
    ]


def test_a_secret_that_nobody_needs_is_a_warning(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    register(store, refusing("gone") | {"credential": {"username": "u", "password_env": "NOT_THERE"}})
    register(store, refusing("other"))
    monkeypatch.setattr(StoreResource, "engine", property(lambda _: store))
    result = secrets_result(StoreResource())
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_one_check_can_be_evaluated_alone(store: Engine, dagster_instance: dg.DagsterInstance) -> None:  # noqa: ARG001
    selection = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("size_anomalies"), "size_anomaly"))
    job = dg.define_asset_job("one_check", selection).resolve(asset_graph=defs.resolve_asset_graph())
    result = job.execute_in_process(instance=dagster_instance, resources={"store": StoreResource()}, run_config={})
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.description) == ("size_anomaly", "nothing was forecast yet")


def test_a_fleet_of_nobody_passes_every_check(store: Engine, dagster_instance: dg.DagsterInstance) -> None:  # noqa: ARG001
    assert all(evaluation.passed for evaluation in run(dagster_instance).values())


def test_an_instance_that_lists_fewer_than_half_is_an_error() -> None:
    some = inventory_result(DAY, [ShrunkInstance("a", 6, 12, BEFORE)])
    most = inventory_result(DAY, [ShrunkInstance("a", 5, 12, BEFORE), ShrunkInstance("b", 1, 2, BEFORE)])
    assert (some.passed, some.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (most.passed, most.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert most.metadata["databases_fewer"].value == 8
    assert most.description is not None
    assert most.description.startswith("2 instances list fewer databases on 2026-06-25 than before: a (12 to 5), b (2")


def test_the_table_holds_the_worst_twenty_and_the_figures_all() -> None:
    lost = [LostDatabase("a", f"db{number}", number % 2 == 0, BEFORE, 100 - number) for number in range(30)]
    result = missing_result(DAY, lost)
    assert len(rows(result, "databases")) == 20
    assert result.metadata["databases_not_measured"].value == 15
    assert result.metadata["databases_gone"].value == 15
    assert result.metadata["size_bytes_before"].value == sum(range(71, 101))
    assert result.description is not None
    assert "a/db4 and 25 more. 15 are still listed" in result.description


def test_every_check_is_documented_under_its_name() -> None:
    page = (PROJECT_ROOT / "docs" / "checks.md").read_text()
    for key in defs.resolve_asset_graph().asset_check_keys:
        assert f"\n## {key.name}\n" in page


@pytest.mark.parametrize("spec", [*size_stats.check_specs, *stats_checks.check_specs], ids=lambda spec: spec.name)
def test_the_description_of_a_check_leads_to_its_documentation(spec: dg.AssetCheckSpec) -> None:
    assert f"docs/checks.md#{spec.name}" in str(spec.description)
    assert not spec.blocking
