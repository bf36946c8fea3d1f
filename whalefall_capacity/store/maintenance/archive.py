"""A child as a file: Parquet (zstd) with a manifest beside it, and back again, byte for byte.

Rows travel as CSV between PostgreSQL and Arrow, a stretch of pages at a time, so that memory does not grow with the
child. Numbers without limit stay text, times are microseconds. An archive counts only once it was loaded back into a
table and that table is the same as the child: same rows, same checksum of their text. The checksum knows no order, and
depends on no version of PostgreSQL.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import IO, Any

import psycopg2
from psycopg2 import sql
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.printable import one_line
from whalefall_capacity.private_files import make_private_folder, open_private
from whalefall_capacity.store.maintenance.plan import PlannedDrop
from whalefall_capacity.store.postgres.copying import name_list, raw_cursor

VERSION = 1
# 32 MB of a child at a time.
PAGES = 4096
# Rows of a batch on the way back.
BATCH_ROWS = 100_000
COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = CAST(:child AS oid) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum
"""
# Microseconds since 1970: exact, and no text to take apart.
MICROSECONDS = sql.SQL("(extract(epoch FROM {column}) * 1000000)::bigint")
COPY_PAGES = sql.SQL(
    "COPY (SELECT {columns} FROM {child} WHERE ctid >= '({first},0)' AND ctid < '({last},0)') TO STDOUT (FORMAT csv)"
)
LOAD = sql.SQL("COPY {table} ({columns}) FROM STDIN (FORMAT csv)")
CHECKSUM = sql.SQL(
    "SELECT count(*), coalesce(sum(('x' || left(md5(ROW({columns})::text), 16))::bit(64)::bigint::numeric), 0)::text "
    "FROM {table}"
)
# What the text of a row depends on. Of jsonb there is one text of each value.
TEXT_FORM = "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL extra_float_digits = 1"


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """The manifest of an archive; *columns* are (name, PostgreSQL type), *path* is that of the manifest itself."""

    version: int
    table: str
    child: str
    lower: date
    upper: date
    rows: int
    checksum: str
    columns: tuple[tuple[str, str], ...]
    file: str
    file_bytes: int
    file_sha256: str
    postgresql: str
    path: Path = Field(exclude=True)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]


