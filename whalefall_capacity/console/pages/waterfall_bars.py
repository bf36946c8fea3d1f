"""The bars of a waterfall: each begins where the one above it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from whalefall_capacity.insight.waterfall import WaterfallRow
from whalefall_capacity.store.insight.waterfall import InstanceWaterfall

WIDTH = 200
LEAST_WIDTH = 1.0


@dataclass(frozen=True)
class Bar:
    """One part, drawn from *left* over *width* of WIDTH; *zero* is where no change is."""

    row: WaterfallRow
    left: float
    width: float

    @property
    def grows(self) -> bool:
        return self.row.change_bytes > 0


@dataclass(frozen=True)
class WaterfallBars:
    """A waterfall, as the page draws it."""

    of: InstanceWaterfall
    bars: Sequence[Bar]
    zero: float
    total_left: float
    total_width: float


def waterfall_bars(of: InstanceWaterfall) -> WaterfallBars:
    """Return *of* with the places of its bars."""
    ends = list(accumulate((row.change_bytes for row in of.rows), initial=0))
    low, high = min(ends), max(ends)
    scale = (WIDTH - LEAST_WIDTH) / ((high - low) or 1)

    def bar(start: int, end: int) -> tuple[float, float]:
        return round((min(start, end) - low) * scale, 1), round(max(abs(end - start) * scale, LEAST_WIDTH), 1)

    places = [bar(start, end) for start, end in pairwise(ends)]
    bars = [Bar(row, *place) for row, place in zip(of.rows, places, strict=True)]
    return WaterfallBars(of, bars, round(-low * scale, 1), *bar(0, ends[-1]))
