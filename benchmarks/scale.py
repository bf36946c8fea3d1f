"""A fleet far away: servers of which one is real, and recorded, and all others are that record, 200 ms away.

Beside the measured rate stands what the cost model says of as many threads: a visit lasts as long as its round trips,
and a processor spends some milliseconds on each.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import dagster as dg
from pydantic import SecretStr
from sqlalchemy import Engine, text

from benchmarks.fleet import DATABASES, FILTERS, LIMITS, fleet_server
from benchmarks.harness import print_result
from benchmarks.mirror import PASSWORD_VARIABLE
from benchmarks.runs import ended_items, materialize
from whalefall_capacity.asset_keys import STATS_KEYS
from whalefall_capacity.collection.sizes import Cutoff, Findings, ServerEngine, Target, Tls
from whalefall_capacity.collection.visit import visit
from whalefall_capacity.periods import today
from whalefall_capacity.settings import PREFIX, load_settings
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity.tasks import SYNC_DATABASES

CONCURRENCY = 512
LATENCY_SECONDS = 0.2
# The process that plays the servers has to share the processors, and on slow ones answers late.
CONNECT_TIMEOUT_SECONDS = 60
FLEETS = (1_000, 10_000)
CHUNK_BYTES = 1024**2
REGISTER = """
WITH known AS (
    INSERT INTO credentials (name, username, secret_reference) VALUES ('far', 'postgres', 'env:' || :variable)
    ON CONFLICT (name) DO UPDATE SET updated_at = now() RETURNING id)
INSERT INTO instances (name, db_type, host, port, tls, credential_id)
SELECT 'far-' || number, 'postgresql', '127.0.0.1', :port, CAST('{"mode": "disable"}' AS jsonb), known.id
FROM known, generate_series(1, :count) AS number
ON CONFLICT (name) DO NOTHING
"""
MOST_FREQUENT_ERROR = "SELECT mode() WITHIN GROUP (ORDER BY error_message) FROM task_run_items WHERE run_id = :run_id"


def run(scale: float) -> None:
    """Print visits per second of one process with 1,000 and with 10,000 servers, each times *scale*."""
    rows = []
    with fleet_server() as server:
        answers = record(server.socket_dir / ".s.PGSQL.5432")
    round_trips = 1 + len(answers)
    with far_servers(answers) as port, _pipeline() as (engine, instance):
        for full in FLEETS:
            count = max(int(full * scale), 2)
            with engine.begin() as connection:
                connection.execute(text(REGISTER), {"variable": PASSWORD_VARIABLE, "port": port, "count": count})
            with _visits_counted() as at_once:
                seconds, cpu_seconds, run_id = _collect(instance, today(load_settings().zone))
            _require_every_size(engine, run_id, count)
            cpu = cpu_seconds / count
            model = min(min(CONCURRENCY, count) / (round_trips * LATENCY_SECONDS), 1 / cpu)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            rate = int(count / seconds)
            rows.append((f"{count:,}", seconds, rate, int(model), round_trips, cpu * 1000, max(at_once), peak))
    print_result(
        f"a fleet {LATENCY_SECONDS * 1000:.0f} ms away, {DATABASES} databases a server",
        ("servers", "s", "visits/s", "by the model", "round trips", "CPU ms a visit", "at once", "peak MiB"),
        rows,
    )


def _require_every_size(engine: Engine, run_id: str, count: int) -> None:
    """Raise RuntimeError, with the most frequent reason, unless the run has mirrored and measured all servers."""
    assert ended_items(engine, run_id) >= count
    with engine.connect() as connection:
        measured = connection.execute(text("SELECT count(*) FROM instance_size_stats")).scalar_one()
        if measured != count:
            reason = connection.execute(text(MOST_FREQUENT_ERROR), {"run_id": run_id}).scalar()
            raise RuntimeError(f"{measured:,} of {count:,} servers were measured; the most frequent error: {reason}")


def record(server: Path) -> list[bytes]:
    """Return what a server answers in a visit, by turns."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_listen_in, args=(listener, server, answers), daemon=True)
        thread.start()
        host, port = listener.getsockname()
        target = Target(1, "real", ServerEngine.POSTGRESQL, host, port, None, "postgres", SecretStr(""), Tls("disable"))
        visit(target, LIMITS, FILTERS, Cutoff(), Findings())
        thread.join()
    return answers


def _listen_in(listener: socket.socket, server: Path, answers: list[bytes]) -> None:
    client, _ = listener.accept()
    with client, socket.socket(socket.AF_UNIX) as upstream:
        upstream.connect(str(server))
        back = threading.Thread(target=_note_answers, args=(upstream, client, answers), daemon=True)
        back.start()
        while data := client.recv(CHUNK_BYTES):
            answers.append(b"")
            upstream.sendall(data)
        # The client takes its leave without an answer.
        while answers and not answers[-1]:
            answers.pop()


def _note_answers(upstream: socket.socket, client: socket.socket, answers: list[bytes]) -> None:
    with suppress(OSError):
        while data := upstream.recv(CHUNK_BYTES):
            answers[-1] += data
            client.sendall(data)


@contextmanager
def far_servers(answers: list[bytes]) -> Iterator[int]:
    """Hold a process that gives *answers* to everybody, late, and yield its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        process = multiprocessing.get_context("fork").Process(target=_answer_all, args=(listener, answers), daemon=True)
        process.start()
        yield int(listener.getsockname()[1])
        process.kill()
        process.join()


def _answer_all(listener: socket.socket, answers: list[bytes]) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            # To connect takes a round trip too.
            await asyncio.sleep(LATENCY_SECONDS)
            for content in answers:
                await reader.read(CHUNK_BYTES)
                await asyncio.sleep(LATENCY_SECONDS)
                writer.write(content)
            await reader.read(CHUNK_BYTES)
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, sock=listener, backlog=4096)
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def _pipeline() -> Iterator[tuple[Engine, dg.DagsterInstance]]:
    """Hold a store, and an instance of Dagster whose storage is PostgreSQL too."""
    with tempfile.TemporaryDirectory(prefix="whalefall-benchmark-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres")
        with server.running():
            server.create_databases("benchmark", "dagster")
            engine = create_store_engine(server.url("benchmark"))
            migrate(engine)
            os.environ[PASSWORD_VARIABLE] = ""
            os.environ[f"{PREFIX}STORE_URL"] = server.url("benchmark").get_secret_value()
            os.environ[f"{PREFIX}COLLECTION_CONCURRENCY"] = str(CONCURRENCY)
            os.environ[f"{PREFIX}CONNECT_TIMEOUT_SECONDS"] = str(CONNECT_TIMEOUT_SECONDS)
            load_settings.cache_clear()
            url = server.url("dagster").get_secret_value()
            with dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_url": url}}}) as instance:
                yield engine, instance
            engine.dispose()


@contextmanager
def _visits_counted() -> Iterator[list[int]]:
    """Note, now and then, how many visits are under way: memory follows from them, and not from all that there are."""
    counts, over = [0], threading.Event()

    def count() -> None:
        while not over.wait(0.1):
            counts.append(sum(thread.name.startswith("visit-") for thread in threading.enumerate()))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


def _collect(instance: dg.DagsterInstance, day: date) -> tuple[float, float, str]:
    """Return the seconds of a collection with its task run, those of a processor in this process, and the run's id."""
    started, cpu_started = time.perf_counter(), time.process_time()
    result = materialize(instance, SYNC_DATABASES.key, STATS_KEYS, partition_key=day.isoformat())
    return time.perf_counter() - started, time.process_time() - cpu_started, result.run_id
