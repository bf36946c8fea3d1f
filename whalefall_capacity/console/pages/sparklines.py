"""Small lines beside a row: the path of an SVG, with a gap where a value is not known."""

from __future__ import annotations

from collections.abc import Sequence

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
    step = (WIDTH - 2 * MARGIN) / max(len(values) - 1, 1)
    parts: list[str] = []
    before: int | None = None
    for place, value in enumerate(values):
        if value is not None:
            share = (value - low) / span if span else 0.5
            x, y = MARGIN + place * step, HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)
            parts.append(f"{'L' if before is not None else 'M'}{x:.1f} {y:.1f}")
            if before is None and (place + 1 == len(values) or values[place + 1] is None):
                parts.append("h.01")
        before = value
    return "".join(parts)
