"""Visiting the fleet: the whole collection beside a bare loop that connects and asks, with as many threads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

import psycopg2
from psycopg2 import sql
from pydantic import SecretStr

from benchmarks.harness import fresh_store, in_turns, print_result, rounds_at
from benchmarks.writing import register_instances
from whalefall_capacity.collection.fleet import visit_fleet
from whalefall_capacity.collection.sizes import FailedVisit, Limits, NameFilter, ServerEngine, Target, Visit
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.sizes.stats import write_visits

DATABASES = 50
CONCURRENCY = 32
FIRST_DAY = date(2026, 6, 1)
LIMITS = Limits(connect_timeout_seconds=10, statement_timeout_seconds=60, deadline_seconds=120)
FILTERS: dict[str, NameFilter] = {engine: NameFilter() for engine in ServerEngine}
ASK = "SELECT oid, datname, pg_database_size(oid) FROM pg_database WHERE datallowconn AND NOT datistemplate"


def run(scale: float) -> None:
    """Print visits per second of the collection, and of the loop, for 1,000 instances times *scale*."""
    count = int(1000 * scale)
    with fleet_server() as server, fresh_store() as engine:
        register_instances(engine, count)
        host = str(server.socket_dir)
        targets = [
            Target(n, f"instance-{n}", ServerEngine.POSTGRESQL, host, 5432, None, "postgres", SecretStr(""))
            for n in range(1, count + 1)
        ]

        def ours(number: int) -> None:
            day = FIRST_DAY + timedelta(days=number)
            for batch in visit_fleet(targets, LIMITS, FILTERS, CONCURRENCY):
                visits = [outcome for outcome in batch if isinstance(outcome, Visit)]
                assert len(visits) == len(batch), [o.error for o in batch if isinstance(o, FailedVisit)][:1]
                write_visits(engine, day, visits)

        def visits_alone(number: int) -> None:  # noqa: ARG001 - every round is the same
            for _ in visit_fleet(targets, LIMITS, FILTERS, CONCURRENCY):
                pass

        def bare(number: int) -> None:  # noqa: ARG001 - every round is the same
            with ThreadPoolExecutor(CONCURRENCY) as pool:
                list(pool.map(_connect_and_ask, [host] * count))

        seconds = in_turns((ours, visits_alone, bare), rounds_at(scale, 3))
    rates = [int(count / s) for s in seconds]
    print_result(
        f"visiting {count:,} instances with {DATABASES} databases each, {CONCURRENCY} at a time",
        ("what", "visits/s", "share of the bare loop"),
        [
            ("visit and store", rates[0], seconds[2] / seconds[0]),
            ("visit alone", rates[1], seconds[2] / seconds[1]),
            ("bare loop: connect, one SELECT", rates[2], 1.0),
        ],
    )


def _connect_and_ask(host: str) -> None:
    with closing(psycopg2.connect(host=host, user="postgres")) as connection, connection.cursor() as cursor:
        cursor.execute(ASK)
        cursor.fetchall()


@contextmanager
def fleet_server() -> Iterator[EmbeddedPostgres]:
    with (
        tempfile.TemporaryDirectory(prefix="whalefall-benchmark-") as folder,
        EmbeddedPostgres(Path(folder) / "fleet", 16).running() as server,
    ):
        connection = psycopg2.connect(host=str(server.socket_dir), user="postgres")
        connection.autocommit = True
        with closing(connection), connection.cursor() as cursor:
            for number in range(DATABASES - 1):
                name = sql.Identifier(f"database_{number}")
                cursor.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(name))
        yield server
