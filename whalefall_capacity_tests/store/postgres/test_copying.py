"""Text that is copied into the store comes out as it went in, whatever characters it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import psycopg2.errors
import pytest
from sqlalchemy import Connection, text

from whalefall_capacity.store.postgres.copying import copy_rows
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine

AWKWARD = {
    "a tab": "a\tb",
    "a newline": "a\nb",
    "a carriage return": "a\rb",
    "a Windows newline": "a\r\nb",
    "a backslash": "a\\b",
    "a backslash at the end": "a\\",
    "an escape that is none": "a\\tb\\nc",
    "what stands for NULL": "\\N",
    "what ends the data": "\\.",
    "what ends the data, on a line of its own": "a\n\\.\nb",
    "a quote": "it's",
    "a double quote": '"a" "b',
    "nothing but a double quote": '"',
    "a comma": "a,b,",
    "a semicolon": "a;b",
    "a space at either end": " a ",
    "nothing but a newline": "\n",
    "nothing but a carriage return": "\r",
    "a newline at the end": "a\n",
    "a carriage return at the end": "a\r",
    "a word for NULL": "NULL",
    "other control characters": "\x01\x07\x08\x0b\x0c\x1b\x1f\x7f",
    "other line breaks": "a\x85b\u2028c\u2029d",
    "Chinese": "数据库",
    "an accent that combines": "e\u0301",
    "an emoji": "🐋",
    "right to left": "מסד נתונים",
    "a byte order mark": "\ufeffa",
    "a percent sign": "100%s%%",
    "a colon": ":name",
    "markup": "<b>&amp;</b>",
    "very long": "x" * 1_000_000,
}


@pytest.fixture(params=["store_server", "postgresql"], ids=["PostgreSQL 18", "PostgreSQL 16"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A transaction with a temporary table, on either server."""
    running = request.getfixturevalue(request.param)
    server = running if isinstance(running, EmbeddedPostgres) else running.embedded
    engine = create_store_engine(server.url("postgres"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE copied (first text, number bigint, last text) ON COMMIT DROP"))
        yield connection
    engine.dispose()


def test_every_awkward_text_survives_in_the_first_column_and_in_the_last(connection: Connection) -> None:
    _copy(connection, [(awkward, number, awkward) for number, awkward in enumerate(AWKWARD.values())])
    found = {number: (first, last) for first, number, last in _copied(connection)}
    assert len(found) == len(AWKWARD)
    changed = [name for number, (name, awkward) in enumerate(AWKWARD.items()) if found[number] != (awkward, awkward)]
    assert changed == []


@pytest.mark.parametrize("name", AWKWARD)
def test_an_awkward_text_survives_as_the_only_row(name: str, connection: Connection) -> None:
    _copy(connection, [(AWKWARD[name], 1, "end")])
    assert _copied(connection) == [(AWKWARD[name], 1, "end")]


def test_every_single_character_survives(connection: Connection) -> None:
    characters = [chr(point) for point in range(1, 0x10000) if not 0xD800 <= point <= 0xDFFF]
    _copy(connection, [(character, ord(character), character * 2) for character in characters])
    assert _copied(connection) == [(character, ord(character), character * 2) for character in characters]


def test_an_empty_text_is_no_null_in_a_column_of_texts(connection: Connection) -> None:
    _copy(connection, [("", 1, ""), ("", 2, "x")])
    assert _copied(connection) == [("", 1, ""), ("", 2, "x")]


def test_none_becomes_null(connection: Connection) -> None:
    copy_rows(connection, "copied", ("first", "number", "last"), [("a", None, None), ("b", 0, "x")], texts=["first"])
    assert _copied(connection) == [("b", 0, "x"), ("a", None, None)]


def test_other_values_are_written_as_the_server_reads_them(connection: Connection) -> None:
    noon = datetime(2026, 3, 10, 12, 0, 0, 123456, tzinfo=timezone.utc)
    values = [2**63 - 1, Decimal("12345678901234567890.5"), 0.1, True, date(2026, 3, 10), noon]
    connection.execute(
        text(
            "CREATE TEMPORARY TABLE kinds (size bigint, sum numeric, ratio double precision, active boolean, day date, "
            "at timestamptz) ON COMMIT DROP"
        )
    )
    copy_rows(connection, "kinds", ("size", "sum", "ratio", "active", "day", "at"), [values])
    assert [list(row) for row in connection.execute(text("SELECT * FROM kinds"))] == [values]


def test_columns_that_are_not_named_keep_their_default(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE copied ALTER COLUMN number SET DEFAULT 7"))
    copy_rows(connection, "copied", ("last", "first"), [("z", "a")])
    assert _copied(connection) == [("a", 7, "z")]


def test_names_of_tables_and_columns_may_be_awkward_too(connection: Connection) -> None:
    connection.execute(text('CREATE TEMPORARY TABLE "My ""Table" ("Größe, in %" text) ON COMMIT DROP'))
    copy_rows(connection, 'My "Table', ["Größe, in %"], [("a",)], texts=["Größe, in %"])
    assert connection.execute(text('SELECT * FROM "My ""Table"')).scalars().all() == ["a"]


def test_no_rows_are_no_rows(connection: Connection) -> None:
    _copy(connection, [])
    assert _copied(connection) == []


def test_rows_may_come_from_a_generator(connection: Connection) -> None:
    _copy(connection, ((f"name {number}", number, "") for number in range(10_000)))
    assert len(_copied(connection)) == 10_000


def test_what_is_copied_goes_with_the_transaction(connection: Connection) -> None:
    savepoint = connection.begin_nested()
    _copy(connection, [("a", 1, "z")])
    savepoint.rollback()
    assert _copied(connection) == []


def test_a_value_that_does_not_fit_its_column_is_an_error(connection: Connection) -> None:
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation), connection.begin_nested():
        _copy(connection, [("a", 1, "z"), ("b", "seven", "z")])
    assert _copied(connection) == []


def _copy(connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
    copy_rows(connection, "copied", ("first", "number", "last"), rows, texts=("first", "last"))


def _copied(connection: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(text("SELECT * FROM copied ORDER BY number, first"))]
