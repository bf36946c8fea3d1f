"""Eleven days of a whole deployment, tick by tick, on a clock that stands still until the test moves it.

Dagster's own scheduler, sensor and queue loops work on Dagster's own storage, the runs they launch visit real servers,
and everything in this process sees the hour that the test says. In these days, which contain the turn of a week, a
month and a quarter: a server is down for two days, the machine of the daemon for two others and for a morning, it
is restarted between a tick and its runs, and the sizes of the missed days arrive late.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
import time_machine
import yaml
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs
from sqlalchemy import Engine, text

from whalefall_capacity.assets.imported import report_stored_days
from whalefall_capacity.definitions import defs
from whalefall_capacity.history_file import read_history
from whalefall_capacity.mirror.reconcile import audit
from whalefall_capacity.settings import PREFIX, PROJECT_ROOT
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity_tests.from_scratch import assert_as_from_scratch
from whalefall_capacity_tests.registry import entry, register
from whalefall_capacity_tests.servers import MariadbFleetServer, PostgresqlServer

ZONE = ZoneInfo("Asia/Shanghai")
LOG = logging.getLogger("eleven days")
LAUNCHER = {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}
LOCATION = InProcessWorkspaceLoadTarget(
    InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="whalefall_capacity.definitions", attribute="defs"),
        location_name="whalefall_capacity",
    )
)
FIRST = date(2026, 6, 24)
DAYS = 11
# When the daemon is watched besides the hours of the schedules: nothing is due then.
QUIET_HOUR = 17
MOST_ROUNDS = 20
DAYS_COLLECTED = """
SELECT collected_date, source, count(*) FROM instance_size_stats GROUP BY collected_date, source ORDER BY collected_date
"""


def hour(day: date, hours: int, minutes: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hours, minutes, tzinfo=ZONE)


@dataclass
class Daemon:
    """The machine on which Dagster's daemon runs, which can be switched on and off."""

    home: Path
    clock: time_machine.Traveller
    instance: dg.DagsterInstance = field(init=False)
    context: WorkspaceProcessContext = field(init=False)
    power: ExitStack = field(default_factory=ExitStack)

    def switch_on(self) -> None:
        self.instance = self.power.enter_context(dg.DagsterInstance.from_config(str(self.home)))
        self.context = self.power.enter_context(WorkspaceProcessContext(self.instance, LOCATION))

    def switch_off(self) -> None:
        self.power.close()

    def tick(self) -> None:
        """Let the schedules and the sensors that are due be evaluated once."""
        deque(launch_scheduled_runs(self.context, LOG, datetime.now(timezone.utc), {}), maxlen=0)
        deque(execute_sensor_iteration(self.context, LOG, None, None), maxlen=0)

    def work_off_queue(self) -> None:
        with QueuedRunCoordinatorDaemon(interval_seconds=1) as queue:
            deque(queue.run_iteration(self.context), maxlen=0)

    def live(self, moment: datetime) -> int:
        """Work from *moment* on, a minute at a time, until nothing is left to do; return how many runs there were."""
        self.clock.move_to(moment)
        before = unfinished = self.instance.get_runs_count()
        for _ in range(MOST_ROUNDS):
            self.tick()
            self.work_off_queue()
            runs = self.instance.get_runs_count()
            if runs == unfinished and not self.waiting():
                return runs - before
            unfinished = runs
            self.clock.shift(timedelta(minutes=1))
        raise AssertionError(f"{self.waiting()} runs still wait after {MOST_ROUNDS} minutes")

    def waiting(self) -> int:
        return self.instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))

    def day(self, day: date) -> int:
        """Live through a day without a surprise; return how many runs there were."""
        runs = self.live(hour(day, 3)) + self.live(hour(day, 4, 30))
        assert self.live(hour(day, QUIET_HOUR)) == 0
        return runs

    def ticks(self, name: str) -> list[tuple[TickStatus, str | None]]:
        """Return how the ticks of a schedule or a sensor ended, oldest first."""
        state = next(s for s in self.instance.all_instigator_state() if s.instigator_name == name)
        ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        return [(tick.status, tick.tick_data.skip_reason) for tick in reversed(ticks)]


@pytest.fixture
def daemon(tmp_path: Path, store_server: EmbeddedPostgres, store: Engine) -> Iterator[Daemon]:
    """The deployment of dagster.yaml, except that a run is worked on by whoever takes it from the queue."""
    assert store.url.database is not None
    database = f"dagster_of_{store.url.database}"
    store_server.create_databases(database)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv(f"{PREFIX}DAGSTER_URL", store_server.url(database).get_secret_value())
    home = tmp_path / "dagster"
    home.mkdir()
    config = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text()) | {"run_launcher": LAUNCHER}
    # A whole run is no work for threads of the daemon: each sets up the logging of its process.
    config["run_coordinator"]["config"]["dequeue_use_threads"] = False
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with time_machine.travel(hour(FIRST, 2), tick=False) as clock:
        machine = Daemon(home, clock)
        machine.switch_on()
        yield machine
        machine.switch_off()
    monkeypatch.undo()


def grow(postgresql: PostgresqlServer, day: date) -> None:
    with postgresql.connect() as cursor:
        cursor.execute(f"CREATE TABLE grown_{day:%m_%d} AS SELECT generate_series(1, {1000 * day.day})")


