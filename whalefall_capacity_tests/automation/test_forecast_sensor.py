"""The sensor that lets today's forecast follow the sizes, on a real Dagster instance and a real store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta

import dagster as dg
import pytest
from sqlalchemy import Engine

from whalefall_capacity.assets.imported import report_stored_days
from whalefall_capacity.automation.sensors import forecasts_follow_stats
from whalefall_capacity.dagster_private import StepMaterializationData
from whalefall_capacity.definitions import defs
from whalefall_capacity.store.insight.read import accuracy_of_days, forecasts_of_day
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.registry import entry, register
from whalefall_capacity_tests.resources.runs import queued_run, report, started_run
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.store.past import MIB, put_sizes


@dataclass
class Daemon:
    """Evaluates the sensor as Dagster's daemon does: a run key counts once."""

    instance: dg.DagsterInstance
    cursor: str | None = None
    launched: set[str] = field(default_factory=set)

    def tick(self, last_look: float | None = None) -> list[str]:
        """Evaluate once, the last time having been at *last_look*, and return the partitions to forecast."""
        with dg.SensorEvaluationContext(
            None, last_look, cursor=self.cursor, instance=self.instance, definitions=defs
        ) as context:
            result = forecasts_follow_stats(context)
        if isinstance(result, dg.SkipReason):
            return []
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        fresh = [request for request in result.run_requests or [] if request.run_key not in self.launched]
        self.launched |= {str(request.run_key) for request in fresh}
        return [str(request.partition_key) for request in fresh]


@pytest.fixture
def daemon(dagster_instance: dg.DagsterInstance) -> Daemon:
    return Daemon(dagster_instance)


def land(daemon: Daemon, store: Engine, days: range, bytes_per_day: int = MIB) -> None:
    """Bring sizes of so many days ago as an import does: rows, then the events."""
    landed = [today() - timedelta(days=age) for age in days]
    put_sizes(store, [(1, "shop", day, 10**9 - age * bytes_per_day) for day, age in zip(landed, days, strict=True)])
    report_stored_days(daemon.instance, store, landed)


def materialize(daemon: Daemon, job: str, day: date) -> None:
    found = defs.resolve_job_def(job)
    assert found.execute_in_process(instance=daemon.instance, partition_key=day.isoformat()).success


def test_an_import_of_a_year_lets_today_be_forecast_once_and_accuracy_is_known(daemon: Daemon, store: Engine) -> None:
    land(daemon, store, range(365, 0, -1))
    assert daemon.tick() == [today().isoformat()]
    assert daemon.tick() == []
    materialize(daemon, "forecast_capacity", today())
    assert [found.status for found in forecasts_of_day(store, today())] == ["no_limit"]
    assert {found.forecasts for found in accuracy_of_days(store, today(), today())} == {1}
    assert daemon.tick() == []


def test_a_corrected_day_lets_today_be_forecast_again(daemon: Daemon, store: Engine) -> None:
    land(daemon, store, range(20, 0, -1))
    daemon.tick()
    land(daemon, store, range(5, 4, -1), bytes_per_day=2 * MIB)
    assert daemon.tick() == [today().isoformat()]


def test_the_run_that_measures_today_forecasts_it_and_sets_nothing_off(
    daemon: Daemon, store: Engine, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    materialize(daemon, "sync_databases", today())
    assert daemon.tick() == []
    assert [found.status for found in forecasts_of_day(store, today())] == ["no_limit"]


def test_a_run_that_is_about_to_forecast_the_day_it_measured_is_not_overtaken(daemon: Daemon, store: Engine) -> None:
    measuring = started_run(daemon.instance, "sync_databases", tags={"dagster/partition": today().isoformat()})
    put_sizes(store, [(1, "shop", today(), 10**9)])
    stats = dg.AssetMaterialization("database_size_stats", partition=today().isoformat())
    daemon.instance.report_dagster_event(
        dg.DagsterEvent(
            dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            "sync_databases",
            event_specific_data=StepMaterializationData(stats),
        ),
        measuring,
    )
    assert daemon.tick() == []
    report(daemon.instance, measuring, dg.DagsterEventType.RUN_FAILURE)
    assert daemon.tick() == [today().isoformat()]


def test_days_before_the_history_set_nothing_off(daemon: Daemon, store: Engine) -> None:
    land(daemon, store, range(300, 280, -1))
    assert daemon.tick() == []


def test_a_run_that_waits_will_see_what_landed(daemon: Daemon, store: Engine) -> None:
    queued_run(daemon.instance, "forecast_capacity", {"dagster/partition": today().isoformat()})
    land(daemon, store, range(3, 0, -1))
    assert daemon.tick() == []


def test_what_landed_is_aggregated_before_it_is_forecast(daemon: Daemon, store: Engine) -> None:
    land(daemon, store, range(3, 0, -1))
    before, after = 0.0, 2.0**40
    # The sensor of the aggregations may not have looked yet.
    assert daemon.tick(last_look=before) == []
    run = started_run(daemon.instance, "aggregate_weekly", tags={"whalefall/trigger": "sensor"})
    assert daemon.tick(last_look=after) == []
    report(daemon.instance, run, dg.DagsterEventType.RUN_FAILURE)
    assert daemon.tick(last_look=after) == [today().isoformat()]


def test_a_backfill_of_aggregations_delays_no_forecast(daemon: Daemon, store: Engine) -> None:
    land(daemon, store, range(3, 0, -1))
    started_run(daemon.instance, "aggregate_weekly", tags={"dagster/backfill": "years"})
    assert daemon.tick() == [today().isoformat()]
