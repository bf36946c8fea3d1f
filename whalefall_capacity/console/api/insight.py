"""The insight over the API: when instances are full, how good such answers were, what explains the growth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from whalefall_capacity.console.api.details import InstanceId, default_first
from whalefall_capacity.console.api.routing import NOT_FOUND, CurrentConsole, router_for
from whalefall_capacity.console.http.envelope import Envelope, success
from whalefall_capacity.console.http.forecasts import newest_forecast, newest_forecasts
from whalefall_capacity.console.http.known import known_instance
from whalefall_capacity.console.http.queries import DayRange, Page, Rows, Whole
from whalefall_capacity.console.http.what_if import Answer, WhatIf, altered_forecast
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.insight.read import Accuracy, CapacityForecast, accuracy_of_days
from whalefall_capacity.store.insight.waterfall import InstanceWaterfall, instance_waterfall

reading = router_for(Role.VIEW)


class WaterfallQuery(DayRange):
    """A range of days, and how many parts are named."""

    limit: Annotated[Whole, Field(ge=1, le=200)] = Field(
        default=20, description="Parts that are named; what is left is one row a cause."
    )


class ForecastRows(Rows[CapacityForecast]):
    """Forecasts of the instances that have a limit, soonest first."""

    forecast_date: date | None = Field(description="The newest day with forecasts; null when there is none.")
    without_limit: int = Field(description="Instances without a limit, which are not listed.")


@dataclass(frozen=True)
class Outlook:
    """The newest forecast of an instance, and what is said under the conditions that are asked about."""

    forecast: Annotated[CapacityForecast | None, Field(description="null: none was made on the newest day.")]
    what_if: Annotated[Answer | None, Field(description="null: no other conditions are asked about.")]


@reading.get("/capacity/forecasts", response_model=Envelope[ForecastRows])
def forecasts(console: CurrentConsole, query: Annotated[Page, Query()]) -> Response:
    """Return when instances are full, or why nothing is said of them."""
    found = newest_forecasts(console)
    rows = found.forecasts[query.offset : query.offset + query.limit]
    about = {"forecast_date": found.day, "without_limit": found.without_limit}
    return success(query.of(rows, len(found.forecasts)) | about)


@reading.get("/capacity/forecasts/accuracy", response_model=Envelope[list[Accuracy]])
def accuracy(console: CurrentConsole, query: Annotated[DayRange, Query()]) -> Response:
    """Return how good forecasts were, day by day, beside two simple methods; the last 30 days by default."""
    return success(accuracy_of_days(console.reading, *query.days(console.today(), default_first)))


@reading.get("/instances/{instance_id}/forecast", response_model=Envelope[Outlook], responses=NOT_FOUND)
def forecast(console: CurrentConsole, instance_id: InstanceId, query: Annotated[WhatIf, Query()]) -> Response:
    """Return when one instance is full, and when it would be under other conditions; nothing is stored."""
    found = newest_forecast(console, known_instance(console, instance_id).instance)
    if found is None or query.changes_nothing:
        return success(Outlook(found, None))
    return success(Outlook(found, altered_forecast(console, found, query).answer()))


@reading.get("/instances/{instance_id}/waterfall", response_model=Envelope[InstanceWaterfall], responses=NOT_FOUND)
def waterfall(console: CurrentConsole, instance_id: InstanceId, query: Annotated[WaterfallQuery, Query()]) -> Response:
    """Return which databases explain the growth of an instance; of the last 30 days by default."""
    known_instance(console, instance_id)
    first, last = query.days(console.today(), default_first)
    return success(instance_waterfall(console.reading, instance_id, first, last, query.limit))
