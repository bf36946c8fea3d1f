"""Cost of an idle deployment: processor time of each process, and what Dagster's storage grows by.

`up` runs on an empty store; no schedule is due. Ticks are all that is written, and Dagster deletes them after the days
that dagster.yaml says: the storage then stays as large as those days of ticks, and grows by its other tables alone.
That ticks do go is tried by making all of them older.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import psutil
from sqlalchemy import Engine, text

from benchmarks.harness import print_result
from whalefall_capacity.settings import PREFIX, load_settings
from whalefall_capacity.store.postgres.embedded import DAGSTER_DATABASE, EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.supervisor import stop_families

MINUTES = 10
# Imports, the first look of every sensor, and tables that get their first page.
WARM_UP_SECONDS = 60
PORT = 3977
# What tells the processes of `up` apart in their command lines.
ROLES: Mapping[str, str] = {
    "code server": "api grpc",
    "webserver": "whalefall_capacity ui",
    "daemon": "dagster._daemon",
    "console": "whalefall_capacity serve",
}
DAGSTER_ROLES = ("code server", "webserver", "daemon", "supervisor")
PURGED = "job_ticks"
TABLES = """
SELECT relname, n_tup_ins, n_tup_upd, pg_total_relation_size(relid) AS size_bytes FROM pg_stat_user_tables
"""
AGE_TICKS = "UPDATE job_ticks SET timestamp = timestamp - interval '3 days'"
SESSIONS = "SELECT datname, sessions FROM pg_stat_database WHERE datname IS NOT NULL"
OLD_TICKS = "SELECT count(*) FROM job_ticks WHERE timestamp < now() - interval '2 days'"


@dataclass(frozen=True)
class Sizes:
    """A table of Dagster's storage."""

    inserted: int
    updated: int
    size_bytes: int


def run(scale: float) -> None:
    """Print the costs of ten idle minutes times *scale*."""
    seconds = max(MINUTES * scale, 0.2) * 60
    with _idle_deployment() as (process, storage):
        time.sleep(min(WARM_UP_SECONDS, seconds))
        vacuum(storage)
        tables, sessions, busy = read_tables(storage), read_sessions(storage), processor_seconds(process)
        started = time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - started
        tables_after, sessions_after, busy_after = (
            read_tables(storage),
            read_sessions(storage),
            processor_seconds(process),
        )
        left = _old_ticks_left(storage)
    shares = {role: 100 * (busy_after[role] - busy.get(role, 0.0)) / elapsed for role in busy_after}
    print_result(
        f"idle for {elapsed / 60:.1f} minutes; load of the machine {os.getloadavg()[0]:.1f}",
        ("process", "% of one core"),
        [*shares.items(), ("all of Dagster", sum(shares[role] for role in DAGSTER_ROLES))],
    )
    hours = elapsed / 3600
    print_result(
        "Dagster's storage",
        ("table", "rows/h", "updates/h", "KiB/h", ""),
        [
            (
                name,
                (after.inserted - tables[name].inserted) / hours,
                (after.updated - tables[name].updated) / hours,
                (after.size_bytes - tables[name].size_bytes) / 1024 / hours,
                "deleted after its days" if name == PURGED else "",
            )
            for name, after in sorted(tables_after.items())
            if after != tables[name]
        ],
    )
    print_result(
        "connections opened",
        ("database", "per minute"),
        [
            (name, (after - sessions.get(name, 0)) / elapsed * 60)
            for name, after in sorted(sessions_after.items())
            if after != sessions.get(name)
        ],
    )
    kept = sum(after.size_bytes - tables[name].size_bytes for name, after in tables_after.items() if name != PURGED)
    ticks = tables_after[PURGED].size_bytes - tables[PURGED].size_bytes
    print_result(
        "a day",
        ("", "MiB"),
        [
            ("ticks, with their indexes, which replace those of the day before", ticks / hours * 24 / 2**20),
            ("growth beside them", kept / hours * 24 / 2**20),
            ("ticks older than their days that were still there after a minute (rows)", left),
        ],
    )


def read_tables(storage: Engine) -> dict[str, Sizes]:
    """Return every table of Dagster's storage."""
    with storage.connect() as connection:
        rows = connection.execute(text(TABLES))
        return {row.relname: Sizes(row.n_tup_ins, row.n_tup_upd, row.size_bytes) for row in rows}


def vacuum(storage: Engine) -> None:
    """Let every table have what its first vacuum gives it: a table that is only updated does not grow after that."""
    with storage.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM"))


def read_sessions(storage: Engine) -> dict[str, int]:
    """Return how many sessions each database has had."""
    with storage.connect() as connection:
        return {row.datname: row.sessions for row in connection.execute(text(SESSIONS))}


def processor_seconds(up: psutil.Process) -> dict[str, float]:
    """Return what each part of a deployment has used so far; PostgreSQL is the server with all its sessions."""
    used = {"supervisor": _used(up), "PostgreSQL": 0.0}
    for child in up.children(recursive=True):
        try:
            command, seconds = " ".join(child.cmdline()), _used(child)
        except psutil.NoSuchProcess:
            continue
        role = next((role for role, sign in ROLES.items() if sign in command), None)
        if role is not None:
            used[role] = used.get(role, 0.0) + seconds
    for process in psutil.process_iter(["name"]):
        # The embedded server is nobody's child, so that it survives commands that end.
        if "postgres" in (process.info["name"] or "") and _below(process, up.environ()[f"{PREFIX}HOME"]):
            used["PostgreSQL"] += _used(process)
    return used


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    # Sessions that ended count for the server that waited for them.
    return float(times.user + times.system + times.children_user + times.children_system)


def _below(process: psutil.Process, folder: str) -> bool:
    try:
        return folder in process.cwd()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _old_ticks_left(storage: Engine) -> int:
    with storage.begin() as connection:
        connection.execute(text(AGE_TICKS))
    # Every sensor deletes its own after its next tick.
    deadline = time.monotonic() + 60
    while (left := int(_scalar(storage, OLD_TICKS))) and time.monotonic() < deadline:
        time.sleep(1)
    return left


def _scalar(storage: Engine, statement: str) -> float:
    with storage.connect() as connection:
        return float(connection.execute(text(statement)).scalar_one())


@contextmanager
def _idle_deployment() -> Iterator[tuple[psutil.Process, Engine]]:
    with tempfile.TemporaryDirectory(prefix="whalefall-benchmark-") as folder:
        hour = (datetime.now(ZoneInfo(load_settings().timezone)).hour + 12) % 24
        settings = {
            "HOME": folder,
            "WEBSERVER_PORT": str(PORT),
            "CONSOLE_PORT": str(PORT + 1),
            "COLLECTION_SCHEDULE": f"0 {hour} * * *",
        }
        own = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "DAGSTER_"))}
        program = str(Path(sys.executable).parent / "whalefall-capacity")
        with (Path(folder) / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [program, "up"],
                env=own | {PREFIX + name: value for name, value in settings.items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait_until_it_serves(process)
            storage = create_store_engine(EmbeddedPostgres(Path(folder) / "postgres").url(DAGSTER_DATABASE))
            yield psutil.Process(process.pid), storage
            storage.dispose()
        finally:
            stop_families([process.pid])


def _wait_until_it_serves(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/server_info", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise RuntimeError("the deployment does not serve")
