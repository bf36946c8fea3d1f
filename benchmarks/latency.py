"""Lag of the charts: from new stats of today to the current window of all eight aggregations.

Dagster's daemon runs with `dagster.yaml`, each run is a process of its own, and what is timed begins when the event of
the day of stats is in Dagster's log and ends with the last of the eight materializations. Beside it the same chain (the
same sensor, the same runs) with empty bodies. How long the sensor's next look takes to come is chance; what follows is
not. A round begins when the forecast that follows the round before has ended.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TypeVar

import dagster as dg
from sqlalchemy import Engine, text

from benchmarks.aggregation import DATABASES, fill, point_settings_at
from benchmarks.harness import SMALLEST_SCALE, fresh_store, print_result
from whalefall_capacity.asset_keys import FORECAST_JOB_NAME, aggregation_keys
from whalefall_capacity.assets.imported import report_stored_days
from whalefall_capacity.periods import PeriodType, today, window_of
from whalefall_capacity.settings import PREFIX, PROJECT_ROOT, load_settings
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.supervisor import stop_families

ROUNDS = 7
PATIENCE_SECONDS = 300
# The code location of each side, and the job whose run follows a round.
SIDES: Mapping[str, tuple[str, str | None]] = {
    "the pipeline": ("whalefall_capacity.definitions", FORECAST_JOB_NAME),
    "the same runs with empty bodies": ("benchmarks.empty_location", None),
}
GROW = """
UPDATE {level}_size_stats SET {size} = {size} + 1, updated_at = clock_timestamp() WHERE collected_date = :day
"""
SIZES = {"database": "size_bytes", "instance": "total_size_bytes"}

T = TypeVar("T")


def run(scale: float) -> None:
    """Print the seconds of both chains at 1,000 instances x 50 databases times *scale*, and so many rounds."""
    instances, rounds = max(int(1000 * scale), 2), max(round(ROUNDS * scale), 1)
    # The first round starts the code server and fills the windows. It is not counted, unless there is no other.
    uncounted = 1 if scale >= SMALLEST_SCALE else 0
    day = today(load_settings().zone)
    quarter = window_of(day, PeriodType.QUARTERLY)
    with fresh_store() as engine, tempfile.TemporaryDirectory(prefix="whalefall-benchmark-") as folder:
        point_settings_at(engine)
        fill(engine, instances, quarter.start, (day - quarter.start).days + 1)
        storage = EmbeddedPostgres(Path(folder) / "postgres")
        with storage.running():
            rows = []
            for number, (side, (module, last_job)) in enumerate(SIDES.items()):
                database = f"dagster_{number}"
                storage.create_databases(database)
                os.environ[f"{PREFIX}DAGSTER_URL"] = storage.url(database).get_secret_value()
                load_settings.cache_clear()
                with _daemon(Path(folder) / database, module) as instance:
                    times = [_chain(engine, instance, day, last_job) for _ in range(uncounted + rounds)][uncounted:]
                waits, totals = zip(*times, strict=True)
                runs = [total - wait for wait, total in times]
                rows.append((side, *map(statistics.median, (totals, waits, runs)), max(totals)))
    print_result(
        f"new stats of today until all eight current aggregations, {instances:,} instances x {DATABASES} databases, "
        f"{(day - quarter.start).days + 1} days of the quarter, {rounds} rounds",
        ("chain", "median s", "until runs are asked for", "from there to the last end", "slowest s"),
        rows,
    )


@contextmanager
def _daemon(home: Path, module: str) -> Iterator[dg.DagsterInstance]:
    """Hold Dagster's daemon, with *module* as its code location."""
    home.mkdir()
    (home / "dagster.yaml").write_text((PROJECT_ROOT / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(home)) as instance, (home / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-m", module],
            env=os.environ | {"DAGSTER_HOME": str(home)},
            cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield instance
        finally:
            stop_families([process.pid])


def _chain(engine: Engine, instance: dg.DagsterInstance, day: date, last_job: str | None) -> tuple[float, float]:
    """Return the seconds from new stats of *day* to the first run that the sensor asks for, and to the last end."""
    with engine.begin() as connection:
        for level, size in SIZES.items():
            connection.execute(text(GROW.format(level=level, size=size)), {"day": day})
    report_stored_days(instance, engine, [day])
    started = datetime.now(timezone.utc)
    ended = _awaited(lambda: _ended(instance, day, started.timestamp()))
    records = instance.get_run_records(dg.RunsFilter(created_after=started))
    asked = min(record.create_timestamp.timestamp() for record in records)
    if last_job is not None:
        ends = dg.RunsFilter(job_name=last_job, statuses=[dg.DagsterRunStatus.SUCCESS], created_after=started)
        _awaited(lambda: instance.get_run_records(ends))
    return asked - started.timestamp(), ended - started.timestamp()


def _awaited(look: Callable[[], T | None]) -> T:
    """Return what *look* finds, as soon as it finds anything."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, "a run did not end; see daemon.log"
        time.sleep(0.5)
    return found


def _ended(instance: dg.DagsterInstance, day: date, started: float) -> float | None:
    """Return when the last of the eight current windows was materialized, None while one is missing."""
    times = []
    for period_type in PeriodType:
        window = window_of(day, period_type).start.isoformat()
        for key in aggregation_keys(period_type):
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, asset_partitions=[window], after_timestamp=started), limit=1
            ).records
            if not records:
                return None
            times.append(records[0].timestamp)
    return max(times)
