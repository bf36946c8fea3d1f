"""Forecasts of some weeks ago, made again from what was known then, beside what came and beside two simple methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whalefall_capacity.insight.calibration import Reach, widened
from whalefall_capacity.insight.growth import (
    LEAST_SPREAD_OF_SIZE,
    SPREAD_DAYS,
    Booleans,
    Growth,
    Histories,
    Increments,
    Integers,
)
from whalefall_capacity.insight.rows import Floats
from whalefall_capacity.insight.statuses import STALE_AFTER_DAYS

LINE_DAYS = 90
# A spread up to so many times its floor is mostly the floor, and no measure of how growth varies.
STILL_FLOORS = 2


@dataclass(frozen=True)
class Hindsight:
    """Forecasts of n databases, or of n instances, of so many days ago; all (n,).

    *compared*: it had a pace then, and is measured now. *size_then*, *forecast* and *actual* bytes (one-offs that came
    since are left out of *actual*, and are *one_off*); *line* bytes by the least-squares line of 90 days. *width*
    bytes: spread · horizon / 28; *floor* bytes, the part of it that what stands still has too. *measured_days* of
    history then.
    """

    compared: Booleans
    size_then: Floats
    forecast: Floats
    actual: Floats
    one_off: Floats
    line: Floats
    width: Floats
    floor: Floats
    measured_days: Integers

    @property
    def deviations(self) -> Floats:
        """(actual - forecast) / width, over what the short history of then widens it by; NaN where not compared.

        NaN also for what stood still: that it ended where it was expected says nothing of those that grow.
        """
        below, above = widened(self.measured_days)
        moved = self.width > STILL_FLOORS * self.floor
        off = np.where(self.compared & moved, self.actual - self.forecast, np.nan)
        scale = self.width * np.where(off < 0, below, above)
        found: Floats = np.divide(off, scale, out=np.full_like(off, np.nan), where=scale > 0)
        return found

    def within(self, reach: Reach) -> Booleans:
        """Tell where *actual* lies in the range that was given then, to the byte."""
        below, above = widened(self.measured_days)
        lowest = self.forecast - reach.low * below * self.width
        highest = self.forecast + reach.high * above * self.width
        # Half a byte, and what floats of this size cannot tell apart.
        slack = 0.5 + 1e-9 * np.abs(self.forecast)
        inside: Booleans = self.compared & (self.actual >= lowest - slack) & (self.actual <= highest + slack)
        return inside

    def errors(self, answer: Floats) -> Floats:
        """Return how far *answer* is off, in percent of the size then; NaN where not compared or the size was 0."""
        counts = self.compared & (self.size_then > 0)
        off = np.abs(self.actual - answer)
        percent: Floats = np.divide(100 * off, self.size_then, out=np.full_like(off, np.nan), where=counts)
        return percent


def hindsight(
    of: Histories, now: tuple[Increments, Growth], then: Growth, then_column: int, first: int, last: int
) -> Hindsight:
    """Return the forecasts as of *then_column* beside what is known in column *last*.

    The window of both begins in column *first*; *now* and *then* are what was found in it until each of the two days.
    """
    within, latest = now
    age_then, age_now = then_column - first - then.last, last - first - latest.last
    compared = ~then.young & (age_then <= STALE_AFTER_DAYS) & (latest.last >= 0) & (age_now <= STALE_AFTER_DAYS)
    compared &= latest.last > then.last
    rows = np.arange(len(then.last))
    begun, ended = np.maximum(then.last, 0), np.maximum(latest.last, 0)
    days = np.where(compared, ended - begun, 0)
    grown = within.path[rows, ended] - within.path[rows, begun]
    line = least_squares(
        of.sizes[:, max(then_column - LINE_DAYS + 1, first) : then_column + 1], days - age_then, then.size
    )
    return Hindsight(
        compared,
        size_then=then.size,
        forecast=then.size + then.rate * days,
        actual=then.size + grown,
        one_off=latest.size - (then.size + grown),
        line=line,
        width=then.spread * days / SPREAD_DAYS,
        floor=LEAST_SPREAD_OF_SIZE * then.size * days / SPREAD_DAYS,
        measured_days=then.measured_days,
    )


def least_squares(sizes: Floats, ahead: Integers, about: Floats) -> Floats:
    """Return the least-squares line through *sizes* (n, k), *ahead* (n,) days after their last column; bytes.

    *about* (n,) is any size of the row, near which floats are exact. A row with one measured day gives that size.
    """
    x = np.arange(1 - sizes.shape[1], 1, dtype=np.float64)
    known = ~np.isnan(sizes)
    y = np.where(known, sizes - about[:, None], 0.0)
    weight = known.astype(np.float64)
    count, sum_x, sum_xx = weight.sum(axis=1), weight @ x, weight @ (x * x)
    sum_y, sum_xy = y.sum(axis=1), y @ x
    mean = np.divide(sum_y, count, out=np.zeros_like(sum_y), where=count > 0)
    scatter = sum_xx * count - sum_x * sum_x
    slope = np.divide(sum_xy * count - sum_x * sum_y, scatter, out=np.zeros_like(sum_y), where=scatter > 0)
    middle = np.divide(sum_x, count, out=np.zeros_like(sum_y), where=count > 0)
    line: Floats = about + mean + slope * (ahead - middle)
    return line


def summed(of: Hindsight, owner: Integers, count: int, measured_days: Integers) -> Hindsight:
    """Return the forecasts of *count* instances: the sums over those databases that are compared.

    *owner* (n,) is the instance of each database, *measured_days* (count,) of each instance then.
    """
    chosen = of.compared
    compared = np.bincount(owner[chosen], minlength=count) > 0

    def total(values: Floats) -> Floats:
        return np.bincount(owner[chosen], weights=values[chosen], minlength=count).astype(np.float64)

    return Hindsight(
        compared,
        size_then=total(of.size_then),
        forecast=total(of.forecast),
        actual=total(of.actual),
        one_off=total(of.one_off),
        line=total(of.line),
        width=np.sqrt(total(of.width * of.width)),
        floor=np.sqrt(total(of.floor * of.floor)),
        measured_days=measured_days,
    )
