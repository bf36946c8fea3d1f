"""Answers of a server, as far as they can be true: a server may say anything, and costs only its own sizes.

Names stay as they are, for they are keys; what no server can mean by them or by a size is missing, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from whalefall_capacity.byte_sizes import LARGEST_CREDIBLE_SIZE
from whalefall_capacity.collection.sizes import LONGEST_NAME, DatabaseSize, Measurement
from whalefall_capacity.errors import CollectionError
from whalefall_capacity.printable import is_text, printable

LONGEST_REASON = 1_000
LONGEST_VERSION = 200


def credible(measurement: Measurement, hide: Callable[[str], str]) -> Measurement:
    """Return *measurement* with what cannot be true as missing, and every text of the server bounded and printable.

    *hide* blots out what no text may show. Raises CollectionError when all sizes together cannot be true.
    """
    databases = tuple(_credible_database(database, hide) for database in measurement.databases)
    total = sum(database.size_bytes or 0 for database in databases)
    if total > LARGEST_CREDIBLE_SIZE:
        raise CollectionError(f"the server reported {total} bytes in all, which no server can hold")
    return replace(
        measurement,
        version=printable(hide(measurement.version), LONGEST_VERSION),
        databases=_distinct(databases),
        log_size_bytes=_size_or_none(measurement.log_size_bytes),
        caveats=tuple(printable(hide(caveat), LONGEST_REASON) for caveat in measurement.caveats),
    )


def _credible_database(database: DatabaseSize, hide: Callable[[str], str]) -> DatabaseSize:
    if (problem := _problem_of_name(database.name)) is not None:
        return DatabaseSize(printable(database.name, LONGEST_NAME // 2), None, problem)
    if database.size_bytes is None:
        return replace(database, reason=printable(hide(database.reason or ""), LONGEST_REASON))
    if not _is_size(database.size_bytes):
        reported = printable(hide(str(database.size_bytes)), LONGEST_VERSION)
        return DatabaseSize(database.name, None, f"the server reported {reported} bytes")
    return DatabaseSize(
        database.name,
        database.size_bytes,
        database.reason,
        _size_or_none(database.data_size_bytes),
        _size_or_none(database.log_size_bytes),
    )


def _problem_of_name(name: str) -> str | None:
    if len(name) > LONGEST_NAME:
        return f"the server gave it a name of {len(name):,} characters; no engine allows so many"
    if not name or "\0" in name or not is_text(name):
        return "the server gave it a name that no database can have"
    return None


def _distinct(databases: tuple[DatabaseSize, ...]) -> tuple[DatabaseSize, ...]:
    """Return *databases* without repetitions; one that was given a name twice has no size that could be told."""
    found: dict[str, DatabaseSize] = {}
    for database in databases:
        name = database.name
        found[name] = DatabaseSize(name, None, "the server listed it more than once") if name in found else database
    return tuple(found.values())


def _size_or_none(size_bytes: int | None) -> int | None:
    return size_bytes if _is_size(size_bytes) else None


def _is_size(size_bytes: object) -> bool:
    return isinstance(size_bytes, int) and not isinstance(size_bytes, bool) and 0 <= size_bytes <= LARGEST_CREDIBLE_SIZE


def words_of(error: BaseException) -> str:
    """Return what an error says, as it is: drivers nest it in tuples, as bytes, and quoting that would change it."""
    return " ".join(_texts(error.args)) or type(error).__name__


def _texts(parts: Iterable[object]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, tuple | list):
            yield from _texts(part)
        else:
            yield part.decode("utf-8", errors="replace") if isinstance(part, bytes) else str(part)
