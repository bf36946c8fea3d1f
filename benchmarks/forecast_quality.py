"""Forecasting: how right it is, beside least squares of 30 and of 90 days as `predict_linear` draws them.

Made-up histories of 16 kinds, some instances of each, go into a store with 280 of their 370 days; the forecast is what
the product stores of the last of them, and the other 90 days are what came. The lines are drawn through the totals of
the instances. Half of the disks are so small that they are full within 25 days, the other half larger than anything
that comes within 90. A warning is a disk that is expected to be full within 30 days.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from benchmarks.harness import fresh_store, print_result
from benchmarks.writing import register_instances
from whalefall_capacity.insight.growth import SPREAD_DAYS
from whalefall_capacity.insight.hindsight import least_squares
from whalefall_capacity.insight.statuses import HISTORY_DAYS
from whalefall_capacity.store.insight.calculate import calculate
from whalefall_capacity.store.insight.read import CapacityForecast
from whalefall_capacity.store.postgres.copying import copy_rows
from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children

Sizes = NDArray[np.float64]
Random = np.random.Generator
INSTANCES = 40
DATABASES = 5
AHEAD = 90
WARN_DAYS = 30
DAYS = HISTORY_DAYS + AHEAD
LAST = date(2026, 6, 30)
FIRST = LAST - timedelta(days=HISTORY_DAYS - 1)
GIB = 2**30
COLUMNS = ("instance_id", "database_name", "collected_date", "size_bytes", "source", "collected_at")
TOTALS = """
INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count, source,
                                 collected_at)
SELECT instance_id, collected_date, sum(size_bytes), count(*), 0, 'measured', now()
FROM database_size_stats GROUP BY instance_id, collected_date
"""
# A database that ends before the last day was dropped, and the inventory says so.
INVENTORY = """
INSERT INTO instance_databases (instance_id, database_name, is_active, first_seen_date, last_seen_date, deleted_at)
SELECT instance_id, database_name, max(collected_date) = :last, min(collected_date), max(collected_date),
       CASE WHEN max(collected_date) < :last THEN now() END
