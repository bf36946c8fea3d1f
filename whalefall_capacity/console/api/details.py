"""One instance and one database: latest size, raw days, visits."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Generic

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from whalefall_capacity.collection.database_tables import DatabaseTables
from whalefall_capacity.console.actions.live_tables import read_live_tables
from whalefall_capacity.console.api.routing import CONFLICT, NOT_FOUND, CurrentConsole, router_for
from whalefall_capacity.console.http.envelope import Envelope, success
from whalefall_capacity.console.http.known import known_database, known_instance
from whalefall_capacity.console.http.queries import DayRange, Name, Row, Whole
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.sizes.database_list import ListedDatabase
from whalefall_capacity.store.sizes.instance_list import ListedInstance
from whalefall_capacity.store.sizes.raw_days import DatabaseDay, InstanceDay, database_days, instance_days
from whalefall_capacity.store.task_runs.visits import ServerVisit, last_visits

DEFAULT_DAYS = 30

reading = router_for(Role.VIEW)
InstanceId = Annotated[Whole, Path(ge=1, description="The id of the instance.")]


class OneDatabase(BaseModel):
    """The database that is asked about."""

    model_config = ConfigDict(extra="forbid")

    database_name: Name = Field(description="The exact name of the database, upper and lower case told apart.")


class DatabaseDayRange(OneDatabase, DayRange):
    """A range of days of one database."""


class VisitQuery(BaseModel):
    """The number of visits."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[Whole, Field(ge=1, le=100)] = 20


class Days(BaseModel, Generic[Row]):
    """The days of a range on which something is stored, oldest first."""

    start_date: date
    end_date: date
    items: list[Row]


@reading.get("/instances/{instance_id}", response_model=Envelope[ListedInstance], responses=NOT_FOUND)
def instance(console: CurrentConsole, instance_id: InstanceId) -> Response:
    """Return one instance with its latest size."""
    return success(known_instance(console, instance_id))


@reading.get("/instances/{instance_id}/days", response_model=Envelope[Days[InstanceDay]], responses=NOT_FOUND)
def days_of_instance(console: CurrentConsole, instance_id: InstanceId, query: Annotated[DayRange, Query()]) -> Response:
    """Return the raw days of one instance; the last 30 where nothing else is said."""
    known_instance(console, instance_id)
    first, last = query.days(console.today(), default_first)
    items = instance_days(console.reading, instance_id, first, last)
    return success({"start_date": first, "end_date": last, "items": items})


@reading.get("/instances/{instance_id}/visits", response_model=Envelope[list[ServerVisit]], responses=NOT_FOUND)
def visits(console: CurrentConsole, instance_id: InstanceId, query: Annotated[VisitQuery, Query()]) -> Response:
    """Return the last visits to one server, newest first, with their errors and their runs."""
    known_instance(console, instance_id)
    return success(last_visits(console.reading, instance_id, query.limit))


@reading.get("/instances/{instance_id}/database", response_model=Envelope[ListedDatabase], responses=NOT_FOUND)
def database(console: CurrentConsole, instance_id: InstanceId, query: Annotated[OneDatabase, Query()]) -> Response:
    """Return one database with its latest size."""
    return success(known_database(console, instance_id, query.database_name))


@reading.get("/instances/{instance_id}/database/days", response_model=Envelope[Days[DatabaseDay]], responses=NOT_FOUND)
def days_of_database(
    console: CurrentConsole, instance_id: InstanceId, query: Annotated[DatabaseDayRange, Query()]
) -> Response:
    """Return the raw days of one database; the last 30 where nothing else is said."""
    known_database(console, instance_id, query.database_name)
    first, last = query.days(console.today(), default_first)
    items = database_days(console.reading, instance_id, query.database_name, first, last)
    return success({"start_date": first, "end_date": last, "items": items})


@reading.get(
    "/instances/{instance_id}/database/tables",
    response_model=Envelope[DatabaseTables],
    responses=NOT_FOUND | CONFLICT,
)
def tables(console: CurrentConsole, instance_id: InstanceId, query: Annotated[OneDatabase, Query()]) -> Response:
    """Read the tables of one database from its server, largest first; 503 when that does not tell them in time."""
    known_database(console, instance_id, query.database_name)
    return success(read_live_tables(console, instance_id, query.database_name))


def default_first(last: date) -> date:
    """Return the first day of a range of which only the last is said."""
    return last - timedelta(days=DEFAULT_DAYS - 1)
