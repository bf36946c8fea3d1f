"""History files: sizes of past days from other sources, as CSV or Parquet, checked row by row.

Columns: instance, database, date (ISO), size_bytes, and optionally data_size_bytes, log_size_bytes and collected_at.
Sizes are whole numbers in the unit that the reader is given, bytes by default, whatever their columns are called.
Rows are read in chunks, so that a file with millions of rows needs no more memory than a small one.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from whalefall_capacity.byte_sizes import LARGEST_CREDIBLE_SIZE
from whalefall_capacity.collection.sizes import LONGEST_NAME
from whalefall_capacity.errors import HistoryFileError
from whalefall_capacity.text_file import read_lines

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    # The rows as text, indexed by their position in the file, and the position and reason of those that do not parse.
    Frame: TypeAlias = tuple[pd.DataFrame, Sequence[tuple[int, str]]]

REQUIRED_COLUMNS = ("instance", "database", "date", "size_bytes")
OPTIONAL_SIZES = ("data_size_bytes", "log_size_bytes")
OPTIONAL_COLUMNS = (*OPTIONAL_SIZES, "collected_at")
COLUMNS = REQUIRED_COLUMNS + OPTIONAL_COLUMNS
CHUNK_ROWS = 200_000
SHOWN_ERRORS = 20
# As PostgreSQL's COPY writes it, and as ISO 8601. Without an offset, an hour is ambiguous when summer time ends.
# PostgreSQL takes no offset of 16 hours or more; that of no zone is.
TIME_WITH_OFFSET = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:Z|[+-](?:0\d|1[0-5])(?::?[0-5]\d)?)"
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class SizeUnit(StrEnum):
    """The unit of the sizes in a history file."""

    BYTES = "bytes"
    KIB = "KiB"
    MIB = "MiB"
    GIB = "GiB"

    @property
    def size_bytes(self) -> int:
        return 1 << 10 * list(SizeUnit).index(self)


@dataclass(frozen=True)
class HistoryRows:
    """Some rows of a history file: the texts of each column, empty where not known; sizes in the unit of the file.

    *positions* are the lines of a CSV file on which the rows begin, or the rows of a Parquet file.
    """

    positions: Sequence[int]
    columns: Sequence[Sequence[str]]


def read_history(path: Path, first: date, last: date, unit: SizeUnit = SizeUnit.BYTES) -> Iterator[HistoryRows]:
    """Yield the checked rows of a history file in chunks: days from *first* to *last*, sizes in *unit*.

    From the first bad row on nothing is yielded. Raises HistoryFileError at the end of the file, with the line (CSV)
    or row (Parquet) of the first bad rows: the caller must not write anything before the last chunk.
    """
    errors: list[str] = []
    count = 0
    for frame, misfits in _parquet_frames(path) if is_parquet(path) else _csv_frames(path):
        kept = frame[(frame != "").any(axis="columns")]
        found = sorted([*misfits, *_errors(kept, first, last, unit)], key=lambda problem: problem[0])
        count += len(found)
        errors += [f"{where(path, position)}: {message}" for position, message in found[: SHOWN_ERRORS - len(errors)]]
        # What is bad somewhere is not written: the caller need not bear what a bad row may contain.
        if not count:
            yield HistoryRows(kept.index.tolist(), [kept[column].tolist() for column in COLUMNS])
    if count:
        raise refused(errors, count)


def is_parquet(path: Path) -> bool:
    """Tell whether the name of a history file ends in .parquet; any other file is CSV."""
    return path.suffix.lower() == ".parquet"


def where(path: Path | str, position: int) -> str:
    """Return a position in a history file as errors name it."""
    return f"{path}: {'row' if is_parquet(Path(path)) else 'line'} {position}"


def refused(errors: Sequence[str], count: int) -> HistoryFileError:
    """Return the error that lists the first *errors* of *count*."""
    more = [f"and {count - len(errors)} more"] if count > len(errors) else []
    return HistoryFileError([*errors, *more])


def _csv_frames(path: Path) -> Iterator[Frame]:
    rows = _csv_rows(path)
    _, header = next(rows, (1, []))
    _check_header(f"{path}: line 1", header)
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        yield _csv_frame(header, chunk)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row and the line on which it begins; a blank line has none."""
    reader = csv.reader(read_lines(path), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            # The module tells its errors apart by their text alone; nearly all come of a quotation mark.
            problem = f"the row that begins here is not CSV: {error}; does a quotation mark lack its pair?"
            raise HistoryFileError(f"{where(path, line)}: {problem}") from None
        if row is None:
            return
        yield line, row


def _csv_frame(header: Sequence[str], rows: Iterable[tuple[int, list[str]]]) -> Frame:
    """Return the rows as a frame, and as problems those that do not match *header*."""
    import pandas as pd

    at_least = 1 + max(header.index(column) for column in REQUIRED_COLUMNS)
    fitting: dict[int, list[str]] = {}
    misfits: list[tuple[int, str]] = []
    for line, row in rows:
        if not any(row):
            continue
        if at_least <= len(row) <= len(header):
            fitting[line] = row + [""] * (len(header) - len(row))
        else:
            misfits.append((line, f"has {len(row)} fields, but line 1 has {len(header)}"))
    columns = zip(*fitting.values(), strict=True) if fitting else [()] * len(header)
    frame = pd.DataFrame(dict(zip(header, columns, strict=True)), list(fitting), dtype=str)
    return _with_all_columns(frame), misfits


def _check_header(place: str, header: Sequence[str]) -> None:
    """Raise HistoryFileError if *header* is not a valid header, with the likely cause."""
    (only, *others) = header or [""]
    if "\0" in only:
        raise HistoryFileError(f"{place}: contains NUL characters, as UTF-16 does: save it as UTF-8")
    if not others:
        for character, name in SEPARATORS.items():
            if character in only:
                raise HistoryFileError(f"{place}: its columns are separated by {name}, not by commas")
    _check_columns(place, header)


def _parquet_frames(path: Path) -> Iterator[Frame]:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet

    row = 1
    try:
        with pyarrow.parquet.ParquetFile(path) as source:
            _check_columns(str(path), source.schema_arrow.names)
            for batch in source.iter_batches(CHUNK_ROWS):
                columns = {name: _as_text(name, batch.column(name)) for name in batch.schema.names}
                index = pd.RangeIndex(row, row + batch.num_rows)
                yield _with_all_columns(pd.DataFrame(columns, index, dtype=str)), []
                row += batch.num_rows
    except UnicodeDecodeError as error:
        raise HistoryFileError(f"{path}: not UTF-8: {error.reason}") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise HistoryFileError(f"{path}: cannot be read: {str(error).strip()}") from None


def _as_text(name: str, column: pa.Array) -> list[str]:
    """Return the values as text. Raises ValueError for a column that holds neither text nor numbers nor times."""
    import pyarrow as pa

    if pa.types.is_nested(column.type):
        raise ValueError(f"column {name} holds {column.type}, not text or numbers")

    if pa.types.is_timestamp(column.type) and name == "collected_at":
        times = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).to_pylist()
        return ["" if value is None else value.isoformat() for value in times]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.date32())
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        # Whole numbers in full, where Arrow would write 1e+10.
        values = column.to_pylist()
        return ["" if value is None else str(int(value) if value % 1 == 0 else value) for value in values]
    return [value or "" for value in column.cast(pa.string()).to_pylist()]


