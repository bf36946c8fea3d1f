"""Table partitions over the API: what there is, creating some, and a maintenance as a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated

from fastapi import Body, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool, TypeAdapter
from starlette.responses import Response

from whalefall_capacity.console.actions.maintenance import (
    MaintenanceRun,
    create_table_partitions,
    start_maintenance,
)
from whalefall_capacity.console.api.routing import CONFLICT, CurrentCaller, CurrentConsole, router_for
from whalefall_capacity.console.http.envelope import Envelope, invalid, success
from whalefall_capacity.console.http.queries import Day, Name, Page, Rows
from whalefall_capacity.periods import add_months
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.maintenance.health import PartitionState, TableHealth, TablePartition, read_status
from whalefall_capacity.store.maintenance.plan import PlannedDrop
from whalefall_capacity.store.maintenance.retire import make_plan
from whalefall_capacity.store.maintenance.totals import PartitionTotals, totals

reading = router_for(Role.VIEW)
administering = router_for(Role.ADMIN)
PLANNED_DROPS = TypeAdapter(list[PlannedDrop])


class PartitionFilter(Page):
    """A filter of table partitions, and a page of them."""

    table: Name | None = Field(default=None, description="Such as database_size_stats.")
    search: Name | None = Field(default=None, description="A part of the name, in any case.")
    state: PartitionState | None = None


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


class PlanData(BaseModel):
    """The table partitions that a maintenance would drop now."""

    plan_id: str
    question: str | None = Field(description="What has to be confirmed first.")
    archives: bool = Field(description="Whether rows are archived before they go.")
    drops: list[PlannedDrop]
    totals: PartitionTotals = Field(description="What the drops take with them.")
    waiting: int = Field(description="Past too, but more than one maintenance may drop.")


@dataclass(frozen=True)
class TableStatus(TableHealth):
    """One partitioned table, and its partitions together."""

    totals: PartitionTotals


class PartitionStatus(BaseModel):
    """All partitioned tables."""

    day: date
    healthy: bool
    totals: PartitionTotals
    tables: list[TableStatus]
    plan: PlanData


class Created(BaseModel):
    """Table partitions that were created; none when all were there."""

    created: list[str]


@reading.get("/partitions", response_model=Envelope[Rows[TablePartition]])
def partitions(console: CurrentConsole, query: Annotated[PartitionFilter, Query()]) -> Response:
    """Return table partitions, by table and lower bound."""
    offset = query.offset
    found = [
        partition
        for partition in read_status(console.engine, console.settings, console.today()).children
        if query.table in (None, partition.table)
        and query.state in (None, partition.state)
        and (query.search or "").lower() in partition.child.lower()
    ]
    return success(query.of(found[offset : offset + query.limit], len(found)))


@reading.get("/partitions/status", response_model=Envelope[PartitionStatus])
def partitions_status(console: CurrentConsole) -> Response:
    """Return whether every table has its partitions, and what a maintenance would drop."""
    status = read_status(console.engine, console.settings, console.today())
    plan = make_plan(console.engine, console.settings, console.today())
    return success(
        {
            "day": status.day,
            "healthy": status.healthy,
            "totals": totals(status.children),
            "tables": [
                TableStatus(**vars(table), totals=totals([p for p in status.children if p.table == table.table]))
                for table in status.tables
            ],
            "plan": {
                "plan_id": plan.id,
                "question": plan.question,
                "archives": plan.archive_dir is not None,
                "drops": PLANNED_DROPS.dump_python(list(plan.drops)),
                "totals": totals(plan.drops),
                "waiting": len(plan.waiting),
            },
        }
    )


@administering.post("/partitions", response_model=Envelope[Created])
def create_partitions(console: CurrentConsole, body: Annotated[CreateBody | None, Body()] = None) -> Response:
    """Create the table partitions that hold a day, or all that are due."""
    day = body.day if body is not None else None
    latest = add_months(console.today(), 24)
    if day is not None and not console.settings.start_date <= day <= latest:
        raise invalid(
            "date", Sentence("must lie from {first} to {last}", first=console.settings.start_date, last=latest)
        )
    return success({"created": create_table_partitions(console, day)})


@administering.post(
    "/partitions/actions/cleanup", status_code=202, response_model=Envelope[MaintenanceRun], responses=CONFLICT
)
def cleanup_partitions(
    console: CurrentConsole, caller: CurrentCaller, body: Annotated[CleanupBody | None, Body()] = None
) -> Response:
    """Start a maintenance: create ahead, seal, archive, drop. As it stands it only says what it would do."""
    body = body or CleanupBody()
    return success(start_maintenance(console, caller, body.dry_run, body.plan_id, body.confirm), "started", 202)
