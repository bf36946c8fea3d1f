"""Jumps, drops and stalls of a day, told from the way in which a database usually grows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whalefall_capacity.insight.growth import ONE_OFF_SHARE, ONE_OFF_SIGMAS, Booleans, Histories, Increments
from whalefall_capacity.insight.rows import Floats
from whalefall_capacity.insight.statuses import AnomalyKind

LOOK_BACK_DAYS = 91
LARGEST_BEFORE = 1.5
LEAST_CHANGE_BYTES = 128 * 2**20
STALL_DAYS = 14
STALL_SHARE = 0.05


@dataclass(frozen=True)
class Anomaly:
    """Anomaly of the row *row*: it changed by *change* beyond the *usual* where *threshold* was allowed.

    Bytes. Of a stall: 14 days brought *change*, the fewest of 14 days before brought *usual*.
    """

    row: int
    kind: AnomalyKind
    change: float
    usual: float
    threshold: float


def anomalies(of: Histories, within: Increments, last: int) -> list[Anomaly]:
    """Return what was odd about column *last*, on which the window *within* ends; by row, one of a row.

    A database that jumps or drops is not said to stall as well.
    """
    change, usual, threshold = _jumps(of, within, last)
    big = (np.abs(change) > threshold) & (np.abs(change) >= LEAST_CHANGE_BYTES)
    grown, least, stalled = _stalls(of, within, last)
    found = [
        Anomaly(row, AnomalyKind.JUMP if change[row] > 0 else AnomalyKind.DROP, *_values(row, change, usual, threshold))
        for row in np.flatnonzero(big).tolist()
    ]
    found += [
        Anomaly(row, AnomalyKind.STALL, *_values(row, grown, least, STALL_SHARE * least))
        for row in np.flatnonzero(stalled & ~big).tolist()
    ]
    return sorted(found, key=lambda anomaly: anomaly.row)


def _values(row: int, change: Floats, usual: Floats, threshold: Floats) -> tuple[float, float, float]:
    return float(change[row]), float(usual[row]), float(threshold[row])


def _jumps(of: Histories, within: Increments, last: int) -> tuple[Floats, Floats, Floats]:
    """Return the change of the last day beyond the usual, the usual, and how much is allowed; NaN if not measured."""
    beyond = (within.increment[:, -1 - LOOK_BACK_DAYS :] - within.usual[:, None]) * within.gap[:, -1 - LOOK_BACK_DAYS :]
    change, gap = beyond[:, -1], within.gap[:, -1]
    largest = np.nan_to_num(np.abs(beyond[:, :-1])).max(axis=1, initial=0.0)
    threshold = np.maximum(ONE_OFF_SIGMAS * within.sigma * gap, ONE_OFF_SHARE * of.size_before[:, last])
    return change, within.usual * gap, np.maximum(threshold, LARGEST_BEFORE * largest)


def _stalls(of: Histories, within: Increments, last: int) -> tuple[Floats, Floats, Booleans]:
    """Return the growth of the last 14 days, the smallest 14-day growth of the 91 days before, and who stalls."""
    width = within.measured.shape[1]
    begin = width - 1 - STALL_DAYS - LOOK_BACK_DAYS
    if begin < 0:
        none = np.full(len(within.usual), np.nan)
        return none, none, np.zeros(len(none), dtype=np.bool_)
    sizes = of.sizes[:, last + 1 - width + begin : last + 1]
    # From day to day 14 days later, where both were measured: the first differences lie in the 91 days before.
    grown = sizes[:, STALL_DAYS:] - sizes[:, :-STALL_DAYS]
    before = np.where(
        np.isnan(grown[:, : LOOK_BACK_DAYS - STALL_DAYS + 1]), np.inf, grown[:, : LOOK_BACK_DAYS - STALL_DAYS + 1]
    )
    least = before.min(axis=1)
    with np.errstate(invalid="ignore"):
        stalled = np.isfinite(least) & (least > 0) & (grown[:, -1] < STALL_SHARE * least)
    return grown[:, -1], least, stalled
