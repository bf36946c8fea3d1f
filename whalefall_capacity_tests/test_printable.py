"""Text that others wrote is shown, and acts on nothing."""

from __future__ import annotations

import json

import pytest

from whalefall_capacity.printable import printable, printable_json, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("orders", "orders"),
        ("订单 ñ 🐋", "订单 ñ 🐋"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\r\nb\0", r"a\r\nb\x00"),
        ("a\x9b31m", r"a\x9b31m"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("a\ud800b", r"a\ud800b"),
    ],
)
def test_characters_that_act_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_endless_text_is_cut_and_says_so() -> None:
    assert printable("x" * 5000, 3) == "xxx… (5,000 characters)"


def test_line_breaks_stay_where_lines_are_meant() -> None:
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"


def test_json_says_the_same_in_escapes() -> None:
    content = {"a\u202e": "b\x9b\U000e0001"}
    document = printable_json(json.dumps(content, ensure_ascii=False, indent=2))
    assert json.loads(document) == content
    assert r"\u202e" in document
    assert "\x9b" not in document
