"""Killed with SIGKILL before every single step, a maintenance is completed by the next: nothing lost, nothing twice.

A step is a commit, a statement that commits itself, or the renaming of a file. Also killed while a detach waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import chain, count, islice
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.settings import PROJECT_ROOT
from whalefall_capacity.store.maintenance.archive import read_manifest
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity.store.table_partitions.create import create_ahead
from whalefall_capacity_tests.conftest import _administrator, drop_database
from whalefall_capacity_tests.processes import PATIENCE_SECONDS, wait_for
from whalefall_capacity_tests.store.maintenance import killed_maintenance
from whalefall_capacity_tests.store.maintenance.upkeep import (
    JANUARY,
    JANUARY_OF_STATS,
    STATS,
    aggregations,
    calculate,
    days_of,
    put_month,
    sealed,
    settings_for,
    tables_like,
    upkeep,
)
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import rows

BATCH = 10
# Each of them has windows of its own, and each window is a step to be killed before: a few show all that there are.
FEW_DAYS = days_of(JANUARY, step=10)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def prepare(store: Engine) -> None:
    """Store a month that is to go, the one after it, and one that was created ahead before."""
    create_ahead(store, settings_for(), date(2026, 4, 20))
    put_days(store, FEW_DAYS, 100)
    put_month(store, date(2025, 6, 1))
    # Some windows are up to date, some are behind, some were never calculated.
    calculate(store, FEW_DAYS[:2])
    put_days(store, FEW_DAYS[1:], 200)


def put_days(store: Engine, days: list[date], size: int) -> None:
    """Store two databases of one instance on *days*."""
    put_sizes(store, [(1, name, day, size + day.day) for name in ("shop", "crm") for day in days])


def state(store: Engine) -> dict[str, object]:
    """Return everything that a maintenance leaves behind."""
    return {
        "tables": [name for table in STATS for name in tables_like(store, table)],
        "stats": rows(
            store,
            "SELECT instance_id, database_name, collected_date, size_bytes FROM database_size_stats ORDER BY 1, 2, 3",
        ),
        "aggregations": aggregations(store),
        "sealed": sealed(store),
        "ledger": rows(
            store, "SELECT table_name, lower_bound, rows, dropped_at IS NULL FROM retired_children ORDER BY 1, 2"
        ),
        "pending": rows(store, "SELECT inhrelid FROM pg_inherits WHERE inhdetachpending"),
    }


@contextmanager
def stores(server: EmbeddedPostgres, prefix: str, numbers: Sequence[int]) -> Iterator[None]:
    """Hold a copy of the prepared store for each of *numbers*."""
    with _administrator(server) as connection:
        for number in numbers:
            connection.execute(text(f"CREATE DATABASE {prefix}{number} TEMPLATE {prefix}prepared"))
    try:
        yield
    finally:
        with _administrator(server) as connection:
            for number in numbers:
                drop_database(connection, f"{prefix}{number}")


def drop_prepared(server: EmbeddedPostgres, prefix: str) -> None:
    """Leave no database of ours: other tests measure the same server."""
    with _administrator(server) as connection:
        drop_database(connection, f"{prefix}prepared")


@pytest.mark.slow
@pytest.mark.parametrize("server", ["store_server", "postgresql"], ids=["PostgreSQL 18", "PostgreSQL 16"])
def test_killed_before_any_step_the_next_maintenance_completes_it(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    running = request.getfixturevalue(server)
    running = running if isinstance(running, EmbeddedPostgres) else running.embedded
    prefix = "killed_"
    running.create_databases(f"{prefix}prepared")
    request.addfinalizer(lambda: drop_prepared(running, prefix))
    prepared = create_store_engine(running.url(f"{prefix}prepared"))
    migrate(prepared)
    prepare(prepared)
    prepared.dispose()
    expected = None
    killed, ended = 0, False
    # Both versions have the same steps: 18 is killed before the even ones, 16 before the odd ones.
    steps = chain([0], count(2 if server == "store_server" else 1, 2))
    while not ended:
        numbers = list(islice(steps, BATCH))
        with stores(running, prefix, numbers):
            outcome = _kill(running, prefix, tmp_path, numbers)
            for number in outcome:
                store = create_store_engine(running.url(f"{prefix}{number}"))
                if outcome[number] == "ended":
                    # Step 0 never comes: what an undisturbed maintenance leaves.
                    expected = expected or state(store)
                    ended = number > 0
                else:
                    assert outcome[number] == "killed"
                    killed += 1
                    upkeep(store, archive_dir=tmp_path / str(number))
                assert state(store) == expected, number
                manifests = sorted((tmp_path / str(number)).glob("*.json"))
                assert [read_manifest(path).child for path in manifests] == list(JANUARY_OF_STATS), number
                store.dispose()
    assert killed > 20


def _kill(server: EmbeddedPostgres, prefix: str, folder: Path, numbers: Sequence[int]) -> dict[int, str]:
    url = f"postgresql+psycopg2://postgres@/?host={server.socket_dir}&dbname={prefix}"
    done = subprocess.run(
        [sys.executable, killed_maintenance.__file__, url, str(folder), *map(str, numbers)],
        env=os.environ | {"PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {int(number): outcome for number, outcome in (line.split() for line in done.stdout.splitlines())}


@pytest.mark.slow
def test_killed_in_the_middle_of_a_detach_that_waits_the_next_maintenance_completes_it(
    store: Engine, tmp_path: Path
) -> None:
    prepare(store)
    before = rows(store, "SELECT sum(size_bytes) FROM database_size_stats")
    name = str(store.url.database)
    url = f"postgresql+psycopg2://postgres@/?host={store.url.query['host']}&dbname={name.rstrip('0123456789')}"
    number = int(name.removeprefix(name.rstrip("0123456789")))
    with store.begin() as reader:
        reader.execute(text("SELECT count(*) FROM database_size_stats"))
        code = (
            "import sys; from datetime import date\n"
            "from whalefall_capacity_tests.store.maintenance.killed_maintenance import work\n"
            "work(sys.argv[1], sys.argv[2], date(2026, 5, 20))"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, f"{url}{number}", str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(PROJECT_ROOT)},
        )
        with store.connect() as observer:
            autocommit = observer.execution_options(isolation_level="AUTOCOMMIT")
            wait_for(lambda: autocommit.execute(text(WAITING)).scalar_one() == 1, "waiting detach")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    upkeep(store, archive_dir=tmp_path)
    assert tables_like(store, "database_size_stats_2025") == ["database_size_stats_2025_06"]
    assert state(store)["pending"] == []
    assert before != rows(store, "SELECT sum(size_bytes) FROM database_size_stats")
    assert ("monthly", JANUARY) in [row[1:] for row in sealed(store)]