def import_late(daemon: Daemon, store: Engine, file: Path, days: list[date]) -> None:
    """Bring the sizes of *days* from elsewhere, as `history import` does."""
    lines = [f"{name},shop,{day},{size}" for day in days for name, size in (("pg", 7_000_000), ("maria", 5_000_000))]
    file.write_text("\n".join(["instance,database,date,size_bytes", *lines, ""]))
    imported = import_history(store, read_history(file, date(2025, 1, 1), days[-1]), str(file))
    assert list(imported.changed_days) == days
    report_stored_days(daemon.instance, store, days)


@pytest.mark.slow
def test_eleven_days(
    daemon: Daemon, store: Engine, postgresql: PostgresqlServer, mariadb: MariadbFleetServer, tmp_path: Path
) -> None:
    third = EmbeddedPostgres(tmp_path / "third", 16)
    fleet = [entry("pg", postgresql.target()), entry("maria", mariadb.target())]
    days = iter(FIRST + timedelta(days=number) for number in range(DAYS))
    with ExitStack() as power_of_third:

        def switch_third_on() -> None:
            power_of_third.enter_context(third.running())

        switch_third_on()
        register(store, *fleet, entry("third", PostgresqlServer(third).target()))

        # The schedules count from their first look.
        assert daemon.live(hour(FIRST, 2)) == 0

        # Three days as they should be: a collection, its week, month and quarter, and a maintenance.
        for _ in range(3):
            day = next(days)
            grow(postgresql, day)
            assert daemon.day(day) == 5

        # A server is down on Saturday and Sunday. It is back in the afternoon, and somebody collects again by hand.
        power_of_third.close()
        for _ in range(2):
            day = next(days)
            grow(postgresql, day)
            assert daemon.day(day) == 5
        switch_third_on()
        collection = defs.resolve_job_def("sync_databases")
        assert collection.execute_in_process(instance=daemon.instance, partition_key=day.isoformat()).success
        daemon.clock.shift(timedelta(minutes=1))
        assert daemon.live(datetime.now(ZONE)) == 3

        # The machine is off on Monday and Tuesday; on Wednesday it is back before the collection. Of the ticks that
        # were missed the last one is evaluated: the maintenance is caught up, the collection reported.
        missed = [next(days), next(days)]
        daemon.switch_off()
        day = next(days)
        grow(postgresql, day)
        daemon.clock.move_to(hour(day, 1))
        daemon.switch_on()
        assert daemon.live(hour(day, 1)) == 1
        (*_, (status, reason)) = daemon.ticks("daily_collection")
        assert status is TickStatus.SKIPPED
        assert str(reason).startswith("2026-06-30 was missed: the daemon did not run at 03:00")
        assert daemon.day(day) == 5

        # Their sizes arrive late, from elsewhere: one run for each period type, and one that forecasts today again.
        import_late(daemon, store, tmp_path / "late.csv", missed)
        daemon.clock.shift(timedelta(minutes=1))
        assert daemon.live(datetime.now(ZONE)) == 5

        # On Thursday the machine is off until noon: the day is caught up.
        day = next(days)
        daemon.switch_off()
        daemon.clock.move_to(hour(day, 12))
        daemon.switch_on()
        assert daemon.live(hour(day, 12)) == 5

        # On Friday it is restarted twice, each time after it has asked for runs and before one has started.
        day = next(days)
        grow(postgresql, day)
        daemon.clock.move_to(hour(day, 3))
        for asked in (1, 3):
            daemon.tick()
            assert daemon.waiting() == asked
            daemon.switch_off()
            daemon.switch_on()
            assert daemon.waiting() == asked
            daemon.work_off_queue()
            daemon.clock.shift(timedelta(minutes=1))
        assert daemon.live(hour(day, 4, 30)) == 1

        for day in days:
            grow(postgresql, day)
            assert daemon.day(day) == 5

    runs = daemon.instance.get_runs()
    assert Counter(run.status for run in runs) == {dg.DagsterRunStatus.SUCCESS: 55}
    assert Counter(run.job_name for run in runs) == {
        "sync_databases": 10,
        "partition_maintenance": 10,
        "aggregate_daily": 1,
        "aggregate_weekly": 11,
        "aggregate_monthly": 11,
        "aggregate_quarterly": 11,
        "forecast_capacity": 1,
    }
    failed = [
        state.instigator_name
        for state in daemon.instance.all_instigator_state()
        if any(status is TickStatus.FAILURE for status, _ in daemon.ticks(state.instigator_name))
    ]
    assert failed == []
    assert audit(store, daemon.instance, datetime.now(timezone.utc) - timedelta(days=20)) == []
    with store.connect() as connection:
        statuses = connection.execute(text("SELECT status, count(*) FROM task_runs GROUP BY status"))
        assert sorted(map(tuple, statuses)) == [("completed", 53), ("completed_with_errors", 2)]
        collected = [tuple(row) for row in connection.execute(text(DAYS_COLLECTED))]
    assert collected == [
        (FIRST + timedelta(days=number), "measured", 2 if number == 3 else 3)
        if FIRST + timedelta(days=number) not in missed
        else (FIRST + timedelta(days=number), "imported", 2)
        for number in range(DAYS)
    ]
    assert_as_from_scratch(store)
