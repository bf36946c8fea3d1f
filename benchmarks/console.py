"""The console's lists and summaries, asked for by many at once, beside their bare SQL at the same concurrency.

The bare side is one hand-written statement per question, sent by as many threads of one process, each with a
connection of its own; it fetches all rows. The console's side is HTTP/1.1 over connections that are kept, from another
process than the server, with a bearer token, and reads the whole answer. Both sides have `jit = off` and the same
`work_mem`. They take turns, so that a slow moment of the machine hits both. What the console keeps until something
changes is shown apart: the first request of each question, of one user alone, finds nothing kept.
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import astuple, dataclass
from datetime import date, timedelta

import psycopg2
from pydantic import SecretStr
from sqlalchemy import Engine, text

from benchmarks.console_pages import (
    DATABASE_RANKING,
    EVERY_BY_SIZE,
    INSTANCE_RANKING,
    LISTED_BY_CHANGE,
    LISTED_BY_NAME,
    LISTED_BY_SIZE,
    LISTED_INSTANCES,
    OVERVIEW,
)
from benchmarks.harness import console, fresh_store, print_result, rounds_at
from whalefall_capacity.periods import PeriodType, month_starts, today
from whalefall_capacity.settings import PREFIX, load_settings
from whalefall_capacity.store.access import Role, create_token
from whalefall_capacity.store.aggregations.selection import Selection
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.aggregations.summaries import summary
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.postgres.engine import libpq_environment
from whalefall_capacity.store.sizes.database_list import list_databases
from whalefall_capacity.store.sizes.instance_list import list_instances
from whalefall_capacity.store.sizes.listing import ListFilter
from whalefall_capacity.store.table_partitions.create import AGGREGATION_TABLES, STATS_TABLES, ensure_children

USERS = 20
REQUESTS = 40
# Of questions that take a second and more by hand.
FEW_REQUESTS = 3
LIST_REQUESTS = 10
ROUNDS = 3
DATABASES = 50
DAYS = 400
FILL = """
INSERT INTO database_size_aggregations (instance_id, database_name, period_type, period_start, period_end, data_count,
    sum_size_bytes, max_size_bytes, min_size_bytes, closing_size_bytes, calculated_at)
SELECT i, 'database_' || lpad(d::text, 5, '0'), 'daily', :day, :day, 1, size, size, size, size, now()
FROM generate_series(1, :instances) AS i, generate_series(1, :databases) AS d,
     LATERAL (SELECT 1000000000 + (CAST(i AS bigint) * d * 7919) % 100000000 + :n * 10000 AS size) AS sized
ORDER BY 1, 2
"""
FILL_TOTALS = """
INSERT INTO instance_size_aggregations (instance_id, period_type, period_start, period_end, data_count, partial_days,
    sum_size_bytes, max_size_bytes, min_size_bytes, closing_size_bytes, sum_database_count, max_database_count,
    min_database_count, calculated_at)
SELECT instance_id, 'daily', :day, :day, 1, 0, sum(sum_size_bytes), sum(sum_size_bytes), sum(sum_size_bytes),
       sum(sum_size_bytes), count(*), count(*), count(*), now()
FROM database_size_aggregations WHERE period_type = 'daily' AND period_start = :day GROUP BY instance_id
"""
RECORD = """
INSERT INTO aggregation_windows (level, period_type, period_start, calculated_at, source_rows, source_sum_bytes,
                                 result_rows, instances)
SELECT level, 'daily', :day, now(), 1, 1, 1, 1 FROM unnest(ARRAY['database', 'instance']) AS level
"""
# The days that the overview looks at: months of totals, and for what grew the databases of little more than one.
STATS_DAYS, TOTALS_DAYS = 40, 130
STATS = """
INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
SELECT instance_id, database_name, :day, closing_size_bytes, 'measured', now()
FROM database_size_aggregations WHERE period_type = 'daily' AND period_start = :day
"""
TOTALS = """
INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count, source,
    collected_at)
