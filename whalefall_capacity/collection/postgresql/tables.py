"""The tables of one database, to which the server is connected."""

from __future__ import annotations

from typing import Any

from whalefall_capacity.collection.database_tables import DatabaseTable, DatabaseTables, largest_first
from whalefall_capacity.collection.postgresql.names import decode
from whalefall_capacity.collection.postgresql.server import RAW_NAMES, LimitReachedError, Server
from whalefall_capacity.errors import CollectionError

# Nobody needs a privilege on a table to ask for its size, which waits for whoever has locked it or one of its indexes:
# such a table is not asked for. Partitioned tables are empty; their partitions are tables.
# https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-DBSIZE
LIST_TABLES = """
WITH locked AS (
    SELECT coalesce(index.indrelid, lock.relation) AS oid
    FROM pg_locks AS lock LEFT JOIN pg_index AS index ON index.indexrelid = lock.relation
    WHERE lock.mode = 'AccessExclusiveLock' AND lock.locktype = 'relation'
      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT namesend(n.nspname), namesend(c.relname), c.oid IN (SELECT oid FROM locked) AS is_locked,
       CASE WHEN c.oid NOT IN (SELECT oid FROM locked) THEN pg_table_size(c.oid) END,
       CASE WHEN c.oid NOT IN (SELECT oid FROM locked) THEN pg_indexes_size(c.oid) END,
       CASE WHEN c.reltuples > 0 OR c.reltuples = 0 AND c.relpages > 0 THEN CAST(c.reltuples AS bigint) END
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm')
  AND (n.nspname NOT IN ('pg_catalog', 'information_schema') OR c.relname = 'pg_largeobject')
"""


def read_tables(server: Server) -> DatabaseTables:
    """Return the tables of the database. Raises psycopg2.Error or CollectionError."""
    try:
        rows = server.rows(RAW_NAMES + LIST_TABLES)
    except LimitReachedError as error:
        raise CollectionError(f"the sizes of its tables {error}") from None
    encoding = server.encoding or "ascii"
    return largest_first(_table(row, encoding) for row in rows)


def _table(row: tuple[Any, ...], encoding: str) -> DatabaseTable:
    raw_schema, raw_name, is_locked, data, index, rows = row
    size = None if data is None or index is None else data + index
    reason = None
    if size is None:
        reason = "it is locked, and its size would wait" if is_locked else "dropped meanwhile"
    return DatabaseTable(
        schema_name=decode(bytes(raw_schema), encoding),
        name=decode(bytes(raw_name), encoding),
        engine=None,
        size_bytes=size,
        data_size_bytes=data,
        index_size_bytes=index,
        rows=rows,
        reason=reason,
    )
