"""Names that nobody knows the encoding of, as text."""

from __future__ import annotations

from collections.abc import Iterable


def distinct_names(raw_names: Iterable[bytes], encoding: str | None) -> list[str]:
    """Return names as text, in their order, no two alike.

    The bytes of a name are in the encoding of the database in which it was given, which nobody knows. They are
    read as the server would read them, in the *encoding* of the database that lists them; then as UTF-8; and what
    is neither shows its bytes.
    """
    raw_names = list(raw_names)
    texts = {raw_name: decode(raw_name, encoding or "ascii") for raw_name in raw_names}
    taken: dict[str, bytes] = {}
    # Those that are text come first, and keep their names.
    for raw_name in sorted(raw_names, key=lambda raw_name: (not _is_text(raw_name, encoding), raw_name)):
        if taken.setdefault(texts[raw_name], raw_name) != raw_name:
            texts[raw_name] = rf"\x{raw_name.hex()}"
    return [texts[raw_name] for raw_name in raw_names]


def decode(raw_name: bytes, encoding: str) -> str:
    """Return a name as text: in *encoding*, in UTF-8, or with those of its bytes that are no text shown."""
    for candidate in (encoding, "utf-8"):
        if _is_text(raw_name, candidate):
            return raw_name.decode(candidate)
    return raw_name.decode("utf-8", errors="backslashreplace")


def _is_text(raw_name: bytes, encoding: str | None) -> bool:
    try:
        raw_name.decode(encoding or "ascii")
    except UnicodeDecodeError:
        return False
    return True
