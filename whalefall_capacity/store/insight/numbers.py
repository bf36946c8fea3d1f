"""Figures as the store keeps them: bytes that a BIGINT takes, and decimals that are the same when calculated again."""

from __future__ import annotations

import math
from decimal import Decimal

from whalefall_capacity.byte_sizes import LARGEST_SIZE

DECIMALS = 4


def whole(size_bytes: float) -> int:
    """Return the nearest whole number of bytes, within what a BIGINT holds."""
    return max(-LARGEST_SIZE, min(LARGEST_SIZE, round(size_bytes)))


def decimal(value: float) -> Decimal:
    """Return *value* with four decimals."""
    return Decimal(f"{value:.{DECIMALS}f}")


def decimal_if_known(value: float) -> Decimal | None:
    """Return *value* with four decimals, None for NaN."""
    return decimal(value) if math.isfinite(value) else None
