"""Properties of every history: of any scale, on any day, in any order, with any gap."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from whalefall_capacity.insight.anomalies import anomalies
from whalefall_capacity.insight.dates import Dates, dates, instances, together
from whalefall_capacity.insight.growth import Growth, growth, histories, increments
from whalefall_capacity.insight.hindsight import hindsight, least_squares
from whalefall_capacity.insight.rows import quantiles

Sizes = NDArray[np.float64]
MIB = 2**20
LARGEST = float(2**63 - 1)


@st.composite
def fleets(draw: st.DrawFn, largest: float = 2.0**40) -> Sizes:
    """Draw whole bytes of some databases on up to 280 days: pace, noise, jumps, gaps, late starts, early ends."""
    count, days = draw(st.integers(1, 5)), draw(st.integers(1, 280))
    of = np.random.default_rng(draw(st.integers(0, 2**32)))
    pace = of.choice([0, 1, -1, 40], count) * 10.0 ** of.integers(0, 9, count)
    noise = of.normal(0, 1, (count, days)) * of.choice([0, 1], (count, 1)) * 10.0 ** of.integers(0, 9, (count, 1))
    jumps = (of.random((count, days)) < of.choice([0, 0.005, 0.05])) * of.normal(0, 1e10, (count, days))
    sizes = of.integers(0, 2**38, count)[:, None] + np.cumsum(pace[:, None] + noise + jumps, axis=1)
    sizes = np.clip(np.round(sizes), 0, largest)
    sizes[of.random((count, days)) < draw(st.sampled_from([0, 0.1, 0.9]))] = np.nan
    for row in range(count):
        begins, ends = of.integers(0, days, 2) * of.integers(0, 2, 2)
        sizes[row, :begins] = np.nan
        sizes[row, days - ends :] = np.nan
    return np.asarray(sizes)


def seen(sizes: Sizes) -> Growth:
    of = histories(sizes)
    last = sizes.shape[1] - 1
    return growth(of, increments(of, 0, last), last)


def answer(sizes: Sizes, limit: float) -> Dates:
    found = seen(sizes)
    sums = together(found.rate, found.spread, found.swing)
    measured = ~np.isnan(sizes).all(axis=0)
    away = sizes.shape[1] - 1 - np.flatnonzero(measured)[-1] if measured.any() else 0
    return dates(instances(np.nansum(found.size), limit, *sums, 1.2, 1.35, measured.sum(), away))


def same(one: Dates, other: Dates) -> None:
    assert one.status == other.status
    for name in ("expected", "earliest", "latest"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@given(fleets(), st.integers(0, 2**41), st.sampled_from([2, 1024, 2**20, 3, 1000]))
@settings(max_examples=150, deadline=None)
def test_bytes_times_k_give_the_same_dates(sizes: Sizes, limit: float, factor: int) -> None:
    same(answer(sizes, limit), answer(sizes * factor, limit * factor))


@given(fleets(), st.integers(1, 100))
@settings(max_examples=100, deadline=None)
def test_only_the_distance_to_the_day_of_the_forecast_counts(sizes: Sizes, days: int) -> None:
    earlier = np.concatenate([np.full((len(sizes), days), np.nan), sizes], axis=1)
    one, other = seen(sizes), seen(earlier)
    for name in ("measured_days", "rate", "spread", "swing"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@given(fleets(), st.integers(0, 2**41), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_order_of_databases_changes_nothing(sizes: Sizes, limit: float, by_chance: Any) -> None:
    order = list(range(len(sizes)))
    by_chance.shuffle(order)
    same(answer(sizes, limit), answer(sizes[order], limit))


@given(fleets(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_gap_changes_the_increments_of_its_own_days_alone(sizes: Sizes, data: st.DataObject) -> None:
    days = sizes.shape[1]
    begin = data.draw(st.integers(0, days - 1))
    end = data.draw(st.integers(begin + 1, days))
    gappy = sizes.copy()
    gappy[:, begin:end] = np.nan
    whole, other = histories(sizes), histories(gappy)
    np.testing.assert_array_equal(other.increment[:, :begin], whole.increment[:, :begin])
    for row in range(len(sizes)):
        after = np.flatnonzero(~np.isnan(gappy[row, end:]))
        # The first measured day after it bridges it; those that follow know nothing of it.
        if len(after):
            following = slice(end + after[0] + 1, days)
            np.testing.assert_array_equal(other.increment[row, following], whole.increment[row, following])


@given(st.integers(30, 280), st.integers(1, 10**9), st.integers(0, 10**12), st.data())
@settings(max_examples=100, deadline=None)
def test_a_gap_of_any_shape_leaves_a_line_a_line(days: int, pace: int, start: int, data: st.DataObject) -> None:
    measured = np.array(data.draw(st.lists(st.booleans(), min_size=days, max_size=days)))
    measured[-1] = True
    line = start + pace * np.arange(float(days))
    found = seen(np.where(measured, line, np.nan)[None, :])
    if found.measured_days[0] >= 14:
        np.testing.assert_allclose(found.rate, pace, rtol=1e-9)
        np.testing.assert_allclose(found.swing, 0, atol=1e-3)


@given(fleets(largest=LARGEST), st.integers(1, 90))
@settings(max_examples=100, deadline=None)
def test_a_longer_future_changes_nothing_in_a_past_window(sizes: Sizes, future: int) -> None:
    of = np.random.default_rng(future)
    longer = np.concatenate([sizes, of.integers(0, 2**40, (len(sizes), future)).astype(float)], axis=1)
    last = sizes.shape[1] - 1
    one, other = histories(sizes), histories(longer)
    for window in ((0, last), (last // 2, last)):
        first, second = increments(one, *window), increments(other, *window)
        for name in ("measured_days", "first", "last", "size", "rate", "spread", "swing"):
            np.testing.assert_array_equal(
                getattr(growth(one, first, last), name), getattr(growth(other, second, last), name)
            )
        assert anomalies(one, first, last) == anomalies(other, second, last)


@given(fleets(largest=LARGEST), st.one_of(st.none(), st.floats(0, LARGEST)), st.floats(0, 50), st.floats(0, 50))
@settings(max_examples=200, deadline=None)
def test_every_answer_is_in_order_and_finite(sizes: Sizes, limit: float | None, low: float, high: float) -> None:
    found = seen(sizes)
    for values in (found.rate, found.spread, found.swing):
        assert np.isfinite(values).all()
    assert (found.swing >= 0).all()
    assert (found.spread >= 0).all()
    sums = together(found.rate, found.spread, found.swing)
    days = dates(
        instances(
            np.nansum(found.size), np.nan if limit is None else limit, *sums, low, high, found.measured_days.max(), 0
        )
    )
    for status, expected, earliest, latest in zip(days.status, days.expected, days.earliest, days.latest, strict=True):
        if status == "dated":
            assert 0 <= earliest <= expected <= latest <= 365
        elif status == "not_before":
            assert 0 <= earliest <= 365
        else:
            assert np.isnan(earliest)


@given(fleets(), st.sampled_from([30, 60, 90]))
@settings(max_examples=100, deadline=None)
def test_looking_back_compares_with_finite_figures(sizes: Sizes, horizon: int) -> None:
    last = sizes.shape[1] - 1
    if last - horizon < 1:
        return
    of = histories(sizes)
    now = increments(of, 0, last)
    then = growth(of, increments(of, 0, last - horizon), last - horizon)
    found = hindsight(of, (now, growth(of, now, last)), then, last - horizon, 0, last)
    for values in (found.forecast, found.actual, found.line, found.width):
        assert np.isfinite(values[found.compared]).all()
    assert not np.isnan(found.errors(found.forecast)[found.compared & (found.size_then > 0)]).any()


@given(fleets(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_quantiles_are_those_of_numpy(sizes: Sizes, share: float) -> None:
    (found,) = quantiles(sizes, share)
    for row, quantile in zip(sizes, found, strict=True):
        known = row[~np.isnan(row)]
        if len(known):
            np.testing.assert_allclose(quantile, np.quantile(known, share), rtol=1e-12)
        else:
            assert np.isnan(quantile)


@given(fleets(), st.integers(0, 90))
@settings(max_examples=100, deadline=None)
def test_least_squares_are_those_of_numpy(sizes: Sizes, ahead: int) -> None:
    about = np.nan_to_num(np.nanmax(np.where(np.isnan(sizes), -np.inf, sizes), axis=1), neginf=0.0)
    found = least_squares(sizes, np.full(len(sizes), ahead), about)
    for row, line, near in zip(sizes, found, about, strict=True):
        x = np.flatnonzero(~np.isnan(row))
        if len(x) >= 2:
            slope, level = np.polyfit(x - sizes.shape[1] + 1.0, row[x] - near, 1)
            expected = near + level + slope * ahead
            np.testing.assert_allclose(line, expected, rtol=1e-6, atol=1e-6 * np.abs(row[x]).max() + 1)
