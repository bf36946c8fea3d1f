"""Collect now, over the API."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from starlette.responses import Response

from whalefall_capacity.console.actions.collect import CollectionRun, collect_now
from whalefall_capacity.console.api.routing import NOT_FOUND, CurrentCaller, CurrentConsole, router_for
from whalefall_capacity.console.http.envelope import Envelope, success
from whalefall_capacity.store.access import Role

operating = router_for(Role.OPERATOR)


class CollectBody(BaseModel):
    """The servers to measure."""

    model_config = ConfigDict(extra="forbid")

    instance_id: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = Field(
        default=None, description="One instance of the fleet; missing or null: the whole fleet."
    )


@operating.post("/capacity/collections", status_code=202, response_model=Envelope[CollectionRun], responses=NOT_FOUND)
def collect(
    console: CurrentConsole, caller: CurrentCaller, body: Annotated[CollectBody | None, Body()] = None
) -> Response:
    """Measure the fleet, or one instance of it, for today; answers at once, the run goes on."""
    run = collect_now(console, caller, body.instance_id if body is not None else None)
    return success(run, "joined the run that is under way" if run.joined else "started", 202)
