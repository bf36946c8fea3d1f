"""A few minutes of a deployment that nobody touches: its own daemon, its own schedules, its own sensors.

The schedules are due once in these minutes, for one collection and one maintenance. A server is down, the daemon is
killed, and a history is imported; in the end everything is as if it had been calculated from scratch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS
from whalefall_capacity.mirror.reconcile import audit
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity_tests.from_scratch import assert_as_from_scratch
from whalefall_capacity_tests.processes import deployment, run, wait_for
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE, entry, refusing, register
from whalefall_capacity_tests.run_centre import Centre, dagster_instance_of
from whalefall_capacity_tests.servers import MariadbFleetServer, PostgresqlServer

pytestmark = pytest.mark.slow

# Time for the deployment to start before its schedules are due, in whole minutes of the clock.
DUE_IN = timedelta(minutes=2)
OVER = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
SENSORS = ("aggregations_follow_stats", "forecasts_follow_stats")
PERIODS = ("weekly", "monthly", "quarterly")
SCHEDULED = {"sync_databases": 1, "partition_maintenance": 1} | {f"aggregate_{period}": 1 for period in PERIODS}


@pytest.fixture
def alone(
    tmp_path: Path, store_server: EmbeddedPostgres, postgresql: PostgresqlServer, mariadb: MariadbFleetServer
) -> Iterator[tuple[Centre, dict[str, str]]]:
    """A deployment with two servers and one that is down, and the settings with which it runs."""
    store_server.create_databases("alone", "alone_dagster")
    store = create_store_engine(store_server.url("alone"))
    migrate(store)
    register(store, entry("pg", postgresql.target()), entry("maria", mariadb.target()), refusing("down"))
    # A zone in which no midnight comes in the next minutes.
    zone = next(z for z in ("Asia/Shanghai", "UTC") if datetime.now(ZoneInfo(z)).hour != 23)
    due = datetime.now(ZoneInfo(zone)) + DUE_IN
    once = f"{due.minute} {due.hour} * * *"
    settings = {
        "WHALEFALL_HOME": str(tmp_path / "home"),
        "WHALEFALL_STORE_URL": store.url.render_as_string(hide_password=False),
        "WHALEFALL_DAGSTER_URL": store_server.url("alone_dagster").get_secret_value(),
        "WHALEFALL_TIMEZONE": zone,
        "WHALEFALL_COLLECTION_SCHEDULE": once,
        "WHALEFALL_MAINTENANCE_SCHEDULE": once,
        PASSWORD_VARIABLE: "",
    }
    home, url = tmp_path / "home" / "dagster", settings["WHALEFALL_DAGSTER_URL"]
    with deployment(["up"], settings, tmp_path / "up.log") as running, dagster_instance_of(home, url) as instance:
        yield Centre(running, store, instance), settings
    store.dispose()


def last_attempts(runs: Sequence[dg.DagsterRun]) -> list[dg.DagsterRun]:
    """Return those of *runs* that were not executed again, as is one that a killed daemon was starting."""
    again = {run.parent_run_id for run in runs}
    return [run for run in runs if run.run_id not in again]


def runs_of(found: Centre) -> Counter[str]:
    return Counter(run.job_name for run in last_attempts(found.instance.get_runs()))


def settled(found: Centre) -> bool:
    """Have the sensors seen every day that landed, and is every run over, in both books, and every attempt good?"""
    landed = found.instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=DATABASE_SIZE_STATS), limit=1)
    states = [state for state in found.instance.all_instigator_state() if state.instigator_name in SENSORS]
    cursors = [int(getattr(state.instigator_data, "cursor", None) or 0) for state in states]
    runs = found.instance.get_runs()
    books = found.rows("SELECT 1 FROM task_runs WHERE closed_at IS NOT NULL")
    return (
        bool(landed.records)
        and len(cursors) == len(SENSORS)
        and min(cursors) >= landed.records[0].storage_id
        and {run.status for run in runs} <= OVER
        and {run.status for run in last_attempts(runs)} == {dg.DagsterRunStatus.SUCCESS}
        and len(books) == len(runs)
    )


def assert_settles(found: Centre, expected: dict[str, int]) -> None:
    """Wait until there are the *expected* runs, and until nothing is left to do that could make another."""
    wait_for(lambda: runs_of(found).items() >= expected.items(), f"runs {expected}")
    wait_for(lambda: settled(found), "end of what there is to do")
    assert runs_of(found) == expected


def test_a_few_minutes_of_a_deployment_that_runs_itself(alone: tuple[Centre, dict[str, str]], tmp_path: Path) -> None:
    found, settings = alone

    # The schedules: a collection with what follows from it, and a maintenance. One server is down.
    wait_for(lambda: runs_of(found)["sync_databases"], "collection of the schedule")
    wait_for(found.running.console_answers, "answer of the console")
    (daemon,) = found.running.services("dagster._daemon")
    daemon.kill()
    assert_settles(found, SCHEDULED)
    (collection,) = found.rows("SELECT * FROM task_runs WHERE task_key = 'sync_databases' AND status <> 'failed'")
    assert (collection.status, collection.trigger_source) == ("completed_with_errors", "scheduled")

    # Three days arrive late, of before the collection: one run for each period type, and one that forecasts again.
    today = datetime.now(ZoneInfo(settings["WHALEFALL_TIMEZONE"])).date()
    late = [today - timedelta(days=back) for back in (3, 2, 1)]
    history = tmp_path / "late.csv"
    lines = [f"{name},shop,{day},{7_000_000 + day.day}" for day in late for name in ("pg", "maria", "down")]
    history.write_text("\n".join(["instance,database,date,size_bytes", *lines, ""]))
    imported = run(["history", "import", str(history)], settings)
    assert imported.returncode == 0, imported.stderr
    assert_settles(
        found,
        SCHEDULED | {"aggregate_daily": 1, "forecast_capacity": 1} | {f"aggregate_{period}": 2 for period in PERIODS},
    )

    attempts = last_attempts(found.instance.get_runs())
    assert Counter(run.status for run in attempts) == {dg.DagsterRunStatus.SUCCESS: 10}
    assert audit(found.store, found.instance, datetime.now(timezone.utc) - timedelta(days=1)) == []
    assert_as_from_scratch(found.store)
