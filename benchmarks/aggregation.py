"""Aggregating: each asset step beside the bare statement, the growth of time with rows, and growth queries.

The bare side is one hand-written `INSERT … SELECT … GROUP BY … ON CONFLICT DO UPDATE … WHERE … IS DISTINCT FROM` over
the same days with the same measures, in one transaction with `jit = off` and `work_mem = 128MB`, which the program sets
too. Parallel workers are at the server's defaults, but an INSERT cannot use them, and the program does for quarters
only. The asset step is what the run of the asset takes between the start and the end of its step, with everything that
it does; a step with an empty body says what Dagster takes of that.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta

import dagster as dg
import psutil
from sqlalchemy import Engine, text

from benchmarks import growth
from benchmarks.empty_assets import idle_asset
from benchmarks.harness import console, fresh_store, print_result, rounds_at
from benchmarks.runs import materialize, materialize_idle
from benchmarks.writing import FILL_TOTALS, register_instances
from whalefall_capacity.asset_keys import AGGREGATION_JOB_NAMES, aggregation_key
from whalefall_capacity.partitions import PARTITIONS
from whalefall_capacity.periods import PeriodType, Window, window_of, windows_between
from whalefall_capacity.settings import PREFIX, load_settings
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import TABLES, Level
from whalefall_capacity.store.table_partitions.create import PARTITIONED_TABLES, ensure_children

FIRST = date(2026, 4, 1)
DAYS = 91
DATABASES = 50
ROUNDS = 5
ONE_WINDOW = {
    PeriodType.DAILY: date(2026, 6, 30),
    PeriodType.WEEKLY: date(2026, 6, 22),
    PeriodType.MONTHLY: date(2026, 5, 1),
    PeriodType.QUARTERLY: date(2026, 4, 1),
}
FILL = """
INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
SELECT i, 'database_' || lpad(d::text, 5, '0'), :day,
       1000000000 + (i * d * 7919) % 100000000
       + (hashint4(i * 50 + d) # hashint4(CAST(:day AS date) - DATE '2000-01-01')) % 1000000, 'measured', now()
FROM generate_series(1, :instances) AS i, generate_series(1, :databases) AS d
ORDER BY 1, 2
"""
BARE_DATABASES = """
INSERT INTO database_size_aggregations AS stored
       (instance_id, database_name, period_type, period_start, period_end, {measures}, calculated_at)
SELECT instance_id, database_name, :period_type, {bucket} AS period_start, {end},
       count(*), sum(size_bytes), max(size_bytes), min(size_bytes),
       max(size_bytes) FILTER (WHERE collected_date = ANY (CAST(:closing_days AS date[]))),
       nullif(count(data_size_bytes), 0), sum(data_size_bytes), max(data_size_bytes), min(data_size_bytes),
       max(data_size_bytes) FILTER (WHERE collected_date = ANY (CAST(:closing_days AS date[]))),
       nullif(count(log_size_bytes), 0), sum(log_size_bytes), max(log_size_bytes), min(log_size_bytes),
       max(log_size_bytes) FILTER (WHERE collected_date = ANY (CAST(:closing_days AS date[]))), now()
FROM database_size_stats WHERE collected_date BETWEEN :first AND :last
GROUP BY instance_id, database_name, {bucket}
ON CONFLICT (instance_id, database_name, period_type, period_start) DO UPDATE
SET ({measures}, calculated_at, updated_at) = ROW ({excluded}, excluded.calculated_at, now())
WHERE ({stored}) IS DISTINCT FROM ({excluded})
"""
BARE_INSTANCES = """
INSERT INTO instance_size_aggregations AS stored
       (instance_id, period_type, period_start, period_end, {measures}, calculated_at)
SELECT instance_id, :period_type, {bucket} AS period_start, {end},
       count(*), 0, sum(total_size_bytes), max(total_size_bytes), min(total_size_bytes),
       (array_agg(total_size_bytes ORDER BY collected_date DESC))[1],
       sum(database_count), max(database_count), min(database_count),
       nullif(count(log_size_bytes), 0), sum(log_size_bytes), max(log_size_bytes), min(log_size_bytes),
       (array_agg(log_size_bytes ORDER BY collected_date DESC))[1], now()
FROM instance_size_stats WHERE collected_date BETWEEN :first AND :last
GROUP BY instance_id, {bucket}
ON CONFLICT (instance_id, period_type, period_start) DO UPDATE
SET ({measures}, calculated_at, updated_at) = ROW ({excluded}, excluded.calculated_at, now())
WHERE ({stored}) IS DISTINCT FROM ({excluded})
"""
BARE = {Level.DATABASE: BARE_DATABASES, Level.INSTANCE: BARE_INSTANCES}
BUCKETS = {
    PeriodType.DAILY: "collected_date",
    PeriodType.WEEKLY: "collected_date - (collected_date - DATE '2000-01-03') % 7",
    PeriodType.MONTHLY: "collected_date - (extract(day FROM collected_date)::integer - 1)",
    PeriodType.QUARTERLY: "date_trunc('quarter', collected_date::timestamp)::date",
}
ENDS = {
    PeriodType.DAILY: "{bucket}",
    PeriodType.WEEKLY: "{bucket} + 6",
    PeriodType.MONTHLY: "({bucket} + interval '1 month')::date - 1",
    PeriodType.QUARTERLY: "({bucket} + interval '3 months')::date - 1",
}


def run(scale: float) -> None:
    """Print the tables at 1,000 instances x 50 databases x 91 days times *scale* (of the instances)."""
    instances = max(int(1000 * scale), 2)
    with fresh_store() as engine:
        point_settings_at(engine)
        fill(engine, instances, FIRST, DAYS)
        _steps(engine, instances, rounds_at(scale, ROUNDS))
        _growth_queries(engine, instances)
        _memory(engine, instances)
    _growth_of_time(scale)


def _steps(engine: Engine, instances: int, rounds: int) -> None:
    rows = []
    asked = [(level, *one, what) for level in Level for one in ONE_WINDOW.items() for what in ("new", "again")]
    with dg.instance_for_test() as instance:
        for level, period_type, start, what in asked:
            window = window_of(start, period_type)
            # The window before is there, as it is on every day but the first.
            aggregate(engine, level, [window_of(window.start - timedelta(days=1), period_type)])
            step, plain, idle = _step_bare_and_idle(engine, instance, level, window, rounds, empty_first=what == "new")
            ratios = (step / plain, step / (plain + idle))
            rows.append((f"{level.value} {period_type.value}", what, step, plain, idle, *ratios))
    print_result(
        f"one window, {instances:,} instances x {DATABASES} databases x {DAYS} days",
        ("asset", "rows", "asset step s", "bare statement s", "empty step s", "step / bare", "step / (bare + empty)"),
        rows,
    )


def _step_bare_and_idle(
    engine: Engine, instance: dg.DagsterInstance, level: Level, window: Window, rounds: int, *, empty_first: bool
) -> list[float]:
    """Return the median seconds of the asset step, of the bare statement, and of a step with an empty body."""
    key = aggregation_key(level, window.period_type)
    job, partition = AGGREGATION_JOB_NAMES[window.period_type], window.start.isoformat()
    idle = [idle_asset(level, window.period_type)]
    sides: list[Callable[[], float]] = [
        lambda: _step_seconds(materialize(instance, job, [key], partition_key=partition)),
        lambda: seconds_of(lambda: bare(engine, level, [window])),
        lambda: _step_seconds(materialize_idle(instance, idle, partition_key=partition)),
    ]
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, call in enumerate(sides):
            if empty_first:
                _empty(engine, level, window)
            times[side].append(call())
    return [statistics.median(one) for one in times]


def bare(engine: Engine, level: Level, windows: Sequence[Window]) -> None:
    """Run the hand-written statement over adjacent windows."""
    period_type = windows[0].period_type
    measures = TABLES[level].measures
    bucket = BUCKETS[period_type] if len(windows) > 1 else "CAST(:first AS date)"
    statement = BARE[level].format(
        bucket=bucket,
        end=ENDS[period_type].format(bucket=bucket),
        measures=", ".join(measures),
        excluded=", ".join(f"excluded.{measure}" for measure in measures),
        stored=", ".join(f"stored.{measure}" for measure in measures),
    )
    values: dict[str, object] = {
        "period_type": period_type.value,
        "first": windows[0].start,
        "last": windows[-1].end,
    }
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL jit = off; SET LOCAL work_mem = '128MB'"))
        last: date = connection.execute(text("SELECT max(collected_date) FROM instance_size_stats")).scalar_one()
        values["closing_days"] = [min(window.end, last) for window in windows]
        connection.execute(text(statement), values)


def _step_seconds(result: dg.ExecuteInProcessResult) -> float:
    (success,) = [event for event in result.all_node_events if event.is_step_success]
    return float(success.step_success_data.duration_ms) / 1000


def _growth_queries(engine: Engine, instances: int) -> None:
    """Fill 400 days, roll them up into the weeks and months of one year, and ask for growth."""
    year = windows_between(FIRST - timedelta(days=310), FIRST + timedelta(days=DAYS - 1), PeriodType.MONTHLY)
    first, last = year[0].start, year[-1].end
    fill(engine, instances, first, (FIRST - first).days, only_every=7)
    for period_type in (PeriodType.MONTHLY, PeriodType.WEEKLY):
        for level in Level:
            aggregate(engine, level, windows_between(first, last, period_type))
    _vacuum(engine)
    growth.measure(engine, max(instances // 2, 1), first, last)


def _memory(engine: Engine, instances: int) -> None:
    """Print the worker's resident memory after a day and after a quarter of every database."""
    process = psutil.Process()
    rows = []
    for period_type in (PeriodType.DAILY, PeriodType.QUARTERLY):
        result = aggregate(engine, Level.DATABASE, [window_of(ONE_WINDOW[period_type], period_type)])[0]
        rows.append((period_type.value, result.source_rows, process.memory_info().rss // 2**20))
    print_result(f"memory of the worker, {instances:,} instances", ("window", "source rows", "resident MiB"), rows)


def _growth_of_time(scale: float) -> None:
    rows = []
    # At a small scale some of the sizes are the same.
    for instances in sorted({max(int(1000 * scale * share), 2) for share in (0.02, 0.1, 0.3, 1.0)}):
        with fresh_store() as engine:
            fill(engine, instances, FIRST, DAYS)
            window = window_of(FIRST, PeriodType.QUARTERLY)
            seconds = seconds_of(lambda: aggregate(engine, Level.DATABASE, [window]))  # noqa: B023 - called at once
        source = instances * DATABASES * DAYS
        rows.append((source, seconds, int(source / seconds)))
    print_result("one quarter of all databases", ("source rows", "seconds", "source rows/s"), rows)


def fill(engine: Engine, instances: int, first: date, days: int, only_every: int = 1) -> None:
    wanted = [first + timedelta(days=n) for n in range(0, days, only_every)]
    if _count(engine, "instances") == 0:
        register_instances(engine, instances)
    with engine.begin() as connection:
        # A window may start up to a quarter before its first day here.
        ensure_children(
            connection, PARTITIONED_TABLES, [*wanted, *(first - timedelta(days=n) for n in (7, 31, 62, 92))]
        )
    for day in wanted:
        with engine.begin() as connection:
            values = {"day": day, "instances": instances, "databases": DATABASES}
            connection.execute(text(FILL), values)
            connection.execute(text(FILL_TOTALS), values)
    _vacuum(engine)


def _empty(engine: Engine, level: Level, window: Window) -> None:
    """Remove the rows of one window, and what is left of them in heap and index."""
    table = TABLES[level].aggregations
    with engine.begin() as connection:
        connection.execute(
            text(f"DELETE FROM {table} WHERE period_type = :period_type AND period_start = :start"),
            {"period_type": window.period_type.value, "start": window.start},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM {table}"))


def _count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        count: int = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        return count


def _vacuum(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def point_settings_at(engine: Engine) -> None:
    os.environ[f"{PREFIX}STORE_URL"] = engine.url.render_as_string(hide_password=False)
    load_settings.cache_clear()
    assert date.fromisoformat(str(PARTITIONS[PeriodType.DAILY].get_first_partition_key())) <= FIRST
    console.print()
