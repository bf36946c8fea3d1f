"""Import of sizes from elsewhere: one transaction, set-based, and never over what was measured unless asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, Engine, text

from whalefall_capacity.byte_sizes import LARGEST_CREDIBLE_SIZE
from whalefall_capacity.errors import HistoryFileError
from whalefall_capacity.history_file import SHOWN_ERRORS, HistoryRows, SizeUnit, refused, where
from whalefall_capacity.printable import first_of
from whalefall_capacity.store.postgres.copying import copy_rows
from whalefall_capacity.store.sizes.stats import LOCK_INSTANCES
from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children

# In the order in which a history file is read. Everything is text until the whole file has been checked.
TEXTS = ("instance", "database_name", "day", "size_bytes", "data_size_bytes", "log_size_bytes", "collected_at")
LINES_TABLE = """
CREATE TEMPORARY TABLE lines (position bigint NOT NULL, {texts}) ON COMMIT DROP
""".format(texts=", ".join(f'{column} text COLLATE "C" NOT NULL' for column in TEXTS))
REPEATED = """
SELECT min(position) AS first, max(position) AS position, instance, database_name, day, count(*) OVER () AS errors
FROM lines
GROUP BY instance, database_name, day
HAVING count(*) > 1
ORDER BY position
LIMIT :shown
"""
UNKNOWN_INSTANCES = """
SELECT instance FROM (SELECT DISTINCT instance FROM lines) AS named
WHERE NOT EXISTS (SELECT FROM instances WHERE instances.name = named.instance)
ORDER BY instance
"""
CREATE_INSTANCES = """
INSERT INTO instances (name, db_type, is_active, description)
SELECT name, 'unknown', false, 'known only from imported history'
FROM unnest(CAST(:names AS text[])) AS name
ON CONFLICT (name) DO NOTHING
RETURNING name
"""
# In the order of the key: sorted input loads twice as fast.
IMPORTED_TABLE = """
CREATE TEMPORARY TABLE imported ON COMMIT DROP AS
SELECT i.id AS instance_id, l.database_name, CAST(l.day AS date) AS day,
       CAST(l.size_bytes AS bigint) * :unit AS size_bytes,
       CAST(nullif(l.data_size_bytes, '') AS bigint) * :unit AS data_size_bytes,
       CAST(nullif(l.log_size_bytes, '') AS bigint) * :unit AS log_size_bytes,
       CAST(nullif(l.collected_at, '') AS timestamptz) AS collected_at
FROM lines AS l
JOIN instances AS i ON i.name = l.instance
ORDER BY i.id, l.database_name, l.day
"""
# Databases that a visit listed but could not measure, and whose size now comes from the file. One that is inactive
# and was never deactivated is known from imports alone: no visit has listed it.
FILLED_TABLE = """
CREATE TEMPORARY TABLE filled ON COMMIT DROP AS
SELECT instance_id, imported.day, count(*)::integer AS databases
FROM imported
JOIN instance_databases AS known USING (instance_id, database_name)
WHERE imported.day BETWEEN known.first_seen_date AND known.last_seen_date
  AND (known.is_active OR known.deleted_at IS NOT NULL)
  AND NOT EXISTS (SELECT FROM database_size_stats AS stored
                  WHERE stored.instance_id = imported.instance_id
                    AND stored.database_name = imported.database_name AND stored.collected_date = imported.day)
GROUP BY instance_id, imported.day
"""
# That a database was dropped, and when it was last seen then, is for visits to say. One that is there has been seen on
# every day that has a size of it.
REGISTER_DATABASES = """
INSERT INTO instance_databases AS known (instance_id, database_name, is_active, first_seen_date, last_seen_date)
SELECT instance_id, database_name, false, min(day), max(day) FROM imported
GROUP BY instance_id, database_name
ON CONFLICT (instance_id, database_name) DO UPDATE
SET first_seen_date = least(known.first_seen_date, excluded.first_seen_date),
    last_seen_date = CASE WHEN known.deleted_at IS NOT NULL THEN known.last_seen_date
                          ELSE greatest(known.last_seen_date, excluded.last_seen_date) END,
    updated_at = now()
WHERE known.first_seen_date > excluded.first_seen_date
   OR known.deleted_at IS NULL AND known.last_seen_date < excluded.last_seen_date
