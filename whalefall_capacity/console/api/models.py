"""The data of every answer, as the OpenAPI document shows it. Sizes are bytes; null means not known."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.access import Role

Row = TypeVar("Row")
Trend = Literal["growing", "shrinking", "stable"]
Status = Literal["pending", "running", "completed", "completed_with_errors", "failed", "cancelled"]
ItemStatus = Literal["pending", "running", "completed", "failed", "cancelled"]


class DatabaseWindow(BaseModel):
    """One window of one database."""

    instance_id: int
    instance: str
    database_name: str
    period_start: date
    period_end: date = Field(description="The last day, also of the window in progress.")
    data_count: int = Field(description="Days with data.")
    avg_size_bytes: int
    max_size_bytes: int
    min_size_bytes: int
    closing_size_bytes: int = Field(description="Of the last day with data.")
    avg_data_size_bytes: int | None
    avg_log_size_bytes: int | None
    baseline_start: date | None = Field(description="The window that the change is measured from.")
    size_change_bytes: int | None
    size_change_percent: float | None
    data_size_change_bytes: int | None
    data_size_change_percent: float | None
    log_size_change_bytes: int | None
    log_size_change_percent: float | None
    trend_direction: Trend | None


class InstanceWindow(BaseModel):
    """One window of one instance."""

    instance_id: int
    instance: str
    period_start: date
    period_end: date = Field(description="The last day, also of the window in progress.")
    data_count: int = Field(description="Days with data.")
    partial_days: int = Field(description="Days on which some databases could not be measured.")
    total_size_bytes: int = Field(description="Mean of the daily totals.")
    max_size_bytes: int
    min_size_bytes: int
    closing_size_bytes: int = Field(description="Of the last day with data.")
    avg_database_size_bytes: int
    database_count: int
    avg_database_count: float
    avg_log_size_bytes: int | None
    baseline_start: date | None = Field(description="The window that the change is measured from.")
    total_size_change_bytes: int | None
    total_size_change_percent: float | None
    database_count_change: int | None
    database_count_change_percent: float | None
    log_size_change_bytes: int | None
    log_size_change_percent: float | None
    trend_direction: Trend | None


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


class CapacitySummary(BaseModel):
    """The newest window with data in the range."""

    period_type: PeriodType
    period_start: date | None = Field(description="null when the range has no data.")
    instances: int
    databases: int
    total_size_bytes: int
    average_size_bytes: int | None
    largest_size_bytes: int | None
    largest_instance: str | None
    largest_database: str | None


class TaskRunData(BaseModel):
    """One run."""

    run_id: str = Field(description="The Dagster run id.")
    task_key: str
    task_name: str
    task_category: str
    trigger_source: Literal["scheduled", "manual", "api"]
    status: Status
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    created_by: str | None
    progress_total: int
    progress_completed: int
    progress_failed: int = Field(description="Failed and cancelled items.")
    summary_json: dict[str, Any] | None
    result_url: str | None
    error_message: str | None


class TaskRunItemData(BaseModel):
    """One unit of a run: an instance, or a table partition."""

    item_type: str
    item_key: str
    item_name: str
    instance_id: int | None
    status: ItemStatus
    started_at: datetime | None
    completed_at: datetime | None
    metrics_json: dict[str, Any] | None
    details_json: dict[str, Any] | None
    error_message: str | None


class TaskRunWithItems(BaseModel):
    """One run, and a page of its items: failed ones first."""

    run: TaskRunData
    item_counts: dict[str, int]
    items: list[TaskRunItemData]
    page: int
    limit: int


class Launched(BaseModel):
    """The run that does what was asked for."""

    run_id: str
    joined: bool = Field(description="True when a run that was open already does it.")
    scope: Literal["instance", "database", "all"]


class Cancelled(BaseModel):
    """A run that was asked to end."""

    run_id: str
    status: Literal["cancelled"]


class Session(BaseModel):
    """Who asks."""

    name: str
    role: Role
    csrf_token: str | None = Field(description="For X-CSRFToken; null for a bearer token, which needs none.")


class PartitionData(BaseModel):
    """One table partition."""

    table: str
    child: str
    lower: date | None
    upper: date | None = Field(description="The first day that it does not hold.")
    state: Literal["past", "current", "future", "detaching", "odd"]
    rows: int | None
    rows_exact: bool = Field(description="False: PostgreSQL's estimate.")
    bytes: int
    note: str


class TableHealthData(BaseModel):
    """One partitioned table."""

    table: str
    healthy: bool = Field(description="It has its current and its next partition.")
    problems: list[str]


class PlannedDropData(BaseModel):
    """A table partition that is to go."""

    table: str
    child: str
    lower: date
    upper: date
    rows: int | None
    bytes: int
    reason: str


class PlanData(BaseModel):
    """What a maintenance would drop now."""

    plan_id: str
    question: str | None = Field(description="What has to be confirmed first.")
    archives: bool = Field(description="Whether rows are archived before they go.")
    drops: list[PlannedDropData]
    waiting: int = Field(description="Past too, but more than one maintenance may drop.")


class PartitionStatus(BaseModel):
    """All partitioned tables."""

    day: date
    healthy: bool
    tables: list[TableHealthData]
    plan: PlanData


class Created(BaseModel):
    """Table partitions that were created; none when all were there."""

    created: list[str]


class MaintenanceStarted(BaseModel):
    """The run of a maintenance."""

    run_id: str
    dry_run: bool
