"""A migration from WhaleFall, as the command does it, beside one COPY out and one COPY and merge in of the same rows.

By hand is one transaction a month: COPY out of the source, COPY into a temporary table, one merge into the sizes. The
command brings totals, inventory and the account of every row besides, and tells Dagster of the days; it runs in a
process of its own, whose largest memory is looked at for one size and for twenty times as much.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import psycopg2
import psycopg2.extensions
from sqlalchemy import Engine, text

from benchmarks.harness import SMALLEST_SCALE, print_result
from whalefall_capacity.periods import add_months, month_starts
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children

FIRST_DAY, DAYS = date(2025, 2, 1), 400
# Dagster is told of each day, however small the fleet is.
FEWEST_DAYS = 62
DATABASES = 50
INSTANCES = 50
MIB = 1 << 20
# WhaleFall's tables, as far as they are read, with its keys.
SOURCE = """
CREATE TABLE credentials (id int, name text, credential_type text, username text, password text, description text,
    is_active boolean, deleted_at timestamptz);
CREATE TABLE instances (id int PRIMARY KEY, name text, db_type text, host text, port int, database_name text,
    database_version text, main_version text, detailed_version text, description text, is_active boolean,
    last_connected timestamptz, deleted_at timestamptz, credential_id int);
CREATE TABLE instance_databases (id serial PRIMARY KEY, instance_id int, database_name varchar(255), is_active boolean,
    first_seen_date date, last_seen_date date, deleted_at timestamptz, UNIQUE (instance_id, database_name));
CREATE TABLE database_size_stats (id bigserial, instance_id int NOT NULL, database_name varchar(255) NOT NULL,
    size_mb bigint NOT NULL, data_size_mb bigint, log_size_mb bigint, collected_date date NOT NULL,
    collected_at timestamptz NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()) PARTITION BY RANGE (collected_date);
CREATE INDEX ON database_size_stats (collected_date);
CREATE TABLE instance_size_stats (id serial, instance_id int NOT NULL, total_size_mb int NOT NULL,
    database_count int NOT NULL, collected_date date NOT NULL, collected_at timestamptz NOT NULL,
    is_deleted boolean NOT NULL DEFAULT false) PARTITION BY RANGE (collected_date);
CREATE INDEX ON instance_size_stats (collected_date);
"""
FILL = """
INSERT INTO instances (id, name, db_type, host, port, is_active)
SELECT n, 'instance-' || n, 'postgresql', '127.0.0.1', 5432, false FROM generate_series(1, {instances}) AS n;
INSERT INTO instance_databases (instance_id, database_name, is_active, first_seen_date, last_seen_date)
SELECT i, 'database_' || lpad(d::text, 5, '0'), true, '{first}', '{last}'
FROM generate_series(1, {instances}) AS i, generate_series(1, {databases}) AS d
"""
FILL_MONTH = """
INSERT INTO database_size_stats (instance_id, database_name, size_mb, data_size_mb, collected_date, collected_at)
SELECT i, 'database_' || lpad(d::text, 5, '0'), 100 + d, 100 + d, day, day + interval '2 hours'
FROM generate_series('{first}'::date, '{last}'::date, '1 day') AS day, generate_series(1, {instances}) AS i,
     generate_series(1, {databases}) AS d;
INSERT INTO instance_size_stats (instance_id, total_size_mb, database_count, collected_date, collected_at)
SELECT instance_id, sum(size_mb), count(*), collected_date, min(collected_at) FROM database_size_stats
WHERE collected_date BETWEEN '{first}' AND '{last}' GROUP BY instance_id, collected_date
"""
BY_HAND_TABLE = """
CREATE TEMPORARY TABLE by_hand (
    instance_id int, database_name text COLLATE "C", day date, size_bytes bigint, collected_at timestamptz
) ON COMMIT DROP
"""
BY_HAND_OUT = """
COPY (SELECT instance_id, database_name::text, collected_date, size_mb * 1048576, collected_at FROM database_size_stats
      WHERE collected_date BETWEEN '{first}' AND '{last}') TO STDOUT (FORMAT binary)