def write_archive(engine: Engine, folder: Path, drop: PlannedDrop, child: sql.Identifier) -> Manifest:
    """Write *child*, which is the one of *drop*, into *folder*, read it back, compare, and return the manifest.

    The name of the file carries the checksum: the same rows are archived once, other rows of the same month never
    overwrite an archive. Raises StoreError when what was read back is not what is stored.
    """
    make_private_folder(folder)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        columns = _columns(connection, drop.oid)
        rows, checksum = checksum_of(connection, child, [column for column, _ in columns])
        stem = f"{drop.child}-{hashlib.sha256(checksum.encode()).hexdigest()[:8]}"
        path, parquet = folder / f"{stem}.json", folder / f"{stem}.parquet"
        is_new = not path.exists()
        if is_new:
            _write_parquet(connection, child, columns, parquet)
            manifest = Manifest(
                version=VERSION,
                table=drop.table,
                child=drop.child,
                lower=drop.lower,
                upper=drop.upper,
                rows=rows,
                checksum=checksum,
                columns=columns,
                file=parquet.name,
                file_bytes=parquet.stat().st_size,
                file_sha256=_sha256(parquet),
                postgresql=str(connection.execute(text("SHOW server_version")).scalar_one()),
                path=path,
            )
        else:
            manifest = read_manifest(path)
        _compare(connection, manifest, drop.table, rows, checksum)
        # Last of all: a manifest that is there belongs to an archive that is whole.
        if is_new:
            with _written_whole(path) as file:
                file.write(manifest.model_dump_json(indent=2).encode())
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of an archive, by its own path or that of the Parquet file; checks that file too.

    Raises StoreError when one of the two is missing, damaged, or not from this program.
    """
    path = path.with_suffix(".json")
    try:
        manifest = Manifest.model_validate({**json.loads(path.read_text(encoding="utf-8")), "path": path})
        parquet = path.parent / manifest.file
        found = _sha256(parquet)
    except FileNotFoundError as error:
        raise StoreError(
            f"{error.filename} is not there: an archive is a .parquet file and the .json beside it"
        ) from error
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is no manifest of an archive: {one_line(error)}") from error
    if manifest.version != VERSION:
        raise StoreError(f"{path} is of version {manifest.version}, this program reads version {VERSION}")
    if found != manifest.file_sha256:
        raise StoreError(f"{parquet} is damaged: its SHA-256 is {found}, the manifest says {manifest.file_sha256}")
    return manifest


def load_archive(connection: Connection, manifest: Manifest, table: sql.Composable) -> None:
    """Put the rows of an archive into the empty *table*; raises StoreError unless they are what the manifest says."""
    import pyarrow.csv as arrow_csv
    import pyarrow.parquet as parquet

    connection.execute(text(TEXT_FORM))
    statement = LOAD.format(table=table, columns=name_list(manifest.names))
    options = arrow_csv.WriteOptions(include_header=False)
    try:
        with raw_cursor(connection) as cursor, parquet.ParquetFile(manifest.path.parent / manifest.file) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                buffer = io.BytesIO()
                arrow_csv.write_csv(batch.cast(_without_zones(batch.schema)), buffer, options)
                buffer.seek(0)
                cursor.copy_expert(statement, buffer)
    except (psycopg2.DataError, psycopg2.ProgrammingError) as error:
        raise StoreError(f"{manifest.path} does not fit the table: {error}") from error
    rows, checksum = checksum_of(connection, table, manifest.names)
    if (rows, checksum) != (manifest.rows, manifest.checksum):
        raise StoreError(
            f"{manifest.path} says {manifest.rows} rows with checksum {manifest.checksum}, but reading its file gives "
            f"{rows} with {checksum}"
        )


def checksum_of(connection: Connection, table: sql.Composable, columns: Sequence[str]) -> tuple[int, str]:
    """Return the number of rows of *table* and a checksum of their text in any order; reads all of them."""
    connection.execute(text(TEXT_FORM))
    with raw_cursor(connection) as cursor:
        cursor.execute(CHECKSUM.format(columns=name_list(columns), table=table))
        ((rows, checksum),) = cursor.fetchall()
    return rows, checksum


def _without_zones(schema: Any) -> Any:
    """Return *schema* without time zones, with which Arrow takes 25 times as long; the session is in UTC."""
    import pyarrow as pa

    return pa.schema([(f.name, pa.timestamp("us") if pa.types.is_timestamp(f.type) else f.type) for f in schema])


def _compare(connection: Connection, manifest: Manifest, table: str, rows: int, checksum: str) -> None:
    if (rows, checksum) != (manifest.rows, manifest.checksum):
        raise StoreError(f"{manifest.path} is of other rows than {manifest.child} has now")
    with raw_cursor(connection) as cursor:
        like = sql.SQL("CREATE TEMPORARY TABLE archived (LIKE {parent}) ON COMMIT DROP")
        cursor.execute(like.format(parent=sql.Identifier(table)))
    load_archive(connection, manifest, sql.Identifier("archived"))


def _columns(connection: Connection, oid: int) -> tuple[tuple[str, str], ...]:
    columns = tuple((name, kind) for name, kind in connection.execute(text(COLUMNS), {"child": oid}))
    unknown = [kind for _, kind in columns if kind not in _arrow_types()]
    if unknown:
        raise StoreError(f"columns of type {', '.join(sorted(set(unknown)))} cannot be archived")
    return columns


def _arrow_types() -> Mapping[str, Any]:
    """Return how a PostgreSQL type is kept; NUMERIC has no limit of digits, so it stays text."""
    import pyarrow as pa

    return {
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "text": pa.string(),
        "jsonb": pa.string(),
        "numeric": pa.string(),
        "date": pa.date32(),
        "timestamp with time zone": pa.timestamp("us", tz="UTC"),
    }


def _write_parquet(
    connection: Connection, child: sql.Identifier, columns: Sequence[tuple[str, str]], path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    types = _arrow_types()
    schema = pa.schema([(name, types[kind]) for name, kind in columns])
    with _written_whole(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _stretches(connection, child, columns):
            writer.write_table(batch.cast(schema))


def _stretches(connection: Connection, child: sql.Identifier, columns: Sequence[tuple[str, str]]) -> Iterator[Any]:
    """Yield the rows of *child* as Arrow tables, times as microseconds, in the order in which they lie."""
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    times = {name for name, kind in columns if kind == "timestamp with time zone"}
    types = {name: pa.int64() if name in times else _arrow_types()[kind] for name, kind in columns}
    selected = sql.SQL(", ").join(
        MICROSECONDS.format(column=sql.Identifier(name)) if name in times else sql.Identifier(name)
        for name, _ in columns
    )
    convert = arrow_csv.ConvertOptions(
        column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    with raw_cursor(connection) as cursor:
        cursor.execute(
            "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::int", (child.as_string(cursor),)
        )
        ((pages,),) = cursor.fetchall()
        for first in range(0, pages, PAGES):
            stretch = COPY_PAGES.format(
                columns=selected, child=child, first=sql.Literal(first), last=sql.Literal(first + PAGES)
            )
            buffer = io.BytesIO()
            cursor.copy_expert(stretch, buffer)
            if buffer.tell():
                buffer.seek(0)
                yield arrow_csv.read_csv(
                    buffer,
                    read_options=arrow_csv.ReadOptions(column_names=[name for name, _ in columns]),
                    parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                    convert_options=convert,
                )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that has its name, on the disk too, only once all of it is there."""
    partial = path.with_name(f"{path.name}.partial")
    with open_private(partial) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