"""
TOUCHED_TABLE = """
CREATE TEMPORARY TABLE touched (instance_id integer NOT NULL, day date NOT NULL, rows bigint NOT NULL) ON COMMIT DROP
"""
# A row without a time of its own is of now(), which no other row is, and leaves the time of one that it only repeats.
UPSERT_SIZES = """
WITH written AS (
    INSERT INTO database_size_stats AS stored (instance_id, database_name, collected_date, size_bytes,
                                               data_size_bytes, log_size_bytes, source, collected_at)
    SELECT instance_id, database_name, day, size_bytes, data_size_bytes, log_size_bytes, 'imported',
           coalesce(collected_at, now())
    FROM imported
    ON CONFLICT (instance_id, database_name, collected_date) DO UPDATE
    SET size_bytes = excluded.size_bytes, data_size_bytes = excluded.data_size_bytes,
        log_size_bytes = excluded.log_size_bytes, source = 'imported',
        collected_at = excluded.collected_at, updated_at = now()
    WHERE (stored.source = 'imported' OR :replace)
      AND ((stored.size_bytes, stored.data_size_bytes, stored.log_size_bytes, stored.source)
           IS DISTINCT FROM (excluded.size_bytes, excluded.data_size_bytes, excluded.log_size_bytes, excluded.source)
           OR excluded.collected_at NOT IN (stored.collected_at, now()))
    RETURNING instance_id, collected_date
)
INSERT INTO touched
SELECT instance_id, collected_date, count(*) FROM written GROUP BY instance_id, collected_date
"""
# Databases that were there on a day without a visit, for all that visits say: those listed before it and after it, or
# before it and to this day.
THERE = """
(known.first_seen_date <= stored.collected_date
 AND (known.is_active OR known.deleted_at IS NOT NULL AND known.last_seen_date >= stored.collected_date))
"""
TOTALS_TABLE = """
CREATE TEMPORARY TABLE totals ON COMMIT DROP AS
SELECT stored.instance_id, stored.collected_date, sum(stored.size_bytes) AS total_size_bytes,
       count(*) AS database_count, bool_or(stored.source = 'measured') AS is_measured,
       max(stored.collected_at) AS collected_at,
       (SELECT count(*) FROM instance_databases AS known
        WHERE known.instance_id = stored.instance_id AND <there>) - count(known.database_name) AS missing_count
FROM touched
JOIN database_size_stats AS stored
  ON stored.instance_id = touched.instance_id AND stored.collected_date = touched.day
LEFT JOIN instance_databases AS known
  ON known.instance_id = stored.instance_id AND known.database_name = stored.database_name AND <there>
GROUP BY stored.instance_id, stored.collected_date
""".replace("<there>", THERE)
IMPOSSIBLE_TOTALS = """
SELECT i.name AS instance, totals.collected_date AS day, totals.total_size_bytes, count(*) OVER () AS errors
FROM totals
JOIN instances AS i ON i.id = totals.instance_id
WHERE totals.total_size_bytes > :largest
ORDER BY i.name, totals.collected_date
LIMIT :shown
"""
# What a visit listed it has counted itself. A day that imports alone have brought never lacks more than at first: a
# database that a later one dates back makes no complete day partial.
UPSERT_TOTALS = """
INSERT INTO instance_size_stats AS total (instance_id, collected_date, total_size_bytes, database_count, missing_count,
                                          source, collected_at)
SELECT instance_id, collected_date, total_size_bytes, database_count, missing_count,
       CASE WHEN is_measured THEN 'measured' ELSE 'imported' END, collected_at
FROM totals
ON CONFLICT (instance_id, collected_date) DO UPDATE
SET total_size_bytes = excluded.total_size_bytes, database_count = excluded.database_count, source = excluded.source,
    missing_count = CASE WHEN total.source = 'imported' THEN least(total.missing_count, excluded.missing_count)
                         ELSE greatest(total.missing_count - coalesce(
                             (SELECT databases FROM filled
                              WHERE filled.instance_id = excluded.instance_id
                                AND filled.day = excluded.collected_date), 0), 0) END,
    collected_at = excluded.collected_at, updated_at = now()
"""
KEPT_MEASURED = """
SELECT count(*) FROM imported
JOIN database_size_stats AS stored
  ON stored.instance_id = imported.instance_id AND stored.database_name = imported.database_name
 AND stored.collected_date = imported.day
