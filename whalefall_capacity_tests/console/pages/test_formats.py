"""Figures for people: binary units, signs, names of windows."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from whalefall_capacity.console.pages.formats import (
    MINUS,
    NOT_KNOWN,
    binary_size,
    duration,
    moment,
    signed_percent,
    signed_size,
    window_label,
)
from whalefall_capacity.periods import PeriodType

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (None, NOT_KNOWN),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (110 * 2**20, "110.0 MiB"),
        (1000 * 2**20, "1000 MiB"),
        (1023 * 2**30, "1023 GiB"),
        (2**40 - 1, "1.00 TiB"),
        (40 * 2**40, "40.00 TiB"),
        (2**63 - 1, "8.00 EiB"),
        (-(2**20), f"{MINUS}1.00 MiB"),
    ],
)
def test_a_size_is_in_binary_units(size: int | None, shown: str) -> None:
    assert binary_size(size) == shown


def test_a_change_has_its_sign() -> None:
    assert [signed_size(n) for n in (2048, 0, -2048, None)] == ["+2.00 KiB", "0 B", f"{MINUS}2.00 KiB", NOT_KNOWN]
    assert [signed_percent(n) for n in (15.79, 0.0, -5.0, 4000.0, None)] == [
        "+15.79 %",
        "0.00 %",
        f"{MINUS}5.00 %",
        "+4,000.00 %",
        NOT_KNOWN,
    ]


def test_a_window_is_called_by_its_day_week_month_or_quarter() -> None:
    start = date(2026, 1, 1)
    assert window_label(start, PeriodType.DAILY) == "2026-01-01"
    assert window_label(date(2025, 12, 29), PeriodType.WEEKLY) == "2026 W01"
    assert window_label(start, PeriodType.MONTHLY) == "2026-01"
    assert window_label(date(2026, 10, 1), PeriodType.QUARTERLY) == "2026 Q4"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59.9, "59 s"), (61, "1:01"), (3723, "1:02:03"), (-5, "0 s")]
)
def test_a_duration_is_short(seconds: float, shown: str) -> None:
    assert duration(NOON, NOON + timedelta(seconds=seconds)) == shown
    assert duration(None, NOON) == duration(NOON, None) == NOT_KNOWN


def test_a_moment_is_in_the_zone_of_the_settings() -> None:
    assert moment(NOON, ZoneInfo("Asia/Shanghai")) == "2026-03-10 20:00:00"
    assert moment(None, ZoneInfo("Asia/Shanghai")) == NOT_KNOWN
