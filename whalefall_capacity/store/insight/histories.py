"""Histories of the databases of some instances: a binary COPY of the daily sizes, straight into arrays.

PostgreSQL gathers the days of a database into two arrays of one row, so that a name travels once and not once a day;
numpy reads the arrays as they come. One transaction; memory is bounded by the instances that are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.insight.growth import Booleans, Integers
from whalefall_capacity.insight.rows import Floats
from whalefall_capacity.store.postgres.copying import raw_cursor
from whalefall_capacity.store.postgres.engine import again_if_connection_lost

# Of the first message, before the first row (PostgreSQL's documentation of COPY, "Binary Format").
SIGNATURE_BYTES = 19
TRAILER = -1
# One-dimensional, of 4-byte and of 8-byte integers: dimensions, flag of NULLs, type, length, lower bound; elements.
ARRAY_HEADER = struct.Struct(">5i")
INT4 = np.dtype([("length", ">i4"), ("value", ">i4")])
INT8 = np.dtype([("length", ">i4"), ("value", ">i8")])
# An index on the key leads to the rows of these instances; the days of a database lie together in no table.
SIZES = """
COPY (SELECT instance_id, database_name, array_agg(collected_date - DATE %(first)s), array_agg(size_bytes)
      FROM database_size_stats
      WHERE instance_id = ANY (%(ids)s) AND collected_date BETWEEN %(first)s AND %(last)s
      GROUP BY instance_id, database_name) TO STDOUT (FORMAT binary)
"""
TOTALS = """
SELECT instance_id, array_agg(collected_date - CAST(:first AS date)) AS days,
       array_agg(source = 'measured') AS listed, array_agg(missing_count = 0) AS complete,
       array_agg(database_count > 0 OR missing_count = 0) AS measured, array_agg(log_size_bytes) AS log_sizes
FROM instance_size_stats
WHERE instance_id = ANY (:ids) AND collected_date BETWEEN :first AND :last
GROUP BY instance_id
"""
# A database that an import alone has brought is inactive and was never listed.
INVENTORY = """
SELECT instance_id, database_name, is_active, last_seen_date,
       (deleted_at AT TIME ZONE :zone)::date AS deleted_on
