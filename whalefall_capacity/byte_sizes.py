"""Sizes in bytes: the largest that the store can hold, and their binary units."""

from __future__ import annotations

# Of a BIGINT.
LARGEST_SIZE = 2**63 - 1
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def in_binary_units(size_bytes: int) -> tuple[float, str]:
    """Return a size in the largest unit of which it has at least one, and that unit."""
    value, unit = float(size_bytes), 0
    while abs(value) >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return value, UNITS[unit]


def binary_size(size_bytes: int | None) -> str:
    """Return a size in binary units, such as 1.50 GiB; a dash when it is not known."""
    if size_bytes is None:
        return "-"
    value, unit = in_binary_units(size_bytes)
    return f"{size_bytes} B" if unit == "B" else f"{value:.2f} {unit}"