"""
BY_HAND_MERGE = """
INSERT INTO database_size_stats AS stored (instance_id, database_name, collected_date, size_bytes, source, collected_at)
SELECT instance_id, database_name, day, size_bytes, 'imported', collected_at FROM by_hand
ORDER BY instance_id, database_name, day
ON CONFLICT (instance_id, database_name, collected_date) DO UPDATE
SET size_bytes = excluded.size_bytes, collected_at = excluded.collected_at, updated_at = now()
WHERE stored.source = 'imported'
"""


def run(scale: float) -> None:
    """Print rows per second and memory at 1 and at 20 million rows, times *scale* (of the instances)."""
    rows = []
    days = DAYS if scale >= SMALLEST_SCALE else FEWEST_DAYS
    with tempfile.TemporaryDirectory(prefix="whalefall-benchmark-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres")
        with server.running():
            for name, times in (("small", 1), ("large", 20)):
                instances = max(int(INSTANCES * times * scale), 1)
                rows.append(_compare(server, Path(folder), name, instances, days))
    print_result(
        "moving in from WhaleFall",
        ("rows", "command s", "rows/s", "by hand rows/s", "share", "plan s", "again s", "peak MiB"),
        rows,
    )


def _compare(server: EmbeddedPostgres, folder: Path, name: str, instances: int, days: int) -> tuple[object, ...]:
    count = instances * DATABASES * days
    source, bare, store, dagster = (f"{name}_{kind}" for kind in ("source", "bare", "store", "dagster"))
    server.create_databases(source, bare, store, dagster)
    _fill(_address(server, source), instances, days)
    by_hand = _by_hand(server, source, bare, days)
    environment = os.environ | {
        "WHALEFALL_STORE_URL": server.url(store).get_secret_value(),
        "WHALEFALL_DAGSTER_URL": server.url(dagster).get_secret_value(),
        "WHALEFALL_HOME": str(folder / name),
        "WHALEFALL_START_DATE": str(FIRST_DAY),
    }
    command = [sys.executable, "-m", "whalefall_capacity", "migrate-from", "whalefall", _address(server, source)]
    # The store is migrated, and Dagster's storage made, before anything is measured.
    _timed([sys.executable, "-m", "whalefall_capacity", "runs", "audit"], environment)
    plan, _ = _timed(command, environment)
    moved, memory = _timed([*command, "--apply"], environment)
    again, _ = _timed([*command, "--apply"], environment)
    return (count, moved, int(count / moved), int(count / by_hand), by_hand / moved, plan, again, memory)


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Return the seconds that a command takes, and the most memory in MiB that it has at a time."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, usage.ru_maxrss // 1024


def _fill(address: str, instances: int, days: int) -> None:
    last = FIRST_DAY + timedelta(days=days - 1)
    with closing(psycopg2.connect(address)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(SOURCE)
        cursor.execute(FILL.format(instances=instances, databases=DATABASES, first=FIRST_DAY, last=last))
        for first, until in _months(days):
            for table in ("database_size_stats", "instance_size_stats"):
                cursor.execute(
                    f"CREATE TABLE {table}_{first:%Y_%m} PARTITION OF {table} "
                    f"FOR VALUES FROM ('{first}') TO ('{add_months(first, 1)}')"
                )
            cursor.execute(FILL_MONTH.format(first=first, last=until, instances=instances, databases=DATABASES))
        cursor.execute("ANALYZE")


def _months(days: int) -> list[tuple[date, date]]:
    last = FIRST_DAY + timedelta(days=days - 1)
    return [(month, min(add_months(month, 1) - timedelta(days=1), last)) for month in month_starts(FIRST_DAY, last)]


def _by_hand(server: EmbeddedPostgres, source: str, bare: str, days: int) -> float:
    """Return the seconds of COPY out, COPY in and merge of all months, into a store that is new."""
    engine = create_store_engine(server.url(bare))
    migrate(engine)
    with engine.begin() as connection:
        ensure_children(connection, STATS_TABLES, [first for first, _ in _months(days)])
    started = time.perf_counter()
    with closing(psycopg2.connect(_address(server, source))) as reading:
        for first, last in _months(days):
            _move_month(reading, engine, BY_HAND_OUT.format(first=first, last=last))
    seconds = time.perf_counter() - started
    engine.dispose()
    return seconds


def _move_month(reading: psycopg2.extensions.connection, engine: Engine, statement: str) -> None:
    read_end, write_end = os.pipe()

    def send() -> None:
        with os.fdopen(write_end, "wb", buffering=MIB) as sink, reading.cursor() as cursor:
            cursor.copy_expert(statement, sink)

    with engine.begin() as connection, raw_cursor(connection) as cursor, os.fdopen(read_end, "rb", MIB) as stream:
        connection.execute(text("SET LOCAL jit = off; SET LOCAL work_mem = '128MB'"))
        connection.execute(text(BY_HAND_TABLE))
        sender = threading.Thread(target=send)
        sender.start()
        cursor.copy_expert("COPY by_hand FROM STDIN (FORMAT binary)", stream, size=MIB)
        sender.join()
        connection.execute(text(BY_HAND_MERGE))


def _address(server: EmbeddedPostgres, database: str) -> str:
    return server.url(database).get_secret_value().replace("postgresql+psycopg2://", "postgresql://")