def _check_columns(place: str, given: Iterable[str]) -> None:
    names = list(given)
    if absent := [column for column in REQUIRED_COLUMNS if column not in names]:
        raise HistoryFileError(f"{place}: column {', '.join(absent)} is missing")
    if unknown := [name or "without a name" for name in names if name not in COLUMNS]:
        raise HistoryFileError(f"{place}: column {', '.join(unknown)} is unknown; allowed: {', '.join(COLUMNS)}")
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise HistoryFileError(f"{place}: column {', '.join(twice)} appears more than once")


def _with_all_columns(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reindex(columns=list(COLUMNS), fill_value="").fillna("")


def _errors(frame: pd.DataFrame, first: date, last: date, unit: SizeUnit) -> list[tuple[int, str]]:
    """Return (position, message) for every bad field, in order."""
    import pandas as pd

    problems: list[tuple[int, str]] = []

    def report(bad: pd.Series[bool], column: str, allowed: str) -> None:
        values: pd.Series[Any] = frame.loc[bad, column]
        problems.extend((int(str(row)), f"{column}: {value!r}: {allowed}") for row, value in values.items())

    longest = f"must not be longer than {LONGEST_NAME} characters"
    for column in ("instance", "database"):
        # The name itself is too long to show.
        long = frame[column].str.len() > LONGEST_NAME
        problems.extend((int(str(row)), f"{column}: {longest}") for row in frame.index[long])
        report(frame[column].str.strip() == "", column, "must not be empty")
        report(frame[column].str.contains("\0", regex=False), column, "must not contain a NUL character")
    iso = frame["date"].str.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}")
    days = pd.to_datetime(frame["date"].where(iso), format="%Y-%m-%d", errors="coerce")
    report(
        ~days.between(pd.Timestamp(first), pd.Timestamp(last)),
        "date",
        f"must be a day from {first} (WHALEFALL_START_DATE) to {last} (today), as YYYY-MM-DD",
    )
    largest = LARGEST_CREDIBLE_SIZE // unit.size_bytes
    for column in ("size_bytes", *OPTIONAL_SIZES):
        # Fewer digits always fit; the few with as many are compared as Python integers.
        whole = frame[column].str.fullmatch(f"[0-9]{{1,{len(str(largest)) - 1}}}")
        longer = frame[column].where(frame[column].str.fullmatch(f"[0-9]{{{len(str(largest))}}}"), "")
        fits = whole | longer.map(lambda value: value != "" and int(value) <= largest).astype(bool)
        if column in OPTIONAL_SIZES:
            fits |= frame[column] == ""
        report(~fits, column, f"must be a whole number of {unit} from 0 to {largest}")
    given = frame["collected_at"]
    times = pd.to_datetime(
        given.where(given.str.fullmatch(TIME_WITH_OFFSET)), format="ISO8601", utc=True, errors="coerce"
    )
    # The day may have been that of any time zone.
    around = times.between(
        pd.Timestamp(first - timedelta(days=1), tz="UTC"), pd.Timestamp(last + timedelta(days=2), tz="UTC")
    )
    report(
        ~around & (given != ""),
        "collected_at",
        f"must be a time between {first} and {last} with its offset from UTC, such as 2026-01-31T03:00:12+08:00",
    )
    return problems
