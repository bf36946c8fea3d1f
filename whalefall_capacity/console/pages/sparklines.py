"""Small lines beside a row: the path of an SVG, with a gap where a value is not known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

WIDTH, HEIGHT = 100, 22
MARGIN = 2


def spark_path(values: Sequence[int | None]) -> str:
    """Return the path of a line through *values*, scaled to WIDTH x HEIGHT; empty when none is known.

    A value alone between two gaps is a dot.
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    bottom, scale = (HEIGHT - MARGIN, (HEIGHT - 2 * MARGIN) / span) if span else (HEIGHT / 2, 0.0)
    parts: list[str] = []
    goes_on = False
    for place, (x, value) in enumerate(zip(_places(len(values)), values, strict=True)):
        if value is None:
            goes_on = False
            continue
        parts.append(f"{'L' if goes_on else 'M'}{x} {bottom - (value - low) * scale:.1f}")
        if not goes_on and (place + 1 == len(values) or values[place + 1] is None):
            parts.append("h.01")
        goes_on = True
    return "".join(parts)


@lru_cache(maxsize=16)
def _places(count: int) -> Sequence[str]:
    """Return where *count* values stand beside each other."""
    step = (WIDTH - 2 * MARGIN) / max(count - 1, 1)
    return [f"{MARGIN + place * step:.1f}" for place in range(count)]
