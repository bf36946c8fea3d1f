"""Task runs over the API: a list, one run with its items and its errors, and the end of one."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from whalefall_capacity.console.api.routing import CONFLICT, NOT_FOUND, CurrentConsole, RunId, router_for
from whalefall_capacity.console.http.envelope import ApiError, Envelope, MessageCode, not_found, success
from whalefall_capacity.console.http.queries import Name, Page, Rows, Whole
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs import read
from whalefall_capacity.store.task_runs.read import TaskRun, TaskRunItem
from whalefall_capacity.store.task_runs.run_errors import RunError, run_errors
from whalefall_capacity.store.task_runs.search import (
    RunFilter,
    RunOptions,
    RunOrder,
    TriggerSource,
    list_task_runs,
    run_options,
)

reading = router_for(Role.VIEW)
operating = router_for(Role.OPERATOR)


class TaskRunFilter(Page):
    """A filter of task runs, and a page of them."""

    status: Status | None = None
    task_key: Name | None = Field(default=None, description="Such as sync_databases.")
    task_category: Name | None = Field(default=None, description="Such as capacity.")
    trigger_source: TriggerSource | None = None
    created_by: Name | None = Field(default=None, description="Whoever asked for the run.")
    sort: RunOrder = Field(default=RunOrder.CREATED_DESCENDING, description="A minus sign is the other way round.")


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
def list_runs(console: CurrentConsole, query: Annotated[TaskRunFilter, Query()]) -> Response:
    """Return task runs, newest first unless sorted otherwise."""
    wanted = RunFilter(query.status, query.task_key, query.task_category, query.trigger_source, query.created_by)
    page = list_task_runs(console.reading, query.limit, query.offset, wanted, query.sort)
    return success(query.of(page.runs, page.total))


@reading.get("/options/task-runs", response_model=Envelope[RunOptions])
def options_of_task_runs(console: CurrentConsole) -> Response:
    """Return the values that task runs can be filtered by."""
    return success(run_options(console.reading))


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


@reading.get("/task-runs/{run_id}/errors", response_model=Envelope[Rows[RunError]], responses=NOT_FOUND)
def errors_of_task_run(console: CurrentConsole, run_id: RunId, query: Annotated[ItemPage, Query()]) -> Response:
    """Return what went wrong in a run, item by item and database by database."""
    offset = query.offset
    if read.get_task_run(console.reading, run_id) is None:
        raise not_found("there is no such task run")
    found = run_errors(console.reading, run_id, query.limit, offset)
    return success(query.of(found.errors, found.total))


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
            raise ApiError(
                MessageCode.CONFLICT, Sentence("the run has ended already: {status}", status=run.status.value)
            )
    return success({"run_id": run_id, "status": "cancelled"}, "the run is being stopped")
