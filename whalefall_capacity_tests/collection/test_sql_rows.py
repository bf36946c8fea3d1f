"""What the rows of a query can mean, and what they cannot."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from whalefall_capacity.collection.database_tables import DatabaseTable
from whalefall_capacity.collection.sizes import DatabaseSize
from whalefall_capacity.collection.sql.rows import Answer, databases_of, tables_of


def answer(columns: str, *rows: tuple[Any, ...]) -> Answer:
    return Answer("birds.yaml: queries.x", columns.split(), rows)


@pytest.mark.parametrize("value", [7, 7.0, Decimal(7), Decimal("7.00")])
def test_a_whole_number_of_any_type_is_a_size(value: object) -> None:
    (row,) = databases_of(answer("name size_bytes", ("shop", value)))
    assert row.size == DatabaseSize("shop", 7)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("7", "'7' is no number but str"),
        (b"7", "b'7' is no number but bytes"),
        (True, "True is no number but bool"),
        (-1, "-1 bytes cannot be"),
        (2**53, "9007199254740992 bytes cannot be"),
        (float("inf"), "inf bytes cannot be"),
        (Decimal("NaN"), "Decimal('NaN') bytes cannot be"),
        (0.5, "0.5 is not a whole number"),
        ("\x1b[31m" + "x" * 300, r"'\x1b[31m" + "x" * 191 + "… (310 characters) is no number but str"),
    ],
)
def test_anything_else_is_a_missing_size_with_what_is_wrong(value: object, problem: str) -> None:
    (row,) = databases_of(answer("name size_bytes", ("shop", value)))
    assert row.size.size_bytes is None
    assert row.size.reason == f"birds.yaml: queries.x: size_bytes: {problem}"


def test_null_is_missing_with_the_reason_of_the_row() -> None:
    rows = ("shop", None, "offline"), ("crm", None, None), ("hr", 7, "not needed")
    found = [row.size for row in databases_of(answer("name size_bytes reason", *rows))]
    assert found == [
        DatabaseSize("shop", None, "offline"),
        DatabaseSize("crm", None, "the server gave no size (NULL)"),
        DatabaseSize("hr", 7),
    ]


def test_names_come_as_text_or_bytes_and_keep_their_blanks() -> None:
    found = [row.size.name for row in databases_of(answer("name size_bytes", ("a ", 1), ("a", 1), (b"caf\xe9", 1)))]
    assert found == ["a ", "a", r"caf\xe9"]


def test_a_table_without_a_size_has_a_reason() -> None:
    rows = ("s", "t", 7, 5, 2, 3), (None, "u", None, None, None, None), ("s", "v", "x", -1, None, None)
    columns = "schema_name name size_bytes data_size_bytes index_size_bytes rows"
    assert tables_of(answer(columns, *rows)) == [
        DatabaseTable("s", "t", None, 7, 5, 2, 3),
        DatabaseTable(None, "u", None, None, None, None, None, "the server gave no size (NULL)"),
        DatabaseTable(
            "s", "v", None, None, None, None, None, "birds.yaml: queries.x: size_bytes: 'x' is no number but str"
        ),
    ]
