"""Stored forecasts, their accuracy and anomalies, as the console, the command line and the checks show them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from sqlalchemy import Engine, text

from whalefall_capacity.insight.statuses import (
    FEWEST_DAYS,
    STALE_AFTER_DAYS,
    URGENT_DAYS,
    AnomalyKind,
    ForecastStatus,
    Urgency,
)
from whalefall_capacity.store.postgres.engine import again_if_connection_lost
from whalefall_capacity.store.postgres.one_statement import read_rows, read_value

NEWEST_DAY = "SELECT max(forecast_date) FROM capacity_forecasts"
FORECASTS = """
SELECT f.instance_id, i.name AS instance, f.forecast_date, f.status, f.used_bytes, f.limit_bytes, f.rate_bytes_per_day,
       f.spread_bytes, f.swing_bytes, f.range_low::float AS range_low, f.range_high::float AS range_high,
       f.expected_date, f.earliest_date, f.latest_date, f.last_measured_date, f.measured_days, f.databases, f.reason,
       i.capacity_limit_bytes AS limit_now
FROM capacity_forecasts AS f
JOIN instances AS i ON i.id = f.instance_id
WHERE {condition}
"""
OF_DAY = "f.forecast_date = :day"
OF_DAY_AND_INSTANCE = "f.forecast_date = :day AND i.name = :instance"
# All that FORECASTS shows; the visits of a day touch the instances, and change nothing of it.
FORECASTS_BASIS = """
SELECT forecasts.*, fleet.*
FROM (SELECT count(*), sum(hashtid(ctid)), max(updated_at) FROM capacity_forecasts
      WHERE forecast_date = :day) AS forecasts,
     (SELECT count(*), sum(hashtextextended(name, coalesce(capacity_limit_bytes, 0))) FROM instances) AS fleet
"""
DATABASE_FORECASTS = """
SELECT instance_id, database_name, forecast_date, size_bytes, last_measured_date, measured_days, rate_bytes_per_day,
       spread_bytes, swing_bytes, one_offs, one_off_bytes
FROM database_forecasts WHERE instance_id = :instance_id
ORDER BY rate_bytes_per_day DESC NULLS LAST, database_name
"""
ACCURACY = """
SELECT forecast_date, level, horizon_days, forecasts, mean_error_percent, median_error_percent, p90_error_percent,
       no_growth_mean_error_percent, no_growth_median_error_percent, no_growth_p90_error_percent,
       least_squares_mean_error_percent, least_squares_median_error_percent, least_squares_p90_error_percent,
       coverage_percent, range_low, range_high, one_off_bytes, new_database_bytes
FROM forecast_accuracy WHERE forecast_date BETWEEN :first AND :last
ORDER BY forecast_date, level, horizon_days
"""
ANOMALIES = """
SELECT a.instance_id, i.name AS instance, a.database_name AS database, a.day, a.kind, a.change_bytes, a.usual_bytes,
       a.threshold_bytes
FROM size_anomalies AS a
JOIN instances AS i ON i.id = a.instance_id
WHERE a.day BETWEEN :first AND :last AND a.instance_id = coalesce(CAST(:instance_id AS integer), a.instance_id)
ORDER BY a.day DESC, abs(a.change_bytes) DESC, i.name, a.database_name
"""


@dataclass(frozen=True)
class GrowerShare:
    """A database and its part of the pace of its instance."""

    database: str
    rate_bytes_per_day: int
    percent: Annotated[float, Field(description="Of the pace of the instance; may exceed 100 where others shrink.")]


@dataclass(frozen=True)
class OneOff:
    """A jump that the pace leaves out."""

    database: str
    day: date
    size_bytes: int


@dataclass(frozen=True)
class Reason:
    """Basis of a forecast: the largest growers, the largest one-offs left out, and what has no pace."""

    growers: tuple[GrowerShare, ...] = ()
    one_offs: tuple[OneOff, ...] = ()
    one_offs_left_out: Annotated[int, Field(description="In all; `one_offs` are the largest.")] = 0
    young: Annotated[int, Field(description="Databases with too few measured days to have a pace.")] = 0
    stale: Annotated[int, Field(description="Databases that count with a size of more than three days ago.")] = 0
    log_size_bytes: Annotated[int | None, Field(description="The instance's logs, as last measured; in used.")] = None


@dataclass(frozen=True)
class CapacityForecast:
    """Forecast of an instance as of *forecast_date*: when it is full, or why nothing is said; open dates are None.

    Of `not_before` the earliest day is all that is said: *expected_date* is there for warnings, and
    *shown_expected_date* is what people see. So it is with the pace of an instance that is stale or too new: what is
    stored is the sum of those databases that have one.
    """

    instance_id: int
    instance: str
    forecast_date: date
    status: ForecastStatus
    used_bytes: int | None
    limit_bytes: int | None
    rate_bytes_per_day: Annotated[int | None, Field(description="null: not known, or not that of today.")]
    spread_bytes: int
    swing_bytes: int
    range_low: float
    range_high: float
    expected_date: date | None
    earliest_date: date | None
    latest_date: date | None
    last_measured_date: date | None
    measured_days: int
    databases: int
    reason: Reason

    @property
    def shown_expected_date(self) -> date | None:
        """The day that is expected, None unless the range has two ends."""
        return self.expected_date if self.status is ForecastStatus.DATED else None

    @property
    def shown_rate_bytes_per_day(self) -> int | None:
        """The pace, None where it is not known or not of today, whatever else the answer is."""
        if self.last_measured_date is None or self.measured_days < FEWEST_DAYS:
            return None
        unmeasured_days = (self.forecast_date - self.last_measured_date).days
        return None if unmeasured_days > STALE_AFTER_DAYS else self.rate_bytes_per_day

    @property
    def urgency(self) -> Urgency | None:
        """The urgency of the forecast; None when there is time, or nothing is said."""
        if self.status is ForecastStatus.FULL:
            return Urgency.FULL
        if self.expected_date is None:
            return None
        days = (self.expected_date - self.forecast_date).days
        return next((urgency for urgency, within in URGENT_DAYS.items() if days <= within), None)


@dataclass(frozen=True)
class DatabaseForecast:
    """The pace of one database, of the newest forecast; no pace (None) with too few measured days."""

    instance_id: int
    database_name: str
    forecast_date: date
    size_bytes: int
    last_measured_date: date
    measured_days: int
    rate_bytes_per_day: int | None
    spread_bytes: int | None
    swing_bytes: int | None
    one_offs: int
    one_off_bytes: int


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the forecasts of *horizon_days* ago, beside two simple methods; percent of the size then.

    None where nothing can be compared yet.
    """

    forecast_date: date
    level: str
    horizon_days: int
    forecasts: int
    mean_error_percent: Decimal | None
    median_error_percent: Decimal | None
    p90_error_percent: Decimal | None
    no_growth_mean_error_percent: Decimal | None
    no_growth_median_error_percent: Decimal | None
    no_growth_p90_error_percent: Decimal | None
    least_squares_mean_error_percent: Decimal | None
    least_squares_median_error_percent: Decimal | None
    least_squares_p90_error_percent: Decimal | None
    coverage_percent: Decimal | None
    range_low: Decimal
    range_high: Decimal
    one_off_bytes: Decimal
    new_database_bytes: Decimal