WHERE stored.source = 'measured'
"""


@dataclass(frozen=True)
class HistoryImport:
    """The result of an import. *changed_days*: those on which at least one row was written."""

    rows: int
    written: int
    kept_measured: int
    created_instances: tuple[str, ...]
    changed_days: tuple[date, ...]

    @property
    def unchanged(self) -> int:
        return self.rows - self.written - self.kept_measured


def import_history(
    engine: Engine,
    chunks: Iterable[HistoryRows],
    source: str,
    *,
    unit: SizeUnit = SizeUnit.BYTES,
    replace: bool = False,
    create_instances: bool = False,
    dry_run: bool = False,
) -> HistoryImport:
    """Store the rows of a history file; *source* names it in errors.

    Raises HistoryFileError when a row repeats another or names an unknown instance, or when the sizes of a day are
    more than a server can hold; then, as when *chunks* raises, nothing is written. A dry run does everything and takes
    it back.
    """
    with engine.connect() as connection, connection.begin() as transaction:
        rows = _load(connection, chunks)
        _refuse_repeated(connection, source)
        created = _create_instances(connection, source, create_instances)
        connection.execute(text(IMPORTED_TABLE), {"unit": unit.size_bytes})
        connection.execute(text("ANALYZE imported"))
        days = list(connection.execute(text("SELECT DISTINCT day FROM imported ORDER BY day")).scalars())
        ensure_children(connection, STATS_TABLES, days)
        result = _write(connection, source, rows, created, replace)
        if dry_run:
            transaction.rollback()
    return result


def _load(connection: Connection, chunks: Iterable[HistoryRows]) -> int:
    connection.execute(text(LINES_TABLE))
    rows = 0
    for chunk in chunks:
        rows_of_chunk = zip(chunk.positions, *chunk.columns, strict=True)
        copy_rows(connection, "lines", ("position", *TEXTS), rows_of_chunk, texts=TEXTS)
        rows += len(chunk.positions)
    connection.execute(text("ANALYZE lines"))
    return rows


def _refuse_repeated(connection: Connection, source: str) -> None:
    repeated = connection.execute(text(REPEATED), {"shown": SHOWN_ERRORS}).all()
    errors = []
    for row in repeated:
        key = f"{row.instance}, {row.database_name}, {row.day}"
        errors.append(f"{where(source, row.position)}: {key} again, first at {row.first}")
    if repeated:
        raise refused(errors, repeated[0].errors)


def _refuse_impossible_totals(connection: Connection, source: str) -> None:
    values = {"largest": LARGEST_CREDIBLE_SIZE, "shown": SHOWN_ERRORS}
    found = connection.execute(text(IMPOSSIBLE_TOTALS), values).all()
    if found:
        errors = [
            f"{source}: {row.instance}, {row.day}: the sizes add up to {row.total_size_bytes} bytes, "
            "which no server can hold"
            for row in found
        ]
        raise refused(errors, found[0].errors)


def _create_instances(connection: Connection, source: str, allowed: bool) -> tuple[str, ...]:
    unknown = list(connection.execute(text(UNKNOWN_INSTANCES)).scalars())
    if unknown and not allowed:
        raise HistoryFileError(
            f"{source}: instances {first_of(unknown, SHOWN_ERRORS)} are not registered: apply a fleet file "
            "that has them, or pass --create-instances to register them as inactive"
        )
    # Another import may have been faster; then the name is not among those that are returned.
    return tuple(sorted(connection.execute(text(CREATE_INSTANCES), {"names": unknown}).scalars()))


def _write(connection: Connection, source: str, rows: int, created: tuple[str, ...], replace: bool) -> HistoryImport:
    ids = list(connection.execute(text("SELECT DISTINCT instance_id FROM imported")).scalars())
    connection.execute(text(LOCK_INSTANCES), {"ids": ids})
    connection.execute(text(FILLED_TABLE))
    kept = 0 if replace else connection.execute(text(KEPT_MEASURED)).scalar_one()
    connection.execute(text(TOUCHED_TABLE))
    connection.execute(text(UPSERT_SIZES), {"replace": replace})
    connection.execute(text("ANALYZE touched"))
    connection.execute(text(TOTALS_TABLE))
    _refuse_impossible_totals(connection, source)
    connection.execute(text(UPSERT_TOTALS))
    # Last: which databases were there is asked of what was known before.
    connection.execute(text(REGISTER_DATABASES))
    touched = connection.execute(text("SELECT day, sum(rows) AS rows FROM touched GROUP BY day ORDER BY day")).all()
    return HistoryImport(
        rows=rows,
        written=int(sum(row.rows for row in touched)),
        kept_measured=kept,
        created_instances=created,
        changed_days=tuple(row.day for row in touched),
    )
