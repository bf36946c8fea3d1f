"""Aggregation and growth against a few lines of pandas, on random histories with gaps.

Equal to the byte and to the second decimal: for all four periods and both levels, in chunks or whole, one
partition at a time or as one range.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, days_to_windows, windows_between
from whalefall_capacity.store.aggregations import calculate
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity_tests.store.past import put_sizes

FIRST = date(2023, 11, 13)
PERIODS = {PeriodType.DAILY: "D", PeriodType.WEEKLY: "W-SUN", PeriodType.MONTHLY: "M", PeriodType.QUARTERLY: "Q"}
REACH = {PeriodType.DAILY: 7, PeriodType.WEEKLY: 4, PeriodType.MONTHLY: 3, PeriodType.QUARTERLY: 4}
SIZES = st.one_of(st.integers(0, 2000), st.integers(0, 4 * 10**13))
# Days of one long year and a half, a few of them; two instances that share a name, and a third.
HISTORIES = st.dictionaries(
    st.tuples(
        st.sampled_from([(1, "shop"), (1, "crm"), (2, "shop"), (3, "库")]),
        st.one_of(st.integers(0, 30), st.integers(0, 420)),
    ),
    SIZES,
    min_size=1,
    max_size=40,
)
TABLES = ("database_size_stats", "instance_size_stats", "database_size_aggregations", "instance_size_aggregations")
DATABASE_COLUMNS = (
    "instance_id, database_name, period_start, period_end, data_count, sum_size_bytes, max_size_bytes, min_size_bytes, "
    "closing_size_bytes, avg_size_bytes, baseline_start, size_change_bytes, size_change_percent"
)
INSTANCE_COLUMNS = (
    "instance_id, period_start, period_end, data_count, sum_size_bytes, max_size_bytes, min_size_bytes, "
    "closing_size_bytes, total_size_bytes, baseline_start, total_size_change_bytes, total_size_change_percent"
)


def half_away_from_zero(value: Fraction, digits: int = 0) -> Fraction:
    scaled = abs(value) * 10**digits
    rounded = Fraction((2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator), 10**digits)
    return rounded if value >= 0 else -rounded


def expected(stats: Any, key: list[str], period_type: PeriodType) -> list[tuple[Any, ...]]:
    """Compute every row of one level and period type from (key..., day, size)."""
    stats = stats.assign(period=pd.PeriodIndex(stats["day"], freq=PERIODS[period_type])).sort_values("day")
    rows = []
    for name, days in stats.groupby(key, sort=True):
        means: dict[Any, Fraction] = {}
        for period, window in days.groupby("period", sort=True):
            sizes = [int(size) for size in window["size"]]
            mean = means[period] = Fraction(sum(sizes), len(sizes))
            earlier = [p for p in means if 0 < (period - p).n <= REACH[period_type]]
            base = means[max(earlier)] if earlier else None
            rows.append(
                (
                    *name,
                    period.start_time.date(),
                    period.end_time.date(),
                    len(sizes),
                    sum(sizes),
                    max(sizes),
                    min(sizes),
                    sizes[-1],
                    half_away_from_zero(mean),
                    max(earlier).start_time.date() if earlier else None,
                    None if base is None else half_away_from_zero(mean - base),
                    half_away_from_zero(100 * (mean - base) / base, 2) if base else None,
                )
            )
    return sorted(rows)


def stored(store: Engine, view: str, columns: str, period_type: PeriodType) -> list[tuple[Any, ...]]:
    query = text(f"SELECT {columns} FROM {view} WHERE period_type = :period_type")
    with store.connect() as connection:
        rows = [tuple(row) for row in connection.execute(query, {"period_type": period_type.value})]
    return sorted(rows)


@contextmanager
def emptied(store: Engine) -> Iterator[None]:
    with store.begin() as connection:
        for table in (*TABLES, "aggregation_windows"):
            connection.execute(text(f"DELETE FROM {table}"))
    yield


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=HISTORIES, chunk=st.sampled_from([1, 2, 1000]), as_range=st.booleans(), block_days=st.sampled_from([1, 92])
)
def test_every_row_equals_an_independent_computation(
    store: Engine,
    history: dict[tuple[tuple[int, str], int], int],
    chunk: int,
    as_range: bool,
    block_days: int,
) -> None:
    sizes = [(*key, FIRST + timedelta(days=day), size) for (key, day), size in history.items()]
    days = [size[2] for size in sizes]
    databases: Any = pd.DataFrame(sizes, columns=["instance_id", "database_name", "day", "size"]).astype(
        {"size": object}
    )
    databases["day"] = pd.to_datetime(databases["day"])
    totals = databases.groupby(["instance_id", "day"], as_index=False)["size"].sum()
    with emptied(store), pytest.MonkeyPatch.context() as patch:
        patch.setattr(calculate, "CHUNK_INSTANCES", dict.fromkeys(Level, chunk))
        patch.setattr(calculate, "BLOCK_DAYS", block_days)
        put_sizes(store, sizes)
        for period_type in PeriodType:
            for level in Level:
                if as_range:
                    aggregate(store, level, windows_between(min(days), max(days), period_type))
                else:
                    for window in days_to_windows(days, period_type):
                        aggregate(store, level, [window])
            assert stored(store, "database_size_growth", DATABASE_COLUMNS, period_type) == expected(
                databases, ["instance_id", "database_name"], period_type
            )
            assert stored(store, "instance_size_growth", INSTANCE_COLUMNS, period_type) == expected(
                totals, ["instance_id"], period_type
            )
