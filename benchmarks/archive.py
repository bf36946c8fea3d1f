"""Archive, drop and restore of a month, beside a bare COPY of the same month to a file and back.

The archive is read back and compared, and so is the restore; the bare side compares nothing. The bare COPY goes out as
CSV and comes back into an empty table with the same indexes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import psutil
from psycopg2 import sql
from sqlalchemy import Engine, text

from benchmarks.aggregation import fill
from benchmarks.harness import console, fresh_store, print_result
from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.maintenance.archive import checksum_of
from whalefall_capacity.store.maintenance.restore import restore
from whalefall_capacity.store.maintenance.retire import (
    Maintenance,
    archive_children,
    detach_and_drop,
    make_plan,
    seal_children,
)
from whalefall_capacity.store.postgres.copying import raw_cursor

MONTH, DAYS = date(2025, 1, 1), 30
TODAY = date(2026, 3, 1)
COLUMNS = (
    "instance_id", "database_name", "collected_date", "size_bytes", "data_size_bytes", "log_size_bytes", "source",
    "collected_at", "created_at", "updated_at",
)  # fmt: skip
CHILD = "database_size_stats_2025_01"


def run(scale: float) -> None:
    """Print the seconds of each step at 1,000 instances x 50 databases x 30 days times *scale* (of the instances)."""
    instances = max(int(1000 * scale), 2)
    with fresh_store() as engine, tempfile.TemporaryDirectory(prefix="whalefall-archive-") as folder:
        fill(engine, instances, MONTH, DAYS)
        before = _checksum(engine)
        out, back = _bare(engine, Path(folder) / "bare.csv")
        settings = build_settings(start_date=date(2000, 1, 1), archive_dir=folder, retention_daily_months=60)
        maintenance = Maintenance(engine, settings, TODAY)
        drops = [drop for drop in make_plan(engine, settings, TODAY).drops if drop.child == CHILD]
        sealed = _seconds(lambda: seal_children(maintenance, drops))
        archives: dict[int, str] = {}
        memory = psutil.Process().memory_info().rss
        archived = _seconds(lambda: archives.update(archive_children(maintenance, drops)[1]))
        dropped = _seconds(lambda: detach_and_drop(maintenance, drops, archives))
        (file,) = Path(folder).glob("*.parquet")
        restored = _seconds(lambda: restore(engine, file, TODAY))
        memory = psutil.Process().memory_info().rss - memory
        assert _checksum(engine) == before, "the month came back other than it was"
    rows: list[tuple[object, ...]] = [
        ("archive, read back and compare", archived, out, archived / out),
        ("restore and compare", restored, back, restored / back),
        ("seal, every window calculated first", sealed, "", ""),
        ("detach, look again, drop", dropped, "", ""),
    ]
    columns = ("step", "seconds", "bare COPY s", "ratio")
    print_result(f"a month of {before[0]:,} rows, archived, dropped and restored", columns, rows)
    console.print(f"memory grew by {memory / 2**20:.0f} MiB")


def _bare(engine: Engine, file: Path) -> tuple[float, float]:
    """Return the seconds of COPY TO and COPY FROM of the month."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE bare (LIKE database_size_stats INCLUDING ALL)"))

    def copy_out() -> None:
        with engine.begin() as connection, raw_cursor(connection) as cursor, file.open("wb") as stream:
            cursor.copy_expert(f"COPY {CHILD} TO STDOUT (FORMAT csv)", stream)

    def copy_back() -> None:
        with engine.begin() as connection, raw_cursor(connection) as cursor, file.open("rb") as stream:
            cursor.copy_expert("COPY bare FROM STDIN (FORMAT csv)", stream)

    out, back = _seconds(copy_out), _seconds(copy_back)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE bare"))
    return out, back


def _checksum(engine: Engine) -> tuple[int, str]:
    with engine.begin() as connection:
        return checksum_of(connection, sql.Identifier(CHILD), COLUMNS)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
