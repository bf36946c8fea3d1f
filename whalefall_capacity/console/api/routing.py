"""Routers of the API: whom they let in, which errors they announce, and what their handlers are given."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request

from whalefall_capacity.console.http.envelope import ErrorEnvelope
from whalefall_capacity.console.http.principals import Caller, credential_of
from whalefall_capacity.console.http.queries import Name
from whalefall_capacity.console.http.security import guarded_route
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.store.access import Role

PREFIX = "/api/v1"
Responses = dict[int | str, dict[str, Any]]
READING_ERRORS: Responses = {
    400: {"model": ErrorEnvelope, "description": "A parameter is bad; `data.errors` names it."},
    401: {"model": ErrorEnvelope, "description": "Nobody is logged in."},
    503: {"model": ErrorEnvelope, "description": "The store or Dagster cannot be reached."},
}
CHANGING_ERRORS: Responses = READING_ERRORS | {
    403: {"model": ErrorEnvelope, "description": "The role is not enough, or the CSRF token is missing."},
    408: {"model": ErrorEnvelope, "description": "The body did not arrive in time."},
    413: {"model": ErrorEnvelope, "description": "The body is too large."},
}
NOT_FOUND: Responses = {404: {"model": ErrorEnvelope, "description": "There is no such thing."}}
CONFLICT: Responses = {409: {"model": ErrorEnvelope, "description": "It is too late for that."}}


def router_for(role: Role) -> APIRouter:
    """Return a router whose routes take *role*, or more."""
    return APIRouter(
        prefix=PREFIX,
        route_class=guarded_route(role),
        responses=READING_ERRORS if role is Role.VIEW else CHANGING_ERRORS,
    )


# These are coroutines, so that FastAPI does not send each of them to a thread of its own.
async def _console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


async def _caller(request: Request) -> Caller:
    return Caller(request.state.principal, credential_of(request))


CurrentConsole = Annotated[Console, Depends(_console)]
CurrentCaller = Annotated[Caller, Depends(_caller)]
RunId = Annotated[Name, Path(description="The Dagster run id.")]
