"""The pace of each database: increments over measured days, one-off jumps apart, rate, spread and swing.

All functions work on many databases at once: rows are databases, columns are days, oldest first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whalefall_capacity.insight.rows import Floats, medians, quantiles
from whalefall_capacity.insight.statuses import FEWEST_DAYS

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

# The median absolute deviation of normally distributed values, times this, is their standard deviation.
SIGMA_OF_MAD = 1.4826
ONE_OFF_SIGMAS = 8.0
ONE_OFF_SHARE = 0.05
# So many jumps of one sign are a way of growing.
HABITUAL = 3
# Days over which a mean increment is taken; the rate is the middle of the three.
RATE_DAYS = (28, 91, 182)
SPREAD_DAYS = 28
SPREAD_WITHIN_DAYS = 182
LEAST_SPREAD_OF_RATE = 0.1
LEAST_SPREAD_OF_SIZE = 0.0002
SWING_DAYS = 35


@dataclass(frozen=True)
class Histories:
    """Sizes of n databases on t days, and what each day has beside the last measured day before it.

    *sizes* (n, t) bytes, NaN where nothing was measured. *before* (n, t) the column of the last measured day before
    this one, -1 where there is none. *gap* (n, t) days since then, *size_before* (n, t) bytes then, *increment* (n, t)
    bytes per day since then: NaN on days that were not measured and on the first that was.
    """

    sizes: Floats
    before: Integers
    gap: Floats
    size_before: Floats
    increment: Floats


@dataclass(frozen=True)
class Increments:
    """Increments within a window of w days, one-offs told apart; all (n, w), columns of the window.

    *measured* days; *gap* and *increment* as in Histories, NaN for the first measured day of the window; *usual* (n,)
    the median increment and *sigma* (n,) its deviation, bytes per day; *one_off* the jumps left out, and *path* bytes
    since the first measured day without them, which goes on unchanged over days that were not measured.
    """

    measured: Booleans
    before: Integers
    gap: Floats
    increment: Floats
    usual: Floats
    sigma: Floats
    one_off: Booleans
    path: Floats


@dataclass(frozen=True)
class Growth:
    """Growth of n databases, as seen on the last day of a window; all (n,).

    *measured_days*; *first* and *last* the columns of the first and last measured day in the window, -1 for none;
    *size* bytes on the last one. *rate* bytes per day, *spread* bytes (of 28 days) and *swing* bytes: 0 for a database
    with fewer than 14 measured days, which counts with its size alone.
    """

    measured_days: Integers
    first: Integers
    last: Integers
    size: Floats
    rate: Floats
    spread: Floats
    swing: Floats

    @property
    def young(self) -> Booleans:
        """The databases with too few measured days to have a pace."""
        return self.measured_days < FEWEST_DAYS


def histories(sizes: Floats) -> Histories:
    """Return *sizes* (n, t) with the increments between measured days; no gap is filled."""
    sizes = np.asarray(sizes, dtype=np.float64)
    days = np.arange(sizes.shape[1])
    latest = np.maximum.accumulate(np.where(np.isnan(sizes), -1, days), axis=1)
    before = np.full(sizes.shape, -1, dtype=np.int64)
    before[:, 1:] = latest[:, :-1]
    known = before >= 0
    size_before = np.where(known, np.take_along_axis(sizes, np.maximum(before, 0), axis=1), np.nan)
    gap = np.where(known, days - before, np.nan)
    increment = (sizes - size_before) / gap
    return Histories(sizes, before, gap, size_before, increment)


def increments(of: Histories, first: int, last: int) -> Increments:
    """Return the increments within the columns *first* to *last*, inclusive, with one-offs told apart.

    A one-off is a jump beyond 8 sigmas and 5 % of the size before, unless the window has three of its sign.
    """
    window = slice(first, last + 1)
    within = of.before[:, window] >= first
    gap = np.where(within, of.gap[:, window], np.nan)
    increment = np.where(within, of.increment[:, window], np.nan)
    usual = medians(increment)
    beyond = increment - usual[:, None]
    sigma = SIGMA_OF_MAD * medians(np.abs(beyond))
    beyond *= gap
    allowed = np.maximum(ONE_OFF_SIGMAS * sigma[:, None] * gap, ONE_OFF_SHARE * of.size_before[:, window])
    up, down = beyond > allowed, -beyond > allowed
    up &= (np.count_nonzero(up, axis=1) < HABITUAL)[:, None]
    down &= (np.count_nonzero(down, axis=1) < HABITUAL)[:, None]
    one_off = up | down
    steps = np.where(one_off, usual[:, None], increment) * gap
    path = np.cumsum(np.nan_to_num(steps, copy=False), axis=1)
    measured = ~np.isnan(of.sizes[:, window])
    return Increments(measured, of.before[:, window] - first, gap, increment, usual, sigma, one_off, path)


def growth(of: Histories, within: Increments, last: int) -> Growth:
    """Return how the databases grow as of column *last*, on which the window *within* ends."""
    width = within.measured.shape[1]
    counts = np.count_nonzero(within.measured, axis=1)
    first = np.where(counts, np.argmax(within.measured, axis=1), -1)
    final = np.where(counts, width - 1 - np.argmax(within.measured[:, ::-1], axis=1), -1)
    rows = np.arange(len(counts))
    offset = last + 1 - width
    size = np.where(counts, of.sizes[rows, np.maximum(final, 0) + offset], np.nan)
    enough = counts >= FEWEST_DAYS
    rate = np.where(enough, np.nan_to_num(_rate(within, first, final)), 0.0)
    spread = np.where(enough, _spread(within, rate, size), 0.0)
    swing = np.where(enough, _swing(within, final, rate), 0.0)
    return Growth(counts, first, final, size, rate, spread, swing)


def one_offs(within: Increments) -> tuple[Integers, Integers, Floats]:
    """Return row, column and bytes beyond the usual of every one-off, in the order of rows and days."""
    rows, columns = np.nonzero(within.one_off)
    beyond = within.increment[rows, columns] - within.usual[rows]
    return rows, columns, beyond * within.gap[rows, columns]


def _rate(within: Increments, first: Integers, last: Integers) -> Floats:
    """Return the median of the mean increments of the last 28, 91 and 182 days.

    An increment over several days that began before the window counts with the days that it has in it. A span in which
    nothing was measured has no mean.
    """
    width = within.measured.shape[1]
    rows = np.arange(len(first))
    path = within.path
    end = path[rows, np.maximum(last, 0)]
    means = []
    for days in RATE_DAYS:
        border = width - 1 - days
        if border <= 0:
            since, start = np.maximum(first, 0), np.zeros(len(first))
        else:
            # The first measured day on or after the border, and from there back to it by the slope of its increment.
            after = border + np.argmax(within.measured[:, border:], axis=1)
            back = after - border
            gap = np.where(np.isnan(within.gap[rows, after]), 0, within.gap[rows, after])
            step = path[rows, after] - path[rows, np.maximum(after - 1, 0)]
            began_before = (first >= 0) & (first < border) & (gap > 0)
            slope = np.divide(step, gap, out=np.zeros_like(step), where=began_before)
            since = np.where(began_before, border, np.maximum(first, after))
            start = path[rows, after] - np.where(began_before, back * slope, 0.0)
        span = np.maximum(last - since, 0)
        means.append(np.divide(end - start, span, out=np.full(len(first), np.nan), where=span > 0))
    return medians(np.stack(means, axis=1))


def _spread(within: Increments, rate: Floats, size: Floats) -> Floats:
    """Return half the distance from the 10th to the 90th percentile of 28-day growths, with a floor; bytes.

    A growth runs from the last measured day at least 28 days back, and is scaled to 28 days when that lies further.
    """
    width = within.measured.shape[1]
    earliest = max(width - 1 - SPREAD_WITHIN_DAYS, 0)
    low = np.zeros(len(rate))
    high = low
    if earliest + SPREAD_DAYS < width:
        ends = np.arange(earliest + SPREAD_DAYS, width)
        columns = np.where(within.measured, np.arange(width), -1)
        starts = np.maximum.accumulate(columns, axis=1)[:, earliest : width - SPREAD_DAYS]
        usable = within.measured[:, ends] & (starts >= earliest)
        begun = np.take_along_axis(within.path, np.maximum(starts, 0), axis=1)
        grown = (within.path[:, ends] - begun) * (SPREAD_DAYS / (ends - starts))
        low, high = (np.nan_to_num(found) for found in quantiles(np.where(usable, grown, np.nan), 0.1, 0.9))
    least = LEAST_SPREAD_OF_RATE * SPREAD_DAYS * np.abs(rate)
    spread: Floats = np.maximum((high - low) / 2, least) + LEAST_SPREAD_OF_SIZE * size
    return spread


def _swing(within: Increments, last: Integers, rate: Floats) -> Floats:
    """Return how far the highest point of the last 35 days lies above the line that ends on the last one; bytes."""
    width = within.measured.shape[1]
    begin = max(width - SWING_DAYS, 0)
    end = within.path[np.arange(len(last)), np.maximum(last, 0)]
    line = end[:, None] - rate[:, None] * (last[:, None] - np.arange(begin, width))
    above = np.where(within.measured[:, begin:], within.path[:, begin:] - line, 0.0)
    highest: Floats = above.max(axis=1)
    return np.maximum(highest, 0.0)
