"""The pages of instances and databases: cards, charts, tables and their CSV. What a page shows is in its URL."""

from __future__ import annotations

import csv
import io
from datetime import date
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlencode

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from whalefall_capacity.console.http.cards import cards
from whalefall_capacity.console.http.envelope import invalid, not_found
from whalefall_capacity.console.http.queries import (
    EARLIEST,
    LATEST,
    MOST_DB_TYPES,
    MOST_INSTANCES,
    WHOLE,
    Day,
    DbType,
    Name,
    Whole,
    after_end,
)
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.console.pages.charts import METRIC_KEYS, Chart, charts
from whalefall_capacity.console.pages.csv_cells import harmless
from whalefall_capacity.console.pages.formats import window_label
from whalefall_capacity.console.pages.rendering import PageContext, Reader, json_in_page, render, view_of
from whalefall_capacity.console.pages.static_files import chart_library_style_ids
from whalefall_capacity.periods import PeriodType, Window, windows_back, windows_between
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.aggregations import console_series
from whalefall_capacity.store.aggregations.console_series import InstanceChoice
from whalefall_capacity.store.aggregations.growth import DatabaseGrowth, InstanceGrowth
from whalefall_capacity.store.aggregations.selection import Selection
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.sizes.options import engine_options

Top = Literal[5, 10, 20]
TOP_CHOICES = get_args(Top)
MOST_PERIODS = 400
LEVELS = {"instances": Level.INSTANCE, "databases": Level.DATABASE}

router = APIRouter()


def number(value: Any) -> Any:
    """Return the number that a value of a URL is; what is none stays as it is."""
    return int(value) if isinstance(value, str) and WHOLE.fullmatch(value) else value


class View(BaseModel):
    """The state of a page of capacity: everything that its URL says."""

    db_type: list[DbType] = Field(default=[], max_length=MOST_DB_TYPES)
    instance_id: list[Annotated[Whole, Field(ge=1)]] = Field(default=[], max_length=MOST_INSTANCES)
    database_name: list[Name] = Field(default=[], max_length=MOST_INSTANCES)
    period_type: PeriodType = PeriodType.DAILY
    periods: Annotated[Whole, Field(ge=1, le=MOST_PERIODS)] | None = None
    start_date: Day | None = None
    end_date: Day | None = None
    top: Annotated[Top, BeforeValidator(number)] = 5
    chart: Literal["line", "bar"] = "line"

    @property
    def shown_periods(self) -> int:
        return self.periods or self.period_type.calendar.shown_windows

    def days(self, today: date) -> tuple[date, date]:
        """Return the first and last day that are shown. Raises ApiError when the range is none, or too long."""
        last = min(max(self.end_date or today, EARLIEST), LATEST)
        if self.start_date is None or self.start_date <= today:
            # Nothing is known of days to come.
            last = min(last, today)
        if self.start_date is None:
            return max(windows_back(last, self.period_type, self.shown_periods - 1), EARLIEST), last
        if self.start_date > last:
            raise after_end(self.start_date, last)
        return max(self.start_date, EARLIEST), last

    def windows(self, today: date) -> list[Window]:
        """Return the windows that are shown. Raises ApiError when they are too many."""
        first, last = self.days(today)
        if (last - first).days > MOST_PERIODS * 95:
            raise invalid("start_date", Sentence("at most {most} periods can be shown", most=MOST_PERIODS))
        windows = windows_between(first, last, self.period_type)
        if len(windows) > MOST_PERIODS:
            shown = Sentence(
                "at most {most} periods can be shown, these are {these}", most=MOST_PERIODS, these=len(windows)
            )
            raise invalid("start_date", shown)
        return windows

    def parameters(self) -> dict[str, Any]:
        """Return what of the state differs from the default, as it stands in the URL."""
        found: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        return found

    def fields(self) -> list[tuple[str, str]]:
        """Return the same as hidden fields of a form have it."""
        found = [(name, value if isinstance(value, list) else [value]) for name, value in self.parameters().items()]
        return [(name, str(value)) for name, values in found for value in values]

    def url(self, path: str, **changes: object) -> str:
        """Return the URL of *path* with this state and *changes* to it; None takes a parameter away."""
        kept = {name: value for name, value in (self.parameters() | changes).items() if value is not None}
        return f"{path}?{urlencode(kept, doseq=True)}" if kept else path


