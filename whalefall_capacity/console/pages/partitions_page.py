"""The page of the table partitions: totals, a line a table that opens, and what a maintenance would drop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from whalefall_capacity.console.http.queries import Name
from whalefall_capacity.console.pages.rendering import Reader, render, view_of
from whalefall_capacity.store.maintenance.health import (
    PartitionHealth,
    PartitionState,
    TableHealth,
    TablePartition,
    read_status,
)
from whalefall_capacity.store.maintenance.retire import make_plan
from whalefall_capacity.store.maintenance.totals import PartitionTotals, totals

router = APIRouter()


class PartitionsView(BaseModel):
    """The state of the page: the table that is open, and what is searched for in all of them."""

    table: Name | None = None
    search: Name | None = None
    state: PartitionState | None = None

    @property
    def searches(self) -> bool:
        return self.search is not None or self.state is not None

    def finds(self, partition: TablePartition) -> bool:
        """Tell whether a table partition is one that is searched for."""
        return (self.search or "").lower() in partition.child.lower() and self.state in (None, partition.state)


@dataclass(frozen=True)
class TableLine:
    """One partitioned table, with the partitions that are shown below it."""

    health: TableHealth
    totals: PartitionTotals
    is_open: bool
    shown: Sequence[TablePartition]


@router.get("/partitions")
def partitions(context: Reader) -> Response:
    """Show the table partitions, their health, and what would go."""
    view: PartitionsView = view_of(context.request, PartitionsView)
    console = context.console
    status = read_status(console.engine, console.settings, console.today())
    plan = make_plan(console.engine, console.settings, console.today())
    return render(
        context,
        "partitions.html",
        view=view,
        status=status,
        total=totals(status.children),
        lines=table_lines(status, view),
        states=list(PartitionState),
        plan=plan,
        planned=totals(plan.drops),
    )


def table_lines(status: PartitionHealth, view: PartitionsView) -> list[TableLine]:
    """Return a line a table; a search leaves those where it finds something, and opens them."""
    lines = []
    for table in status.tables:
        own = [partition for partition in status.children if partition.table == table.table]
        is_open = view.searches or view.table == table.table
        shown = [partition for partition in own if view.finds(partition)] if is_open else []
        if shown or not view.searches:
            lines.append(TableLine(table, totals(own), is_open, shown))
    return lines
