"""The insight over the API: what explains the growth of an instance."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from whalefall_capacity.console.api.details import InstanceId, default_first
from whalefall_capacity.console.api.routing import NOT_FOUND, CurrentConsole, router_for
from whalefall_capacity.console.http.envelope import Envelope, success
from whalefall_capacity.console.http.known import known_instance
from whalefall_capacity.console.http.queries import DayRange, Whole
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.insight.waterfall import InstanceWaterfall, instance_waterfall

reading = router_for(Role.VIEW)


class WaterfallQuery(DayRange):
    """A range of days, and how many parts are named."""

    limit: Annotated[Whole, Field(ge=1, le=200)] = Field(
        default=20, description="Parts that are named; what is left is one row a cause."
    )


@reading.get("/instances/{instance_id}/waterfall", response_model=Envelope[InstanceWaterfall], responses=NOT_FOUND)
def waterfall(console: CurrentConsole, instance_id: InstanceId, query: Annotated[WaterfallQuery, Query()]) -> Response:
    """Return which databases explain the growth of an instance; of the last 30 days where nothing else is said."""
    known_instance(console, instance_id)
    first, last = query.days(console.today(), default_first)
    return success(instance_waterfall(console.reading, instance_id, first, last, query.limit))
