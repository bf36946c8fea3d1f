"""Stats of past days, put straight into the store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from sqlalchemy import Engine, text

from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children

MIB = 2**20

REGISTER = """
INSERT INTO instances (id, name, db_type) VALUES (:id, 'instance-' || :id, 'postgresql') ON CONFLICT DO NOTHING
"""
SIZES = """
INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, data_size_bytes,
                                 log_size_bytes, source, collected_at)
SELECT r.instance_id, r.database_name, r.day, r.size_bytes, r.data_size_bytes, r.log_size_bytes, 'measured', now()
FROM unnest(CAST(:instances AS int[]), CAST(:names AS text[]), CAST(:days AS date[]), CAST(:sizes AS bigint[]),
            CAST(:data_sizes AS bigint[]), CAST(:log_sizes AS bigint[]))
     AS r (instance_id, database_name, day, size_bytes, data_size_bytes, log_size_bytes)
ON CONFLICT (instance_id, database_name, collected_date) DO UPDATE
SET size_bytes = excluded.size_bytes, updated_at = clock_timestamp()
"""
TOTALS = """
INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count,
                                 log_size_bytes, source, collected_at)
SELECT instance_id, collected_date, sum(size_bytes), count(*), 0, sum(log_size_bytes), 'measured', now()
FROM database_size_stats
GROUP BY instance_id, collected_date
ON CONFLICT (instance_id, collected_date) DO UPDATE
SET total_size_bytes = excluded.total_size_bytes, database_count = excluded.database_count,
    updated_at = clock_timestamp()
"""
TOTAL = """
INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count,
                                 log_size_bytes, source, collected_at)
VALUES (:instance_id, :day, :total, :databases, :missing, :log, 'measured', now())
ON CONFLICT (instance_id, collected_date) DO UPDATE
SET total_size_bytes = excluded.total_size_bytes, database_count = excluded.database_count,
    missing_count = excluded.missing_count, updated_at = clock_timestamp()
"""

Size = tuple[int, str, date, int] | tuple[int, str, date, int, int | None, int | None]


def put_sizes(store: Engine, sizes: Iterable[Size]) -> None:
    """Store (instance id, database, day, bytes[, data bytes, log bytes]) and the totals that follow from them."""
    rows = [(*size, None, None)[:6] for size in sizes]
    names = ("instances", "names", "days", "sizes", "data_sizes", "log_sizes")
    with store.begin() as connection:
        for instance_id in {row[0] for row in rows}:
            connection.execute(text(REGISTER), {"id": instance_id})
        ensure_children(connection, STATS_TABLES, {row[2] for row in rows})
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(text(SIZES), dict(zip(names, columns, strict=True)))
        connection.execute(text(TOTALS))


def put_total(
    store: Engine, instance_id: int, day: date, total: int, databases: int, missing: int = 0, log: int | None = None
) -> None:
    """Store the total of an instance alone."""
    with store.begin() as connection:
        connection.execute(text(REGISTER), {"id": instance_id})
        ensure_children(connection, STATS_TABLES, [day])
        values = {
            "instance_id": instance_id,
            "day": day,
            "total": total,
            "databases": databases,
            "missing": missing,
            "log": log,
        }
        connection.execute(text(TOTAL), values)
