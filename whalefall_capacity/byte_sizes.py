"""Sizes in bytes: the largest that a column holds, the largest that is believed, and their binary units."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

# Of a BIGINT.
LARGEST_SIZE = 2**63 - 1
# 8 PiB, of a database and of a server. A thousand servers that claim as much still add up to less than a BIGINT, and
# readers of JSON that count in floating point keep every byte.
LARGEST_CREDIBLE_SIZE = 2**53 - 1
# Of any two sizes, with two places: the quotient of a BIGINT and one byte.
ENOUGH_DIGITS = Context(prec=40)
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_FACTORS = {"": 1, "b": 1} | {
    f"{letter}{suffix}": 1024**power for power, letter in enumerate("kmgtp", start=1) for suffix in ("ib", "i", "")
}


def in_binary_units(size_bytes: int) -> tuple[float, str]:
    """Return a size in the largest unit of which it has one when it is rounded, and that unit."""
    value, unit = float(size_bytes), 0
    while round(abs(value)) >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return value, UNITS[unit]


def change_percent(change_bytes: int, before_bytes: int) -> float | None:
    """Return a change in percent of a size, rounded as the store rounds: half away from zero, to two places.

    None where the size was 0.
    """
    if before_bytes == 0:
        return None
    percent = ENOUGH_DIGITS.divide(Decimal(100 * change_bytes), Decimal(before_bytes))
    # Plus 0: a small loss is no -0.0.
    return float(percent.quantize(Decimal("0.01"), ROUND_HALF_UP, ENOUGH_DIGITS)) + 0.0


def bytes_in(value: Any) -> Any:
    """Return the bytes that people mean by a number, or a size in binary units such as 500GiB; others as they are.

    Raises ValueError for text that is neither.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value.lower())
    if match is None or match[2] not in _FACTORS:
        raise ValueError("must be a number of bytes or a size such as 500GiB or 2TiB")
    return int(Decimal(match[1]) * _FACTORS[match[2]])


def binary_size(size_bytes: int | None) -> str:
    """Return a size in binary units, such as 1.50 GiB; a dash when it is not known."""
    if size_bytes is None:
        return "-"
    value, unit = in_binary_units(size_bytes)
    return f"{size_bytes} B" if unit == "B" else f"{value:.2f} {unit}"
