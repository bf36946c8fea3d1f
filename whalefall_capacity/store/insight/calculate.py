"""Forecasts, accuracy and anomalies of days, from the sizes until each of them; oldest day first.

Instances are read in chunks of about as many databases, and days in pieces, each with one read of the histories; what
is kept until a piece is done is small: sums of instances, and percents of databases. A day is written in one
transaction, and a day that is calculated again from the same sizes changes no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
from sqlalchemy import Engine

from whalefall_capacity.insight.calibration import Reach, reach_of, widened
from whalefall_capacity.insight.growth import Booleans
from whalefall_capacity.insight.rows import Floats, joined
from whalefall_capacity.insight.statuses import HISTORY_DAYS, HORIZONS, ForecastStatus
from whalefall_capacity.store.insight.days import (
    Comparison,
    FittedDay,
    InstanceDay,
    comparisons,
    fit,
    gone,
    instance_days,
    left_out,
)
from whalefall_capacity.store.insight.histories import Chunk, Instance, read_chunk
from whalefall_capacity.store.insight.limits import with_limits
from whalefall_capacity.store.insight.numbers import decimal, decimal_if_known, whole
from whalefall_capacity.store.insight.read import Accuracy, CapacityForecast, DatabaseForecast, SizeAnomaly
from whalefall_capacity.store.insight.sources import read_instances, read_reaches

# Databases that are read at once; an instance is never split.
CHUNK_DATABASES = 4000
# Days that are calculated from one read: fewer than any horizon, so that the ranges of then are stored by now.
PIECE_DAYS = 14
LEVELS = ("database", "instance")


@dataclass
class InsightDay:
    """All that is said of one day."""

    day: date
    forecasts: list[CapacityForecast] = field(default_factory=list)
    databases: list[DatabaseForecast] = field(default_factory=list)
    accuracy: list[Accuracy] = field(default_factory=list)
    anomalies: list[SizeAnomaly] = field(default_factory=list)


@dataclass
class _Collected:
    """Results of the chunks for one day, added up as they come."""

    reaches: dict[tuple[str, int], Reach]
    instances: list[InstanceDay] = field(default_factory=list)
    comparisons: dict[tuple[str, int], list[Comparison]] = field(default_factory=dict)
    left_out: dict[int, tuple[float, float]] = field(default_factory=dict)


def calculate(
    engine: Engine, days: Sequence[date], zone: str, progressed: Callable[[int, int], None] | None = None
) -> Iterator[InsightDay]:
    """Yield what is to be said of each of *days*, oldest first; read as they are asked for, and nothing is written.

    *zone* tells on which day a database or an instance was deleted. *progressed* hears how many of the chunks are done.
    """
    days = sorted(days)
    pieces = list(_pieces(days))
    for done, piece in enumerate(pieces):
        chunks = list(chunks_of(read_instances(engine, piece[0], piece[-1], zone)))
        collected = {day: _Collected(read_reaches(engine, day)) for day in piece}
        results = {day: InsightDay(day) for day in piece}
        for number, some in enumerate(chunks, start=1):
            chunk = read_chunk(engine, some, piece[0] - timedelta(days=HISTORY_DAYS - 1), piece[-1], zone)
            for day, fitted in _fitted(chunk, piece):
                _collect(chunk, fitted, collected[day], results[day])
            if progressed is not None:
                progressed(done * len(chunks) + number, len(pieces) * len(chunks))
        for day in piece:
            _conclude(collected[day], results[day])
            yield results[day]


def _pieces(days: Sequence[date]) -> Iterator[list[date]]:
    piece: list[date] = []
    for day in days:
        if piece and (day - piece[0]).days >= PIECE_DAYS:
            yield piece
            piece = []
        piece.append(day)
    if piece:
        yield piece


def chunks_of(found: Sequence[tuple[Instance, int]]) -> Iterator[list[Instance]]:
    """Yield instances, with how many databases each is said to have, in chunks."""
    chunk: list[Instance] = []
    size = 0
    for instance, databases in found:
        if chunk and size + databases > CHUNK_DATABASES:
            yield chunk
            chunk, size = [], 0
        chunk.append(instance)
        size += databases
    if chunk:
        yield chunk


def _fitted(chunk: Chunk, days: Sequence[date]) -> Iterator[tuple[date, FittedDay]]:
    columns = {(day - chunk.first_day).days: day for day in days}
    for column, fitted in fit(chunk, list(columns)).items():
        yield columns[column], fitted


def _collect(chunk: Chunk, fitted: FittedDay, into: _Collected, result: InsightDay) -> None:
    column = (result.day - chunk.first_day).days
    absent = gone(chunk, fitted.growth, column)
    into.instances += instance_days(chunk, fitted, column, absent)
    for key, comparison in comparisons(chunk, fitted, column, absent, into.reaches).items():
        into.comparisons.setdefault(key, []).append(comparison)
    for horizon, (one_off, new) in left_out(fitted, absent).items():
        before = into.left_out.get(horizon, (0.0, 0.0))
        into.left_out[horizon] = (before[0] + one_off, before[1] + new)
    result.databases += _database_forecasts(chunk, fitted, result.day, absent)
    for anomaly in fitted.anomalies:
        instance = chunk.instances[chunk.owner[anomaly.row]]
        result.anomalies.append(
            SizeAnomaly(
                instance.id,
                instance.name,
                chunk.names[anomaly.row],
                result.day,
                anomaly.kind,
                whole(anomaly.change),
                whole(anomaly.usual),
                whole(anomaly.threshold),
            )
        )


def _database_forecasts(chunk: Chunk, fitted: FittedDay, day: date, absent: Booleans) -> Iterator[DatabaseForecast]:
    of = fitted.growth
    count, total = np.zeros(len(chunk.names), dtype=np.int64), np.zeros(len(chunk.names))
    for jump in fitted.jumps:
        count[jump.place] += 1
        total[jump.place] += jump.size_bytes
    for place in np.flatnonzero((of.last >= 0) & ~absent).tolist():
        young = bool(of.young[place])
        yield DatabaseForecast(
            chunk.instances[chunk.owner[place]].id,
            chunk.names[place],
            day,
            whole(of.size[place]),
            day - timedelta(days=HISTORY_DAYS - 1 - int(of.last[place])),
            int(of.measured_days[place]),
            None if young else whole(of.rate[place]),
            None if young else whole(of.spread[place]),
            None if young else whole(of.swing[place]),
            int(count[place]),
            whole(total[place]),
        )


def _conclude(collected: _Collected, result: InsightDay) -> None:
    """Add what takes the whole fleet: the reach of the ranges, the dates, the accuracy."""
    compared = {key: joined(parts) for key, parts in collected.comparisons.items()}
    reaches = {
        level: reach_of(np.concatenate([compared[level, horizon].deviation for horizon in HORIZONS]))
        if compared
        else reach_of([])
        for level in LEVELS
    }
    for (level, horizon), comparison in sorted(compared.items()):
        result.accuracy.append(
            _accuracy(result.day, level, horizon, comparison, reaches[level], collected.left_out[horizon])
        )
    result.forecasts = _forecasts(collected.instances, result.day, reaches["instance"])


def _accuracy(day: date, level: str, horizon: int, of: Comparison, reach: Reach, left: tuple[float, float]) -> Accuracy:
    coverage = 100 * float(np.mean(of.inside)) if len(of.inside) else np.nan
    return Accuracy(
        day,
        level,
        horizon,
        len(of.inside),
        *_figures(of.ours),
        *_figures(of.no_growth),
        *_figures(of.line),
        decimal_if_known(coverage),
        decimal(reach.low),
        decimal(reach.high),
        decimal(left[0]),
        decimal(left[1]),
    )


def _figures(errors: Floats) -> tuple[Decimal | None, Decimal | None, Decimal | None]:
    """Return mean, median and 90th percentile of *errors* without NaN; None where there is no other."""
    known = errors[np.isfinite(errors)]
    if not len(known):
        return None, None, None
    return decimal(known.mean()), decimal(np.median(known)), decimal(np.quantile(known, 0.9))


def _forecasts(days: Sequence[InstanceDay], day: date, reach: Reach) -> list[CapacityForecast]:
    below, above = widened([each.measured_days for each in days])
    undated = [
        CapacityForecast(
            instance_id=each.instance.id,
            instance=each.instance.name,
            forecast_date=day,
            status=ForecastStatus.NO_LIMIT,
            used_bytes=None if each.used is None else whole(each.used),
            limit_bytes=None,
            rate_bytes_per_day=whole(each.rate),
            spread_bytes=whole(each.spread),
            swing_bytes=whole(each.swing),
            range_low=float(decimal(reach.low * low)),
            range_high=float(decimal(reach.high * high)),
            expected_date=None,
            earliest_date=None,
            latest_date=None,
            last_measured_date=each.last_measured,
            measured_days=each.measured_days,
            databases=each.databases,
            reason=each.reason,
        )
        for each, low, high in zip(days, below.tolist(), above.tolist(), strict=True)
    ]
    return with_limits(undated, [each.instance.limit_bytes for each in days])
