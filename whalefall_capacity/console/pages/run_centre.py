"""The run centre: task runs by filter and order, and one run with its errors and items."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from whalefall_capacity.console.http.envelope import not_found
from whalefall_capacity.console.http.queries import Name, PageNumber, offset_of
from whalefall_capacity.console.pages.rendering import Reader, render, view_of
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.read import count_items, get_task_run, list_items
from whalefall_capacity.store.task_runs.run_errors import run_errors
from whalefall_capacity.store.task_runs.search import (
    RunFilter,
    RunOrder,
    TriggerSource,
    list_task_runs,
    run_options,
)

RUNS_OF_A_PAGE = 30
ITEMS_OF_A_PAGE = 200
ERRORS_OF_A_PAGE = 100

router = APIRouter()


class RunsView(BaseModel):
    """The state of the run centre."""

    status: Status | None = None
    task_key: Name | None = None
    task_category: Name | None = None
    trigger_source: TriggerSource | None = None
    created_by: Name | None = None
    sort: RunOrder = RunOrder.CREATED_DESCENDING
    page: PageNumber = 1

    @property
    def wanted(self) -> RunFilter:
        return RunFilter(self.status, self.task_key, self.task_category, self.trigger_source, self.created_by)


class RunView(BaseModel):
    """The state of the page of one run."""

    errors_page: PageNumber = 1


@router.get("/runs")
def runs(context: Reader) -> Response:
    """Show task runs, newest first unless sorted otherwise."""
    view: RunsView = view_of(context.request, RunsView)
    reading = context.console.reading
    page = list_task_runs(reading, RUNS_OF_A_PAGE, offset_of(view.page, RUNS_OF_A_PAGE), view.wanted, view.sort)
    return render(
        context,
        "runs.html",
        runs=page.runs,
        view=view,
        options=run_options(reading),
        statuses=list(Status),
        has_next=view.page * RUNS_OF_A_PAGE < page.total,
        live=any(not run.status.is_terminal for run in page.runs),
    )


@router.get("/runs/{run_id}")
def run(context: Reader, run_id: str) -> Response:
    """Show one task run with its errors and its items."""
    engine = context.console.reading
    view: RunView = view_of(context.request, RunView)
    found = None if "\x00" in run_id else get_task_run(engine, run_id)
    if found is None:
        raise not_found("there is no such task run")
    counts = count_items(engine, run_id)
    errors = run_errors(engine, run_id, ERRORS_OF_A_PAGE, offset_of(view.errors_page, ERRORS_OF_A_PAGE))
    return render(
        context,
        "run.html",
        run=found,
        view=view,
        errors=errors,
        more_errors=view.errors_page * ERRORS_OF_A_PAGE < errors.total,
        items=list_items(engine, run_id, ITEMS_OF_A_PAGE),
        item_total=sum(counts.values()),
        live=not found.status.is_terminal,
    )
