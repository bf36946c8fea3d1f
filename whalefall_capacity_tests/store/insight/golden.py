"""Histories with known answers, in GiB a day; the day of the forecast is the last of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

from sqlalchemy import Engine, text

from whalefall_capacity.store.insight.calculate import calculate
from whalefall_capacity.store.insight.read import CapacityForecast, forecasts_of_day
from whalefall_capacity.store.insight.write import write_anomalies, write_forecasts
from whalefall_capacity_tests.store.past import put_sizes

GIB = 2**30
TODAY = date(2026, 6, 30)
ZONE = "Asia/Shanghai"

Sizes = Sequence[float | None]


def line(days: int = 200, start: float = 100, slope: float = 1) -> list[float | None]:
    """Return *days* of a size that grows by *slope* a day."""
    return [start + slope * day for day in range(days)]


def history(days: int, size: Callable[[int], float | None]) -> list[float | None]:
    return [size(day) for day in range(days)]


def put_history(
    store: Engine, instance_id: int, databases: Mapping[str, Sizes], limit: float | None = None, last: date = TODAY
) -> None:
    """Store the sizes of an instance's databases, whose last one is of *last*, and its limit; GiB."""
    put_sizes(
        store,
        [
            (instance_id, name, last - timedelta(days=len(sizes) - 1 - day), round(size * GIB))
            for name, sizes in databases.items()
            for day, size in enumerate(sizes)
            if size is not None
        ],
    )
    set_limit(store, instance_id, limit)


def set_limit(store: Engine, instance_id: int, limit: float | None) -> None:
    """Say how large the disk of an instance is, in GiB."""
    statement = text("UPDATE instances SET capacity_limit_bytes = :limit WHERE id = :id")
    with store.begin() as connection:
        connection.execute(statement, {"id": instance_id, "limit": None if limit is None else round(limit * GIB)})


def forecast(store: Engine, *days: date) -> int:
    """Calculate and write *days*, today if there are none; return how many rows changed."""
    changed = 0
    for result in calculate(store, days or [TODAY], ZONE):
        changed += write_forecasts(store, result.day, result.forecasts, result.databases, result.accuracy)
        changed += write_anomalies(store, result.day, result.anomalies)
    return changed


def the_forecast(store: Engine, instance_id: int = 1, day: date = TODAY) -> CapacityForecast:
    """Return the stored forecast of one instance."""
    (found,) = [each for each in forecasts_of_day(store, day) if each.instance_id == instance_id]
    return found


def days_until(found: CapacityForecast) -> tuple[int | None, int | None, int | None]:
    """Return expected, earliest and latest as days from the day of the forecast."""
    dates = (found.expected_date, found.earliest_date, found.latest_date)
    return tuple(None if day is None else (day - found.forecast_date).days for day in dates)  # type: ignore[return-value]


def forecasts_of_instance(store: Engine, instance_id: int, first: date, last: date) -> list[CapacityForecast]:
    """Return what was forecast for one instance on each day of first..last, oldest first."""
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return [each for day in days for each in forecasts_of_day(store, day) if each.instance_id == instance_id]
