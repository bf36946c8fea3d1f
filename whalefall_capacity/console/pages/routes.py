"""The other pages, rendered here: run centre, table partitions, errors; and the router of all of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from whalefall_capacity.console.http.envelope import ApiError, MessageCode, not_found
from whalefall_capacity.console.http.queries import Whole, offset_of
from whalefall_capacity.console.pages import capacity_pages, detail_pages, list_pages, login
from whalefall_capacity.console.pages.rendering import (
    Reader,
    anonymous_context,
    page_context,
    render,
    to_login,
    view_of,
)
from whalefall_capacity.store.maintenance.health import read_status
from whalefall_capacity.store.maintenance.retire import make_plan
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs import read as task_runs_read

RUNS_OF_A_PAGE = 30
ITEMS_OF_A_PAGE = 200

router = APIRouter()
router.include_router(login.router)
router.include_router(list_pages.router)
router.include_router(detail_pages.router)
router.include_router(capacity_pages.router)


class RunsView(BaseModel):
    """The state of the run centre."""

    status: Status | None = None
    page: Annotated[Whole, Field(ge=1)] = 1


@router.get("/healthz")
def health() -> Response:
    """Say that the console answers."""
    return Response("ok\n", media_type="text/plain")


@router.get("/")
def home() -> Response:
    """Lead to the instances."""
    return RedirectResponse("/instances", 303)


@router.get("/runs")
def runs(context: Reader) -> Response:
    """Show task runs, newest first."""
    view = view_of(context.request, RunsView)
    page = task_runs_read.list_task_runs(
        context.console.reading, RUNS_OF_A_PAGE, offset_of(view.page, RUNS_OF_A_PAGE), view.status
    )
    return render(
        context,
        "runs.html",
        runs=page.runs,
        view=view,
        statuses=list(Status),
        has_next=view.page * RUNS_OF_A_PAGE < page.total,
        live=any(not run.status.is_terminal for run in page.runs),
    )


@router.get("/runs/{run_id}")
def run(context: Reader, run_id: str) -> Response:
    """Show one task run with its items."""
    engine = context.console.reading
    found = None if "\x00" in run_id else task_runs_read.get_task_run(engine, run_id)
    if found is None:
        raise not_found("there is no such task run")
    counts = task_runs_read.count_items(engine, run_id)
    return render(
        context,
        "run.html",
        run=found,
        items=task_runs_read.list_items(engine, run_id, ITEMS_OF_A_PAGE),
        item_total=sum(counts.values()),
        item_counts=counts,
        live=not found.status.is_terminal,
    )


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
