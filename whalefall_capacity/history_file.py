"""History files: sizes of past days from elsewhere, CSV or Parquet, checked row by row.

Columns: instance, database, date (ISO), size_bytes, and optionally data_size_bytes and log_size_bytes.
Rows come in chunks, so that a file of many millions needs no more memory than a small one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whalefall_capacity.errors import HistoryFileError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

REQUIRED_COLUMNS = ("instance", "database", "date", "size_bytes")
OPTIONAL_COLUMNS = ("data_size_bytes", "log_size_bytes")
COLUMNS = REQUIRED_COLUMNS + OPTIONAL_COLUMNS
CHUNK_ROWS = 200_000
LARGEST_SIZE = 2**63 - 1
SHOWN_ERRORS = 20


@dataclass(frozen=True)
class HistoryRows:
    """Some rows of a history file: text per column, empty where not known; *positions* say where they stand."""

    positions: Sequence[int]
    columns: Sequence[Sequence[str]]


def read_history(path: Path, first: date, last: date) -> Iterator[HistoryRows]:
    """Yield the rows of a history file in chunks, checked: days from *first* to *last*, sizes in bytes.

    Raises HistoryFileError at the end of the file, with the first bad rows by line (CSV) or row (Parquet):
    the caller writes nothing until the last chunk has come.
    """
    unit = "row" if path.suffix == ".parquet" else "line"
    errors: list[str] = []
    count = 0
    for position, frame in _frames(path):
        kept = frame[(frame != "").any(axis="columns")]
        found = _errors(kept, first, last)
        count += len(found)
        errors += [
            f"{path}: {unit} {position + row}: {message}" for row, message in found[: SHOWN_ERRORS - len(errors)]
        ]
        yield HistoryRows(
            positions=[position + int(row) for row in kept.index],
            columns=[kept[column].tolist() for column in COLUMNS],
        )
    if count:
        raise refused(errors, count)


def refused(errors: Sequence[str], count: int) -> HistoryFileError:
    """Return the error that lists the first *errors* of *count*."""
    more = f"\nand {count - len(errors)} more" if count > len(errors) else ""
    return HistoryFileError("\n".join(errors) + f"{more}\nnothing was written")


def _frames(path: Path) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield (position of the first row, rows as text); the index counts from 0 in each."""
    try:
        yield from _parquet_frames(path) if path.suffix == ".parquet" else _csv_frames(path)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise HistoryFileError(f"{path}: cannot be read: {error}") from None


def _csv_frames(path: Path) -> Iterator[tuple[int, pd.DataFrame]]:
    import pandas as pd

    first_line = 2
    with pd.read_csv(
        path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig", chunksize=CHUNK_ROWS
    ) as chunks:
        for chunk in chunks:
            frame = chunk.reset_index(drop=True)
            yield first_line, _with_all_columns(path, frame)
            first_line += len(frame)


def _parquet_frames(path: Path) -> Iterator[tuple[int, pd.DataFrame]]:
    import pandas as pd
    import pyarrow.parquet

    first_row = 1
    with pyarrow.parquet.ParquetFile(path) as source:
        for batch in source.iter_batches(CHUNK_ROWS):
            columns = {name: _as_text(batch.column(name)) for name in batch.schema.names}
            yield first_row, _with_all_columns(path, pd.DataFrame(columns, dtype=str))
            first_row += batch.num_rows


def _as_text(column: pa.Array) -> list[str]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.date32())
    return [value or "" for value in column.cast(pa.string()).to_pylist()]


def _with_all_columns(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    given = [str(column) for column in frame.columns]
    if absent := [column for column in REQUIRED_COLUMNS if column not in given]:
        raise HistoryFileError(f"{path}: line 1: column {', '.join(absent)} is missing; nothing was written")
    if unknown := [column for column in given if column not in COLUMNS]:
        raise HistoryFileError(
            f"{path}: line 1: column {', '.join(unknown)} is unknown; allowed: {', '.join(COLUMNS)}; "
            "nothing was written"
        )
    return frame.reindex(columns=list(COLUMNS), fill_value="").fillna("")


def _errors(frame: pd.DataFrame, first: date, last: date) -> list[tuple[int, str]]:
    """Return (index, message) of every bad field, in order."""
    import pandas as pd

    problems: list[tuple[int, str]] = []

    def report(bad: pd.Series[bool], column: str, allowed: str) -> None:
        values: pd.Series[Any] = frame.loc[bad, column]
        problems.extend((int(str(row)), f"{column}: {value!r}: {allowed}") for row, value in values.items())

    for column in ("instance", "database"):
        report(frame[column].str.strip() == "", column, "must not be empty")
    iso = frame["date"].str.fullmatch(r"\d{4}-\d\d-\d\d")
    days = pd.to_datetime(frame["date"].where(iso), format="%Y-%m-%d", errors="coerce")
    report(
        ~days.between(pd.Timestamp(first), pd.Timestamp(last)),
        "date",
        f"must be a day from {first} (WHALEFALL_START_DATE) to {last} (today), as YYYY-MM-DD",
    )
    for column in ("size_bytes", *OPTIONAL_COLUMNS):
        # Up to 18 digits always fit; the few longer ones are compared as Python integers.
        whole = frame[column].str.fullmatch(r"\d{1,18}")
        longer = frame[column].where(~whole & frame[column].str.fullmatch(r"\d{19}"), "")
        fits = whole | longer.map(lambda value: value != "" and int(value) <= LARGEST_SIZE)
        if column in OPTIONAL_COLUMNS:
            fits |= frame[column] == ""
        report(~fits, column, f"must be a whole number of bytes from 0 to {LARGEST_SIZE}")
    return sorted(problems, key=lambda problem: problem[0])
