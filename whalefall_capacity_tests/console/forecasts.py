"""Forecasts of a small made-up fleet, in the store of a test of the console."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.insight.calculate import calculate
from whalefall_capacity.store.insight.write import write_forecasts
from whalefall_capacity_tests.store.past import put_sizes

GIB = 2**30
DATED, UNEVEN, YOUNG, STALE, FULL, FLAT = range(11, 17)
NAMES = {DATED: "dated", UNEVEN: "uneven", YOUNG: "young", STALE: "stale", FULL: "brimful", FLAT: "flat"}
LIMITS_GIB = {DATED: 459, UNEVEN: 900, YOUNG: 500, STALE: 500, FULL: 299, FLAT: 65}


def put_fleet(store: Engine, day: date) -> None:
    """Store 200 days until *day* of six instances, each with another answer.

    dated: orders 100 GiB and 1 more a day, and 100 more from ten days ago on; limit 459. uneven: grows by up to 60 GiB
    in four weeks, or by nothing. young: 13 days. stale: until four days ago. brimful: 299 of 299 GiB. flat: 64 of 65.
    """
    days = [day - timedelta(days=n) for n in range(199, -1, -1)]
    sizes = [(DATED, "orders", when, (100 + n + (100 if n >= 190 else 0)) * GIB) for n, when in enumerate(days)]
    sizes += [(UNEVEN, "batch", when, (200 + _uneven(n)) * GIB) for n, when in enumerate(days)]
    sizes += [(YOUNG, "app", when, (10 + n) * GIB) for n, when in enumerate(days[-13:])]
    sizes += [(STALE, "app", when, (100 + n) * GIB) for n, when in enumerate(days[:-4])]
    sizes += [(FULL, "app", when, 299 * GIB) for when in days]
    sizes += [(FLAT, "app", when, 64 * GIB) for when in days]
    put_sizes(store, sizes)
    limits = [{"id": id_, "name": NAMES[id_], "limit": limit * GIB} for id_, limit in LIMITS_GIB.items()]
    with store.begin() as connection:
        statement = "UPDATE instances SET name = :name, capacity_limit_bytes = :limit WHERE id = :id"
        connection.execute(text(statement), limits)
        connection.execute(
            text(
                "INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date) "
                "SELECT instance_id, database_name, min(collected_date), max(collected_date) "
                "FROM database_size_stats GROUP BY 1, 2 ON CONFLICT DO NOTHING"
            )
        )
    for level in Level:
        aggregate(store, level, days_to_windows(days[-40:], PeriodType.DAILY))


def forecast(store: Engine, days: Sequence[date]) -> None:
    """Calculate and store the forecasts of *days*."""
    for found in calculate(store, days, "UTC"):
        write_forecasts(store, found.day, found.forecasts, found.databases, found.accuracy)


def _uneven(n: int) -> int:
    """Return what has been added by day *n*: 60 in every other period of four weeks."""
    period, within = divmod(n, 28)
    return 60 * ((period + 1) // 2) + (round(within * 60 / 28) if period % 2 else 0)