FROM instance_databases
WHERE instance_id = ANY (:ids)
"""


@dataclass(frozen=True)
class Instance:
    """An instance that is looked at; *deleted_on* the day on which it left the fleet file, if it did.

    *measured_before*: its last measured day before the histories begin; looked up where they hold none of it.
    """

    id: int
    name: str
    limit_bytes: int | None
    is_active: bool
    created_on: date
    deleted_on: date | None
    measured_before: date | None

    def belongs_to(self, day: date, measured: bool) -> bool:
        """Tell whether something is to be said of it on *day*: it has not left, and has sizes or is of the fleet."""
        if self.deleted_on is not None and self.deleted_on <= day:
            return False
        return measured or (self.is_active and self.created_on <= day)


@dataclass(frozen=True)
class Listing:
    """Entry of a database in the inventory: *last_seen* and *deleted_on* are columns; no day of deletion is None."""

    is_active: bool
    last_seen: int
    deleted_on: int | None


@dataclass(frozen=True)
class Chunk:
    """Histories of the n databases of some instances on t days, the first of which is *first_day*.

    *owner* (n,) is the place of each database's instance in *instances*, in whose order the databases come.
    *sizes* (n, t) bytes, NaN where not measured. Of each instance: *measured*, *listed* and *complete* (i, t) tell on
    which days it was measured, its databases were listed by a visit, and none of them was missing; *log_sizes* (i, t)
    bytes, NaN where not known. *listings* by place of the database.
    """

    first_day: date
    instances: Sequence[Instance]
    owner: Integers
    names: Sequence[str]
    sizes: Floats
    measured: Booleans
    listed: Booleans
    complete: Booleans
    log_sizes: Floats
    listings: dict[int, Listing]

    def day(self, column: int) -> date:
        """Return the day of *column*."""
        return self.first_day + timedelta(days=column)


@again_if_connection_lost
def read_chunk(engine: Engine, instances: Sequence[Instance], first: date, last: date, zone: str) -> Chunk:
    """Return the histories of *instances* on the days first..last."""
    ids = [instance.id for instance in instances]
    days = (last - first).days + 1
    places = {instance_id: place for place, instance_id in enumerate(ids)}
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"))
        rows = sorted(_sizes(connection, ids, first, last), key=lambda row: (places[row[0]], row[1]))
        totals = connection.execute(text(TOTALS), {"ids": ids, "first": first, "last": last}).all()
        inventory = connection.execute(text(INVENTORY), {"ids": ids, "zone": zone}).all()
    sizes = np.full((len(rows), days), np.nan)
    for place, (_, _, columns, values) in enumerate(rows):
        sizes[place, columns] = values
    owner = np.array([places[row[0]] for row in rows], dtype=np.int64)
    names = [row[1] for row in rows]
    measured, listed, complete = (np.zeros((len(ids), days), dtype=np.bool_) for _ in range(3))
    log_sizes = np.full((len(ids), days), np.nan)
    if len(rows):
        # They come in the order of their instances.
        present, begins = np.unique(owner, return_index=True)
        measured[present] = np.logical_or.reduceat(~np.isnan(sizes), begins)
    for row in totals:
        place = places[row.instance_id]
        measured[place, row.days] |= row.measured
        listed[place, row.days] = row.listed
        complete[place, row.days] = row.complete
        log_sizes[place, row.days] = [np.nan if size is None else size for size in row.log_sizes]
    found = {(row[0], row[1]): place for place, row in enumerate(rows)}
    listings = {
        found[row.instance_id, row.database_name]: Listing(
            row.is_active,
            (row.last_seen_date - first).days,
            None if row.deleted_on is None else (row.deleted_on - first).days,
        )
        for row in inventory
        if (row.instance_id, row.database_name) in found
    }
    return Chunk(first, instances, owner, names, sizes, measured, listed, complete, log_sizes, listings)


def _sizes(connection: Connection, ids: Sequence[int], first: date, last: date) -> Iterator[tuple[int, str, Any, Any]]:
    """Yield instance id, name, columns and sizes of each database that has any."""
    reader = _Reader()
    with raw_cursor(connection) as cursor:
        statement = cursor.mogrify(SIZES, {"ids": list(ids), "first": first.isoformat(), "last": last.isoformat()})
        cursor.copy_expert(statement.decode(), reader)
    yield from reader.rows


class _Reader:
    """Target of a COPY: takes the rows apart as they come and keeps their arrays alone."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, Any, Any]] = []
        self._rest = b""
        self._begun = False

    def write(self, content: bytes) -> int:
        buffer = self._rest + content if self._rest else bytes(content)
        at = 0
        if not self._begun:
            if len(buffer) < SIGNATURE_BYTES:
                self._rest = buffer
                return len(content)
            self._begun, at = True, SIGNATURE_BYTES
        while (end := _end_of_row(buffer, at)) is not None:
            if end > at + 2:
                self.rows.append(_row(buffer, at))
            at = end
        self._rest = buffer[at:]
        return len(content)


def _end_of_row(buffer: bytes, at: int) -> int | None:
    """Return where the row at *at* ends, None when it is not all there yet."""
    if len(buffer) < at + 2:
        return None
    (fields,) = struct.unpack_from(">h", buffer, at)
    at += 2
    if fields == TRAILER:
        return at
    for _ in range(fields):
        if len(buffer) < at + 4:
            return None
        (length,) = struct.unpack_from(">i", buffer, at)
        at += 4 + length
    return at if len(buffer) >= at else None


def _row(buffer: bytes, at: int) -> tuple[int, str, Any, Any]:
    _, _, instance_id, length = struct.unpack_from(">hiii", buffer, at)
    at += 14
    name = buffer[at : at + length].decode()
    at += length + 4
    days, at = _array(buffer, at, INT4)
    sizes, _ = _array(buffer, at + 4, INT8)
    return instance_id, name, days, sizes


def _array(buffer: bytes, at: int, element: np.dtype[Any]) -> tuple[Any, int]:
    """Return the values of the array at *at*, which has no NULL, and where it ends."""
    *_, length, _ = ARRAY_HEADER.unpack_from(buffer, at)
    at += ARRAY_HEADER.size
    values = np.frombuffer(buffer, element, length, at)["value"]
    return values.astype(np.int64), at + length * element.itemsize
