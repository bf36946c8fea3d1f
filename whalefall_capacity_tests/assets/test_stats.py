"""The two stats assets: one visit feeds both, only today is measured, and failures are told by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import time_machine
from sqlalchemy import Engine, text

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS
from whalefall_capacity.assets.external import SERVERS
from whalefall_capacity.assets.stats import LoggedItems, size_stats
from whalefall_capacity.automation.schedules import daily_collection
from whalefall_capacity.collection.sizes import DatabaseSize, Measurement, Visit
from whalefall_capacity.definitions import defs
from whalefall_capacity.mirror.follow import failure_text
from whalefall_capacity.resources.fleet import Collection, FleetResource
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity_tests.clock import ZONE, today
from whalefall_capacity_tests.collection.support import settled
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import MariadbFleetServer, PostgresqlServer

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


class Unmirrored(TaskRunsResource):
    """The task run of nobody, which is never cancelled."""

    def raise_if_cancelled(self) -> None:
        pass


@pytest.fixture
def shop(postgresql: PostgresqlServer) -> Iterator[str]:
    """A database of the PostgreSQL server, for the length of the test."""
    with postgresql.connect() as cursor:
        cursor.execute("CREATE DATABASE shop")
    with postgresql.connect("shop") as cursor:
        cursor.execute("CREATE TABLE orders AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    yield "shop"
    with postgresql.connect() as cursor:
        cursor.execute("DROP DATABASE shop WITH (FORCE)")


def materialize(
    instance: dg.DagsterInstance, first: date, last: date | None = None, **config: Any
) -> dg.ExecuteInProcessResult:
    """Materialize one partition, or a range of partitions in one run."""
    tags = {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()} if last else None
    return dg.materialize(
        [*SERVERS, size_stats],
        instance=instance,
        resources={"store": StoreResource(), "fleet": FleetResource(), "task_runs": TaskRunsResource()},
        partition_key=None if last else first.isoformat(),
        tags=tags,
        run_config={"ops": {"size_stats": {"config": config}}},
        raise_on_error=False,
    )


def stored(store: Engine) -> list[tuple[Any, ...]]:
    query = """
        SELECT i.name, s.database_name, s.collected_date FROM database_size_stats AS s
        JOIN instances AS i ON i.id = s.instance_id ORDER BY 1, 2, 3
    """
    with store.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def partitions(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[str]:
    return sorted(instance.get_materialized_partitions(key))


def metadata(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    """Return the metadata of the one materialization of *key*."""
    (event,) = [e for e in result.asset_materializations_for_node("size_stats") if e.asset_key == key]
    return {name: value.value for name, value in event.metadata.items()}


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_node_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return str(data.description)


def coverage(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "fleet_coverage"]
    return found


def store_past(store: Engine, server: PostgresqlServer, instance_id: int, days: Sequence[date]) -> None:
    """Leave sizes of *days*, as if they had been measured then."""
    for day in days:
        measurement = Measurement("16", (DatabaseSize("shop", 1000),), None)
        visit = Visit(server.target("pg", instance_id), measurement, datetime.now(ZONE), 0.1)
        write_visits(store, day, [visit])


def test_one_visit_feeds_both_assets(
    store: Engine,
    dagster_instance: dg.DagsterInstance,
    postgresql: PostgresqlServer,
    mariadb: MariadbFleetServer,
    shop: str,
) -> None:
    register(store, entry("pg", postgresql.target()), entry("maria", mariadb.target()))

    def asked() -> Any:
        with postgresql.connect() as cursor:
            cursor.execute("SELECT sum(pg_database_size(oid))::bigint FROM pg_database WHERE NOT datistemplate")
            return cursor.fetchone()

    def measured() -> Any:
        assert materialize(dagster_instance, today()).success
        query = "SELECT total_size_bytes FROM instance_size_stats JOIN instances ON id = instance_id WHERE name = 'pg'"
        with store.connect() as connection:
            return connection.execute(text(query)).one()

    by_server, stored_total = settled(asked, measured)
    assert stored_total == by_server
    assert ("pg", shop, today()) in stored(store)
    assert ("pg", "postgres", today()) in stored(store)
    assert partitions(dagster_instance, DATABASE_SIZE_STATS) == [today().isoformat()]
    assert partitions(dagster_instance, INSTANCE_SIZE_STATS) == [today().isoformat()]


def test_metadata_holds_what_an_operator_needs(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer, shop: str
) -> None:
    register(store, entry("pg", postgresql.target()), refusing("gone"))
    found = metadata(materialize(dagster_instance, today()), DATABASE_SIZE_STATS)
    assert found["instances_ok"] == 1
    assert found["instances_failed"] == 1
    assert found["databases"] == found["dagster/partition_row_count"] == 2
    assert found["total_size_bytes"] > 10_000_000
    assert [record.data["database"] for record in found["biggest_databases"].records] == [shop, "postgres"]
    (failed,) = found["failed_instances"].records
    assert failed.data["instance"] == "gone"
    assert "127.0.0.1:1" in str(failed.data["error"])


def test_some_failing_instances_leave_a_partition_and_a_warning_with_their_names(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()), refusing("gone"))
    result = materialize(dagster_instance, today())
    check = coverage(result)
    assert result.success
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.description == f"1 of 2 instances reported their sizes for {today()}; not: gone"
    assert "gone: connecting to 127.0.0.1:1 as nobody failed" in str(check.metadata["gone"].value)


def test_of_very_many_failing_instances_the_first_are_named_and_the_others_counted(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()), *(refusing(f"gone-{number:03}") for number in range(120)))
    result = materialize(dagster_instance, today())
    found = metadata(result, DATABASE_SIZE_STATS)
    assert (found["instances_ok"], found["instances_failed"]) == (1, 120)
    assert len(found["failed_instances"].records) == 100
    check = coverage(result)
    answers = f"1 of 121 instances reported their sizes for {today()}"
    assert str(check.description).startswith(f"{answers}; not: gone-000, gone-001, ")
    assert str(check.description).endswith(", gone-099 and 20 more")
    assert len(check.metadata) == 100
    assert all("connecting to 127.0.0.1:1 as nobody failed" in str(why.value) for why in check.metadata.values())


def test_a_collection_counts_sizes_and_names_the_first_hundred_that_are_missing(postgresql: PostgresqlServer) -> None:
    found = Collection()
    databases = [DatabaseSize(f"shop{n}", 1000) for n in range(300)]
    databases += [DatabaseSize(f"locked{n}", None, "no CONNECT privilege") for n in range(300)]
    for number in range(10):
        target, measurement = postgresql.target(f"pg{number}"), Measurement("16", tuple(databases), None)
        found.add(Visit(target, measurement, datetime.now(ZONE), 0.1))
    assert (found.measured, found.databases, found.databases_missing) == (10, 3000, 3000)
    assert found.total_size_bytes == 3_000_000
    assert found.first_missing == [("pg0", f"locked{n}", "no CONNECT privilege") for n in range(100)]


def test_fewer_than_half_of_the_fleet_is_an_error_but_blocks_nothing(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()), refusing("gone"), refusing("away"))
    result = materialize(dagster_instance, today())
    check = coverage(result)
    assert result.success
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert check.blocking is False


def test_a_run_in_which_all_instances_fail_fails(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    register(store, refusing("gone"), refusing("away"))
    result = materialize(dagster_instance, today())
    assert not result.success
    assert failure(result).startswith("none of 2 instances could be measured; the first: ")
    assert partitions(dagster_instance, DATABASE_SIZE_STATS) == []


def test_a_fleet_of_nobody_is_skipped_not_failed(store: Engine, dagster_instance: dg.DagsterInstance) -> None:
    result = materialize(dagster_instance, today())
    assert result.success
    assert metadata(result, INSTANCE_SIZE_STATS)["skipped"] is True
    assert stored(store) == []


def test_the_log_of_a_run_names_the_servers_that_failed_and_counts_the_others(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, *(entry(f"pg-{n}", postgresql.target()) for n in range(5)), refusing("gone"))
    result = materialize(dagster_instance, today())
    lines = [e.user_message for e in dagster_instance.all_logs(result.run_id) if not e.is_dagster_event]
    told = [line for line in lines if "servers visited" not in line]
    assert len(told) == 1
    assert told[0].startswith("gone: connecting to 127.0.0.1:1 as nobody failed: ")
    assert lines[-1] == "6 servers visited, 1 of them not measured"


def test_progress_is_told_once_a_second_at_most_and_only_when_there_is_some(caplog: pytest.LogCaptureFixture) -> None:
    moments = [(0.0, 0), (0.5, 400), (1.0, 1200), (1.9, 1500), (2.0, 1500), (3.5, 1500), (3.6, 1600)]
    log = logging.getLogger("progress")
    caplog.set_level(logging.INFO, "progress")
    items = LoggedItems(Unmirrored(), log, iter([0.0, *(moment for moment, _ in moments)]).__next__)
    for _, done in moments:
        items.progressed(done, 20_000)
    assert caplog.messages == [f"{done} of 20,000 servers visited" for done in ("1,200", "1,500", "1,600")]


def test_instance_ids_measure_a_few_servers_and_leave_the_rows_of_the_others(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, entry("first", postgresql.target()), entry("second", postgresql.target()))
    assert materialize(dagster_instance, today()).success
    touched = "SELECT i.name, s.collected_at FROM instance_size_stats AS s JOIN instances AS i ON i.id = s.instance_id"
    with store.connect() as connection:
        before = {row.name: row.collected_at for row in connection.execute(text(touched))}
    assert materialize(dagster_instance, today(), instance_ids=[ids["second"]]).success
    with store.connect() as connection:
        after = {row.name: row.collected_at for row in connection.execute(text(touched))}
    assert after["first"] == before["first"]
    assert after["second"] > before["second"]


@pytest.mark.parametrize("unknown", [4711, -1, 2**31])
def test_an_unknown_instance_id_fails_and_measures_nobody(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer, unknown: int
) -> None:
    register(store, entry("pg", postgresql.target()))
    result = materialize(dagster_instance, today(), instance_ids=[unknown])
    assert not result.success
    assert stored(store) == []
    assert failure_text(dagster_instance, result.run_id) == (
        f"whalefall_capacity.errors.FleetError: instance ids {unknown} are not in the fleet; `whalefall-capacity fleet "
        "list` shows it"
    )


def test_a_past_day_is_reported_from_the_store_and_changes_nothing(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, entry("pg", postgresql.target()))
    yesterday = today() - timedelta(days=1)
    store_past(store, postgresql, ids["pg"], [yesterday])
    result = materialize(dagster_instance, yesterday)
    assert result.success
    assert metadata(result, DATABASE_SIZE_STATS)["measured_now"] is False
    assert metadata(result, DATABASE_SIZE_STATS)["total_size_bytes"] == 1000
    assert stored(store) == [("pg", "shop", yesterday)]


def test_a_past_day_of_which_nothing_is_stored_fails_and_is_not_retried(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    result = materialize(dagster_instance, today() - timedelta(days=3))
    assert failure(result).startswith(f"nothing is stored for {today() - timedelta(days=3)}, and a past day cannot")
    (event,) = [event for event in result.all_node_events if event.is_step_failure]
    assert event.step_failure_data.user_failure_data is not None
    assert not result.success
    assert stored(store) == []


def test_in_a_range_today_is_measured_and_stored_days_are_materialized_before_the_step_fails_for_the_others(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, entry("pg", postgresql.target()))
    days = [today() - timedelta(days=age) for age in (3, 2, 1, 0)]
    store_past(store, postgresql, ids["pg"], [days[0], days[2]])
    result = materialize(dagster_instance, days[0], days[3])
    assert not result.success
    assert failure(result).startswith(f"nothing is stored for {days[1]}, and")
    materialized = [day.isoformat() for day in (days[0], days[2], days[3])]
    assert partitions(dagster_instance, DATABASE_SIZE_STATS) == materialized
    assert partitions(dagster_instance, INSTANCE_SIZE_STATS) == materialized
    assert ("pg", "postgres", days[3]) in stored(store)


def test_in_a_range_stored_days_are_materialized_before_the_step_fails_because_no_server_could_be_measured(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, refusing("gone"))
    days = [today() - timedelta(days=age) for age in (3, 2, 1, 0)]
    store_past(store, postgresql, ids["gone"], [days[0], days[2]])
    result = materialize(dagster_instance, days[0], days[3])
    assert not result.success
    told = failure(result)
    assert told.startswith("the instance could not be measured: gone: connecting to 127.0.0.1:1 as nobody failed: ")
    assert f"; nothing is stored for {days[1]}, and a past day cannot be measured; " in told
    stored_before = [day.isoformat() for day in (days[0], days[2])]
    assert partitions(dagster_instance, DATABASE_SIZE_STATS) == stored_before
    assert partitions(dagster_instance, INSTANCE_SIZE_STATS) == stored_before
    records = dagster_instance.fetch_materializations(DATABASE_SIZE_STATS, limit=10).records
    assert [r.asset_materialization.metadata["measured_now"].value for r in records if r.asset_materialization] == [
        False,
        False,
    ]


def test_sizes_that_an_earlier_run_stored_today_are_not_reported_by_one_that_could_measure_no_server(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, refusing("gone"))
    yesterday = today() - timedelta(days=1)
    store_past(store, postgresql, ids["gone"], [yesterday, today()])
    result = materialize(dagster_instance, yesterday, today())
    assert failure(result).startswith("the instance could not be measured: gone: ")
    assert "nothing is stored" not in failure(result)
    assert partitions(dagster_instance, DATABASE_SIZE_STATS) == [yesterday.isoformat()]


def test_a_range_of_stored_days_is_one_run(
    store: Engine, dagster_instance: dg.DagsterInstance, postgresql: PostgresqlServer
) -> None:
    ids = register(store, entry("pg", postgresql.target()))
    days = [today() - timedelta(days=age) for age in range(30, 0, -1)]
    store_past(store, postgresql, ids["pg"], days)
    assert materialize(dagster_instance, days[0], days[-1]).success
    assert partitions(dagster_instance, INSTANCE_SIZE_STATS) == [day.isoformat() for day in days]


def test_the_schedule_targets_the_day_on_which_its_tick_is_due(store: Engine) -> None:  # noqa: ARG001 - its settings
    # Half past midnight in Shanghai on the 25th is still the 24th in UTC.
    due = datetime(2026, 11, 25, 0, 30, tzinfo=ZONE)
    with time_machine.travel(due, tick=False), dg.build_schedule_context(scheduled_execution_time=due) as context:
        request = daily_collection(context)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-11-25"


def test_the_schedule_runs_by_default_at_three_in_the_configured_zone() -> None:
    assert daily_collection.default_status == dg.DefaultScheduleStatus.RUNNING
    assert daily_collection.cron_schedule == "0 3 * * *"
    assert daily_collection.execution_timezone == str(ZONE)


def test_definitions_load() -> None:
    dg.Definitions.validate_loadable(defs)
