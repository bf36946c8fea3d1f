"""The other pages, rendered here: table partitions, errors; and the router of all of them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from whalefall_capacity.console.http.envelope import ApiError, MessageCode
from whalefall_capacity.console.pages import capacity_pages, login, run_centre
from whalefall_capacity.console.pages.rendering import (
    Reader,
    anonymous_context,
    page_context,
    render,
    to_login,
)
from whalefall_capacity.store.maintenance.health import read_status
from whalefall_capacity.store.maintenance.retire import make_plan

router = APIRouter()
router.include_router(login.router)
router.include_router(capacity_pages.router)
router.include_router(run_centre.router)


@router.get("/healthz")
def health() -> Response:
    """Say that the console answers."""
    return Response("ok\n", media_type="text/plain")


@router.get("/")
def home() -> Response:
    """Lead to the instances."""
    return RedirectResponse("/instances", 303)


@router.get("/partitions")
def partitions(context: Reader) -> Response:
    """Show the table partitions, their health, and what would go."""
    console = context.console
    status = read_status(console.engine, console.settings, console.today())
    return render(
        context,
        "partitions.html",
        status=status,
        plan=make_plan(console.engine, console.settings, console.today()),
        sizes={
            table.table: sum(child.bytes for child in status.children if child.table == table.table)
            for table in status.tables
        },
    )


def error_page(request: Request, error: ApiError) -> Response:
    """Return the page that tells of an error; whoever is not logged in is led to the login."""
    if error.code is MessageCode.AUTHENTICATION_REQUIRED:
        return to_login(request)
    try:
        context = page_context(request)
    except Exception:
        context = anonymous_context(request)
    answer = render(context, "error.html", status=error.code.status, detail=error.message)
    answer.status_code = error.code.status
    answer.headers.update(error.headers or {})
    return answer
