"""The days until a disk is full, as a range, or why nothing is said: for many instances at once, or for a what-if."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import fsum, sqrt

import numpy as np
from numpy.typing import ArrayLike

from whalefall_capacity.insight.growth import SPREAD_DAYS, Booleans, Integers
from whalefall_capacity.insight.rows import Floats
from whalefall_capacity.insight.statuses import FEWEST_DAYS, FURTHEST_DAYS, STALE_AFTER_DAYS, ForecastStatus

# Of a quotient that is a whole number of days but for the rounding of floats.
DECIMALS = 6


@dataclass(frozen=True)
class Instances:
    """Sizes, limits and paces of i instances on one day; all (i,).

    *used*, *limit* (NaN: none), *spread* (of 28 days) and *swing* bytes, *rate* bytes per day. *low* and *high*: how
    many spreads the range reaches below and above the rate. *measured_days* of history, and *unmeasured_days* since
    the last measured one.
    """

    used: Floats
    limit: Floats
    rate: Floats
    spread: Floats
    swing: Floats
    low: Floats
    high: Floats
    measured_days: Integers
    unmeasured_days: Integers


@dataclass(frozen=True)
class Dates:
    """The answer for i instances: *status*, and days from the day of the forecast; NaN is open. All (i,).

    Of NOT_BEFORE the earliest day is all that is said; the expected one is there for warnings, which must not wait
    until a restless disk is full.
    """

    status: list[ForecastStatus]
    expected: Floats
    earliest: Floats
    latest: Floats


@dataclass(frozen=True)
class Import:
    """An import that is planned: so many bytes, so many days after the day of the forecast."""

    size_bytes: float
    after_days: int


def instances(
    used: ArrayLike,
    limit: ArrayLike,
    rate: ArrayLike,
    spread: ArrayLike,
    swing: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    measured_days: ArrayLike,
    unmeasured_days: ArrayLike,
) -> Instances:
    """Return Instances of sequences or single values; a limit of None is none."""
    return Instances(
        used=_floats(used),
        limit=_floats(limit),
        rate=_floats(rate),
        spread=_floats(spread),
        swing=_floats(swing),
        low=_floats(low),
        high=_floats(high),
        measured_days=_whole(measured_days),
        unmeasured_days=_whole(unmeasured_days),
    )


def dates(of: Instances, planned: Import | None = None) -> Dates:
    """Return when each instance is full, or the first reason that applies for not saying so.

    *planned*: an import that all of them are to get.
    """
    margin = of.spread / SPREAD_DAYS
    expected = days_until_full(of.used, of.limit - of.swing, of.rate, planned)
    earliest = days_until_full(of.used, of.limit - of.swing, of.rate + of.high * margin, planned)
    latest = days_until_full(of.used, of.limit, of.rate - of.low * margin, planned)
    reasons: list[tuple[ForecastStatus, Booleans]] = [
        (ForecastStatus.NO_LIMIT, np.isnan(of.limit)),
        (ForecastStatus.STALE, of.unmeasured_days > STALE_AFTER_DAYS),
        (ForecastStatus.FULL, of.used >= of.limit),
        (ForecastStatus.TOO_NEW, of.measured_days < FEWEST_DAYS),
        (ForecastStatus.NOT_WITHIN_A_YEAR, np.isnan(earliest)),
        (ForecastStatus.NOT_BEFORE, np.isnan(latest)),
        (ForecastStatus.DATED, np.ones(len(of.used), dtype=np.bool_)),
    ]
    names = list(ForecastStatus)
    numbers = np.select([applies for _, applies in reasons], [names.index(name) for name, _ in reasons])
    status = [names[number] for number in numbers]
    dated = numbers == names.index(ForecastStatus.DATED)
    some = dated | (numbers == names.index(ForecastStatus.NOT_BEFORE))
    return Dates(
        status,
        np.where(some, expected, np.nan),
        np.where(some, earliest, np.nan),
        np.where(dated, latest, np.nan),
    )


def days_until_full(used: Floats, limit: Floats, pace: Floats, planned: Import | None = None) -> Floats:
    """Return after how many days *used* bytes reach *limit* at *pace* bytes per day: 0 where they do, NaN: open.

    Open is what never happens or lies beyond a year. A planned import takes its part of the room from its day on, when
    what shrinks has made some.
    """
    room = limit - used
    days = _days(room, pace)
    if planned is not None:
        shrunk = np.minimum(np.maximum(-pace, 0.0) * planned.after_days, used)
        after = np.maximum(_days(room + shrunk - planned.size_bytes, pace), planned.after_days)
        days = np.where(days < planned.after_days, days, after)
    return np.where(days <= FURTHEST_DAYS, days, np.nan)


def altered(of: Instances, limit: float | None = None, pace: float = 1.0) -> Instances:
    """Return *of* with another *limit* (bytes; None: their own), and with the rate and its spread times *pace*.

    Databases that are to be dropped are left out of what *of* is the sum of: see `together`.
    """
    changed = replace(of, rate=of.rate * pace, spread=of.spread * abs(pace))
    return changed if limit is None else replace(changed, limit=np.full_like(of.limit, limit))


def together(rates: ArrayLike, spreads: ArrayLike, swings: ArrayLike) -> tuple[float, float, float]:
    """Return rate, spread and swing of an instance with these databases, in the units of each.

    Rates add; spreads and swings add as roots of squares. The same whatever the order of the databases.
    """
    rate, spread, swing = (np.asarray(values, dtype=np.float64) for values in (rates, spreads, swings))
    return fsum(rate), sqrt(fsum(spread * spread)), sqrt(fsum(swing * swing))


def days_of_pace(sizes: ArrayLike, measured_days: ArrayLike, of_instance: int) -> int:
    """Return how many days the pace of an instance with these databases rests on: its measured ones, *of_instance*.

    Where most of its bytes are of databases that are too new for a pace, those of these databases.
    """
    size, days = np.asarray(sizes, dtype=np.float64), np.asarray(measured_days, dtype=np.int64)
    young = days < FEWEST_DAYS
    # Where all are empty, no bytes tell, but all may be new.
    if young.any() and (young.all() or 2 * size[young].sum() > size.sum()):
        return int(days[young].max())
    return of_instance


def fan(of: Instances, until: Dates, days: Integers, planned: Import | None = None) -> tuple[Floats, Floats, Floats]:
    """Return the earliest, expected and latest line (i, k) to the limit, bytes on each of *days* (k,) from now.

    Each reaches the limit on its day of *until* and stays there; a line without a day is NaN. The room for peaks is
    taken up little by little: it is no growth, and counts on the last day alone.
    """
    margin = of.spread / SPREAD_DAYS
    lines = [
        _line(of, of.rate + of.high * margin, of.swing, until.earliest, days, planned),
        _line(of, of.rate, of.swing, until.expected, days, planned),
        _line(of, of.rate - of.low * margin, np.zeros_like(of.swing), until.latest, days, planned),
    ]
    return lines[0], lines[1], lines[2]


def _line(of: Instances, pace: Floats, peak: Floats, until: Floats, days: Integers, planned: Import | None) -> Floats:
    last = np.maximum(until, 1.0)[:, None]
    grown = np.maximum(pace[:, None] * days, -of.used[:, None]) + peak[:, None] * np.minimum(days / last, 1.0)
    if planned is not None:
        grown = grown + np.where(days >= planned.after_days, planned.size_bytes, 0.0)
    below = np.minimum(of.used[:, None] + grown, of.limit[:, None])
    line: Floats = np.where(days >= last, of.limit[:, None], below)
    return np.where(np.isnan(until)[:, None], np.nan, line)


def _floats(values: ArrayLike) -> Floats:
    return np.atleast_1d(np.asarray(values, dtype=np.float64))


def _whole(values: ArrayLike) -> Integers:
    return np.atleast_1d(np.asarray(values, dtype=np.int64))


def _days(room: Floats, pace: Floats) -> Floats:
    grows = pace > 0
    with np.errstate(over="ignore"):
        days = np.divide(room, pace, out=np.full_like(room, np.inf), where=grows)
    days = np.where(days <= FURTHEST_DAYS + 1, np.ceil(np.round(np.minimum(days, FURTHEST_DAYS + 1), DECIMALS)), np.inf)
    # What fits into the room of a moment still fits today.
    return np.where(room <= 0, 0.0, np.maximum(days, 1.0))
