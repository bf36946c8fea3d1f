"""One day of some instances, read from their histories: paces, sums, hindsight and anomalies, before any date.

The databases are looked at in blocks, so that what numpy needs meanwhile stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date

import numpy as np

from whalefall_capacity.insight.anomalies import Anomaly, anomalies
from whalefall_capacity.insight.calibration import Reach
from whalefall_capacity.insight.dates import days_of_pace, together
from whalefall_capacity.insight.growth import (
    Booleans,
    Growth,
    Histories,
    Integers,
    growth,
    histories,
    increments,
    one_offs,
)
from whalefall_capacity.insight.hindsight import Hindsight, hindsight, summed
from whalefall_capacity.insight.rows import Floats, joined
from whalefall_capacity.insight.statuses import FEWEST_DAYS, HISTORY_DAYS, HORIZONS, STALE_AFTER_DAYS
from whalefall_capacity.store.insight.histories import Chunk, Instance
from whalefall_capacity.store.insight.numbers import whole
from whalefall_capacity.store.insight.read import GrowerShare, OneOff, Reason

BLOCK_ROWS = 500
SHOWN = 5
# One-offs are told as long as a rate could have them.
ONE_OFF_DAYS = 182
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Jump:
    """A one-off: the place of its database, its column, and bytes beyond the usual."""

    place: int
    column: int
    size_bytes: float


@dataclass(frozen=True)
class FittedDay:
    """The databases of a chunk as of one column: *growth*, *hindsight* by horizon, one-offs and anomalies by place."""

    growth: Growth
    hindsight: Mapping[int, Hindsight]
    jumps: Sequence[Jump]
    anomalies: Sequence[Anomaly]


@dataclass(frozen=True)
class InstanceDay:
    """One instance on one day; *last_measured* is None when it was never measured, *used* when not in this history."""

    instance: Instance
    used: float | None
    rate: float
    spread: float
    swing: float
    measured_days: int
    last_measured: date | None
    databases: int
    reason: Reason


@dataclass(frozen=True)
class Comparison:
    """Forecasts of one horizon, each (k,): percent that ours, no growth and least squares were off, whether the actual
    size lay in the range, and the deviation that the next range is made of; NaN where it does not apply.
    """

    ours: Floats
    no_growth: Floats
    line: Floats
    inside: Booleans
    deviation: Floats


def fit(chunk: Chunk, columns: Sequence[int]) -> dict[int, FittedDay]:
    """Return what the databases look like as of each of *columns*, which have a whole history before them."""
    blocks = range(0, max(len(chunk.names), 1), BLOCK_ROWS)
    parts: dict[int, list[FittedDay]] = {column: [] for column in columns}
    for begin in blocks:
        of = histories(chunk.sizes[begin : begin + BLOCK_ROWS])
        for column in columns:
            parts[column].append(_fit_block(of, column, begin))
    return {column: _whole_day(found) for column, found in parts.items()}


def gone(chunk: Chunk, latest: Growth, column: int) -> Booleans:
    """Tell which databases (n,) are not in the inventory any more as of *column*, by what was known then.

    One that is inactive now was missing from the first listing after it was last seen, or was deleted that day; of one
    that only an import has brought the instance's last measured days tell. One that has come back later was missing
    from a listing that missed nothing.
    """
    first = column - HISTORY_DAYS + 1
    is_active, last_seen, deleted_on = _listings(chunk)
    days = slice(0, column + 1)
    last_listed = _last_of(chunk.listed[:, days])[chunk.owner]
    last_measured = _last_of(chunk.measured[:, days])[chunk.owner]
    whole_listing = chunk.complete[chunk.owner, np.maximum(last_listed, 0)]
    left = ~is_active & (
        (deleted_on <= column) | (last_seen < last_listed) | (last_seen < last_measured - STALE_AFTER_DAYS)
    )
    back_later = (last_seen > column) & (last_seen < NEVER) & whole_listing
    absent: Booleans = left | (back_later & (latest.last + first < last_listed))
    return absent


def instance_days(chunk: Chunk, fitted: FittedDay, column: int, absent: Booleans) -> list[InstanceDay]:
    """Return the sums of each instance of *chunk* as of *column*; databases that are *absent* are left out."""
    first = column - HISTORY_DAYS + 1
    present = (fitted.growth.last >= 0) & ~absent
    jumps: dict[int, list[Jump]] = {}
    for jump in fitted.jumps:
        if present[jump.place] and jump.column > column - ONE_OFF_DAYS:
            jumps.setdefault(int(chunk.owner[jump.place]), []).append(jump)
    borders = np.searchsorted(chunk.owner, np.arange(len(chunk.instances) + 1))
    days = []
    for place, instance in enumerate(chunk.instances):
        of_instance = np.arange(borders[place], borders[place + 1])
        members = of_instance[present[of_instance]]
        measured = np.flatnonzero(chunk.measured[place, first : column + 1])
        if not instance.belongs_to(chunk.day(column), bool(len(measured))):
            continue
        logs = chunk.log_sizes[place, first : column + 1]
        known_logs = logs[~np.isnan(logs)]
        log_size = float(known_logs[-1]) if len(known_logs) else None
        of = fitted.growth
        rate, spread, swing = together(of.rate[members], of.spread[members], of.swing[members])
        days.append(
            InstanceDay(
                instance,
                used=sum(map(int, of.size[members])) + (log_size or 0.0) if len(measured) else None,
                rate=rate,
                spread=spread,
                swing=swing,
                measured_days=days_of_pace(of.size[members], of.measured_days[members], len(measured)),
                last_measured=_last_measured(chunk, place, column),
                databases=len(members),
                reason=_reason(chunk, fitted, members, rate, jumps.get(place, []), log_size),
            )
        )
    return days


def comparisons(
    chunk: Chunk, fitted: FittedDay, column: int, absent: Booleans, reaches: Mapping[tuple[str, int], Reach]
) -> dict[tuple[str, int], Comparison]:
    """Return how the forecasts of each level and horizon turned out; *reaches* are what their ranges were made with."""
    found = {}
    first = column - HISTORY_DAYS + 1
    for horizon, of_databases in fitted.hindsight.items():
        counted = _without(of_databases, absent)
        measured_days = np.count_nonzero(chunk.measured[:, first : column - horizon + 1], axis=1)
        of_instances = summed(counted, chunk.owner, len(chunk.instances), measured_days)
        of_instances = _without(of_instances, measured_days < FEWEST_DAYS)
        for level, of in (("database", counted), ("instance", of_instances)):
            found[level, horizon] = _compared(of, reaches[level, horizon])
    return found


def left_out(fitted: FittedDay, absent: Booleans) -> dict[int, tuple[float, float]]:
    """Return, by horizon, the bytes of one-offs that came since, and of databases that had no pace then."""
    found = {}
    latest = fitted.growth
    here = (latest.last >= 0) & ~absent
    for horizon, of in fitted.hindsight.items():
        compared = of.compared & here
        new = here & ~of.compared & ((HISTORY_DAYS - 1 - latest.last) <= STALE_AFTER_DAYS)
        grown = latest.size[new] - np.nan_to_num(of.size_then[new])
        found[horizon] = (float(of.one_off[compared].sum()), float(grown.sum()))
    return found


def _fit_block(of: Histories, column: int, begin: int) -> FittedDay:
    first = column - HISTORY_DAYS + 1
    within = increments(of, first, column)
    latest = growth(of, within, column)
    looked_back = {}
    for horizon in HORIZONS:
        then = column - horizon
        before = growth(of, increments(of, first, then), then)
        looked_back[horizon] = hindsight(of, (within, latest), before, then, first, column)
    jumps = [
        Jump(begin + row, first + at, size_bytes)
        for row, at, size_bytes in zip(*(found.tolist() for found in one_offs(within)), strict=True)
    ]
    odd = [Anomaly(**{**asdict(found), "row": begin + found.row}) for found in anomalies(of, within, column)]
    return FittedDay(latest, looked_back, jumps, odd)


def _whole_day(parts: Sequence[FittedDay]) -> FittedDay:
    return FittedDay(
        joined([part.growth for part in parts]),
        {horizon: joined([part.hindsight[horizon] for part in parts]) for horizon in HORIZONS},
        [jump for part in parts for jump in part.jumps],
        [anomaly for part in parts for anomaly in part.anomalies],
    )


def _listings(chunk: Chunk) -> tuple[Booleans, Integers, Integers]:
    """Return of each database whether it is active, and the columns of last_seen and deletion; unknown: there."""
    count = len(chunk.names)
    is_active = np.ones(count, dtype=np.bool_)
    last_seen, deleted_on = np.full(count, NEVER), np.full(count, NEVER)
    for place, listing in chunk.listings.items():
        is_active[place], last_seen[place] = listing.is_active, listing.last_seen
        if listing.deleted_on is not None:
            deleted_on[place] = listing.deleted_on
    return is_active, last_seen, deleted_on


def _last_of(days: Booleans) -> Integers:
    """Return the last column that is true in each row, -1 for none."""
    return np.where(days.any(axis=1), days.shape[1] - 1 - np.argmax(days[:, ::-1], axis=1), -1)


def _last_measured(chunk: Chunk, place: int, column: int) -> date | None:
    """Return the last day up to *column* on which an instance was measured, however long ago."""
    measured = np.flatnonzero(chunk.measured[place, : column + 1])
    return chunk.day(int(measured[-1])) if len(measured) else chunk.instances[place].measured_before


def _reason(
    chunk: Chunk,
    fitted: FittedDay,
    members: Integers,
    rate: float,
    jumps: Sequence[Jump],
    log_size: float | None,
) -> Reason:
    of = fitted.growth
    growing = members[of.rate[members] > 0]
    fastest = sorted(growing.tolist(), key=lambda place: (-of.rate[place], chunk.names[place]))[:SHOWN]
    largest = sorted(jumps, key=lambda jump: (-abs(jump.size_bytes), jump.column, jump.place))[:SHOWN]
    unmeasured = HISTORY_DAYS - 1 - of.last[members]
    return Reason(
        growers=tuple(
            GrowerShare(chunk.names[place], whole(of.rate[place]), round(100 * float(of.rate[place]) / rate, 1))
            for place in fastest
            if rate > 0
        ),
        one_offs=tuple(
            OneOff(chunk.names[jump.place], chunk.day(jump.column), whole(jump.size_bytes)) for jump in largest
        ),
        one_offs_left_out=len(jumps),
        young=int(np.count_nonzero(of.young[members])),
        stale=int(np.count_nonzero(unmeasured > STALE_AFTER_DAYS)),
        log_size_bytes=None if log_size is None else whole(log_size),
    )


def _without(of: Hindsight, excluded: Booleans) -> Hindsight:
    return replace(of, compared=of.compared & ~excluded)


def _compared(of: Hindsight, reach: Reach) -> Comparison:
    chosen = of.compared
    return Comparison(
        of.errors(of.forecast)[chosen],
        of.errors(of.size_then)[chosen],
        of.errors(of.line)[chosen],
        of.within(reach)[chosen],
        of.deviations[chosen],
    )
