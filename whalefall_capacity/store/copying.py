"""COPY of Python rows into a temporary table of the current transaction."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy import Connection

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def raw_cursor(connection: Connection) -> psycopg2.extensions.cursor:
    """Return a psycopg2 cursor inside the transaction of *connection*, for COPY and composed statements."""
    driver: Any = connection.connection.driver_connection
    cursor: psycopg2.extensions.cursor = driver.cursor()
    return cursor


def copy_rows(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """COPY *rows* into *table*; None becomes NULL, other values are written as str() gives them."""
    buffer = io.StringIO()
    for row in rows:
        buffer.write("\t".join("\\N" if value is None else _escaped(value) for value in row))
        buffer.write("\n")
    buffer.seek(0)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with raw_cursor(connection) as cursor:
        cursor.copy_expert(statement, buffer)


def _escaped(value: Any) -> str:
    return value.translate(_ESCAPES) if isinstance(value, str) else str(value)