@dataclass(frozen=True)
class SizeAnomaly:
    """A database that jumped, dropped or stalled on *day*."""

    instance_id: int
    instance: str
    database: str
    day: date
    kind: AnomalyKind
    change_bytes: int
    usual_bytes: int
    threshold_bytes: int


_REASON = TypeAdapter(Reason)


def newest_forecast_day(engine: Engine) -> date | None:
    """Return the newest day with forecasts; None when there are none."""
    day: date | None = read_value(engine, NEWEST_DAY)
    return day


def forecasts_of_day(engine: Engine, day: date, instance: str | None = None) -> list[CapacityForecast]:
    """Return the forecasts of *day*, of all instances or the one of that name, soonest first.

    Those of the newest day have the dates of the limits as they are now, and not only from the next forecast on.
    """
    condition = OF_DAY if instance is None else OF_DAY_AND_INSTANCE
    found = _forecasts(engine, FORECASTS.format(condition=condition), day=day, instance=instance)
    if any(stored.limit_bytes != limit for stored, limit in found) and day == newest_forecast_day(engine):
        # Imported here: it needs numpy, and a limit seldom changes.
        from whalefall_capacity.store.insight.limits import with_limits

        return soonest_first(with_limits([stored for stored, _ in found], [limit for _, limit in found]))
    return soonest_first(stored for stored, _ in found)


def forecasts_basis(engine: Engine, day: date | None) -> Hashable:
    """Return the state of all that the forecasts of *day* rest on."""
    with engine.connect() as connection:
        return (day, *connection.execute(text(FORECASTS_BASIS), {"day": day}).one())


def soonest_first(forecasts: Iterable[CapacityForecast]) -> list[CapacityForecast]:
    """Return *forecasts*: full ones, then by expected and by earliest date, then what is refused; then by name."""
    return sorted(
        forecasts,
        key=lambda f: (
            f.status is not ForecastStatus.FULL,
            f.expected_date or date.max,
            f.earliest_date or date.max,
            f.status is ForecastStatus.NO_LIMIT,
            f.instance,
        ),
    )


def database_forecasts(engine: Engine, instance_id: int) -> list[DatabaseForecast]:
    """Return the paces of the databases of an instance, of the newest forecast, fastest first."""
    return read_rows(engine, DatabaseForecast, DATABASE_FORECASTS, instance_id=instance_id)


def accuracy_of_days(engine: Engine, first: date, last: date) -> list[Accuracy]:
    """Return how good forecasts were, as looked back at on the days first..last, oldest first."""
    return read_rows(engine, Accuracy, ACCURACY, first=first, last=last)


def anomalies_of_days(engine: Engine, first: date, last: date, instance_id: int | None = None) -> list[SizeAnomaly]:
    """Return what was odd on the days first..last, newest first, of all instances or of one."""
    rows = read_rows(engine, SizeAnomaly, ANOMALIES, first=first, last=last, instance_id=instance_id)
    return [replace(row, kind=AnomalyKind(row.kind)) for row in rows]


@again_if_connection_lost
def _forecasts(engine: Engine, statement: str, **values: Any) -> list[tuple[CapacityForecast, int | None]]:
    """Return forecasts as they are stored, each with the limit of its instance as it is now."""
    with engine.connect() as connection:
        rows: Sequence[Any] = connection.execute(text(statement), values).mappings().all()
    return [
        (
            CapacityForecast(
                **{
                    **{name: value for name, value in row.items() if name != "limit_now"},
                    "status": ForecastStatus(row["status"]),
                    "reason": _REASON.validate_python(row["reason"]),
                }
            ),
            row["limit_now"],
        )
        for row in rows
    ]
