"""Rows of an engine file's queries: which columns they must have, and what can be meant by their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from whalefall_capacity.byte_sizes import LARGEST_CREDIBLE_SIZE
from whalefall_capacity.collection.answers import LONGEST_VERSION
from whalefall_capacity.collection.database_tables import DatabaseTable
from whalefall_capacity.collection.sizes import DatabaseSize
from whalefall_capacity.errors import CollectionError
from whalefall_capacity.printable import printable

NO_SIZE = "the server gave no size (NULL)"
OF_DATABASES = ("name", "size_bytes"), ("data_size_bytes", "log_size_bytes", "reason")
OF_TABLES = ("name", "size_bytes"), ("schema_name", "data_size_bytes", "index_size_bytes", "rows", "reason")


class BadValueError(Exception):
    """A value that is not what its column is for; the text says what it is."""


@dataclass(frozen=True)
class Answer:
    """The whole answer to one query; *query* names it, with its file, in errors."""

    query: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def named(self, required: Sequence[str], optional: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the rows by names of columns, upper and lower case alike. Raises CollectionError for other columns."""
        columns = [column.lower() for column in self.columns]
        problems = [f"has no column {name}" for name in required if name not in columns]
        problems += [
            f"has a column {name} that means nothing" for name in columns if name not in (*required, *optional)
        ]
        problems += [f"has two columns {name}" for name in dict.fromkeys(columns) if columns.count(name) > 1]
        if problems:
            raise CollectionError(
                f"{self.query}: {problems[0]}; its columns are {', '.join(columns) or 'none'}, "
                f"and may be {', '.join((*required, *optional))}"
            )
        return [dict(zip(columns, row, strict=True)) for row in self.rows]

    def single(self) -> Any:
        """Return the one value of an answer that has one. Raises CollectionError."""
        if len(self.rows) != 1 or len(self.columns) != 1:
            raise CollectionError(
                f"{self.query}: gave {len(self.rows)} rows of {len(self.columns)} columns; it must give one value"
            )
        return self.rows[0][0]

    def bad(self, column: str, problem: object) -> str:
        """Say what is wrong with a value of *column*."""
        return f"{self.query}: {column}: {problem}"


@dataclass(frozen=True)
class DatabaseRow:
    """A row of a database. *problems*: what is wrong with values of optional columns, which are left out."""

    size: DatabaseSize
    problems: Sequence[str] = ()


def databases_of(answer: Answer) -> list[DatabaseRow]:
    """Return what *answer* says of each database, each name once. Raises CollectionError for wrong columns."""
    found: dict[str, DatabaseRow] = {}
    for values in answer.named(*OF_DATABASES):
        row = _database(answer, values)
        name = row.size.name
        twice = DatabaseRow(DatabaseSize(name, None, answer.bad("name", "listed more than once")))
        found[name] = twice if name in found else row
    return list(found.values())


def _database(answer: Answer, values: Mapping[str, Any]) -> DatabaseRow:
    name, problems = text_of(values["name"]), list[str]()
    sizes: dict[str, int | None] = {}
    for column in ("size_bytes", "data_size_bytes", "log_size_bytes"):
        try:
            sizes[column] = size_of(values.get(column))
        except BadValueError as error:
            sizes[column] = None
            problems.append(answer.bad(column, error))
    if sizes["size_bytes"] is None:
        is_bad = values["size_bytes"] is not None
        reason = problems[0] if is_bad else text_of(values.get("reason")) or NO_SIZE
        return DatabaseRow(DatabaseSize(name, None, reason), problems)
    size = DatabaseSize(name, sizes["size_bytes"], None, sizes["data_size_bytes"], sizes["log_size_bytes"])
    return DatabaseRow(size, problems)


def tables_of(answer: Answer) -> list[DatabaseTable]:
    """Return the tables that *answer* lists. Raises CollectionError for wrong columns."""
    return [_table(answer, values) for values in answer.named(*OF_TABLES)]


def _table(answer: Answer, values: Mapping[str, Any]) -> DatabaseTable:
    numbers: dict[str, int | None] = {}
    problems: dict[str, str] = {}
    for column in ("size_bytes", "data_size_bytes", "index_size_bytes", "rows"):
        try:
            numbers[column] = size_of(values.get(column))
        except BadValueError as error:
            numbers[column], problems[column] = None, answer.bad(column, error)
    reason = problems.get("size_bytes") or text_of(values.get("reason")) or NO_SIZE
    schema = values.get("schema_name")
    return DatabaseTable(
        schema_name=None if schema is None else text_of(schema),
        name=text_of(values["name"]),
        engine=None,
        **numbers,
        reason=reason if numbers["size_bytes"] is None else None,
    )


def size_of(value: object) -> int | None:
    """Return *value* as a whole number that can be true, None for NULL. Raises BadValueError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadValueError(f"{_shown(value)} is no number but {type(value).__name__}")
    try:
        is_possible = 0 <= value <= LARGEST_CREDIBLE_SIZE
    except ArithmeticError:
        # Decimals that are no number; floats compare false.
        is_possible = False
    if not is_possible:
        raise BadValueError(f"{_shown(value)} bytes cannot be")
    if value != int(value):
        raise BadValueError(f"{_shown(value)} is not a whole number")
    return int(value)


def text_of(value: object) -> str:
    """Return *value* as text; nothing for NULL."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", errors="backslashreplace")
    return "" if value is None else str(value)


def _shown(value: object) -> str:
    return printable(repr(value), LONGEST_VERSION)
