"""A made-up past for the demo fleet: every database grew to the size that it has now.

The databases of one server are archived by turns of growth, so that nobody can say when its disk is full; those of the
others grow steadily, with a wave and a weekly clean-up.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Container, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

from whalefall_capacity.store.sizes.stats import StoredSize

DAYS = 400
# Growth between two archivings, as a share of the size, and the days that it takes.
RESTLESS_SHARE = 0.2
RESTLESS_DAYS = 70


def write_past(path: Path, sizes: Sequence[StoredSize], today: date, restless: Container[str] = ()) -> None:
    """Write a history file for the 400 days before *today* that ends near *sizes*.

    *restless*: the instances whose databases are archived now and then.
    """
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("instance", "database", "date", "size_bytes"))
        for number, size in enumerate(sizes):
            for day, size_bytes in _growth(size.size_bytes, number, today, size.instance in restless):
                writer.writerow((size.instance, size.database, day.isoformat(), size_bytes))
    unfinished.rename(path)


def _growth(size_bytes: int, number: int, today: date, restless: bool) -> Iterator[tuple[date, int]]:
    """Yield (day, bytes): a growth, each database at a pace of its own, with a weekly clean-up."""
    share_grown = 0.2 + 0.15 * (number % 5)
    for age in range(DAYS, 0, -1):
        day = today - timedelta(days=age)
        grown = 1 - share_grown * (age / DAYS) ** (0.7 + 0.3 * (number % 3))
        wave = 1 - 0.01 * math.sin(age / 9 + number) - 0.004 * day.weekday()
        archived = RESTLESS_SHARE * (1 - (DAYS - age) % RESTLESS_DAYS / RESTLESS_DAYS) if restless else 0.0
        yield day, int(size_bytes * (grown * wave - archived))
