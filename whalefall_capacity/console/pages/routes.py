"""The other pages, rendered here: run centre, table partitions, errors; and the router of all of them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from whalefall_capacity.console.http.envelope import ApiError, not_found
from whalefall_capacity.console.http.queries import Whole, offset_of
from whalefall_capacity.console.pages import capacity_pages, login
from whalefall_capacity.console.pages.rendering import render, scene_of, scene_of_nobody, to_login, view_of
from whalefall_capacity.store.maintenance.health import read_status
from whalefall_capacity.store.maintenance.retire import make_plan
from whalefall_capacity.store.task_runs import read as task_runs_read
from whalefall_capacity.store.task_runs.read import OPEN_STATUSES, STATUSES

RUNS_OF_A_PAGE = 30
ITEMS_OF_A_PAGE = 200

router = APIRouter()
router.include_router(login.router)
router.include_router(capacity_pages.router)


class RunsView(BaseModel):
    """The state of the run centre."""

    status: Literal["pending", "running", "completed", "completed_with_errors", "failed", "cancelled"] | None = None
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
def runs(request: Request) -> Response:
    """Show task runs, newest first."""
    scene = scene_of(request)
    if scene.principal is None:
        return to_login(request)
    view = view_of(request, RunsView)
    page = task_runs_read.list_task_runs(
        scene.console.reading, RUNS_OF_A_PAGE, offset_of(view.page, RUNS_OF_A_PAGE), view.status
    )
    return render(
        scene,
        "runs.html",
        runs=page.runs,
        view=view,
        statuses=STATUSES,
        has_next=view.page * RUNS_OF_A_PAGE < page.total,
        live=any(run.status in OPEN_STATUSES for run in page.runs),
    )


@router.get("/runs/{run_id}")
def run(request: Request, run_id: str) -> Response:
    """Show one task run with its items."""
    scene = scene_of(request)
    if scene.principal is None:
        return to_login(request)
    engine = scene.console.reading
    found = None if "\x00" in run_id else task_runs_read.get_task_run(engine, run_id)
    if found is None:
        raise not_found("there is no such task run")
    counts = task_runs_read.count_items(engine, run_id)
    return render(
        scene,
        "run.html",
        run=found,
        items=task_runs_read.list_items(engine, run_id, ITEMS_OF_A_PAGE),
        item_total=sum(counts.values()),
        item_counts=counts,
        live=found.status in OPEN_STATUSES,
    )


@router.get("/partitions")
def partitions(request: Request) -> Response:
    """Show the table partitions, their health, and what would go."""
    scene = scene_of(request)
    if scene.principal is None:
        return to_login(request)
    console = scene.console
    status = read_status(console.engine, console.settings, console.today())
    return render(
        scene,
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
    if error.status == 401:
        return to_login(request)
    try:
        scene = scene_of(request)
    except Exception:
        scene = scene_of_nobody(request)
    answer = render(scene, "error.html", status=error.status, detail=error.message)
    answer.status_code = error.status
    answer.headers.update(error.headers or {})
    return answer
