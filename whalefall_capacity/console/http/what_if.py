"""The newest forecast of an instance under other conditions, calculated when it is asked for, and not stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import isnan
from typing import Annotated

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from whalefall_capacity.byte_sizes import LARGEST_SIZE, bytes_in
from whalefall_capacity.console.http.envelope import invalid
from whalefall_capacity.console.http.queries import Day, Name
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.insight.dates import Dates, Import, Instances, altered, dates, days_of_pace, fan, together
from whalefall_capacity.insight.statuses import FURTHEST_DAYS, ForecastStatus
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.insight.limits import as_instances
from whalefall_capacity.store.insight.read import CapacityForecast, DatabaseForecast, database_forecasts

MOST_DROPPED = 100
FASTEST_PACE = 100
LINES = ("earliest", "expected", "latest")

ByteSize = Annotated[
    int, BeforeValidator(bytes_in), Field(gt=0, le=LARGEST_SIZE), WithJsonSchema({"type": "string", "minLength": 1})
]


class WhatIf(BaseModel):
    """Conditions other than those of the forecast."""

    model_config = ConfigDict(extra="forbid")

    if_limit: ByteSize | None = Field(default=None, description="Another limit: bytes, or a size such as 2TiB.")
    if_import: ByteSize | None = Field(default=None, description="An import: bytes, or a size such as 500GiB.")
    if_import_on: Day | None = Field(default=None, description="The day on which the import comes.")
    if_dropped: list[Name] = Field(
        default=[], max_length=MOST_DROPPED, description="Databases that are dropped; may be repeated."
    )
    if_pace: Annotated[float, Field(ge=0, le=FASTEST_PACE, allow_inf_nan=False)] | None = Field(
        default=None, description="A factor of what grows in a day, and of how much that varies."
    )

    @property
    def changes_nothing(self) -> bool:
        return not (self.if_limit or self.if_import or self.if_import_on or self.if_dropped) and self.if_pace is None


@dataclass(frozen=True)
class Answer:
    """Forecast of an instance: when it is full, or why nothing is said."""

    status: ForecastStatus
    used_bytes: int | None
    limit_bytes: int | None
    rate_bytes_per_day: Annotated[int | None, Field(description="null: not known, or not that of today.")]
    expected_date: date | None
    earliest_date: Annotated[date | None, Field(description="null: open.")]
    latest_date: Annotated[date | None, Field(description="null: open.")]


@dataclass(frozen=True)
class FanLine:
    """One of the lines to the limit: its size in bytes on each day from that of the forecast to the *last*."""

    key: str
    last: date
    sizes: Sequence[float]


@dataclass(frozen=True)
class Altered:
    """A forecast under other conditions."""

    forecast: CapacityForecast
    of: Instances
    planned: Import | None

    def answer(self) -> Answer:
        """Return what is said under these conditions."""
        found, limit = self._said(), float(self.of.limit[0])
        return Answer(
            found.status[0],
            None if self.forecast.used_bytes is None else round(float(self.of.used[0])),
            None if isnan(limit) else round(limit),
            None if self.forecast.shown_rate_bytes_per_day is None else round(float(self.of.rate[0])),
            *(self._day(float(days[0])) for days in (found.expected, found.earliest, found.latest)),
        )

    def lines(self) -> list[FanLine]:
        """Return the lines to the limit, one for each date that is said."""
        until = self._said()
        lines = fan(self.of, until, np.arange(FURTHEST_DAYS + 1), self.planned)
        found = []
        for key, line, days in zip(LINES, lines, (until.earliest, until.expected, until.latest), strict=True):
            last = self._day(float(days[0]))
            if last is not None:
                found.append(FanLine(key, last, line[0, : int(days[0]) + 1].tolist()))
        return found

    def _said(self) -> Dates:
        """Return the dates that are said: of `not_before` the earliest alone."""
        found = dates(self.of, self.planned)
        open_ended = found.status[0] is ForecastStatus.NOT_BEFORE
        return replace(found, expected=np.array([np.nan])) if open_ended else found

    def _day(self, days: float) -> date | None:
        return None if isnan(days) else self.forecast.forecast_date + timedelta(days=int(days))


def altered_forecast(console: Console, forecast: CapacityForecast, what_if: WhatIf) -> Altered:
    """Return *forecast* under the conditions of *what_if*. Raises ApiError when they cannot be."""
    of = as_instances([forecast])
    if what_if.if_dropped:
        databases = database_forecasts(console.reading, forecast.instance_id)
        counted = [one for one in databases if one.forecast_date == forecast.forecast_date]
        of = _without(of, counted, set(what_if.if_dropped))
    pace = 1.0 if what_if.if_pace is None else what_if.if_pace
    return Altered(forecast, altered(of, what_if.if_limit, pace), _planned(forecast.forecast_date, what_if))


def _without(of: Instances, databases: Sequence[DatabaseForecast], dropped: set[str]) -> Instances:
    """Return *of*, the sum of *databases* and the logs, without some of them."""
    unknown = sorted(dropped - {one.database_name for one in databases})
    if unknown:
        raise invalid("if_dropped", Sentence("{name} is not a database that the forecast counts", name=unknown[0]))
    left = [one for one in databases if one.database_name not in dropped]
    rate, spread, swing = together(
        [one.rate_bytes_per_day or 0 for one in left],
        [one.spread_bytes or 0 for one in left],
        [one.swing_bytes or 0 for one in left],
    )
    gone = sum(one.size_bytes for one in databases if one.database_name in dropped)
    measured_days = days_of_pace(
        [one.size_bytes for one in left],
        [one.measured_days for one in left],
        max([int(of.measured_days[0]), *(one.measured_days for one in databases)]),
    )
    return replace(
        of,
        used=of.used - gone,
        rate=np.array([rate]),
        spread=np.array([spread]),
        swing=np.array([swing]),
        measured_days=np.array([measured_days]),
    )


def _planned(day: date, what_if: WhatIf) -> Import | None:
    size_bytes, arrives = what_if.if_import, what_if.if_import_on
    if size_bytes is None and arrives is None:
        return None
    if size_bytes is None:
        raise invalid("if_import", "give the size of the import")
    if arrives is None:
        raise invalid("if_import_on", "give the day of the import")
    after_days = (arrives - day).days
    if not 1 <= after_days <= FURTHEST_DAYS:
        last = day + timedelta(days=FURTHEST_DAYS)
        limits = Sentence("must lie after {day}, the day of the forecast, and not after {last}", day=day, last=last)
        raise invalid("if_import_on", limits)
    return Import(size_bytes, after_days)
