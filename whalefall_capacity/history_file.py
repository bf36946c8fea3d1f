"""History files: sizes of past days from elsewhere, CSV or Parquet, checked row by row.

Columns: instance, database, date (ISO), size_bytes, and optionally data_size_bytes and log_size_bytes.
Rows come in chunks, so that a file of many millions needs no more memory than a small one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    """Some rows of a history file: text per column, empty where not known.

    *positions* say where they stand: the line of a CSV on which each begins, the row of a Parquet file.
    """

    positions: Sequence[int]
    columns: Sequence[Sequence[str]]


def read_history(path: Path, first: date, last: date) -> Iterator[HistoryRows]:
    """Yield the rows of a history file in chunks, checked: days from *first* to *last*, sizes in bytes.

    Raises HistoryFileError at the end of the file, with the first bad rows by line (CSV) or row (Parquet):
    the caller writes nothing until the last chunk has come.
    """
    errors: list[str] = []
    count = 0
    for frame in _frames(path):
        kept = frame[(frame != "").any(axis="columns")]
        found = _errors(kept, first, last)
        count += len(found)
        errors += [f"{where(path, position)}: {message}" for position, message in found[: SHOWN_ERRORS - len(errors)]]
        yield HistoryRows(kept.index.tolist(), [kept[column].tolist() for column in COLUMNS])
    if count:
        raise refused(errors, count)


def where(path: Path | str, position: int) -> str:
    """Return how errors name a place in a history file."""
    return f"{path}: {'row' if str(path).endswith('.parquet') else 'line'} {position}"


def refused(errors: Sequence[str], count: int) -> HistoryFileError:
    """Return the error that lists the first *errors* of *count*."""
    more = f"\nand {count - len(errors)} more" if count > len(errors) else ""
    return HistoryFileError("\n".join(errors) + f"{more}\nnothing was written")


def _frames(path: Path) -> Iterator[pd.DataFrame]:
    """Yield the rows as text; the index is their position in the file."""
    try:
        yield from _parquet_frames(path) if path.suffix == ".parquet" else _csv_frames(path)
    except UnicodeDecodeError as error:
        place = path if path.suffix == ".parquet" else where(path, _line_of_bad_text(path))
        raise HistoryFileError(f"{place}: not UTF-8: {error.reason}") from None
    except (OSError, ValueError, NotImplementedError) as error:
        raise HistoryFileError(f"{path}: cannot be read: {str(error).strip()}") from None


def _csv_frames(path: Path) -> Iterator[pd.DataFrame]:
    import pandas as pd

    line = 2
    with pd.read_csv(
        path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig", chunksize=CHUNK_ROWS
    ) as chunks:
        for chunk in chunks:
            _check_columns(f"{path}: line 1", chunk.columns)
            if not isinstance(chunk.index, pd.RangeIndex):
                # Pandas takes the first fields for an index then, and every column is off by one.
                raise HistoryFileError(f"{where(path, line)}: more fields than line 1 has; nothing was written")
            frame = _with_all_columns(chunk)
            breaks = frame.apply(lambda column: column.str.count(r"\r\n?|\n")).sum(axis="columns")
            lines = 1 + breaks.astype(int)
            frame.index = pd.Index(line + lines.cumsum() - lines)
            yield frame
            line += int(lines.sum())


def _line_of_bad_text(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _parquet_frames(path: Path) -> Iterator[pd.DataFrame]:
    import pandas as pd
    import pyarrow.parquet

    row = 1
    with pyarrow.parquet.ParquetFile(path) as source:
        _check_columns(str(path), source.schema_arrow.names)
        for batch in source.iter_batches(CHUNK_ROWS):
            columns = {name: _as_text(batch.column(name)) for name in batch.schema.names}
            index = pd.RangeIndex(row, row + batch.num_rows)
            yield _with_all_columns(pd.DataFrame(columns, index, dtype=str))
            row += batch.num_rows


def _as_text(column: pa.Array) -> list[str]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.date32())
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        # A whole number in full: Arrow writes 1e+10.
        values = column.to_pylist()
        return ["" if value is None else str(int(value) if value % 1 == 0 else value) for value in values]
    return [value or "" for value in column.cast(pa.string()).to_pylist()]


def _check_columns(place: str, given: Iterable[str]) -> None:
    names = list(given)
    if absent := [column for column in REQUIRED_COLUMNS if column not in names]:
        raise HistoryFileError(f"{place}: column {', '.join(absent)} is missing; nothing was written")
    if unknown := [name for name in names if name not in COLUMNS]:
        raise HistoryFileError(
            f"{place}: column {', '.join(unknown)} is unknown; allowed: {', '.join(COLUMNS)}; nothing was written"
        )
    if len(set(names)) < len(names):
        raise HistoryFileError(f"{place}: column names must be distinct; nothing was written")


def _with_all_columns(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reindex(columns=list(COLUMNS), fill_value="").fillna("")


def _errors(frame: pd.DataFrame, first: date, last: date) -> list[tuple[int, str]]:
    """Return (position, message) of every bad field, in order."""
    import pandas as pd

    problems: list[tuple[int, str]] = []

    def report(bad: pd.Series[bool], column: str, allowed: str) -> None:
        values: pd.Series[Any] = frame.loc[bad, column]
        problems.extend((int(str(row)), f"{column}: {value!r}: {allowed}") for row, value in values.items())

    for column in ("instance", "database"):
        report(frame[column].str.strip() == "", column, "must not be empty")
        report(frame[column].str.contains("\0", regex=False), column, "must not have a NUL character")
    iso = frame["date"].str.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}")
    days = pd.to_datetime(frame["date"].where(iso), format="%Y-%m-%d", errors="coerce")
    report(
        ~days.between(pd.Timestamp(first), pd.Timestamp(last)),
        "date",
        f"must be a day from {first} (WHALEFALL_START_DATE) to {last} (today), as YYYY-MM-DD",
    )
    for column in ("size_bytes", *OPTIONAL_COLUMNS):
        # Up to 18 digits always fit; the few longer ones are compared as Python integers.
        whole = frame[column].str.fullmatch("[0-9]{1,18}")
        longer = frame[column].where(~whole & frame[column].str.fullmatch("[0-9]{19}"), "")
        fits = whole | longer.map(lambda value: value != "" and int(value) <= LARGEST_SIZE).astype(bool)
        if column in OPTIONAL_COLUMNS:
            fits |= frame[column] == ""
        report(~fits, column, f"must be a whole number of bytes from 0 to {LARGEST_SIZE}")
    return sorted(problems, key=lambda problem: problem[0])
