"""A year's backfill of all eight aggregation assets, beside the bare statements and the same runs with empty bodies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg
from sqlalchemy import Engine, text

from benchmarks.aggregation import DATABASES, bare, fill, point_settings_at, seconds_of
from benchmarks.empty_assets import idle_asset
from benchmarks.harness import SMALLEST_SCALE, fresh_store, print_result
from benchmarks.runs import materialize, materialize_idle
from whalefall_capacity.asset_keys import AGGREGATION_JOB_NAMES, aggregation_keys
from whalefall_capacity.partitions import range_tags
from whalefall_capacity.periods import PeriodType, windows_between
from whalefall_capacity.store.aggregations.statements import TABLES, Level

FIRST, DAYS = date(2025, 6, 1), 365
# Each day costs an event of Dagster for each asset, however small the fleet is.
FEWEST_DAYS = 14


def run(scale: float) -> None:
    """Print the seconds of each period type at 200 instances x 50 databases times *scale*."""
    instances = max(int(200 * scale), 2)
    days = DAYS if scale >= SMALLEST_SCALE else FEWEST_DAYS
    with fresh_store() as engine, dg.instance_for_test() as instance:
        point_settings_at(engine)
        fill(engine, instances, FIRST, days)
        measured = {period_type: _measure(engine, instance, period_type, days) for period_type in PeriodType}
    rows: list[tuple[object, ...]] = [(period_type.value, *_row(times)) for period_type, times in measured.items()]
    rows.append(("all eight", *_row([sum(column) for column in zip(*measured.values(), strict=True)])))
    print_result(
        f"a backfill of {days} days, {instances:,} instances x {DATABASES} databases",
        ("assets", "backfill s", "bare statements s", "runs with empty bodies s", "ratio to their sum"),
        rows,
    )


def _row(times: Sequence[float]) -> tuple[float, ...]:
    backfill, plain, idle = times
    return backfill, plain, idle, backfill / (plain + idle)


def _measure(
    engine: Engine, instance: dg.DagsterInstance, period_type: PeriodType, days: int
) -> tuple[float, float, float]:
    """Return the seconds of the backfill, of the bare statements, and of the runs with empty bodies."""
    windows = windows_between(FIRST, FIRST + timedelta(days=days - 1), period_type)
    tags = range_tags(windows[0].start, windows[-1].start)
    empty = [idle_asset(level, period_type) for level in Level]
    idle = seconds_of(lambda: materialize_idle(instance, empty, tags=tags))
    plain = sum(seconds_of(lambda level=level: bare(engine, level, windows)) for level in Level)  # type: ignore[misc]
    with engine.begin() as connection:
        for level in Level:
            connection.execute(text(f"TRUNCATE {TABLES[level].aggregations}"))
    job, keys = AGGREGATION_JOB_NAMES[period_type], aggregation_keys(period_type)
    return seconds_of(lambda: materialize(instance, job, keys, tags=tags)), plain, idle
