"""Text of others, made safe to show: a terminal, a log or a page displays it and obeys nothing in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Controls (C0, DEL, C1), line and paragraph separators, lone surrogates, and the invisible marks that turn the
# direction of what follows or hide in it. https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing
_ACTING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str, longest: int | None = None) -> str:
    r"""Return *text* with characters that act rather than show as their escapes (`\x1b`), cut at *longest*."""
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}… ({len(text):,} characters)"
    return _ACTING.sub(_escape, text)


def is_text(value: str) -> bool:
    """Tell whether UTF-8 can encode *value*: Python has bytes from outside that are not UTF-8 as lone surrogates."""
    return _SURROGATE.search(value) is None


def one_line(error: BaseException) -> str:
    """Return what *error* says as one printable line, without the statement that SQLAlchemy quotes."""
    return printable(" ".join(str(getattr(error, "orig", error)).split()))


def first_of(names: Sequence[str], count: int, total: int | None = None) -> str:
    """Return the first *count* of *names*, separated by commas, and how many more there are of *total*."""
    shown = names[:count]
    more = (len(names) if total is None else total) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def printable_lines(text: str) -> str:
    """Return *text* like `printable`, with its line breaks."""
    # Nothing that acts is printable to Python; nearly every text is, and pages have thousands.
    if text.isprintable():
        return text
    return "\n".join(printable(line) for line in text.split("\n"))


def printable_json(document: str) -> str:
    """Return a JSON document that says the same and shows the characters that act as JSON's escapes.

    They stand in its strings only: JSON has none of them but the line break between its tokens.
    """
    return _ACTING.sub(lambda match: match[0] if match[0] == "\n" else _json_escape(match[0]), document)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
