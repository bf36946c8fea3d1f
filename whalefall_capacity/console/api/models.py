"""The data of every answer, as the OpenAPI document shows it. Sizes are bytes; null means not known.

Rows are the dataclasses of the store, with their descriptions; here stands what the API puts around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.aggregations.console_series import Summary
from whalefall_capacity.store.maintenance.health import TableHealth
from whalefall_capacity.store.maintenance.plan import PlannedDrop
from whalefall_capacity.store.task_runs.read import TaskRun, TaskRunItem

Row = TypeVar("Row")


class Rows(BaseModel, Generic[Row]):
    """Some rows of a list."""

    items: list[Row]
    page: int
    limit: int
    total: int = Field(description="Counted up to 10,000.")
    total_is_exact: bool = Field(description="False when there are 10,000 or more.")
    pages: int
    has_next: bool


class CapacityRows(Rows[Row], Generic[Row]):
    """Rows by instance id, database name and window, oldest window first."""

    period_type: PeriodType
    start_date: date = Field(description="Start of the first window.")
    end_date: date


@dataclass(frozen=True)
class CapacitySummary(Summary):
    """The newest window with data in the range."""

    period_type: PeriodType


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


class PlanData(BaseModel):
    """The table partitions that a maintenance would drop now."""

    plan_id: str
    question: str | None = Field(description="What has to be confirmed first.")
    archives: bool = Field(description="Whether rows are archived before they go.")
    drops: list[PlannedDrop]
    waiting: int = Field(description="Past too, but more than one maintenance may drop.")


class PartitionStatus(BaseModel):
    """All partitioned tables."""

    day: date
    healthy: bool
    tables: list[TableHealth]
    plan: PlanData


class Created(BaseModel):
    """Table partitions that were created; none when all were there."""

    created: list[str]
