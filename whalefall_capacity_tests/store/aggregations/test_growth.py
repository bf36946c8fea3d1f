"""Growth on read: exact at any size, and the range query says what the views say."""

from __future__ import annotations

from dataclasses import astuple, fields
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.growth import (
    DatabaseGrowth,
    InstanceGrowth,
    database_growth,
    instance_growth,
)
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity_tests.store.past import put_sizes

FIRST = date(2025, 9, 25)
# A sum of the largest sizes that a bigint holds, over every day of a quarter.
LARGEST = 92 * (2**63 - 1)
RATIOS = """
SELECT rounded_ratio(dividend, divisor, digits)
FROM unnest(CAST(:dividends AS numeric[]), CAST(:divisors AS numeric[]), CAST(:digits AS integer[]))
     WITH ORDINALITY AS r (dividend, divisor, digits, position)
ORDER BY position
"""
CHANGES = """
SELECT mean_change(sum, count, base_sum, base_count), mean_change_percent(sum, count, base_sum, base_count)
FROM unnest(CAST(:sums AS numeric[]), CAST(:counts AS integer[]), CAST(:base_sums AS numeric[]),
            CAST(:base_counts AS integer[])) WITH ORDINALITY AS r (sum, count, base_sum, base_count, position)
ORDER BY position
"""


def half_away_from_zero(value: Fraction, digits: int = 0) -> Fraction:
    scaled = abs(value) * 10**digits
    rounded = Fraction((2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator), 10**digits)
    return rounded if value >= 0 else -rounded


@st.composite
def near_halves(draw: st.DrawFn) -> tuple[int, int, int]:
    """Draw dividend, divisor and digits of a quotient halfway between two results, or one off in the dividend."""
    divisor = draw(st.one_of(st.integers(1, 92 * 92), st.integers(1, 92 * LARGEST)))
    digits = draw(st.sampled_from([0, 2]))
    odd = 2 * draw(st.one_of(st.integers(0, 20), st.integers(0, 10**15))) + 1
    dividend = odd * divisor // (2 * 10**digits) + draw(st.integers(-1, 1))
    return draw(st.sampled_from([1, -1])) * dividend, divisor, digits


@st.composite
def means_near_halves(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Draw sum and count of two means whose change, in bytes or in hundredths of a percent, is beside a half."""
    count, base_count = draw(st.integers(1, 92)), draw(st.integers(1, 92))
    base_sum = draw(st.one_of(st.integers(0, 500), st.integers(0, base_count * 10**14)))
    odd = 2 * draw(st.one_of(st.integers(0, 20), st.integers(0, 10**8))) + 1
    change = Fraction(odd, 2) if draw(st.booleans()) else Fraction(base_sum, base_count) * Fraction(odd, 20000)
    change *= draw(st.sampled_from([1, -1]))
    total = int((Fraction(base_sum, base_count) + change) * count) + draw(st.integers(-1, 1))
    return max(total, 0), count, base_sum, base_count


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ratios=st.lists(near_halves(), min_size=1, max_size=50))
def test_a_ratio_beside_a_half_is_rounded_once_at_any_size(store: Engine, ratios: list[tuple[int, int, int]]) -> None:
    columns = zip(("dividends", "divisors", "digits"), map(list, zip(*ratios, strict=True)), strict=True)
    with store.connect() as connection:
        found = connection.execute(text(RATIOS), dict(columns)).scalars().all()
    assert found == [half_away_from_zero(Fraction(dividend, divisor), digits) for dividend, divisor, digits in ratios]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(means=st.lists(means_near_halves(), min_size=1, max_size=50))
def test_change_and_percent_compare_means_that_are_not_rounded(
    store: Engine, means: list[tuple[int, int, int, int]]
) -> None:
    columns = zip(("sums", "counts", "base_sums", "base_counts"), map(list, zip(*means, strict=True)), strict=True)
    expected = []
    for total, count, base_total, base_count in means:
        mean, base = Fraction(total, count), Fraction(base_total, base_count)
        percent = half_away_from_zero(100 * (mean - base) / base, 2) if base else None
        expected.append((half_away_from_zero(mean - base), percent))
    with store.connect() as connection:
        assert [tuple(row) for row in connection.execute(text(CHANGES), dict(columns))] == expected


@pytest.mark.parametrize("period_type", PeriodType)
def test_the_range_query_says_what_the_views_say(store: Engine, period_type: PeriodType) -> None:
    days = [FIRST + timedelta(days=n) for n in (0, 1, 5, 9, 10, 20, 45, 90, 91, 98, 200, 240, 241)]
    put_sizes(
        store,
        [
            (instance_id, name, day, size, size // 3 if size % 4 else None, size % 11 if size % 5 else None)
            for instance_id in (1, 2)
            for name in ("crm", "shop")
            for day in days
            if (size := (day.toordinal() * 7919 * instance_id * len(name)) % 1013) % 6
        ],
    )
    windows = days_to_windows(days, period_type)
    for level in Level:
        for window in windows:
            aggregate(store, level, [window])
    first, last = windows[1].start, windows[-1].start
    values = {"period_type": period_type.value, "first": first, "last": last}
    databases = database_growth(store, period_type, first, last, 1)
    assert list(map(astuple, databases)) == _view(store, "database_size_growth", DatabaseGrowth, values)
    assert list(map(astuple, instance_growth(store, period_type, first, last, 1))) == _view(
        store, "instance_size_growth", InstanceGrowth, values
    )


def _view(store: Engine, view: str, kind: Any, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return what *view* says of instance 1, in the order of the fields of *kind*."""
    names = [field.name for field in fields(kind)]
    of_instance = {"instance": "i.name AS instance", "db_type": "i.db_type"}
    key = "database_name, period_start" if "database_name" in names else "period_start"
    query = f"""
        SELECT {", ".join(of_instance.get(name, f"g.{name}") for name in names)}
        FROM {view} AS g JOIN instances AS i ON i.id = g.instance_id
        WHERE instance_id = 1 AND period_type = :period_type AND period_start BETWEEN :first AND :last ORDER BY {key}
    """
    with store.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), values)]
