"""The JSON API under /api/v1; `GET /api/v1/openapi.json` describes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, TypeAdapter
from starlette.responses import Response

from whalefall_capacity.console.actions.current import CurrentRun, aggregate_current
from whalefall_capacity.console.actions.maintenance import MaintenanceRun, create_children, start_maintenance
from whalefall_capacity.console.api.models import (
    Cancelled,
    CapacityRows,
    CapacitySummary,
    Created,
    PartitionStatus,
    Rows,
    TaskRunWithItems,
)
from whalefall_capacity.console.http.envelope import (
    ApiError,
    Envelope,
    ErrorEnvelope,
    MessageCode,
    invalid,
    not_found,
    success,
)
from whalefall_capacity.console.http.principals import Principal, credential_of
from whalefall_capacity.console.http.queries import CapacityFilter, CapacityPage, Day, Name, Whole, offset_of
from whalefall_capacity.console.http.security import CSRF_HEADER, GuardedRoute
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.current_period import ALL, SCOPES, AggregationScope
from whalefall_capacity.periods import PeriodType, add_months
from whalefall_capacity.store.aggregations import console_series
from whalefall_capacity.store.aggregations.console_series import MOST_ROWS, Page, Selection
from whalefall_capacity.store.aggregations.growth import DatabaseGrowth, InstanceGrowth
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance.health import PartitionState, TablePartition, read_status
from whalefall_capacity.store.maintenance.plan import PlannedDrop
from whalefall_capacity.store.maintenance.retire import make_plan
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs import read as task_runs_read
from whalefall_capacity.store.task_runs.read import TaskRun

PREFIX = "/api/v1"
READING_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorEnvelope, "description": "A parameter is bad; `data.errors` names it."},
    401: {"model": ErrorEnvelope, "description": "Nobody is logged in."},
    503: {"model": ErrorEnvelope, "description": "The store or Dagster cannot be reached."},
}
CHANGING_ERRORS: dict[int | str, dict[str, Any]] = READING_ERRORS | {
    403: {"model": ErrorEnvelope, "description": "The role is not enough, or the CSRF token is missing."},
    408: {"model": ErrorEnvelope, "description": "The body did not arrive in time."},
    413: {"model": ErrorEnvelope, "description": "The body is too large."},
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorEnvelope, "description": "There is no such thing."}}
CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": ErrorEnvelope, "description": "It is too late for that."}}

CSRF_PARAMETER = {
    "name": CSRF_HEADER,
    "in": "header",
    "required": False,
    "description": "Needed with a session cookie; a bearer token needs none.",
    "schema": {"type": "string"},
}

router = APIRouter(prefix=PREFIX, route_class=GuardedRoute)


def _blank(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _scope(value: Any) -> Any:
    """Return a scope in any case as it is written here; missing or blank is all."""
    if _blank(value) is None:
        return ALL
    if not isinstance(value, str) or (scope := value.strip().lower()) not in SCOPES:
        raise ValueError("must be instance, database or all")
    return scope


class AggregateCurrentBody(BaseModel):
    """The scope of an aggregation."""

    model_config = ConfigDict(extra="forbid")

    scope: Annotated[AggregationScope | None, BeforeValidator(_scope)] = Field(
        default=ALL, description="instance, database or all, in any case; missing or blank is all."
    )
    period_type: Annotated[PeriodType | None, BeforeValidator(_blank)] = Field(
        default=None, description="Accepted, and recorded; what runs is daily."
    )


class TaskRunFilter(BaseModel):
    """A filter of task runs, and a page of them."""

    model_config = ConfigDict(extra="forbid")

    status: Status | None = None
    task_key: Name | None = Field(default=None, description="Such as sync_databases.")
    page: Annotated[Whole, Field(ge=1)] = Field(default=1, description=f"page x limit is at most {MOST_ROWS:,}.")
    limit: Annotated[Whole, Field(ge=1, le=200)] = 20


class ItemPage(BaseModel):
    """A page of the items."""

    model_config = ConfigDict(extra="forbid")

    page: Annotated[Whole, Field(ge=1)] = Field(default=1, description=f"page x limit is at most {MOST_ROWS:,}.")
    limit: Annotated[Whole, Field(ge=1, le=200)] = 100


class PartitionFilter(BaseModel):
    """A filter of table partitions, and a page of them."""

    model_config = ConfigDict(extra="forbid")

    table: Name | None = Field(default=None, description="Such as database_size_stats.")
    state: PartitionState | None = None
    page: Annotated[Whole, Field(ge=1)] = Field(default=1, description=f"page x limit is at most {MOST_ROWS:,}.")
    limit: Annotated[Whole, Field(ge=1, le=200)] = 20


class CreateBody(BaseModel):
    """The table partitions to create."""

    model_config = ConfigDict(extra="forbid")

    day: Day | None = Field(
        default=None, alias="date", description="Those that hold this day; missing: all that are due."
    )


class CleanupBody(BaseModel):
    """Options of a maintenance."""

    model_config = ConfigDict(extra="forbid")

    dry_run: StrictBool = Field(default=True, description="Only say what would be done.")
    plan_id: Annotated[str, Field(pattern="^[0-9a-f]{12}$")] | None = Field(
        default=None, description="Do exactly this plan; 409 when it no longer holds."
    )
    confirm: StrictBool = Field(default=False, description="Yes to the question of the plan.")


# These are coroutines, so that FastAPI does not send each of them to a thread of its own.
async def _console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


async def _caller(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


CurrentConsole = Annotated[Console, Depends(_console)]
Caller = Annotated[Principal, Depends(_caller)]


async def _console_of_caller(request: Request, console: CurrentConsole) -> Console:
    """Return the console whose runs start in the name of whoever asks."""
    return replace(console, dagster=console.dagster.for_caller(credential_of(request)))


CallerConsole = Annotated[Console, Depends(_console_of_caller)]
RunId = Annotated[Name, Path(description="The Dagster run id.")]
PLANNED_DROPS = TypeAdapter(list[PlannedDrop])


@router.get("/session", response_model=Envelope[Principal], responses=READING_ERRORS)
def session(caller: Caller) -> Response:
    """Return who asks, and the CSRF token of the session."""
    return success(caller)


@router.get("/capacity/databases", response_model=Envelope[CapacityRows[DatabaseGrowth]], responses=READING_ERRORS)
def databases(console: CurrentConsole, query: Annotated[CapacityPage, Query()]) -> Response:
    """Return windows of databases. Databases of one name on two instances stay two."""
    selection = query.selection(console.today())
    page = console_series.database_page(console.reading, selection, query.limit, query.offset)
    return success(_rows(page, query, selection))


@router.get("/capacity/databases/summary", response_model=Envelope[CapacitySummary], responses=READING_ERRORS)
def databases_summary(console: CurrentConsole, query: Annotated[CapacityFilter, Query()]) -> Response:
    """Return count, total, average and largest of the databases in the newest window with data."""
    return _summary(console, Level.DATABASE, query)


@router.get("/capacity/instances", response_model=Envelope[CapacityRows[InstanceGrowth]], responses=READING_ERRORS)
def instances(console: CurrentConsole, query: Annotated[CapacityPage, Query()]) -> Response:
    """Return windows of instances."""
    selection = query.selection(console.today())
    page = console_series.instance_page(console.reading, selection, query.limit, query.offset)
    return success(_rows(page, query, selection))


@router.get("/capacity/instances/summary", response_model=Envelope[CapacitySummary], responses=READING_ERRORS)
def instances_summary(console: CurrentConsole, query: Annotated[CapacityFilter, Query()]) -> Response:
    """Return count, total, average and largest of the instances in the newest window with data."""
    return _summary(console, Level.INSTANCE, query)


@router.post(
    "/capacity/aggregations/current",
    status_code=202,
    response_model=Envelope[CurrentRun],
    responses=CHANGING_ERRORS,
    openapi_extra={"parameters": [CSRF_PARAMETER]},
)
def aggregate_current_period(
    console: CallerConsole, caller: Caller, body: Annotated[AggregateCurrentBody | None, Body()] = None
) -> Response:
    """Aggregate today from the sizes that are stored; answers at once, the run goes on."""
    body = body or AggregateCurrentBody()
    period_type = None if body.period_type is None else body.period_type.value
    run = aggregate_current(console, body.scope or ALL, period_type, caller.name)
    return success(run, "joined the run that is under way" if run.joined else "started", 202)


@router.get("/task-runs", response_model=Envelope[Rows[TaskRun]], responses=READING_ERRORS)
def task_runs(console: CurrentConsole, query: Annotated[TaskRunFilter, Query()]) -> Response:
    """Return task runs, newest first."""
    offset = offset_of(query.page, query.limit)
    page = task_runs_read.list_task_runs(console.reading, query.limit, offset, query.status, query.task_key)
    return success({"items": page.runs} | _paging(query.page, query.limit, page.total))


@router.get("/task-runs/{run_id}", response_model=Envelope[TaskRunWithItems], responses=READING_ERRORS | NOT_FOUND)
def task_run(console: CurrentConsole, run_id: RunId, query: Annotated[ItemPage, Query()]) -> Response:
    """Return one task run with its items."""
    engine = console.reading
    offset = offset_of(query.page, query.limit)
    run = task_runs_read.get_task_run(engine, run_id)
    if run is None:
        raise not_found("there is no such task run")
    return success(
        {
            "run": run,
            "item_counts": task_runs_read.count_items(engine, run_id),
            "items": task_runs_read.list_items(engine, run_id, query.limit, offset),
            "page": query.page,
            "limit": query.limit,
        }
    )


@router.post(
    "/task-runs/{run_id}/actions/cancel",
    response_model=Envelope[Cancelled],
    responses=CHANGING_ERRORS | NOT_FOUND | CONFLICT,
    openapi_extra={"parameters": [CSRF_PARAMETER]},
)
def cancel_task_run(console: CurrentConsole, run_id: RunId) -> Response:
    """Cancel a run that is pending or running; its Dagster run ends between two instances at the latest."""
    engine = console.engine
    if not task_runs_read.request_cancel(engine, run_id):
        run = task_runs_read.get_task_run(engine, run_id)
        if run is None:
            raise not_found("there is no such task run")
        if run.status.is_terminal:
            raise ApiError(409, MessageCode.CONFLICT, f"the run has ended already: {run.status}")
    return success({"run_id": run_id, "status": "cancelled"}, "the run is being stopped")


@router.get("/partitions", response_model=Envelope[Rows[TablePartition]], responses=READING_ERRORS)
def partitions(console: CurrentConsole, query: Annotated[PartitionFilter, Query()]) -> Response:
    """Return table partitions, by table and lower bound."""
    offset = offset_of(query.page, query.limit)
    children = [
        child
        for child in read_status(console.engine, console.settings, console.today()).children
        if query.table in (None, child.table) and query.state in (None, child.state)
    ]
    items = {"items": children[offset : offset + query.limit]}
    return success(items | _paging(query.page, query.limit, len(children)))


@router.get("/partitions/status", response_model=Envelope[PartitionStatus], responses=READING_ERRORS)
def partitions_status(console: CurrentConsole) -> Response:
    """Return whether every table has its partitions, and what a maintenance would drop."""
    status = read_status(console.engine, console.settings, console.today())
    plan = make_plan(console.engine, console.settings, console.today())
    return success(
        {
            "day": status.day,
            "healthy": status.healthy,
            "tables": status.tables,
            "plan": {
                "plan_id": plan.id,
                "question": plan.question,
                "archives": plan.archive_dir is not None,
                "drops": PLANNED_DROPS.dump_python(list(plan.drops)),
                "waiting": len(plan.waiting),
            },
        }
    )


@router.post(
    "/partitions",
    response_model=Envelope[Created],
    responses=CHANGING_ERRORS,
    openapi_extra={"parameters": [CSRF_PARAMETER]},
)
def create_partitions(console: CurrentConsole, body: Annotated[CreateBody | None, Body()] = None) -> Response:
    """Create the table partitions that hold a day, or all that are due."""
    day = body.day if body is not None else None
    latest = add_months(console.today(), 24)
    if day is not None and not console.settings.start_date <= day <= latest:
        raise invalid("date", f"must lie from {console.settings.start_date} to {latest}")
    return success({"created": create_children(console, day)})


@router.post(
    "/partitions/actions/cleanup",
    status_code=202,
    response_model=Envelope[MaintenanceRun],
    responses=CHANGING_ERRORS | CONFLICT,
    openapi_extra={"parameters": [CSRF_PARAMETER]},
)
def cleanup_partitions(
    console: CallerConsole, caller: Caller, body: Annotated[CleanupBody | None, Body()] = None
) -> Response:
    """Start a maintenance: create ahead, seal, archive, drop. As it stands it only says what it would do."""
    body = body or CleanupBody()
    run = start_maintenance(console, body.dry_run, body.plan_id, body.confirm, caller.name)
    return success(run, "started", 202)


def _summary(console: Console, level: Level, query: CapacityFilter) -> Response:
    found = console_series.summary(console.reading, level, query.selection(console.today()))
    return success({"period_type": query.period_type} | vars(found))


def _rows(page: Page[Any], query: CapacityPage, selection: Selection) -> dict[str, Any]:
    days = {"period_type": selection.period_type, "start_date": selection.first, "end_date": selection.last}
    return {"items": page.rows} | _paging(query.page, query.limit, page.total) | days


def _paging(page: int, limit: int, total: int) -> dict[str, Any]:
    return {
        "page": page,
        "limit": limit,
        "total": total,
        "total_is_exact": total < MOST_ROWS,
        "pages": -(-total // limit),
        "has_next": page * limit < total,
    }