@router.get("/instances")
def instances(context: Reader) -> Response:
    """Show sizes and growth of instances."""
    return _capacity_page(context, "instances")


@router.get("/databases")
def databases(context: Reader) -> Response:
    """Show sizes and growth of databases."""
    return _capacity_page(context, "databases")


@router.get("/instances/{metric}.csv")
def instances_csv(context: Reader, metric: str) -> Response:
    """Return the table under a chart of instances."""
    return _csv(context, "instances", metric)


@router.get("/databases/{metric}.csv")
def databases_csv(context: Reader, metric: str) -> Response:
    """Return the table under a chart of databases."""
    return _csv(context, "databases", metric)


def _capacity_page(context: PageContext, page: str) -> Response:
    console, level = context.console, LEVELS[page]
    choices = console_series.instance_choices(console.reading)
    view = _without_contradiction(view_of(context.request, View), choices)
    found, selection, windows = _charts(console, view, level)
    return render(
        context,
        "capacity.html",
        page=page,
        view=view,
        summary=cards(console, level, selection),
        charts=found,
        payload=json_in_page([chart.payload() for chart in found]),
        columns=[(i, window_label(w.start, w.period_type)) for i, w in reversed(list(enumerate(windows)))],
        in_progress=found[0].in_progress,
        instances=[choice for choice in choices if not view.db_type or choice.db_type in view.db_type],
        databases=_database_choices(console, view) if level is Level.DATABASE else [],
        db_types=engine_options(console.reading),
        period_types=list(PeriodType),
        tops=TOP_CHOICES,
        style_ids=chart_library_style_ids(),
    )


def _csv(context: PageContext, page: str, metric_key: str) -> Response:
    if metric_key not in METRIC_KEYS:
        raise not_found("there is no such table")
    console, level = context.console, LEVELS[page]
    view = _without_contradiction(view_of(context.request, View), console_series.instance_choices(console.reading))
    found, _, _ = _charts(console, view, level)
    (chart,) = [chart for chart in found if chart.metric.key == metric_key]
    name = f"{page}-{metric_key}-{view.period_type.value}.csv"
    return Response(
        _csv_of(chart, level),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _csv_of(chart: Chart, level: Level) -> str:
    """Return a line per series and window that has a row; sizes in bytes."""
    row_type = DatabaseGrowth if level is Level.DATABASE else InstanceGrowth
    keys = ["instance", "database"] if level is Level.DATABASE else ["instance"]
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow([*keys, "period_start", "period_end", chart.metric.columns[row_type]])
    for series in chart.series:
        names = [series.instance, series.database_name or ""][: len(keys)]
        for window, value in zip(chart.windows, series.values, strict=True):
            if value is not None:
                writer.writerow([*map(harmless, names), window.start, window.end, value])
    return content.getvalue()


def _charts(console: Console, view: View, level: Level) -> tuple[list[Chart], Selection, list[Window]]:
    windows = view.windows(console.today())
    selection = Selection(
        period_type=view.period_type,
        first=windows[0].start,
        last=windows[-1].start,
        instance_ids=view.instance_id or None,
        db_types=view.db_type or None,
        database_names=view.database_name or None if level is Level.DATABASE else None,
    )
    largest = console_series.largest_series(console.reading, console.rankings, level, selection, view.top)
    return charts(largest, windows, console.today()), selection, windows


def _database_choices(console: Console, view: View) -> list[str]:
    """Return the names to choose from: of the databases of the chosen instances, and what is chosen already."""
    return sorted({*console_series.database_choices(console.reading, view.instance_id), *view.database_name})


def _without_contradiction(view: View, choices: list[InstanceChoice]) -> View:
    """Return *view* without instances of other engines; without a database name when no instance is left of them."""
    known = {choice.id: choice.db_type for choice in choices}
    kept = [id_ for id_ in view.instance_id if not view.db_type or known.get(id_) in view.db_type]
    names = [] if view.instance_id and not kept else view.database_name
    return view.model_copy(update={"instance_id": kept, "database_name": names})
