"""Task runs over the API: a list, one run with its items, and the end of one."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from whalefall_capacity.console.api.routing import CONFLICT, NOT_FOUND, CurrentConsole, RunId, router_for
from whalefall_capacity.console.http.envelope import ApiError, Envelope, MessageCode, not_found, success
from whalefall_capacity.console.http.queries import Name, Page, Rows, Whole
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs import read
from whalefall_capacity.store.task_runs.read import TaskRun, TaskRunItem

reading = router_for(Role.VIEW)
operating = router_for(Role.OPERATOR)


class TaskRunFilter(Page):
    """A filter of task runs, and a page of them."""

    status: Status | None = None
    task_key: Name | None = Field(default=None, description="Such as sync_databases.")


class ItemPage(Page):
    """A page of the items."""

    limit: Annotated[Whole, Field(ge=1, le=200)] = 100


class TaskRunWithItems(BaseModel):
    """One run, and a page of its items: failed ones first."""

    run: TaskRun
    item_counts: dict[str, int]
    items: list[TaskRunItem]
    page: int
    limit: int


class Cancelled(BaseModel):
    """A run that was asked to end."""

    run_id: str
    status: Literal["cancelled"]


@reading.get("/task-runs", response_model=Envelope[Rows[TaskRun]])
def task_runs(console: CurrentConsole, query: Annotated[TaskRunFilter, Query()]) -> Response:
    """Return task runs, newest first."""
    page = read.list_task_runs(console.reading, query.limit, query.offset, query.status, query.task_key)
    return success(query.of(page.runs, page.total))


@reading.get("/task-runs/{run_id}", response_model=Envelope[TaskRunWithItems], responses=NOT_FOUND)
def task_run(console: CurrentConsole, run_id: RunId, query: Annotated[ItemPage, Query()]) -> Response:
    """Return one task run with its items."""
    engine, offset = console.reading, query.offset
    run = read.get_task_run(engine, run_id)
    if run is None:
        raise not_found("there is no such task run")
    return success(
        {
            "run": run,
            "item_counts": read.count_items(engine, run_id),
            "items": read.list_items(engine, run_id, query.limit, offset),
            "page": query.page,
            "limit": query.limit,
        }
    )


@operating.post(
    "/task-runs/{run_id}/actions/cancel", response_model=Envelope[Cancelled], responses=NOT_FOUND | CONFLICT
)
def cancel_task_run(console: CurrentConsole, run_id: RunId) -> Response:
    """Cancel a run that is pending or running; its Dagster run ends between two instances at the latest."""
    if not read.request_cancel(console.engine, run_id):
        run = read.get_task_run(console.engine, run_id)
        if run is None:
            raise not_found("there is no such task run")
        if run.status.is_terminal:
            raise ApiError(MessageCode.CONFLICT, f"the run has ended already: {run.status}")
    return success({"run_id": run_id, "status": "cancelled"}, "the run is being stopped")
