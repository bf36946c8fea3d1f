"""A made-up past for the demo fleet: every database grew to the size that it has now."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

from whalefall_capacity.store.sizes.stats import StoredSize

DAYS = 400


def write_past(path: Path, sizes: Sequence[StoredSize], today: date) -> None:
    """Write a history file for the 400 days before *today* that ends near *sizes*."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("instance", "database", "date", "size_bytes"))
        for number, size in enumerate(sizes):
            for day, size_bytes in _growth(size.size_bytes, number, today):
                writer.writerow((size.instance, size.database, day.isoformat(), size_bytes))
    unfinished.rename(path)


def _growth(size_bytes: int, number: int, today: date) -> Iterator[tuple[date, int]]:
    """Yield (day, bytes): a steady growth, each database at a pace of its own, with a weekly clean-up."""
    share_grown = 0.2 + 0.15 * (number % 5)
    for age in range(DAYS, 0, -1):
        day = today - timedelta(days=age)
        grown = 1 - share_grown * (age / DAYS) ** (0.7 + 0.3 * (number % 3))
        wave = 1 - 0.01 * math.sin(age / 9 + number) - 0.004 * day.weekday()
        yield day, int(size_bytes * grown * wave)
