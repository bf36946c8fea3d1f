"""The pages of capacity: when each instance is full, and how good such answers were."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from whalefall_capacity.console.http.forecasts import accuracy_of, newest_forecasts
from whalefall_capacity.console.http.queries import Page, Whole
from whalefall_capacity.console.pages.capacity_pages import number
from whalefall_capacity.console.pages.csv_cells import csv_file
from whalefall_capacity.console.pages.rendering import PageContext, Reader, json_in_page, render, view_of
from whalefall_capacity.console.pages.static_files import chart_library_style_ids
from whalefall_capacity.insight.statuses import HORIZONS, Horizon
from whalefall_capacity.store.aggregations.console_series import MOST_ROWS
from whalefall_capacity.store.insight.read import Accuracy, CapacityForecast, accuracy_of_days

Days = Literal[30, 90, 365]
DAYS_CHOICES = get_args(Days)
METHODS = {"ours": "", "no_growth": "no_growth_", "least_squares": "least_squares_"}
FIGURES = ("mean", "median", "p90")
FORECAST_COLUMNS = tuple(name for name in CapacityForecast.__dataclass_fields__ if name != "reason")
ACCURACY_COLUMNS = tuple(Accuracy.__dataclass_fields__)

router = APIRouter()


class CapacityView(Page):
    """The state of the page of capacity."""

    model_config = ConfigDict(extra="ignore")

    limit: Annotated[Whole, Field(ge=1, le=200)] = 50


class AccuracyView(BaseModel):
    """The state of the page of accuracy."""

    level: Literal["instance", "database"] = "instance"
    horizon: Annotated[Horizon, BeforeValidator(number)] = 90
    days: Annotated[Days, BeforeValidator(number)] = 30

    def range(self, today: date) -> tuple[date, date]:
        return today - timedelta(days=self.days - 1), today


@router.get("/capacity")
def capacity(context: Reader) -> Response:
    """Show when each instance that has a limit is full, soonest first."""
    view: CapacityView = view_of(context.request, CapacityView)
    found = newest_forecasts(context.console)
    return render(
        context,
        "outlook.html",
        view=view,
        day=found.day,
        forecasts=found.forecasts[view.offset : view.offset + view.limit],
        total=len(found.forecasts),
        most_rows=MOST_ROWS,
        without_limit=found.without_limit,
        accuracy=accuracy_of(context.console, found.day),
    )


@router.get("/capacity.csv")
def capacity_csv(context: Reader) -> Response:
    """Return the forecasts of all instances that have a limit."""
    return csv_file("capacity", FORECAST_COLUMNS, newest_forecasts(context.console).forecasts)


@router.get("/capacity/accuracy")
def accuracy(context: Reader) -> Response:
    """Show how good forecasts were, day by day, beside two simple methods."""
    view: AccuracyView = view_of(context.request, AccuracyView)
    rows = accuracy_of_days(context.console.reading, *view.range(context.console.today()))
    shown = [row for row in rows if (row.level, row.horizon_days) == (view.level, view.horizon) and row.forecasts]
    return render(
        context,
        "accuracy.html",
        view=view,
        rows=shown[::-1],
        newest=_newest(rows, view.level),
        payload=json_in_page([_chart(context, shown)]),
        methods=METHODS,
        figures=FIGURES,
        horizons=HORIZONS,
        choices=DAYS_CHOICES,
        style_ids=chart_library_style_ids(),
    )


@router.get("/capacity/accuracy.csv")
def accuracy_csv(context: Reader) -> Response:
    """Return how good forecasts were on the shown days, at every level and horizon."""
    view: AccuracyView = view_of(context.request, AccuracyView)
    rows = accuracy_of_days(context.console.reading, *view.range(context.console.today()))
    return csv_file("forecast-accuracy", ACCURACY_COLUMNS, rows)


def _newest(rows: Sequence[Accuracy], level: str) -> dict[int, Accuracy]:
    """Return the newest row of each horizon, of those that something was compared in."""
    return {row.horizon_days: row for row in rows if row.level == level and row.forecasts}


def _chart(context: PageContext, rows: Sequence[Accuracy]) -> dict[str, Any]:
    """Return what the script draws: the mean errors of the three methods."""
    values = {
        method: [getattr(row, f"{prefix}mean_error_percent") for row in rows] for method, prefix in METHODS.items()
    }
    return {
        "metric": "error",
        "unit": "percent",
        "labels": [row.forecast_date.isoformat() for row in rows],
        "in_progress": False,
        "series": [
            {
                "name": context.translate(f"accuracy.method.{method}"),
                "colour": colour,
                "values": [None if value is None else float(value) for value in errors],
                "texts": ["" if value is None else f"{value:.2f} %" for value in errors],
            }
            for colour, (method, errors) in enumerate(values.items())
        ],
    }
