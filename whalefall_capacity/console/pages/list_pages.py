"""The lists of all instances and all databases, each row with its own latest size; and their CSV."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from fastapi import APIRouter
from markupsafe import Markup
from pydantic import ConfigDict, Field
from starlette.responses import Response

from whalefall_capacity.console.http.list_queries import DatabaseListQuery, InstanceListQuery
from whalefall_capacity.console.http.lists import every_database, listed_databases, listed_instances
from whalefall_capacity.console.http.queries import Whole
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.console.pages.choices import options
from whalefall_capacity.console.pages.csv_cells import FORMULA_SIGNS, csv_file, csv_of_lines
from whalefall_capacity.console.pages.rendering import PageContext, Reader, render, view_of
from whalefall_capacity.store.aggregations.basis import fleet_basis
from whalefall_capacity.store.aggregations.console_series import MOST_ROWS, InstanceChoice, instance_choices
from whalefall_capacity.store.sizes.database_list import ListedDatabase
from whalefall_capacity.store.sizes.instance_list import ListedInstance, list_instances
from whalefall_capacity.store.sizes.listing import Listed, SizeStatus
from whalefall_capacity.store.sizes.options import engine_options

FIGURES = ("size_bytes", "change_7_days_bytes", "change_30_days_bytes")
INSTANCE_COLUMNS = ("instance", "db_type", "host", "port", "version", "status", "failure", "day", *FIGURES)
INSTANCE_COUNTS = ("database_count", "missing_count", "log_size_bytes", "capacity_limit_bytes", "replica_of")
DATABASE_COLUMNS = ("instance", "database_name", "db_type", "status", "first_seen_date", "last_seen_date", "day")
COLUMNS = {
    "instances": (*INSTANCE_COLUMNS, *INSTANCE_COUNTS),
    "databases": (*DATABASE_COLUMNS, *FIGURES),
}
PAGE_LIMIT = Annotated[Whole, Field(ge=1, le=200)]

router = APIRouter()


class InstanceListView(InstanceListQuery):
    """The state of the list of instances."""

    model_config = ConfigDict(extra="ignore")

    limit: PAGE_LIMIT = 50


class DatabaseListView(DatabaseListQuery):
    """The state of the list of databases."""

    model_config = ConfigDict(extra="ignore")

    limit: PAGE_LIMIT = 50


@router.get("/instances/list")
def instances(context: Reader) -> Response:
    """Show all instances."""
    view: InstanceListView = view_of(context.request, InstanceListView)
    return _list_page(context, "instances", view, listed_instances(context.console, view))


@router.get("/databases/list")
def databases(context: Reader) -> Response:
    """Show all databases."""
    view: DatabaseListView = view_of(context.request, DatabaseListView)
    return _list_page(context, "databases", view, listed_databases(context.console, view))


@router.get("/instances/list.csv")
def instances_csv(context: Reader) -> Response:
    """Return all instances that the filters let through."""
    view: InstanceListView = view_of(context.request, InstanceListView)
    found = list_instances(context.console.reading, view.wanted, context.console.today(), view.sort)
    return csv_file("instances", COLUMNS["instances"], found.rows)


@router.get("/databases/list.csv")
def databases_csv(context: Reader) -> Response:
    """Return all databases that the filters let through."""
    view: DatabaseListView = view_of(context.request, DatabaseListView)
    columns = COLUMNS["databases"]
    return csv_of_lines("databases", columns, every_database(context.console, view, columns, "".join(FORMULA_SIGNS)))


def _list_page(
    context: PageContext,
    page: str,
    view: InstanceListView | DatabaseListView,
    found: Listed[ListedInstance] | Listed[ListedDatabase],
) -> Response:
    return render(
        context,
        f"list_{page}.html",
        page=page,
        view=view,
        rows=found.rows,
        total=found.total,
        most_rows=MOST_ROWS,
        choices=_instance_choices(context.console, view.instance_id) if page == "databases" else None,
        db_types=engine_options(context.console.reading),
        statuses=list(SizeStatus),
    )


def _instance_choices(console: Console, chosen: Collection[int]) -> tuple[list[InstanceChoice], Markup]:
    """Return the instances that are *chosen*, and the options of all others."""
    if not chosen:
        every = console.instance_options.get(
            "every", fleet_basis(console.reading), lambda: options(instance_choices(console.reading), ())
        )
        return [], every
    choices = instance_choices(console.reading)
    return [choice for choice in choices if choice.id in chosen], options(choices, chosen)
