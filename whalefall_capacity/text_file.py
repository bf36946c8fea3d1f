"""Lines of a text file, plain or compressed: whatever is wrong with it is an error that names the line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from whalefall_capacity.errors import HistoryFileError

LONGEST_LINE = 1_000_000
# By the end of the name.
PACKED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zip": "ZIP", ".zst": "Zstandard", ".7z": "7-Zip"}
UNPACK: Mapping[str, Callable[[io.BufferedReader], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
# By the first bytes, as the formats define them.
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "ZIP",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"PAR1": "Parquet",
}


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of *path* with their ends, without a byte order mark. Raises HistoryFileError."""
    number = 0
    try:
        with path.open("rb") as file, _text_of(path, file) as text:
            number = 1
            while line := text.readline(LONGEST_LINE):
                _check_line(line)
                yield line
                number += 1
    except EOFError:
        problem = "the compressed data ends here: the file was cut off"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: {error.reason}"
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    except (ValueError, zlib.error, lzma.LZMAError) as error:
        problem = f"cannot be read: {error}"
    else:
        return
    place = f"{path}: line {number}" if number else path
    raise HistoryFileError(f"{place}: {problem}")


def _text_of(path: Path, file: io.BufferedReader) -> io.TextIOWrapper:
    """Return the text in *file*; that its name and its content do not agree is an error."""
    start = file.peek(8)
    if not start:
        raise HistoryFileError(f"{path}: is empty")
    said = PACKED.get(path.suffix.lower(), "text")
    found = next((name for magic, name in MAGIC.items() if start.startswith(magic)), "text")
    if said != found:
        content = "not compressed" if found == "text" else found
        raise HistoryFileError(f"{path}: its name says {said}, its content is {content}")
    if said != "text" and said not in UNPACK:
        raise HistoryFileError(f"{path}: {said} is not read here: unpack the file, or use {', '.join(UNPACK)}")
    packed = file if said == "text" else UNPACK[said](file)
    # What is not UTF-8 goes through, for the line to be known on which it stands.
    return io.TextIOWrapper(packed, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _check_line(line: str) -> None:
    """Raise ValueError for a line that is too long, or not UTF-8."""
    if len(line) == LONGEST_LINE:
        raise ValueError(f"it has {LONGEST_LINE} characters or more")
    if not line.isascii():
        line.encode("utf-8", "surrogateescape").decode("utf-8")
