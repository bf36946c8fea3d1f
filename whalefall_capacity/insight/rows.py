"""Order statistics of rows that have gaps: as numpy's, but NaN counts as absent, and fast for many short rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Arrays = TypeVar("Arrays")


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Return dataclasses of arrays, of which there is one at least, as one: row after row."""
    first: Any = parts[0]
    columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(first)}
    whole: Arrays = type(first)(**columns)
    return whole


def quantiles(values: Floats, *shares: float) -> tuple[Floats, ...]:
    """Return the quantile of every row of *values* (n, k) for each of *shares*, linear between two values.

    NaN is left out; a row of nothing else gives NaN.
    """
    ordered = np.sort(values, axis=1)  # NaN comes last.
    counts = np.count_nonzero(~np.isnan(values), axis=1)
    return tuple(_at(ordered, counts, share) for share in shares)


def medians(values: Floats) -> Floats:
    """Return the median of every row of *values* (n, k) without its NaN."""
    (middle,) = quantiles(values, 0.5)
    return middle


def _at(ordered: Floats, counts: NDArray[np.int64], share: float) -> Floats:
    if ordered.shape[1] == 0:
        return np.full(len(ordered), np.nan)
    place = np.maximum(counts - 1, 0) * share
    below = place.astype(np.int64)
    above = np.minimum(below + 1, np.maximum(counts - 1, 0))
    rows = np.arange(len(ordered))
    low, high = ordered[rows, below], ordered[rows, above]
    return low + (high - low) * (place - below)