FROM database_size_stats GROUP BY 1, 2
"""
LIMITS = """
UPDATE instances SET capacity_limit_bytes = wanted.size_bytes
FROM unnest(CAST(:limits AS bigint[])) WITH ORDINALITY AS wanted (size_bytes, id) WHERE instances.id = wanted.id
"""
DAY = np.arange(float(DAYS))


@dataclass(frozen=True)
class Made:
    """An instance: its *kind*, the sizes of its databases (d, 370) with what was not measured, and its true totals."""

    kind: str
    measured: Sizes
    truth: Sizes


def run(scale: float) -> None:
    """Print the tables with 40 instances x 5 databases of each kind times *scale* (of the instances)."""
    of = np.random.default_rng(16)
    made = [_instance(kind, of) for kind in KINDS for _ in range(max(int(INSTANCES * scale), 2))]
    limits = np.array([_limit(number, each.truth, of) for number, each in enumerate(made)])
    with fresh_store() as engine:
        _store(engine, made, limits)
        (result,) = calculate(engine, [LAST], "UTC")
    ours = {forecast.instance_id - 1: forecast for forecast in result.forecasts}
    totals = np.stack([np.where(np.isnan(each.measured).all(axis=0), np.nan, each.truth) for each in made])
    truth = np.stack([each.truth for each in made])
    methods = {"ours": _ours(ours, limits), **{f"line of {days} d": _line(totals, limits, days) for days in (30, 90)}}
    methods["no growth"] = (truth[:, HISTORY_DAYS - 1], np.full(len(made), np.inf))
    print_result(
        f"forecast quality, {len(made)} instances",
        ("method", "error %", "p90 error %", "false alarms %", "missed %"),
        [(name, *_scores(truth, limits, *found)) for name, found in methods.items()],
    )
    _print_kinds([each.kind for each in made], truth, {name: found[0] for name, found in methods.items()}, ours)


def _scores(truth: Sizes, limits: Sizes, ahead: Sizes, full: Sizes) -> tuple[float, float, float, float]:
    """Return mean and 90th percentile of the error 90 days ahead, and false and missing warnings, in percent."""
    errors = 100 * np.abs(ahead - truth[:, -1]) / truth[:, HISTORY_DAYS - 1]
    fills = (truth[:, HISTORY_DAYS:] >= limits[:, None]).any(axis=1)
    warned = full <= WARN_DAYS
    return (
        float(errors.mean()),
        float(np.quantile(errors, 0.9)),
        100 * float(warned[~fills].mean()),
        100 * float((~warned)[fills].mean()),
    )


def _print_kinds(
    kinds: list[str], truth: Sizes, methods: Mapping[str, Sizes], ours: Mapping[int, CapacityForecast]
) -> None:
    inside = np.array([_covers(ours[number], truth[number, -1]) for number in range(len(kinds))])
    rows = []
    for kind in [*KINDS, "all"]:
        chosen = np.array([kind in (each, "all") for each in kinds])
        errors = [
            float(np.mean(100 * np.abs(ahead - truth[:, -1])[chosen] / truth[chosen, HISTORY_DAYS - 1]))
            for ahead in methods.values()
        ]
        rows.append((kind, *errors, 100 * float(inside[chosen].mean())))
    columns = ("kind", *(f"{name}: error %" for name in methods), "in range %")
    print_result("forecast quality, by kind of history", columns, rows)


def _ours(forecasts: Mapping[int, CapacityForecast], limits: Sizes) -> tuple[Sizes, Sizes]:
    """Return the sizes 90 days ahead, and in how many days each disk is expected to be full."""
    ahead, full = np.zeros(len(limits)), np.full(len(limits), np.inf)
    for number, found in forecasts.items():
        ahead[number] = (found.used_bytes or 0) + AHEAD * (found.rate_bytes_per_day or 0)
        if found.expected_date is not None:
            full[number] = (found.expected_date - LAST).days
        elif found.status == "full":
            full[number] = 0
    return ahead, full


def _line(totals: Sizes, limits: Sizes, days: int) -> tuple[Sizes, Sizes]:
    history = totals[:, HISTORY_DAYS - days : HISTORY_DAYS]
    about = np.nanmax(history, axis=1)
    now, ahead = (least_squares(history, np.full(len(totals), in_days), about) for in_days in (0, AHEAD))
    pace = (ahead - now) / AHEAD
    with np.errstate(divide="ignore", invalid="ignore"):
        full = np.where(now >= limits, 0, np.where(pace > 0, (limits - now) / pace, np.inf))
    return ahead, full


def _covers(found: CapacityForecast, actual: float) -> bool:
    expected = (found.used_bytes or 0) + AHEAD * (found.rate_bytes_per_day or 0)
    width = found.spread_bytes * AHEAD / SPREAD_DAYS
    return bool(expected - found.range_low * width <= actual <= expected + found.range_high * width)


def _limit(number: int, truth: Sizes, of: Random) -> float:
    """Return a limit that is reached within 25 days for every other instance that grows, else not within 90."""
    now, future = truth[HISTORY_DAYS - 1], truth[HISTORY_DAYS:]
    soon = future[: of.integers(5, 26)].max()
    largest = max(future.max(), now)
    return float(soon) if number % 2 and soon > 1.002 * now else float(1.05 * largest)


def _instance(kind: str, of: Random) -> Made:
    truth = np.stack([KINDS[kind](of) for _ in range(DATABASES)])
    truth = np.round(np.where(np.isnan(truth), np.nan, np.maximum(truth, 0.01)) * GIB)
    measured = truth.copy()
    if kind == "gaps":
        # Now and then a day, and two outages of the whole instance.
        measured[of.random(truth.shape) < 0.1] = np.nan
        for begin in of.integers(0, HISTORY_DAYS - 40, 2):
            measured[:, begin : begin + of.integers(3, 30)] = np.nan
        measured[:, HISTORY_DAYS - 1] = truth[:, HISTORY_DAYS - 1]
    return Made(kind, measured, np.nansum(truth, axis=0))


def _store(engine: Engine, made: list[Made], limits: Sizes) -> None:
    register_instances(engine, len(made))
    days = [FIRST + timedelta(days=day) for day in range(HISTORY_DAYS)]
    rows = (
        (number + 1, f"database_{database}", days[day], int(each.measured[database, day]), "measured", "2026-06-30 UTC")
        for number, each in enumerate(made)
        for database in range(len(each.measured))
        for day in np.flatnonzero(~np.isnan(each.measured[database, :HISTORY_DAYS])).tolist()
    )
    with engine.begin() as connection:
        ensure_children(connection, STATS_TABLES, days)
        copy_rows(connection, "database_size_stats", COLUMNS, rows)
        connection.execute(text(TOTALS))
        connection.execute(text(INVENTORY), {"last": LAST})
        connection.execute(text(LIMITS), {"limits": [round(limit) for limit in limits.tolist()]})


def _pace(of: Random) -> float:
    """Return a pace, GiB a day: most databases grow slowly, and some fast."""
    return float(of.lognormal(-2.5, 1.0))


def _steady(of: Random, noise: float = 0.2) -> Sizes:
    pace = _pace(of)
    return np.asarray(of.uniform(5, 80) + np.cumsum(pace * (1 + noise * of.normal(0, 1, DAYS))))


def _imported(of: Random) -> Sizes:
    size = _steady(of)
    # Of every five databases of an instance about one has had an import.
    if of.random() < 0.25:
        size += np.where(of.integers(HISTORY_DAYS - 60, HISTORY_DAYS) <= DAY, of.uniform(0.2, 1.0) * size[0], 0)
    return size


def _purged(of: Random, every: int, share: float) -> Sizes:
    pace, phase = _pace(of), of.integers(0, every)
    return np.asarray(of.uniform(5, 80) + pace * DAY - share * pace * every * ((DAY + phase) // every))


def _monthly(of: Random) -> Sizes:
    return np.asarray(of.uniform(5, 80) + _pace(of) * (DAY * 0.2 + 30 * ((DAY + of.integers(0, 30)) // 30)))


def _weekdays(of: Random) -> Sizes:
    works = ((DAY + of.integers(0, 7)) % 7 < 5) * 7 / 5
    return np.asarray(of.uniform(5, 80) + np.cumsum(_pace(of) * works * (1 + 0.3 * of.normal(0, 1, DAYS))))


def _pages(of: Random) -> Sizes:
    return np.asarray(np.ceil(_steady(of) / 0.5) * 0.5)


def _changed_pace(of: Random, factor: float) -> Sizes:
    since = of.integers(HISTORY_DAYS - 150, HISTORY_DAYS - 60)
    pace = _pace(of) * np.where(since <= DAY, factor, 1)
    return np.asarray(of.uniform(5, 80) + np.cumsum(pace * (1 + 0.2 * of.normal(0, 1, DAYS))))


def _launched(of: Random) -> Sizes:
    size = _steady(of)
    return (
        np.where(of.integers(HISTORY_DAYS - 100, HISTORY_DAYS - 20) > DAY, np.nan, size) if of.random() < 0.3 else size
    )


def _churned(of: Random) -> Sizes:
    size = _steady(of)
    return np.where(of.integers(HISTORY_DAYS - 100, HISTORY_DAYS) < DAY, np.nan, size) if of.random() < 0.4 else size


def _bursts(of: Random) -> Sizes:
    return np.asarray(of.uniform(5, 80) + np.cumsum(10 * _pace(of) * (of.random(DAYS) < 0.1) * of.exponential(1, DAYS)))


KINDS: Mapping[str, Callable[[Random], Sizes]] = {
    "steady": _steady,
    "noisy": lambda of: _steady(of, noise=3),
    "import": _imported,
    "purged weekly": lambda of: _purged(of, 7, 0.8),
    "purged monthly": lambda of: _purged(of, 28, 0.7),
    "archived quarterly": lambda of: _purged(of, 91, 0.6),
    "monthly load": _monthly,
    "weekdays": _weekdays,
    "page granularity": _pages,
    "faster": lambda of: _changed_pace(of, 2.0),
    "slower": lambda of: _changed_pace(of, 0.4),
    "launched": _launched,
    "churn": _churned,
    "bursts": _bursts,
    "gaps": _steady,
    "flat": lambda of: np.full(DAYS, of.uniform(5, 80)) + 0.01 * of.normal(0, 1, DAYS),
}
