"""The overview over the API."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from whalefall_capacity.console.api.routing import CurrentCaller, CurrentConsole, router_for
from whalefall_capacity.console.http.envelope import Envelope, success
from whalefall_capacity.console.http.overview import Overview, overview
from whalefall_capacity.console.http.queries import Whole
from whalefall_capacity.store.access import Role

reading = router_for(Role.VIEW)


class OverviewQuery(BaseModel):
    """The length of the chart."""

    model_config = ConfigDict(extra="forbid")

    days: Annotated[Whole, Field(ge=1, le=400)] = Field(
        default=90, description="Days of the totals, the last is today."
    )


@reading.get("/overview", response_model=Envelope[Overview])
def whole_fleet(console: CurrentConsole, caller: CurrentCaller, query: Annotated[OverviewQuery, Query()]) -> Response:
    """Return what is known of the fleet as a whole, and what needs a person."""
    return success(overview(console, caller.credential, query.days))
