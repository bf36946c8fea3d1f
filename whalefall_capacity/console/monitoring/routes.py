"""`/healthz`, `/readyz` and `/metrics`: for programs, outside the API."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from whalefall_capacity.console.http.envelope import ApiError, MessageCode
from whalefall_capacity.console.http.security import authenticate, authorize, known_reader
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.console.monitoring.metrics import exposition
from whalefall_capacity.console.monitoring.problems import Component
from whalefall_capacity.console.monitoring.readiness import ReadinessLooks
from whalefall_capacity.store.access import Role

# Only programs ask for these: errors come in the envelope of the API, and there is no redirect to the login.
PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
router = APIRouter()


# A coroutine, as all of these: the threads for requests may all be waiting for the store.
@router.get("/healthz")
async def health() -> Response:
    """Say that the console answers."""
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Say whether everything is there that a day needs; 503 with what is not."""
    looks: ReadinessLooks = request.app.state.readiness
    problems = (await looks.readiness()).problems
    reasons = [{"component": component, "reason": reason} for component, reason in problems.items()]
    return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return the figures for Prometheus, to whoever may look.

    Nobody is let in by their address: behind a proxy, everybody may seem to come from this machine.
    """
    console: Console = request.app.state.console
    looks: ReadinessLooks = request.app.state.readiness
    readiness = await looks.readiness()
    # Only the store knows who may look, and it may not answer: it is not asked unless it has just answered.
    if (problem := readiness.problems.get(Component.STORE)) is not None:
        raise ApiError(MessageCode.UNAVAILABLE, f"the store is not ready: {problem}")
    principal = known_reader(console, request)
    if principal is None:
        principal = await run_in_threadpool(authenticate, request)
    authorize(request, principal, Role.VIEW)
    content, content_type = await run_in_threadpool(exposition, console, readiness, request.headers.get("accept", ""))
    return Response(content, media_type=content_type)
