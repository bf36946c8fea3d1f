"""The width of the range: how far off the fleet's own forecasts were, and how much further those of short histories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from whalefall_capacity.insight.rows import Floats

# Below so many forecasts the fleet does not know its own.
FEWEST_FORECASTS = 200
# Measured by cutting histories short: spreads below and above the rate, by measured days of history.
DAYS = (14, 28, 42, 60, 91, 182)
LOW = (6.6, 6.1, 3.2, 2.3, 1.8, 1.2)
HIGH = (9.9, 5.8, 2.1, 1.4, 1.25, 1.35)


@dataclass(frozen=True)
class Reach:
    """Reach of the range of a long history, in spreads below (*low*) and above (*high*) what is expected."""

    low: float
    high: float


DEFAULT_REACH = Reach(LOW[-1], HIGH[-1])


def reach_of(deviations: ArrayLike) -> Reach:
    """Return the reach that 8 of 10 of *deviations* lie in; the default when there are too few.

    A deviation is (actual - forecast) / (spread · horizon / 28), over what a short history widens it by. The range
    always holds what is expected.
    """
    known = np.asarray(deviations, dtype=np.float64)
    known = known[np.isfinite(known)]
    if len(known) < FEWEST_FORECASTS:
        return DEFAULT_REACH
    low, high = np.quantile(known, (0.1, 0.9))
    return Reach(max(-float(low), 0.0), max(float(high), 0.0))


def widened(measured_days: ArrayLike) -> tuple[Floats, Floats]:
    """Return by what factor a history of so many measured days (k,) widens the range below and above."""
    days = np.asarray(measured_days, dtype=np.float64)
    return np.interp(days, DAYS, LOW) / LOW[-1], np.interp(days, DAYS, HIGH) / HIGH[-1]
