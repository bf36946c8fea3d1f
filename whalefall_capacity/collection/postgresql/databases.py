"""The databases of a server: which there are, and why one has no size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from whalefall_capacity.collection.postgresql.names import distinct_names
from whalefall_capacity.collection.postgresql.server import RAW_NAMES, LimitReachedError, Server
from whalefall_capacity.errors import CollectionError

# Not every server that speaks the protocol has the role, and not every one shows its roles to everybody: their view is
# not asked.
LIST_DATABASES = """
SELECT oid, namesend(datname), dattablespace, datconnlimit = -2 AS invalid,
       has_database_privilege(oid, 'CONNECT') IS NOT FALSE
       OR pg_has_role(CAST(to_regrole('pg_read_all_stats') AS oid), 'USAGE') IS TRUE AS readable
FROM pg_database
WHERE datallowconn AND NOT datistemplate
"""
LIST_INTACT_DATABASES = "SELECT oid FROM pg_database WHERE datconnlimit <> -2"
NO_PRIVILEGE = "no CONNECT privilege and not a member of pg_read_all_stats"
DROPPED = "dropped during the visit"
INVALID = "invalid: an interrupted DROP DATABASE; drop it again"
NO_FILES = "pg_database_size found none of its files: its folder is lost, or the server cannot read it"


@dataclass(frozen=True)
class Database:
    """A listed database; *reason*: why it is known beforehand that it cannot be measured."""

    oid: int
    name: str
    tablespace: int
    reason: str | None


def list_databases(server: Server) -> list[Database]:
    """Return the databases. Raises psycopg2.Error or CollectionError."""
    try:
        return databases_of(server, server.rows(RAW_NAMES + LIST_DATABASES))
    except LimitReachedError as error:
        raise CollectionError(f"listing its databases {error}") from None


def databases_of(server: Server, rows: Iterable[tuple[Any, ...]]) -> list[Database]:
    """Return the databases of the rows of LIST_DATABASES, in the order of their names as the server has them."""
    rows = sorted(rows, key=lambda row: bytes(row[1]))
    names = distinct_names([bytes(row[1]) for row in rows], server.encoding)
    return [
        Database(oid, name, tablespace, INVALID if invalid else None if readable else NO_PRIVILEGE)
        for name, (oid, _, tablespace, invalid, readable) in zip(names, rows, strict=True)
    ]


def why_without_size(server: Server, oid: int) -> str:
    """Say why a database has no size though nothing failed. Raises psycopg2.Error or CollectionError."""
    rows = server.rows("SELECT datconnlimit FROM pg_database WHERE oid = {oid}", oid=oid)
    if not rows:
        return DROPPED
    return INVALID if rows[0][0] == -2 else NO_FILES
