"""One instance, one database: latest size, size over any range, coverage, visits."""

from __future__ import annotations

from datetime import date
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from whalefall_capacity.console.actions.live_tables import read_live_tables
from whalefall_capacity.console.http.envelope import ApiError, MessageCode
from whalefall_capacity.console.http.forecasts import accuracy_of
from whalefall_capacity.console.http.known import known_database, known_instance
from whalefall_capacity.console.http.queries import Name
from whalefall_capacity.console.pages.capacity_pages import View
from whalefall_capacity.console.pages.charts import size_chart
from whalefall_capacity.console.pages.coverage import Coverage, Day, calendar, calendar_start
from whalefall_capacity.console.pages.csv_cells import csv_file
from whalefall_capacity.console.pages.fan import fan_payload
from whalefall_capacity.console.pages.formats import window_label
from whalefall_capacity.console.pages.outlook_section import outlook_section
from whalefall_capacity.console.pages.rendering import PageContext, Reader, json_in_page, render, view_of
from whalefall_capacity.console.pages.static_files import chart_library_style_ids
from whalefall_capacity.console.pages.waterfall_bars import waterfall_bars
from whalefall_capacity.periods import PeriodType, Window
from whalefall_capacity.store.aggregations.growth import (
    DatabaseGrowth,
    InstanceGrowth,
    database_growth,
    instance_growth,
)
from whalefall_capacity.store.insight.waterfall import instance_waterfall
from whalefall_capacity.store.sizes.database_list import list_databases
from whalefall_capacity.store.sizes.listing import ListFilter
from whalefall_capacity.store.sizes.raw_days import database_days, instance_days
from whalefall_capacity.store.task_runs.visits import last_visits

DATABASES_SHOWN = 20
VISITS_SHOWN = 10
PARTS_SHOWN = 12
# By whether there is more than the earliest line.
FAN_NOTES = {True: "outlook.fan_note", False: "outlook.earliest_note"}
WATERFALL_COLUMNS = ("database_name", "cause", "change_bytes", "share_percent")

router = APIRouter()


class DatabaseName(BaseModel):
    """The database that a URL names."""

    name: Name


@router.get("/instances/{instance_id:int}")
def instance(context: Reader, instance_id: int) -> Response:
    """Show one instance."""
    console, today = context.console, context.console.today()
    found = known_instance(console, instance_id)
    view: View = view_of(context.request, View)
    windows = view.windows(today)
    rows = instance_growth(console.reading, view.period_type, windows[0].start, windows[-1].start, instance_id)
    databases = list_databases(console.reading, ListFilter(instance_ids=[instance_id]), today, "-size", DATABASES_SHOWN)
    outlook = outlook_section(context, found.instance)
    fan = fan_payload(outlook.altered, windows, view.period_type, context.translate) if outlook.altered else None
    page = render(
        context,
        "instance.html",
        instance=found,
        databases=databases,
        outlook=outlook,
        accuracy=accuracy_of(console, outlook.forecast.forecast_date if outlook.forecast else None),
        database_names=sorted({*(row.database_name for row in databases.rows), *outlook.dropped}),
        fan_note=fan and FAN_NOTES[len(fan["lines"]) > 1],
        waterfall=waterfall_bars(instance_waterfall(console.reading, instance_id, *view.days(today), PARTS_SHOWN)),
        months=_calendar_of_instance(context, instance_id, today),
        visits=last_visits(console.reading, instance_id, VISITS_SHOWN),
        **_size_chart(view, rows, windows, today, fan),
    )
    if outlook.problem is not None:
        page.status_code = MessageCode.VALIDATION_ERROR.status
    return page


@router.get("/instances/{instance_id:int}/database")
def database(context: Reader, instance_id: int) -> Response:
    """Show one database."""
    console, today = context.console, context.console.today()
    name: str = view_of(context.request, DatabaseName).name
    found = known_database(console, instance_id, name)
    view: View = view_of(context.request, View)
    windows = view.windows(today)
    rows = database_growth(console.reading, view.period_type, windows[0].start, windows[-1].start, instance_id, name)
    return render(
        context,
        "database.html",
        database=found,
        months=_calendar_of_database(context, instance_id, name, today),
        visits=last_visits(console.reading, instance_id, VISITS_SHOWN),
        **_size_chart(view, rows, windows, today),
    )


@router.get("/instances/{instance_id:int}/database/tables")
def tables(context: Reader, instance_id: int) -> Response:
    """Show the tables of one database, as its server tells them now."""
    name: str = view_of(context.request, DatabaseName).name
    found = known_database(context.console, instance_id, name)
    try:
        live, problem = read_live_tables(context.console, instance_id, name), None
    except ApiError as error:
        live, problem = None, context.said(error.message)
    return render(context, "tables.html", database=found, live=live, problem=problem)


@router.get("/instances/{instance_id:int}/waterfall.csv")
def waterfall_csv(context: Reader, instance_id: int) -> Response:
    """Return every part of the growth of one instance, in bytes."""
    console, view = context.console, view_of(context.request, View)
    found = known_instance(console, instance_id)
    first, last = view.days(console.today())
    growth = instance_waterfall(console.reading, instance_id, first, last, limit=None)
    return csv_file(f"growth-{found.instance_id}", WATERFALL_COLUMNS, growth.rows)


def _size_chart(
    view: View,
    rows: list[InstanceGrowth] | list[DatabaseGrowth],
    windows: list[Window],
    today: date,
    fan: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what the templates need of the chart of sizes."""
    chart = size_chart(rows, windows, today)
    return {
        "view": view,
        "chart": chart,
        "payload": json_in_page([chart.payload() | {"fan": fan}]),
        "columns": [(i, window_label(w.start, w.period_type)) for i, w in reversed(list(enumerate(windows)))],
        "period_types": list(PeriodType),
        "style_ids": chart_library_style_ids(),
    }


def _calendar_of_instance(context: PageContext, instance_id: int, today: date) -> list[Any]:
    days = instance_days(context.console.reading, instance_id, calendar_start(today), today)
    known = {row.day: Day(row.day, _coverage(row.source, row.missing_count), row.total_size_bytes) for row in days}
    return calendar(known, today)


def _calendar_of_database(context: PageContext, instance_id: int, name: str, today: date) -> list[Any]:
    days = database_days(context.console.reading, instance_id, name, calendar_start(today), today)
    return calendar({row.day: Day(row.day, _coverage(row.source), row.size_bytes) for row in days}, today)


def _coverage(source: str, missing: int = 0) -> Coverage:
    if missing:
        return Coverage.PARTIAL
    return Coverage.IMPORTED if source == "imported" else Coverage.MEASURED