SELECT instance_id, :day, closing_size_bytes, max_database_count, 0, 'measured', now()
FROM instance_size_aggregations WHERE period_type = 'daily' AND period_start = :day
"""
REGISTER = """
INSERT INTO instances (name, db_type) SELECT 'instance-' || i, 'postgresql' FROM generate_series(1, :instances) AS i;
INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)
SELECT i, 'database_' || lpad(d::text, 5, '0'), :first, :last
FROM generate_series(1, :instances) AS i, generate_series(1, :databases) AS d
"""
# The page by the primary key, the baseline of each of its rows by a look-up, and the count as far as pages go.
DATABASE_LIST = """
SELECT page.*, i.name, b.period_start AS baseline, page.sum_size_bytes - b.sum_size_bytes AS change,
       round(100 * (page.sum_size_bytes - b.sum_size_bytes) / nullif(b.sum_size_bytes, 0), 2) AS percent,
       (SELECT count(*) FROM (SELECT FROM database_size_aggregations
                              WHERE period_type = 'daily' AND period_start BETWEEN %(first)s AND %(last)s {scope}
                              LIMIT 10000) AS counted) AS total
FROM (SELECT * FROM database_size_aggregations
      WHERE period_type = 'daily' AND period_start BETWEEN %(first)s AND %(last)s {scope}
      ORDER BY instance_id, database_name, period_start LIMIT 20) AS page
JOIN instances AS i ON i.id = page.instance_id
LEFT JOIN LATERAL (
    SELECT period_start, sum_size_bytes FROM database_size_aggregations AS earlier
    WHERE earlier.instance_id = page.instance_id AND earlier.database_name = page.database_name
      AND earlier.period_type = 'daily' AND earlier.period_start < page.period_start
      AND earlier.period_start >= %(earliest)s AND earlier.period_start <= %(last)s
    ORDER BY period_start DESC LIMIT 1) AS b ON true
ORDER BY page.instance_id, page.database_name, page.period_start
"""
INSTANCE_LIST = (
    DATABASE_LIST.replace("database_size_aggregations", "instance_size_aggregations")
    .replace("instance_id, database_name, period_start", "instance_id, period_start")
    .replace("page.instance_id, page.database_name, page.period_start", "page.instance_id, page.period_start")
    .replace(" AND earlier.database_name = page.database_name", "")
)
# The newest window that has data, its figures, and what is the largest there.
SUMMARY = """
WITH sizes AS MATERIALIZED (
    SELECT period_start, instance_id, {name} AS database_name, sum_size_bytes / data_count AS size,
           {databases} AS databases
    FROM {level}_size_aggregations
    WHERE period_type = 'daily' AND period_start BETWEEN %(first)s AND %(last)s AND period_start = (
        SELECT max(period_start) FROM aggregation_windows
        WHERE level = '{level}' AND period_type = 'daily' AND period_start BETWEEN %(first)s AND %(last)s
          AND result_rows > 0)
)
SELECT figures.*, i.name, found.database_name
FROM (SELECT min(period_start), count(DISTINCT instance_id), round(sum(databases)), round(sum(size)), round(avg(size)),
             round(max(size)) FROM sizes) AS figures,
     (SELECT instance_id, database_name FROM sizes ORDER BY size DESC, instance_id, database_name LIMIT 1) AS found
