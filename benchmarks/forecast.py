"""Forecasting: what a day takes of numpy, of Python around it and of the server, beside least squares in SQL.

Each database has 280 days of a size that grows at a pace of its own, with noise, purges and imports. The simple side is
one `regr_slope` and one `regr_intercept` for each database over the same rows: a line, without one-offs, range, looking
back or writing. Processor seconds are those of this process and of every process of the server, also of those that
have ended; memory is the most that this process has had.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import psutil
from sqlalchemy import Engine, text

from benchmarks.harness import fresh_store, print_result
from benchmarks.writing import FILL_TOTALS, register_instances
from whalefall_capacity.insight.statuses import HISTORY_DAYS
from whalefall_capacity.store.insight.calculate import InsightDay, calculate, chunks_of
from whalefall_capacity.store.insight.histories import read_chunk
from whalefall_capacity.store.insight.sources import read_instances
from whalefall_capacity.store.insight.write import write_anomalies, write_forecasts
from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children

DATABASES = 50
LAST = date(2026, 6, 30)
FIRST = LAST - timedelta(days=HISTORY_DAYS - 1)
ZONE = "Asia/Shanghai"
# A pace, some noise, a purge every 28 days for one of five, and one import for one of seven.
FILL = """
INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
SELECT i, 'database_' || lpad(d::text, 5, '0'), :day,
       1000000000 + CAST(:age AS bigint) * (i * d % 97) * 100000 + (hashint4(i * 50 + d) # hashint4(:age)) % 1000000
       - CASE WHEN d % 5 = 0 THEN (:age % 28) * 10000000 ELSE 0 END
       + CASE WHEN d % 7 = 0 AND :age > i * d % 280 THEN 500000000 ELSE 0 END, 'measured', now()
FROM generate_series(1, :instances) AS i, generate_series(1, :databases) AS d
ORDER BY 1, 2
"""
LIMITS = """
UPDATE instances AS i SET capacity_limit_bytes = total_size_bytes * 1.2
FROM instance_size_stats AS s WHERE s.instance_id = i.id AND s.collected_date = :day
"""
LINES = """
SELECT instance_id, database_name, regr_slope(size_bytes, collected_date - CAST(:last AS date)) AS slope,
       regr_intercept(size_bytes, collected_date - CAST(:last AS date)) AS size
FROM database_size_stats WHERE collected_date BETWEEN :first AND :last GROUP BY instance_id, database_name
"""


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of processors: of this process and of the server's."""

    seconds: float
    process: float
    server: float


def run(scale: float) -> None:
    """Print the table at 1,000 instances x 50 databases x 280 days times *scale* (of the instances)."""
    instances = max(int(1000 * scale), 2)
    with fresh_store() as engine:
        fill(engine, instances)
        lines = _measured(engine, lambda: _lines(engine))
        before = _most_memory()
        reading = _measured(engine, lambda: _read(engine))
        results: list[InsightDay] = []
        whole = _measured(engine, lambda: results.extend(_forecast(engine)))
        again = _measured(engine, lambda: _forecast(engine))
    rows = [
        ("regr_slope in SQL", lines.seconds, 0.0, lines.process, lines.server, lines.process + lines.server),
        *(
            (name, cost.seconds, cost.process - reading.process, cost.process, cost.server, cost.process + cost.server)
            for name, cost in (("forecast", whole), ("forecast again", again))
        ),
    ]
    print_result(
        f"forecast of {instances} instances x {DATABASES} databases x {HISTORY_DAYS} days",
        ("", "seconds", "numpy CPU s", "process CPU s", "server CPU s", "CPU s in all"),
        rows,
    )
    print_result(
        "forecast, memory",
        ("", "MiB"),
        [("at most, before the forecast", before), ("at most, with it", _most_memory())],
    )


def fill(engine: Engine, instances: int) -> None:
    """Store the histories, and limits some of which come within a year."""
    register_instances(engine, instances)
    with engine.begin() as connection:
        ensure_children(connection, STATS_TABLES, [FIRST + timedelta(days=age) for age in range(HISTORY_DAYS)])
    for age in range(HISTORY_DAYS):
        values = {"day": FIRST + timedelta(days=age), "age": age, "instances": instances, "databases": DATABASES}
        with engine.begin() as connection:
            connection.execute(text(FILL), values)
            connection.execute(text(FILL_TOTALS), values)
    with engine.begin() as connection:
        connection.execute(text(LIMITS), {"day": LAST})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _forecast(engine: Engine) -> list[InsightDay]:
    found = list(calculate(engine, [LAST], ZONE))
    for result in found:
        write_forecasts(engine, result.day, result.forecasts, result.databases, result.accuracy)
        write_anomalies(engine, result.day, result.anomalies)
    return found


def _read(engine: Engine) -> None:
    for some in chunks_of(read_instances(engine, LAST, LAST, ZONE)):
        read_chunk(engine, some, FIRST, LAST, ZONE)


def _lines(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL jit = off; SET LOCAL work_mem = '128MB'"))
        connection.execute(text(LINES), {"first": FIRST, "last": LAST}).all()


def _measured(engine: Engine, work: Callable[[], object]) -> Cost:
    server = _server_seconds(engine)
    process, began = time.process_time(), time.perf_counter()
    work()
    seconds, process = time.perf_counter() - began, time.process_time() - process
    return Cost(seconds, process, _server_seconds(engine) - server)


def _server_seconds(engine: Engine) -> float:
    """Return what the server's processes have taken of processors, with those that have ended."""
    with engine.connect() as connection:
        backend = psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        server = backend.parent()
        assert server is not None
        times = [(process.cpu_times().user, process.cpu_times().system) for process in server.children()]
        ended = server.cpu_times()
    return sum(map(sum, times)) + ended.children_user + ended.children_system


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
