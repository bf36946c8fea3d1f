"""The sensor that follows the data, on a real Dagster instance, real servers and a real store.

Every day that landed or was corrected ends up in the four windows that contain it, whatever happens in between, and
the number of runs stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.assets.imported import report_stored_days
from whalefall_capacity.automation import sensors
from whalefall_capacity.automation.sensors import LandedDays, aggregations_follow_stats, ranges
from whalefall_capacity.definitions import defs
from whalefall_capacity.history_file import read_history
from whalefall_capacity.periods import PeriodType, days_to_windows, windows_between
from whalefall_capacity.store.aggregations.growth import database_growth
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity.watching import Watcher, shown_by
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.from_scratch import aggregation_rows, assert_as_from_scratch
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.store.past import put_sizes

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dataclass
class Daemon:
    """Evaluates the sensor as Dagster's daemon does: only a good tick moves the cursor, a run key counts once."""

    instance: dg.DagsterInstance
    cursor: str | None = None
    launched: dict[str, dg.RunRequest] = field(default_factory=dict)

    def tick(self) -> list[dg.RunRequest]:
        """Evaluate once and return the runs to launch."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor, definitions=defs) as context:
            result = aggregations_follow_stats(context)
        if isinstance(result, dg.SkipReason):
            return []
        assert isinstance(result, dg.SensorResult)
        fresh = [request for request in result.run_requests or [] if request.run_key not in self.launched]
        self.launched |= {str(request.run_key): request for request in fresh}
        self.cursor = result.cursor
        return fresh

    def run(self, request: dg.RunRequest) -> None:
        """Execute a requested run to its end."""
        job = defs.resolve_job_def(str(request.job_name))
        assert job.execute_in_process(instance=self.instance, tags=dict(request.tags)).success

    def settle(self) -> None:
        """Tick and run until nothing is left to do."""
        while requests := self.tick():
            for request in requests:
                self.run(request)


@pytest.fixture
def daemon(dagster_instance: dg.DagsterInstance) -> Daemon:
    return Daemon(dagster_instance)


def land(daemon: Daemon, store: Engine, days: Iterable[date], size: int = 100) -> None:
    """Bring sizes of *days* as an import does: rows, then the events."""
    days = list(days)
    put_sizes(store, [(1, "shop", day, size) for day in days])
    report_stored_days(daemon.instance, store, days)


def collect(daemon: Daemon) -> None:
    job = defs.resolve_job_def("sync_databases")
    assert job.execute_in_process(instance=daemon.instance, partition_key=today().isoformat()).success


def asked(requests: Iterable[dg.RunRequest]) -> list[tuple[str, str, str]]:
    return [(str(r.job_name), r.tags[RANGE_START], r.tags[RANGE_END]) for r in requests]


def test_a_collected_day_sets_off_its_week_month_and_quarter(
    daemon: Daemon, store: Engine, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    collect(daemon)
    requests = daemon.tick()
    assert [request.job_name for request in requests] == [
        "aggregate_weekly",
        "aggregate_monthly",
        "aggregate_quarterly",
    ]
    for request in requests:
        daemon.run(request)
    assert daemon.tick() == []
    assert_as_from_scratch(store)


def test_a_failed_coverage_check_holds_nothing_back(
    daemon: Daemon, store: Engine, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()), refusing("gone"), refusing("away"))
    collect(daemon)
    daemon.settle()
    assert len(daemon.launched) == 3
    assert_as_from_scratch(store)


class TickBeforeTheEnd(Watcher[Any, Any]):
    """Evaluates the sensor when the aggregation of a level has read the stats, and its step has not ended."""

    def __init__(self, daemon: Daemon, error: Exception | None = None) -> None:
        self.daemon = daemon
        self.error = error
        self.asked: list[list[dg.RunRequest]] = []

    def progressed(self, done: int, total: int) -> None:
        if done == total:
            self.asked.append(self.daemon.tick())
            if self.error:
                raise self.error


def test_a_run_that_is_about_to_aggregate_the_day_it_measured_is_not_overtaken(
    daemon: Daemon, store: Engine, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    early = TickBeforeTheEnd(daemon)
    with shown_by(early):
        collect(daemon)
    assert early.asked == [[], []]
    assert [request.job_name for request in daemon.tick()] == [
        "aggregate_weekly",
        "aggregate_monthly",
        "aggregate_quarterly",
    ]


def test_a_day_whose_own_run_failed_to_aggregate_it_is_aggregated(
    daemon: Daemon, store: Engine, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    with shown_by(TickBeforeTheEnd(daemon, OSError("the disk is full"))), pytest.raises(OSError, match="disk is full"):
        collect(daemon)
    daemon.settle()
    assert sorted({str(request.job_name) for request in daemon.launched.values()}) == [
        "aggregate_daily",
        "aggregate_monthly",
        "aggregate_quarterly",
        "aggregate_weekly",
    ]
    assert_as_from_scratch(store)


def test_an_unchanged_day_sets_nothing_off(daemon: Daemon, store: Engine) -> None:
    yesterday = today() - timedelta(days=1)
    land(daemon, store, [yesterday])
    daemon.settle()
    before = len(daemon.launched)
    job = defs.resolve_job_def("sync_databases")
    assert job.execute_in_process(instance=daemon.instance, partition_key=yesterday.isoformat()).success
    assert daemon.tick() == []
    assert len(daemon.launched) == before


def test_an_import_of_a_hundred_days_is_one_tick_and_four_runs(daemon: Daemon, store: Engine) -> None:
    first = today() - timedelta(days=100)
    land(daemon, store, [first + timedelta(days=d) for d in range(100)])
    requests = daemon.tick()
    assert asked(requests) == [
        (f"aggregate_{period_type.value}", str(windows[0].start), str(windows[-1].start))
        for period_type in PeriodType
        if (windows := windows_between(first, first + timedelta(days=99), period_type))
    ]
    for request in requests:
        daemon.run(request)
    assert daemon.tick() == []
    assert_as_from_scratch(store)


def test_days_that_lie_apart_do_not_drag_in_what_lies_between(daemon: Daemon, store: Engine) -> None:
    land(daemon, store, [date(2025, 3, 3), date(2025, 3, 4), date(2026, 2, 2)])
    assert asked(daemon.tick()) == [
        ("aggregate_daily", "2025-03-03", "2025-03-04"),
        ("aggregate_daily", "2026-02-02", "2026-02-02"),
        ("aggregate_weekly", "2025-03-03", "2025-03-03"),
        ("aggregate_weekly", "2026-02-02", "2026-02-02"),
        ("aggregate_monthly", "2025-03-01", "2025-03-01"),
        ("aggregate_monthly", "2026-02-01", "2026-02-01"),
        ("aggregate_quarterly", "2025-01-01", "2025-01-01"),
        ("aggregate_quarterly", "2026-01-01", "2026-01-01"),
    ]


def test_days_scattered_over_years_are_still_few_runs() -> None:
    days = [date(2025, 1, 1) + timedelta(days=40 * n) for n in range(15)]
    for period_type in PeriodType:
        assert len(ranges(days_to_windows(days, period_type))) <= 3


def test_a_day_that_lands_while_the_run_of_its_week_is_under_way_is_not_lost(daemon: Daemon, store: Engine) -> None:
    monday = date(2026, 3, 2)
    land(daemon, store, [monday])
    requests = daemon.tick()
    landed: list[bool] = []

    class LandLate(Watcher[Any, Any]):
        def progressed(self, done: int, total: int) -> None:
            # The step has read the stats, and has not ended.
            if done == total and not landed:
                landed.append(True)
                land(daemon, store, [monday + timedelta(days=1)], size=500)

    with shown_by(LandLate()):
        for request in requests:
            daemon.run(request)
    daemon.settle()
    with store.connect() as connection:
        weeks = connection.execute(
            text("SELECT data_count, max_size_bytes FROM database_size_aggregations WHERE period_type = 'weekly'")
        )
        assert [tuple(row) for row in weeks] == [(2, 500)]
    assert len(daemon.launched) == 8
    assert_as_from_scratch(store)


def test_a_tick_that_fails_in_the_middle_loses_nothing_and_launches_nothing_twice(
    daemon: Daemon, store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(daemon, store, [date(2026, 3, 2)])
    real = sensors.requests_for

    def failing(instance: dg.DagsterInstance, period_type: PeriodType, landed: LandedDays) -> Iterator[dg.RunRequest]:
        if period_type is PeriodType.MONTHLY:
            raise ConnectionError("the storage is away")
        yield from real(instance, period_type, landed)

    monkeypatch.setattr(sensors, "requests_for", failing)
    with pytest.raises(ConnectionError):
        daemon.tick()
    monkeypatch.setattr(sensors, "requests_for", real)
    first = daemon.tick()
    daemon.cursor = None  # The daemon died after it launched the runs, and before it kept the cursor.
    assert daemon.tick() == []
    for request in first:
        daemon.run(request)
    daemon.settle()
    assert len(daemon.launched) == 4
    assert_as_from_scratch(store)


def test_a_daemon_that_was_away_catches_up_in_one_tick(daemon: Daemon, store: Engine) -> None:
    days = [date(2026, 3, 2) + timedelta(days=d) for d in range(10)]
    for size, _ in enumerate(range(6), start=1):
        land(daemon, store, days, size)
    assert len(daemon.tick()) == 4
    assert daemon.tick() == []


def test_what_a_queued_run_will_read_anyway_is_not_asked_for_again(daemon: Daemon, store: Engine) -> None:
    land(daemon, store, [date(2026, 3, 2)])
    for request in daemon.tick():
        daemon.instance.create_run_for_job(
            defs.resolve_job_def(str(request.job_name)), tags=dict(request.tags), status=dg.DagsterRunStatus.NOT_STARTED
        )
    land(daemon, store, [date(2026, 3, 2)], size=7)
    assert daemon.tick() == []


def test_a_sealed_quarter_whose_raw_months_are_gone_survives_and_still_serves_as_baseline(
    daemon: Daemon, store: Engine, tmp_path: Path
) -> None:
    last_quarter = [date(2026, 1, 5), date(2026, 2, 5), date(2026, 3, 5)]
    land(daemon, store, last_quarter, size=100)
    daemon.settle()
    with store.begin() as connection:
        connection.execute(text("UPDATE aggregation_windows SET sealed_at = now()"))
        for month in ("01", "02", "03"):
            for level in Level:
                connection.execute(text(f"DROP TABLE {level.value}_size_stats_2026_{month}"))
    before = aggregation_rows(store)
    # A backfill, which is what a click on Materialize does too.
    for period_type in PeriodType:
        job = defs.resolve_job_def(f"aggregate_{period_type.value}")
        windows = windows_between(last_quarter[0], last_quarter[-1], period_type)
        tags = {RANGE_START: windows[0].start.isoformat(), RANGE_END: windows[-1].start.isoformat()}
        assert job.execute_in_process(instance=daemon.instance, tags=tags).success
    # One of its days is imported again, with another size.
    history = tmp_path / "again.csv"
    history.write_text("instance,database,date,size_bytes\ninstance-1,shop,2026-02-05,999\n")
    imported = import_history(store, read_history(history, date(2025, 1, 1), today()), str(history))
    assert imported.written == 1
    report_stored_days(daemon.instance, store, imported.changed_days)
    daemon.settle()
    assert aggregation_rows(store) == before

    land(daemon, store, [date(2026, 4, 6)], size=150)
    daemon.settle()
    (quarter,) = database_growth(store, PeriodType.QUARTERLY, date(2026, 4, 1), date(2026, 4, 1), 1, "shop")
    assert (quarter.baseline_start, quarter.size_change_bytes) == (date(2026, 1, 1), 50)
