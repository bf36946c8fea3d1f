"""Writing a day: `write_visits`, as the collector calls it, beside COPY and merges of the same rows by hand.

By hand is one transaction for the whole day: COPY, then one statement each for the sizes, the inventory and the
totals. "Sizes alone" is COPY and the first of them. The collector writes what up to 32 visits brought at a time.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone

from pydantic import SecretStr
from sqlalchemy import Engine, text

from benchmarks.harness import fresh_store, in_turns, print_result
from whalefall_capacity.collection.sizes import DatabaseSize, Measurement, ServerEngine, Target, Visit
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children

FIRST_DAY = date(2026, 6, 1)
BATCH = 32
SIZES = """
INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
SELECT instance_id, database_name, %(day)s, size_bytes, 'measured', now() FROM by_hand
ON CONFLICT (instance_id, database_name, collected_date) DO UPDATE
SET size_bytes = excluded.size_bytes, collected_at = excluded.collected_at, updated_at = now()
"""
INVENTORY = """
INSERT INTO instance_databases AS known (instance_id, database_name, first_seen_date, last_seen_date)
SELECT instance_id, database_name, %(day)s, %(day)s FROM by_hand
ON CONFLICT (instance_id, database_name) DO UPDATE
SET last_seen_date = excluded.last_seen_date, updated_at = now()
"""
TOTALS = """
INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count, source,
                                 collected_at)
SELECT instance_id, %(day)s, sum(size_bytes), count(*), 0, 'measured', now() FROM by_hand GROUP BY instance_id
ON CONFLICT (instance_id, collected_date) DO UPDATE
SET total_size_bytes = excluded.total_size_bytes, database_count = excluded.database_count,
    collected_at = excluded.collected_at, updated_at = now()
"""
# The totals of a day of made-up sizes, for the benchmarks that need them stored.
FILL_TOTALS = """
INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count, source,
                                 collected_at)
SELECT instance_id, collected_date, sum(size_bytes), count(*), 0, 'measured', now()
FROM database_size_stats WHERE collected_date = :day GROUP BY instance_id, collected_date
"""


def run(scale: float) -> None:
    """Print rows per second of both, at 50,000 databases times *scale*, and of one instance with 10,000."""
    shapes = [(int(1000 * scale), 50), (1, int(10_000 * scale))]
    rows = []
    for instances, databases in shapes:
        with fresh_store() as engine:
            rows += _compare(engine, instances, databases)
    print_result(
        "writing a day",
        ("instances x databases", "day", "rows/s", "by hand", "share", "sizes alone", "share"),
        rows,
    )


def _compare(engine: Engine, instances: int, databases: int) -> list[tuple[object, ...]]:
    visits = _visits(engine, instances, databases)
    count = instances * databases
    _prepare(engine)
    write_visits(engine, FIRST_DAY - timedelta(days=1), visits)

    def ours(number: int) -> None:
        for start in range(0, len(visits), BATCH):
            write_visits(engine, _day(number, 0), visits[start : start + BATCH])

    def by_hand(number: int) -> None:
        _copy_and_merge(engine, _day(number, 1), visits, (SIZES, INVENTORY, TOTALS))

    def sizes_alone(number: int) -> None:
        _copy_and_merge(engine, _day(number, 2), visits, (SIZES,))

    found: list[tuple[object, ...]] = []
    for day in ("new", "again"):
        mine, bare, least = in_turns((ours, by_hand, sizes_alone), rounds=5)
        rates = [int(count / seconds) for seconds in (mine, bare, least)]
        label = f"{instances:,} x {databases:,}"
        found.append((label, day, rates[0], rates[1], bare / mine, rates[2], least / mine))
    return found


def _day(number: int, side: int) -> date:
    return FIRST_DAY + timedelta(days=3 * number + side)


def register_instances(engine: Engine, count: int) -> None:
    """Register instances with the ids 1 to *count*."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO instances (id, name, db_type, host, port) "
                "SELECT n, 'instance-' || n, 'postgresql', '127.0.0.1', 5432 FROM generate_series(1, :count) AS n"
            ),
            {"count": count},
        )


def _visits(engine: Engine, instances: int, databases: int) -> list[Visit]:
    register_instances(engine, instances)
    sizes = tuple(DatabaseSize(f"database_{number:05}", 10_000_000 + number) for number in range(databases))
    return [
        Visit(
            Target(number, f"instance-{number}", ServerEngine.POSTGRESQL, "127.0.0.1", 5432, None, "u", SecretStr("")),
            Measurement("18.0", sizes, 1_000_000),
            datetime.now(timezone.utc),
            0.1,
        )
        for number in range(1, instances + 1)
    ]


def _prepare(engine: Engine) -> None:
    """Make the children first: both sides write into tables that are there."""
    with engine.begin() as connection:
        ensure_children(connection, STATS_TABLES, [FIRST_DAY + timedelta(days=n) for n in range(-1, 30)])


def _copy_and_merge(engine: Engine, day: date, visits: Sequence[Visit], statements: Sequence[str]) -> None:
    buffer = io.StringIO()
    for visit in visits:
        for database in visit.measurement.databases:
            buffer.write(f"{visit.target.instance_id}\t{database.name}\t{database.size_bytes}\n")
    buffer.seek(0)
    with engine.begin() as connection, raw_cursor(connection) as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE by_hand (instance_id int, database_name text, size_bytes bigint) ON COMMIT DROP"
        )
        cursor.copy_expert("COPY by_hand FROM STDIN", buffer)
        for statement in statements:
            cursor.execute(statement, {"day": day})