JOIN instances AS i ON i.id = found.instance_id
"""
DATABASE_SUMMARY = SUMMARY.format(level="database", name="database_name", databases="1")
INSTANCE_SUMMARY = SUMMARY.format(
    level="instance", name="NULL::text", databases="sum_database_count::numeric / data_count"
)
OF_INSTANCE = "AND instance_id = %(instance)s"
DEEP_PAGE = LISTED_BY_SIZE.format(offset=4950)
Call = Callable[[int], None]


@dataclass(frozen=True)
class Question:
    """A question to the console, and the statements that ask it by hand."""

    name: str
    path: str
    statement: str
    requests: int = REQUESTS


QUESTIONS = (
    Question("list of databases", "/api/v1/capacity/databases", DATABASE_LIST.format(scope="")),
    Question(
        "list of databases, one instance",
        "/api/v1/capacity/databases?instance_id={i}",
        DATABASE_LIST.format(scope=OF_INSTANCE),
    ),
    Question("summary of databases", "/api/v1/capacity/databases/summary", DATABASE_SUMMARY),
    Question("list of instances", "/api/v1/capacity/instances", INSTANCE_LIST.format(scope="")),
    Question("summary of instances", "/api/v1/capacity/instances/summary", INSTANCE_SUMMARY),
    Question("overview", "/api/v1/overview", OVERVIEW, FEW_REQUESTS),
    Question("page: overview", "/", OVERVIEW, FEW_REQUESTS),
    Question("page: charts of instances", "/instances", INSTANCE_RANKING + INSTANCE_SUMMARY, FEW_REQUESTS),
    Question("page: charts of databases", "/databases", DATABASE_RANKING + DATABASE_SUMMARY, 1),
    Question("page: list of databases", "/databases/list", LISTED_BY_NAME, LIST_REQUESTS),
    Question("by size", "/databases/list?sort=-size", LISTED_BY_SIZE.format(offset=0), LIST_REQUESTS),
    Question("by size, page 100", "/databases/list?sort=-size&page=100", DEEP_PAGE, LIST_REQUESTS),
    Question("by change", "/databases/list?sort=-change_30_days", LISTED_BY_CHANGE, LIST_REQUESTS),
    Question("CSV of all databases", "/databases/list.csv?sort=-size", EVERY_BY_SIZE, 1),
    Question("page: list of instances", "/instances/list?sort=-size", LISTED_INSTANCES, LIST_REQUESTS),
)


def run(scale: float) -> None:
    """Print the table at 1,000 instances x 50 databases x 400 days times *scale* (of the instances)."""
    instances = max(int(1000 * scale), 2)
    with fresh_store() as engine:
        os.environ[f"{PREFIX}STORE_URL"] = engine.url.render_as_string(hide_password=False)
        load_settings.cache_clear()
        last = today(load_settings().zone)
        _fill(engine, instances, last)
        token = create_token(engine, "benchmark", Role.VIEW).get_secret_value()
        with _served(engine) as port:
            _assert_same_summaries(engine, last)
            _assert_same_lists(engine, last)
            first = [_first(port, token, question.path, instances) for question in QUESTIONS]
            rows = []
            for question, first_ms in zip(QUESTIONS, first, strict=True):
                bare, ours = _in_turns(engine, port, token, question, last, instances, scale)
                p95, bare_p95 = _p95(ours), _p95(bare)
                rows.append((question.name, p95, bare_p95, p95 / bare_p95, statistics.median(ours), first_ms))
    print_result(
        f"{USERS} users at once, {instances:,} instances x {DATABASES} databases x {DAYS} days",
        ("question", "p95 ms", "bare SQL p95 ms", "ratio", "median ms", "first, alone ms"),
        rows,
    )


def _assert_same_summaries(engine: Engine, last: date) -> None:
    """Check that both sides of a summary give the same answer."""
    selection = Selection(PeriodType.DAILY, last - timedelta(days=29), last)
    for level, statement in ((Level.DATABASE, DATABASE_SUMMARY), (Level.INSTANCE, INSTANCE_SUMMARY)):
        with engine.connect() as connection, raw_cursor(connection) as cursor:
            cursor.execute(statement, {"first": selection.first, "last": last})
            # Here every database has a size on the newest day, which is then everybody's latest: nobody is missing.
            figures = astuple(summary(engine, level, selection))
            assert cursor.fetchall() == [figures[:8]]


def _assert_same_lists(engine: Engine, last: date) -> None:
    """Check that both sides of a page of a list give the same rows."""
    values = {"first": last - timedelta(days=29), "last": last}
    lists = (("instance", LISTED_BY_NAME, 0), ("-size", LISTED_BY_SIZE.format(offset=0), 0))
    with engine.connect() as connection, raw_cursor(connection) as cursor:
        for sort, statement, offset in (*lists, ("-size", DEEP_PAGE, 4950), ("-change_30_days", LISTED_BY_CHANGE, 0)):
            cursor.execute(statement, values)
            ours = list_databases(engine, ListFilter(), last, sort, 50, offset).rows
            assert [row[:3] for row in cursor] == [(one.instance_id, one.database_name, one.size_bytes) for one in ours]
        cursor.execute(LISTED_INSTANCES, values)
        instances = list_instances(engine, ListFilter(), last, "-size", 50).rows
        assert [row[:3] for row in cursor] == [(one.instance_id, one.instance, one.size_bytes) for one in instances]


def _first(port: int, token: str, path: str, instances: int) -> float:
    """Return the milliseconds of the first request of a path, for which the console has kept nothing yet."""
    with _http_user(port, token, path, instances) as ask:
        started = time.perf_counter()
        ask(0)
        return 1000 * (time.perf_counter() - started)


def _in_turns(
    engine: Engine, port: int, token: str, question: Question, last: date, instances: int, scale: float
) -> tuple[list[float], list[float]]:
    values = {"first": last - timedelta(days=29), "last": last, "earliest": last - timedelta(days=36)}
    bare: list[float] = []
    ours: list[float] = []
    requests = rounds_at(scale, question.requests)
    for number in range(rounds_at(scale, ROUNDS) + 1):
        users = [lambda: _sql_user(engine, question.statement, values, instances)] * USERS
        first = _timed(users, requests)
        second = _timed([lambda: _http_user(port, token, question.path, instances)] * USERS, requests)
        if number:  # The first round warms caches up.
            bare += first
            ours += second
    return bare, ours


@contextmanager
def _sql_user(engine: Engine, statement: str, values: Mapping[str, object], instances: int) -> Iterator[Call]:
    variables = libpq_environment(SecretStr(engine.url.render_as_string(hide_password=False)))
    connection = psycopg2.connect(host=variables["PGHOST"], dbname=variables["PGDATABASE"], user=variables["PGUSER"])
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET jit = off; SET work_mem = '32MB'")

        def ask(number: int) -> None:
            cursor.execute(statement, {**values, "instance": number * 7919 % instances + 1})
            cursor.fetchall()

        yield ask
    connection.close()


@contextmanager
def _http_user(port: int, token: str, path: str, instances: int) -> Iterator[Call]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Authorization": f"Bearer {token}"}

    def ask(number: int) -> None:
        connection.request("GET", path.format(i=number * 7919 % instances + 1), headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content

    yield ask
    connection.close()


def _timed(users: Sequence[Callable[[], AbstractContextManager[Call]]], requests: int) -> list[float]:
    """Return the milliseconds of every request, of all users at once."""
    barrier, times, lock = threading.Barrier(len(users)), list[float](), threading.Lock()

    def work(user: Callable[[], AbstractContextManager[Call]], seed: int) -> None:
        with user() as ask:
            barrier.wait()
            for number in range(requests):
                started = time.perf_counter()
                ask(seed * requests + number)
                with lock:
                    times.append(1000 * (time.perf_counter() - started))

    threads = [threading.Thread(target=work, args=(user, seed)) for seed, user in enumerate(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == len(users) * requests
    return times


def _p95(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


@contextmanager
def _served(engine: Engine) -> Iterator[int]:
    """Hold a console in a process of its own."""
    port = 18_765
    # It asks nothing of Dagster's storage; without a URL it would start an embedded one.
    elsewhere = engine.url.set(database="postgres").render_as_string(hide_password=False)
    variables = os.environ | {f"{PREFIX}DAGSTER_URL": elsewhere}
    process = subprocess.Popen(
        [sys.executable, "-m", "whalefall_capacity", "serve", "--port", str(port)], env=variables
    )
    try:
        for _ in range(300):
            with suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                break
            assert process.poll() is None
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _fill(engine: Engine, instances: int, last: date) -> None:
    days = [last - timedelta(days=n) for n in range(DAYS)][::-1]
    tables = [AGGREGATION_TABLES[level, PeriodType.DAILY] for level in ("database", "instance")]
    with engine.begin() as connection:
        ensure_children(connection, tables, list(month_starts(days[0], last)))
        ensure_children(connection, STATS_TABLES, list(month_starts(days[-TOTALS_DAYS], last)))
        connection.execute(
            text(REGISTER), {"instances": instances, "databases": DATABASES, "first": days[0], "last": last}
        )
    started = time.perf_counter()
    for n, day in enumerate(days):
        with engine.begin() as connection:
            values = {"day": day, "n": n, "instances": instances, "databases": DATABASES}
            connection.execute(text(FILL), values)
            connection.execute(text(FILL_TOTALS), values)
            connection.execute(text(RECORD), values)
            if n >= DAYS - TOTALS_DAYS:
                connection.execute(text(TOTALS), values)
            if n >= DAYS - STATS_DAYS:
                connection.execute(text(STATS), values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    console.print(f"filled {instances * DATABASES * DAYS:,} rows in {time.perf_counter() - started:.0f} s")
