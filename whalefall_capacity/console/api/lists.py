"""The lists of instances and databases with their latest sizes, and what a filter can be set to."""

from __future__ import annotations

from typing import Annotated, Any, Generic

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from whalefall_capacity.console.api.routing import CurrentConsole, router_for
from whalefall_capacity.console.http.envelope import Envelope, success
from whalefall_capacity.console.http.list_queries import DatabaseListQuery, InstanceListQuery, ListQuery
from whalefall_capacity.console.http.lists import listed_databases, listed_instances
from whalefall_capacity.console.http.queries import MOST_INSTANCES, Name, Row, Rows, Whole
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.aggregations.console_series import MOST_ROWS
from whalefall_capacity.store.sizes.database_list import ListedDatabase
from whalefall_capacity.store.sizes.instance_list import ListedInstance
from whalefall_capacity.store.sizes.listing import Listed
from whalefall_capacity.store.sizes.options import InstanceOption, database_options, instance_options

reading = router_for(Role.VIEW)


class ListedRows(Rows[Row], Generic[Row]):
    """Rows of a list, each with its own latest size."""

    total: int = Field(description="All of them, whether they can be paged through or not.")
    total_is_exact: bool = Field(description="Always true here.")


class OptionQuery(BaseModel):
    """A part of a name, and how many names at most."""

    model_config = ConfigDict(extra="forbid")

    search: Name | None = Field(default=None, description="A part of the name, in any case.")
    limit: Annotated[Whole, Field(ge=1, le=200)] = 50


class DatabaseOptionQuery(OptionQuery):
    """A part of a name, of the databases of some instances."""

    instance_id: list[Annotated[Whole, Field(ge=1)]] = Field(
        default=[], max_length=MOST_INSTANCES, description="Ids of instances; may be repeated."
    )


@reading.get("/instances", response_model=Envelope[ListedRows[ListedInstance]])
def instances(console: CurrentConsole, query: Annotated[InstanceListQuery, Query()]) -> Response:
    """Return instances with their latest size, its changes and a status."""
    return success(_rows(query, listed_instances(console, query)))


@reading.get("/databases", response_model=Envelope[ListedRows[ListedDatabase]])
def databases(console: CurrentConsole, query: Annotated[DatabaseListQuery, Query()]) -> Response:
    """Return databases, dropped ones too, with their latest size, its changes and a status."""
    return success(_rows(query, listed_databases(console, query)))


@reading.get("/options/instances", response_model=Envelope[list[InstanceOption]])
def options_of_instances(console: CurrentConsole, query: Annotated[OptionQuery, Query()]) -> Response:
    """Return instances to filter by, by name."""
    return success(instance_options(console.reading, query.search, query.limit))


@reading.get("/options/databases", response_model=Envelope[list[str]])
def options_of_databases(console: CurrentConsole, query: Annotated[DatabaseOptionQuery, Query()]) -> Response:
    """Return names of databases to filter by, each once, by name."""
    ids = query.instance_id or None
    return success(database_options(console.reading, ids, query.search, query.limit))


def _rows(query: ListQuery, found: Listed[Any]) -> dict[str, Any]:
    return query.of(found.rows, min(found.total, MOST_ROWS)) | {"total": found.total, "total_is_exact": True}
