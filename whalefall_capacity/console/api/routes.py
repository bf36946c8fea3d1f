"""The JSON API under /api/v1; `GET /api/v1/openapi.json` describes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Generic

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy import Engine
from starlette.responses import Response

from whalefall_capacity.console.actions.current import CurrentRun, aggregate_current
from whalefall_capacity.console.api import collections, details, insight, lists, overview, partitions, task_runs
from whalefall_capacity.console.api.routing import CurrentCaller, CurrentConsole, router_for
from whalefall_capacity.console.http.cards import cards
from whalefall_capacity.console.http.envelope import Envelope, success
from whalefall_capacity.console.http.principals import Principal
from whalefall_capacity.console.http.queries import CapacityFilter, CapacityPage, Row, Rows
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.current_period import ALL, SCOPES, AggregationScope
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.aggregations import console_series
from whalefall_capacity.store.aggregations.console_series import Page
from whalefall_capacity.store.aggregations.growth import DatabaseGrowth, InstanceGrowth
from whalefall_capacity.store.aggregations.selection import Selection
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.aggregations.summaries import Summary

reading = router_for(Role.VIEW)
operating = router_for(Role.OPERATOR)


def _blank(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _scope(value: Any) -> Any:
    """Return a scope in any case as it is written here; missing or blank is all."""
    if _blank(value) is None:
        return ALL
    if not isinstance(value, str) or (scope := value.strip().lower()) not in SCOPES:
        raise ValueError("must be instance, database or all")
    return scope


class CapacityRows(Rows[Row], Generic[Row]):
    """Rows by instance id, database name and window, oldest window first."""

    period_type: PeriodType
    start_date: date = Field(description="Start of the first window.")
    end_date: date


@dataclass(frozen=True)
class CapacitySummary(Summary):
    """The latest sizes of the range, and who is missing on its newest day."""

    period_type: PeriodType


class AggregateCurrentBody(BaseModel):
    """The scope of an aggregation."""

    model_config = ConfigDict(extra="forbid")

    scope: Annotated[AggregationScope | None, BeforeValidator(_scope)] = Field(
        default=ALL, description="instance, database or all, in any case; missing or blank is all."
    )
    period_type: Annotated[PeriodType | None, BeforeValidator(_blank)] = Field(
        default=None, description="Accepted, and recorded; what runs is daily."
    )


@reading.get("/session", response_model=Envelope[Principal])
def session(caller: CurrentCaller) -> Response:
    """Return who asks, and the CSRF token of the session."""
    return success(caller.principal)


@reading.get("/capacity/databases", response_model=Envelope[CapacityRows[DatabaseGrowth]])
def databases(console: CurrentConsole, query: Annotated[CapacityPage, Query()]) -> Response:
    """Return windows of databases. Databases of one name on two instances stay two."""
    return _page(console, console_series.database_page, query)


@reading.get("/capacity/databases/summary", response_model=Envelope[CapacitySummary])
def databases_summary(console: CurrentConsole, query: Annotated[CapacityFilter, Query()]) -> Response:
    """Return count, total, average and largest of the databases, each with its latest size in the range."""
    return _summary(console, Level.DATABASE, query)


@reading.get("/capacity/instances", response_model=Envelope[CapacityRows[InstanceGrowth]])
def instances(console: CurrentConsole, query: Annotated[CapacityPage, Query()]) -> Response:
    """Return windows of instances."""
    return _page(console, console_series.instance_page, query)


@reading.get("/capacity/instances/summary", response_model=Envelope[CapacitySummary])
def instances_summary(console: CurrentConsole, query: Annotated[CapacityFilter, Query()]) -> Response:
    """Return count, total, average and largest of the instances, each with its latest size in the range."""
    return _summary(console, Level.INSTANCE, query)


@operating.post("/capacity/aggregations/current", status_code=202, response_model=Envelope[CurrentRun])
def aggregate_current_period(
    console: CurrentConsole, caller: CurrentCaller, body: Annotated[AggregateCurrentBody | None, Body()] = None
) -> Response:
    """Aggregate today from the sizes that are stored; answers at once, the run goes on."""
    body = body or AggregateCurrentBody()
    run = aggregate_current(console, caller, body.scope or ALL, body.period_type)
    return success(run, "joined the run that is under way" if run.joined else "started", 202)


def _summary(console: Console, level: Level, query: CapacityFilter) -> Response:
    found = cards(console, level, query.selection(console.today()))
    return success({"period_type": query.period_type} | vars(found))


def _page(
    console: Console, read_page: Callable[[Engine, Selection, int, int], Page[Any]], query: CapacityPage
) -> Response:
    selection = query.selection(console.today())
    page = read_page(console.reading, selection, query.limit, query.offset)
    days = {"period_type": selection.period_type, "start_date": selection.first, "end_date": selection.last}
    return success(query.of(page.rows, page.total) | days)


router = APIRouter()
for each in (
    reading,
    overview.reading,
    operating,
    collections.operating,
    lists.reading,
    details.reading,
    insight.reading,
    task_runs.reading,
    task_runs.operating,
    partitions.reading,
    partitions.administering,
):
    router.include_router(each)
