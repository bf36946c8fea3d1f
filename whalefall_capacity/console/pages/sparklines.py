"""Small lines beside a row: the path of an SVG, with a gap where a value is not known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

WIDTH, HEIGHT = 100, 22
MARGIN = 2


# Every height of a line, in tenths from the top.
HEIGHTS = [f"{tenths / 10:.1f}" for tenths in range(10 * HEIGHT + 1)]


def spark_path(values: Sequence[int | None]) -> str:
    """Return the path of a line through *values*, scaled to WIDTH x HEIGHT; empty when none is known.

    A value alone between two gaps is a dot.
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    bottom, scale = (10 * (HEIGHT - MARGIN), 10 * (HEIGHT - 2 * MARGIN) / span) if span else (5 * HEIGHT, 0.0)
    points = [
        "" if value is None else x + HEIGHTS[round(bottom - (value - low) * scale)]
        for x, value in zip(_places(len(values)), values, strict=True)
    ]
    stretches = [list(stretch) for is_known, stretch in groupby(points, bool) if is_known]
    return "".join(f"M{'L'.join(stretch)}{'' if len(stretch) > 1 else 'h.01'}" for stretch in stretches)


@lru_cache(maxsize=16)
def _places(count: int) -> Sequence[str]:
    """Return where *count* values stand beside each other, with a blank before the height."""
    step = (WIDTH - 2 * MARGIN) / max(count - 1, 1)
    return [f"{MARGIN + place * step:.1f} " for place in range(count)]
