"""A history file is checked row by row before anything is written.

CSV (UTF-8, with a header) or Parquet; columns instance, database, date, size_bytes, and optionally
data_size_bytes, log_size_bytes and collected_at. Every bad field is named with its line (CSV) or row
(Parquet), its value and what is allowed; the first 20 are shown and the rest are counted.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet
import pytest

from whalefall_capacity import history_file
from whalefall_capacity.errors import HistoryFileError
from whalefall_capacity.history_file import SizeUnit, read_history

FIRST = date(2026, 1, 1)
LAST = date(2026, 6, 30)
HEADER = "instance,database,date,size_bytes\n"
GOOD = "shop,orders,2026-01-02,100\n"

Row = tuple[int, str, str, str, str, str, str]

BAD_DAY = "must be a day from 2026-01-01 (WHALEFALL_START_DATE) to 2026-06-30 (today), as YYYY-MM-DD"
BAD_SIZE = "must be a whole number of bytes from 0 to 9007199254740991"


def read(path: Path, unit: SizeUnit = SizeUnit.BYTES) -> list[Row]:
    """Return every row of a file as (position, instance, database, date, size, data size, log size)."""
    return [
        row
        for chunk in read_history(path, FIRST, LAST, unit)
        for row in zip(chunk.positions, *chunk.columns[:-1], strict=True)
    ]


def times(path: Path) -> list[str]:
    """Return when each row of a file was collected, as it is handed on."""
    return [time for chunk in read_history(path, FIRST, LAST) for time in chunk.columns[-1]]


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return tmp_path / "sizes.csv"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    return tmp_path / "sizes.parquet"


def csv_problems(csv: Path, content: str | bytes) -> list[str]:
    """Return the lines of the error about a CSV file, without the path."""
    csv.write_bytes(content.encode() if isinstance(content, str) else content)
    return problems(csv)


def problems(path: Path, unit: SizeUnit = SizeUnit.BYTES) -> list[str]:
    with pytest.raises(HistoryFileError) as caught:
        read(path, unit)
    return str(caught.value).replace(f"{path}: ", "").splitlines()


def write_parquet(path: Path, **columns: Any) -> None:
    """Write one good row per value of *columns*; columns that are not given hold good values."""
    rows = max(len(values) for values in columns.values())
    good: dict[str, list[Any]] = {
        "instance": ["shop"] * rows,
        "database": ["orders"] * rows,
        "date": ["2026-01-02"] * rows,
        "size_bytes": [100] * rows,
    }
    pyarrow.parquet.write_table(pa.table(good | columns), path)


# CSV


def test_rows_come_as_text_with_their_line(csv: Path) -> None:
    csv.write_text(HEADER + GOOD + "bank,ledger,2026-06-30,0\n")
    assert read(csv) == [
        (2, "shop", "orders", "2026-01-02", "100", "", ""),
        (3, "bank", "ledger", "2026-06-30", "0", "", ""),
    ]


def test_columns_may_stand_in_any_order_and_the_optional_ones_may_be_there(csv: Path) -> None:
    csv.write_text(
        "log_size_bytes,size_bytes,date,database,instance,data_size_bytes\n"
        "1,100,2026-01-02,orders,shop,99\n"
        ",100,2026-01-03,orders,shop,\n"
    )
    assert read(csv) == [
        (2, "shop", "orders", "2026-01-02", "100", "99", "1"),
        (3, "shop", "orders", "2026-01-03", "100", "", ""),
    ]


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "-", "#N/A", "001", " padded ", 'quo"ted', "库", "a,b"])
def test_a_name_is_read_as_it_is_written(csv: Path, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    csv.write_text(f"{HEADER}{quoted},{quoted},2026-01-02,1\n", encoding="utf-8")
    assert read(csv) == [(2, name, name, "2026-01-02", "1", "", "")]


def test_a_byte_order_mark_is_no_part_of_the_first_column(csv: Path) -> None:
    csv.write_text(HEADER + GOOD, encoding="utf-8-sig")
    assert len(read(csv)) == 1


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_blank_lines_are_no_rows_and_count_as_lines(csv: Path, ending: str) -> None:
    csv.write_bytes((HEADER + "\n\n" + GOOD + "\n,,,\n" + GOOD + "\n").replace("\n", ending).encode())
    assert [position for position, *_ in read(csv)] == [4, 7]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_name_with_line_breaks_does_not_shift_the_lines_after_it(csv: Path, ending: str) -> None:
    csv.write_bytes((HEADER + 'shop,"two\nlines\n",2026-01-02,1\n' + GOOD + GOOD).replace("\n", ending).encode())
    assert [position for position, *_ in read(csv)] == [2, 5, 6]


def test_lines_are_counted_on_from_chunk_to_chunk(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_file, "CHUNK_ROWS", 3)
    lines = [
        GOOD,
        "\n",
        'shop,"a\nb",2026-01-02,1\n',
        GOOD,
        GOOD,
        'shop,"c\nd",2026-01-02,1\n',
        "shop,x,2026-01-02,?\n",
    ]
    assert csv_problems(csv, HEADER + "".join(lines) + GOOD * 3 + "shop,x,2026-01-02,!\n") == [
        f"line 10: size_bytes: '?': {BAD_SIZE}",
        f"line 14: size_bytes: '!': {BAD_SIZE}",
        "nothing was written",
    ]


def test_rows_come_in_chunks(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_file, "CHUNK_ROWS", 2)
    csv.write_text(HEADER + GOOD * 5)
    assert [list(chunk.positions) for chunk in read_history(csv, FIRST, LAST)] == [[2, 3], [4, 5], [6]]


@pytest.mark.parametrize("day", ["2026-01-01", "2026-06-30", "2026-02-28"])
def test_days_from_the_start_date_to_today_are_allowed(csv: Path, day: str) -> None:
    csv.write_text(f"{HEADER}shop,orders,{day},1\n")
    assert read(csv)[0][3] == day


@pytest.mark.parametrize(
    "day",
    [
        "2025-12-31",
        "2026-07-01",
        "2026-02-29",
        "2026-13-01",
        "9999-12-31",
        "0000-00-00",
        "2026-1-2",
        "02/01/2026",
        "20260102",
        "2026-01-02T00:00:00",
        " 2026-01-02",
        "\uff12026-01-02",
        "yesterday",
        "",
    ],
)
def test_any_other_date_is_an_error(csv: Path, day: str) -> None:
    assert csv_problems(csv, f"{HEADER}shop,orders,{day},1\n") == [
        f"line 2: date: {day!r}: {BAD_DAY}",
        "nothing was written",
    ]


@pytest.mark.parametrize("size", ["0", "1", "9007199254740991", "007"])
def test_a_size_is_a_whole_number_of_bytes_that_a_server_can_hold(csv: Path, size: str) -> None:
    csv.write_text(f"{HEADER}shop,orders,2026-01-02,{size}\n")
    assert read(csv)[0][4] == size


@pytest.mark.parametrize(
    "size",
    [
        "-1",
        "1.5",
        "1.0",
        "1e3",
        "+1",
        "1 000",
        "1_000",
        "9007199254740992",
        "99999999999999999999",
        "\uff11\uff12",
        "0x10",
        "NaN",
        "5 GiB",
        "",
    ],
)
def test_any_other_size_is_an_error(csv: Path, size: str) -> None:
    assert csv_problems(csv, f"{HEADER}shop,orders,2026-01-02,{size}\n") == [
        f"line 2: size_bytes: {size!r}: {BAD_SIZE}",
        "nothing was written",
    ]


@pytest.mark.parametrize(
    ("unit", "largest"),
    [
        (SizeUnit.BYTES, 9007199254740991),
        (SizeUnit.KIB, 8796093022207),
        (SizeUnit.MIB, 8589934591),
        (SizeUnit.GIB, 8388607),
    ],
)
def test_sizes_of_any_unit_are_those_that_a_server_can_hold(csv: Path, unit: SizeUnit, largest: int) -> None:
    csv.write_text(f"{HEADER}shop,orders,2026-01-02,{largest}\nshop,orders,2026-01-03,7\n")
    assert [row[4] for row in read(csv, unit)] == [str(largest), "7"]
    csv.write_text(f"{HEADER}shop,orders,2026-01-02,{largest + 1}\nshop,orders,2026-01-03,1.5\n")
    assert problems(csv, unit) == [
        f"line 2: size_bytes: '{largest + 1}': must be a whole number of {unit} from 0 to {largest}",
        f"line 3: size_bytes: '1.5': must be a whole number of {unit} from 0 to {largest}",
        "nothing was written",
    ]


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-02T03:00:12+08:00",
        "2026-01-02 03:00:12.123456+08",
        "2026-01-02 03:00-0330",
        "2026-01-02T03:00:12+15:59",
        "2026-01-02T03:00:12Z",
        "2026-01-01T18:30:00Z",
        "",
    ],
)
def test_the_time_of_a_measurement_has_its_offset_or_is_not_known(csv: Path, time: str) -> None:
    csv.write_text(f"{HEADER.strip()},collected_at\nshop,orders,2026-01-02,100,{time}\n")
    assert times(csv) == [time]


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-02T03:00:12",
        "2026-01-02",
        "03:00:12+08:00",
        "2026-02-30T03:00:12+08:00",
        "2026-01-02T24:30:00Z",
        "2026-01-02T03:00:12+99:00",
        "2026-01-02T03:00:12+16:00",
        "2026-01-02T03:00:12-23:59",
        "1999-01-02T03:00:12Z",
        "2026-07-03T03:00:12Z",
        "yesterday",
        " ",
    ],
)
def test_any_other_time_of_a_measurement_is_an_error(csv: Path, time: str) -> None:
    assert csv_problems(csv, f"{HEADER.strip()},collected_at\nshop,orders,2026-01-02,100,{time}\n") == [
        f"line 2: collected_at: {time!r}: must be a time between 2026-01-01 and 2026-06-30 with its offset from UTC, "
        "such as 2026-01-31T03:00:12+08:00",
        "nothing was written",
    ]


@pytest.mark.parametrize("column", ["data_size_bytes", "log_size_bytes"])
def test_an_optional_size_may_be_empty_but_not_bad(csv: Path, column: str) -> None:
    header = HEADER.replace("\n", f",{column}\n")
    assert csv_problems(csv, header + "shop,orders,2026-01-02,1,\nshop,orders,2026-01-03,1,-1\n") == [
        f"line 3: {column}: '-1': {BAD_SIZE}",
        "nothing was written",
    ]


@pytest.mark.parametrize("name", ["", " ", "\t"])
@pytest.mark.parametrize("column", ["instance", "database"])
def test_an_empty_name_is_an_error(csv: Path, column: str, name: str) -> None:
    row = {"instance": "shop", "database": "orders"} | {column: name}
    assert csv_problems(csv, f"{HEADER}{row['instance']},{row['database']},2026-01-02,1\n") == [
        f"line 2: {column}: {name!r}: must not be empty",
        "nothing was written",
    ]


def test_a_name_that_postgresql_cannot_store_is_an_error(csv: Path) -> None:
    assert csv_problems(csv, f"{HEADER}shop,or\0ders,2026-01-02,1\n") == [
        "line 2: database: 'or\\x00ders': must not contain a NUL character",
        "nothing was written",
    ]


def test_every_bad_field_of_a_row_is_named(csv: Path) -> None:
    assert csv_problems(csv, HEADER + GOOD + ",,soon,much\n") == [
        "line 3: instance: '': must not be empty",
        "line 3: database: '': must not be empty",
        f"line 3: date: 'soon': {BAD_DAY}",
        f"line 3: size_bytes: 'much': {BAD_SIZE}",
        "nothing was written",
    ]


def test_a_row_that_is_cut_off_is_an_error(csv: Path) -> None:
    assert csv_problems(csv, HEADER + GOOD + "shop,orders,2026-01-0") == [
        "line 3: has 3 fields, but line 1 has 4",
        "nothing was written",
    ]


@pytest.mark.parametrize("first", ["", GOOD])
def test_a_row_with_too_many_fields_is_an_error_and_never_shifted(csv: Path, first: str) -> None:
    found = csv_problems(csv, HEADER + first + "shop,orders,2026-01-02,100,\n")
    assert found == [f"line {3 if first else 2}: has 5 fields, but line 1 has 4", "nothing was written"]


def test_the_first_twenty_errors_are_shown_and_the_others_counted(csv: Path) -> None:
    found = csv_problems(csv, HEADER + "shop,orders,2026-01-02,?\n" * 23)
    assert found[0] == f"line 2: size_bytes: '?': {BAD_SIZE}"
    assert found[19] == f"line 21: size_bytes: '?': {BAD_SIZE}"
    assert found[20:] == ["and 3 more", "nothing was written"]


def test_twenty_errors_are_shown_without_a_count(csv: Path) -> None:
    found = csv_problems(csv, HEADER + "shop,orders,2026-01-02,?\n" * 20)
    assert len(found) == 21
    assert found[20] == "nothing was written"


def test_errors_are_counted_over_all_chunks(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_file, "CHUNK_ROWS", 7)
    found = csv_problems(csv, HEADER + "shop,orders,2026-01-02,?\n" * 50)
    assert [line.partition(":")[0] for line in found[:20]] == [f"line {number}" for number in range(2, 22)]
    assert found[20:] == ["and 30 more", "nothing was written"]


def test_errors_come_in_the_order_of_the_lines(csv: Path) -> None:
    rows = "shop,orders,2026-01-02,?\n,orders,2026-01-02,1\nshop,orders,soon,1\n"
    assert [line.partition(": ")[0] for line in csv_problems(csv, HEADER + rows)[:3]] == ["line 2", "line 3", "line 4"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("instance,database,date", "line 1: column size_bytes is missing; nothing was written"),
        ("instance,Database,date,Size", "line 1: column database, size_bytes is missing; nothing was written"),
        ("instance;database;date;size_bytes", "line 1: its columns are separated by semicolons, not by commas; "),
        ("instance\tdatabase\tdate\tsize_bytes", "line 1: its columns are separated by tabs, not by commas; "),
        ("instance|database|date|size_bytes", "line 1: its columns are separated by vertical bars, not by commas; "),
        (
            "instance,database,date,size_bytes,owner",
            "line 1: column owner is unknown; allowed: instance, database, date, size_bytes, data_size_bytes, "
            "log_size_bytes, collected_at; nothing was written",
        ),
        ("instance,database,date,size_bytes,size_bytes", "line 1: column size_bytes appears more than once; "),
        ("instance,database,date,size_bytes,", "line 1: column without a name is unknown; "),
    ],
)
@pytest.mark.parametrize("rows", ["", "a,b,2026-01-02,1,\n"])
def test_columns_that_are_missing_or_unknown_are_named(csv: Path, header: str, expected: str, rows: str) -> None:
    (found,) = csv_problems(csv, f"{header}\n{rows}")
    assert found.startswith(expected)


def test_a_header_alone_is_a_file_without_rows(csv: Path) -> None:
    csv.write_text(HEADER)
    assert read(csv) == []


def test_an_empty_file_is_an_error(csv: Path) -> None:
    assert csv_problems(csv, "") == ["is empty; nothing was written"]


@pytest.mark.parametrize("name", ["gr\xf6\xdfe", "caf\xe9"])
def test_text_that_is_not_utf_8_is_named_by_its_line(csv: Path, name: str) -> None:
    content = (HEADER + GOOD * 2 + f"shop,{name},2026-01-02,1\n" + GOOD).encode("latin-1")
    (found,) = csv_problems(csv, content)
    assert found.startswith("line 4: not UTF-8: invalid ")


def test_a_file_in_utf_16_is_refused(csv: Path) -> None:
    assert csv_problems(csv, (HEADER + GOOD).encode("utf-16")) == [
        "line 1: not UTF-8: invalid start byte; nothing was written"
    ]


def test_a_quotation_mark_that_is_never_closed_is_an_error(csv: Path) -> None:
    assert csv_problems(csv, HEADER + GOOD + 'shop,"orders,2026-01-02,1\n' + GOOD * 9) == [
        "line 3: the row that begins here is not CSV: unexpected end of data; does a quotation mark lack its pair?; "
        "nothing was written"
    ]


def test_a_field_that_is_too_long_is_called_that(csv: Path) -> None:
    assert csv_problems(csv, HEADER + GOOD + f"shop,{'x' * 131_073},2026-01-02,1\n") == [
        "line 3: the row that begins here is not CSV: field larger than field limit (131072); "
        "does a quotation mark lack its pair?; nothing was written"
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_counts_as_one_line(csv: Path, ending: str) -> None:
    lines = [HEADER, GOOD, 'shop,"two\nlines",2026-01-02,1\n', "\n", "shop,orders,2026-01-02,?\n"]
    assert csv_problems(csv, "".join(lines).replace("\n", ending)) == [
        f"line 6: size_bytes: '?': {BAD_SIZE}",
        "nothing was written",
    ]


def test_a_file_in_utf_16_without_a_mark_is_told_from_its_nul_characters(csv: Path) -> None:
    assert csv_problems(csv, (HEADER + GOOD).encode("utf-16-le")) == [
        "line 1: contains NUL characters, as UTF-16 does: save it as UTF-8; nothing was written"
    ]


def test_a_line_without_an_end_is_not_read_into_memory(csv: Path) -> None:
    assert csv_problems(csv, HEADER + GOOD + "x" * 1_000_001) == [
        "line 3: cannot be read: it has 1000000 characters or more; nothing was written"
    ]


def test_a_name_that_no_server_can_have_is_an_error_that_does_not_repeat_it(csv: Path) -> None:
    assert csv_problems(csv, HEADER + f"shop,{'x' * 257},2026-01-02,1\n") == [
        "line 2: database: must not be longer than 256 characters",
        "nothing was written",
    ]


# Compressed


@pytest.mark.parametrize(
    ("name", "pack"), [("a.csv.gz", gzip.compress), ("a.csv.bz2", bz2.compress), ("A.CSV.XZ", lzma.compress)]
)
def test_a_compressed_file_is_read_and_its_faults_have_their_lines(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    file = tmp_path / name
    file.write_bytes(pack((HEADER + GOOD).encode()))
    assert read(file) == [(2, "shop", "orders", "2026-01-02", "100", "", "")]
    file.write_bytes(pack((HEADER + GOOD * 2).encode() + b"shop,caf\xe9,2026-01-02,1\n"))
    assert problems(file) == ["line 4: not UTF-8: invalid continuation byte; nothing was written"]


def test_a_compressed_file_that_was_cut_off_is_an_error_with_the_line_at_which_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "a.csv.gz"
    file.write_bytes(gzip.compress((HEADER + GOOD * 2).encode())[:-8])
    assert problems(file) == ["line 4: the compressed data ends here: the file was cut off; nothing was written"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv.gz", (HEADER + GOOD).encode(), "its name says gzip, its content is not compressed"),
        ("a.csv.bz2", gzip.compress(b"", mtime=0), "its name says bzip2, its content is gzip"),
        ("a.csv", gzip.compress(b"", mtime=0), "its name says text, its content is gzip"),
        ("a.csv", b"PAR1", "its name says text, its content is Parquet"),
        ("a.csv", b"PK\x03\x04", "its name says text, its content is ZIP"),
        ("a.zip", b"PK\x03\x04", "ZIP is not read here: unpack the file, or use gzip, bzip2, xz"),
        ("a.csv.gz", b"", "is empty"),
    ],
    ids=["no gzip", "gzip as bzip2", "gzip as text", "Parquet as text", "ZIP as text", "ZIP", "empty"],
)
def test_a_name_that_does_not_say_what_is_in_the_file_is_an_error(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert problems(tmp_path / name) == [f"{expected}; nothing was written"]


def test_compressed_data_that_is_damaged_is_an_error_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv.gz"
    packed = bytearray(gzip.compress((HEADER + GOOD).encode()))
    packed[-8] ^= 1
    file.write_bytes(packed)
    (found,) = problems(file)
    assert re.fullmatch(r"line 3: cannot be read: CRC check failed .*; nothing was written", found), found
    file.write_bytes(b"\x1f\x8b" + b"\0" * 50)
    assert problems(file) == ["line 1: cannot be read: Unknown compression method; nothing was written"]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (found,) = problems(tmp_path / "absent.csv")
    assert found == "cannot be read: No such file or directory; nothing was written"


# Parquet


@pytest.mark.parametrize(
    "days",
    [
        pytest.param(pa.array([date(2026, 1, 2)], pa.date32()), id="date32"),
        pytest.param(pa.array([date(2026, 1, 2)], pa.date64()), id="date64"),
        pytest.param(pa.array(["2026-01-02"]), id="text"),
        pytest.param(pa.array(["2026-01-02"]).dictionary_encode(), id="categories"),
        pytest.param(pa.array([datetime(2026, 1, 2)], pa.timestamp("ns")), id="midnight"),
        pytest.param(pa.array([datetime(2026, 1, 2, 23, 59)], pa.timestamp("ms")), id="evening"),
    ],
)
def test_a_day_may_be_a_date_a_timestamp_or_text(parquet: Path, days: Any) -> None:
    write_parquet(parquet, date=days)
    assert read(parquet) == [(1, "shop", "orders", "2026-01-02", "100", "", "")]


def test_a_timestamp_with_a_zone_is_the_day_in_that_zone(parquet: Path) -> None:
    evening = datetime(2026, 1, 1, 20, 0, tzinfo=timezone.utc)
    write_parquet(
        parquet, date=pa.array([evening.astimezone(ZoneInfo("Asia/Shanghai"))], pa.timestamp("us", "Asia/Shanghai"))
    )
    assert read(parquet)[0][3] == "2026-01-02"


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        pytest.param(pa.array([2**53 - 1]), "9007199254740991", id="int64"),
        pytest.param(pa.array([255], pa.uint8()), "255", id="uint8"),
        pytest.param(pa.array([1.0]), "1", id="float"),
        pytest.param(pa.array([1.5e12]), "1500000000000", id="terabytes as float"),
        pytest.param(pa.array([1e15]), "1000000000000000", id="petabyte as float"),
        pytest.param(pa.array([16_777_216.0], pa.float32()), "16777216", id="float32"),
        pytest.param(pa.array([Decimal(5)]), "5", id="decimal"),
        pytest.param(pa.array([Decimal("5.00")]), "5", id="decimal with a scale"),
        pytest.param(pa.array(["5"]), "5", id="text"),
    ],
)
def test_a_size_may_be_any_number_that_is_whole(parquet: Path, sizes: Any, text: str) -> None:
    write_parquet(parquet, size_bytes=sizes)
    assert read(parquet)[0][4] == text


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        pytest.param(pa.array([-1]), "-1", id="negative"),
        pytest.param(pa.array([2**63], pa.uint64()), "9223372036854775808", id="uint64"),
        pytest.param(pa.array([0.5]), "0.5", id="fraction"),
        pytest.param(pa.array([1e19]), "10000000000000000000", id="too large"),
        pytest.param(pa.array([float("nan")]), "nan", id="not a number"),
        pytest.param(pa.array([float("inf")]), "inf", id="infinity"),
        pytest.param(pa.array([Decimal("5.01")]), "5.01", id="decimal"),
        pytest.param(pa.array([True]), "true", id="boolean"),
        pytest.param(pa.array([None], pa.int64()), "", id="null"),
        pytest.param(pa.array([None]), "", id="column of nulls"),
    ],
)
def test_any_other_size_in_parquet_is_an_error_with_its_row(parquet: Path, sizes: Any, text: str) -> None:
    write_parquet(parquet, size_bytes=sizes)
    assert problems(parquet) == [f"row 1: size_bytes: {text!r}: {BAD_SIZE}", "nothing was written"]


def test_the_time_of_a_measurement_in_parquet_is_a_timestamp_with_a_zone(parquet: Path) -> None:
    measured = datetime(2026, 1, 2, 3, 0, 12, 5, ZoneInfo("Asia/Shanghai"))
    kinds = [pa.timestamp(unit, tz="Asia/Shanghai") for unit in ("us", "ns")]
    for kind in kinds:
        write_parquet(parquet, collected_at=pa.array([measured, None], kind))
        assert times(parquet) == ["2026-01-02T03:00:12.000005+08:00", ""]
    write_parquet(parquet, collected_at=pa.array([measured.replace(tzinfo=None)], pa.timestamp("us")))
    (problem, _) = problems(parquet)
    assert problem.startswith("row 1: collected_at: '2026-01-02T03:00:12.000005': must be a time between ")


def test_a_null_in_parquet_is_not_known_where_that_is_allowed(parquet: Path) -> None:
    # As pandas writes whole numbers with gaps.
    write_parquet(parquet, data_size_bytes=pa.array([None, 3e12]), log_size_bytes=pa.array([7, None]))
    assert [row[5:] for row in read(parquet)] == [("", "7"), ("3000000000000", "")]


def test_a_null_name_or_date_is_an_error(parquet: Path) -> None:
    write_parquet(parquet, instance=["shop", None], database=["orders", None], date=[date(2026, 1, 2), None])
    assert problems(parquet) == [
        "row 2: instance: '': must not be empty",
        "row 2: database: '': must not be empty",
        f"row 2: date: '': {BAD_DAY}",
        "nothing was written",
    ]


@pytest.mark.parametrize("day", [date(2025, 12, 31), date(2026, 7, 1), date(1969, 12, 31), date(9999, 12, 31)])
def test_a_day_out_of_range_in_parquet_is_an_error_with_its_row(parquet: Path, day: date) -> None:
    write_parquet(parquet, date=[date(2026, 1, 2), day])
    assert problems(parquet) == [f"row 2: date: '{day}': {BAD_DAY}", "nothing was written"]


def test_rows_of_parquet_are_counted_over_batches(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_file, "CHUNK_ROWS", 3)
    write_parquet(parquet, size_bytes=[1, 2, 3, 4, 5, -6, 7, -8])
    assert problems(parquet) == [
        f"row 6: size_bytes: '-6': {BAD_SIZE}",
        f"row 8: size_bytes: '-8': {BAD_SIZE}",
        "nothing was written",
    ]


@pytest.mark.parametrize("rows", [0, 1])
def test_columns_that_are_missing_in_parquet_are_named(parquet: Path, rows: int) -> None:
    table = pa.table({"instance": ["shop"], "database": ["orders"]})
    pyarrow.parquet.write_table(table.slice(0, rows), parquet)
    assert problems(parquet) == ["column date, size_bytes is missing; nothing was written"]


def test_a_column_that_is_unknown_in_parquet_is_named_whatever_it_holds(parquet: Path) -> None:
    write_parquet(parquet, tags=[["a", "b"]])
    assert problems(parquet) == [
        "column tags is unknown; allowed: instance, database, date, size_bytes, data_size_bytes, log_size_bytes, "
        "collected_at; nothing was written"
    ]


def test_a_column_of_parquet_that_is_no_text_at_all_is_an_error(parquet: Path) -> None:
    write_parquet(parquet, instance=[{"name": "shop"}])
    (found,) = problems(parquet)
    assert found.startswith("cannot be read: column instance holds struct<name: string>, not text or numbers")


def test_text_in_parquet_that_is_not_utf_8_is_an_error(parquet: Path) -> None:
    latin_1 = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
    write_parquet(parquet, database=latin_1)
    assert problems(parquet) == ["not UTF-8: unexpected end of data; nothing was written"]


def test_a_column_that_comes_twice_in_parquet_is_an_error(parquet: Path) -> None:
    names = ["instance", "database", "date", "size_bytes", "size_bytes"]
    arrays = [pa.array(["shop"]), pa.array(["orders"]), pa.array(["2026-01-02"]), pa.array([1]), pa.array([2])]
    pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, names), parquet)
    assert problems(parquet) == ["column size_bytes appears more than once; nothing was written"]


def test_the_name_of_a_parquet_file_may_be_in_capitals(tmp_path: Path) -> None:
    file = tmp_path / "SIZES.PARQUET"
    write_parquet(file, size_bytes=[1, -1])
    assert problems(file) == [f"row 2: size_bytes: '-1': {BAD_SIZE}", "nothing was written"]


def test_a_file_that_is_no_parquet_is_an_error(parquet: Path) -> None:
    parquet.write_text(HEADER + GOOD)
    (found,) = problems(parquet)
    assert found.startswith("cannot be read: ")
