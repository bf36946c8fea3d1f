"""COPY of Python rows into a temporary table of the current transaction."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy import Connection


def raw_cursor(connection: Connection) -> psycopg2.extensions.cursor:
    """Return a psycopg2 cursor inside the transaction of *connection*, for COPY and composed statements."""
    driver: Any = connection.connection.driver_connection
    cursor: psycopg2.extensions.cursor = driver.cursor()
    return cursor


def copy_rows(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    texts: Sequence[str] = (),
) -> None:
    """COPY *rows* into *table*; None becomes NULL, other values are written as str() gives them.

    CSV tells an empty text from NULL by its quotes, which the writer leaves out: in the columns of *texts* an
    empty value is an empty text.
    """
    buffer = io.StringIO()
    # The writer of the standard library works in C, three times as fast as joining in Python. It quotes what is part
    # of the line's end: with both, a lone carriage return in a name stays where it is.
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    buffer.seek(0)
    options = sql.SQL(", FORCE_NOT_NULL ({})").format(name_list(texts)) if texts else sql.SQL("")
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv{})").format(
        sql.Identifier(table), name_list(columns), options
    )
    with raw_cursor(connection) as cursor:
        cursor.copy_expert(statement, buffer)


def name_list(columns: Sequence[str]) -> sql.Composed:
    """Return the names of *columns*, quoted, with commas between them."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))
