"""Parameters of the lists of instances and of databases, as the API and the pages take them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from whalefall_capacity.console.http.queries import MOST_DB_TYPES, MOST_INSTANCES, DbType, Name, Page, Whole
from whalefall_capacity.store.sizes import database_list, instance_list
from whalefall_capacity.store.sizes.listing import ListFilter, SizeStatus

SORTED = "A column, with a minus before it when the largest come first; what is not known comes last."


def _known(columns: Collection[str]) -> AfterValidator:
    def check(sort: str) -> str:
        if sort.removeprefix("-") not in columns:
            raise ValueError("is no column to sort by")
        return sort

    return AfterValidator(check)


def _one_of(columns: Collection[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^-?({'|'.join(columns)})$"})


InstanceOrder = Annotated[str, _known(instance_list.ORDERS), _one_of(instance_list.ORDERS)]
DatabaseOrder = Annotated[str, _known(database_list.ORDERS), _one_of(database_list.ORDERS)]


class ListQuery(Page):
    """A filter of the rows, and a page of them."""

    search: Name | None = Field(default=None, description="A part of a name, in any case.")
    instance_id: list[Annotated[Whole, Field(ge=1)]] = Field(
        default=[], max_length=MOST_INSTANCES, description="Ids of instances; may be repeated."
    )
    db_type: list[DbType] = Field(default=[], max_length=MOST_DB_TYPES, description="Engines; may be repeated.")
    status: list[SizeStatus] = Field(
        default=[], max_length=len(SizeStatus), description="Statuses of the rows; may be repeated."
    )

    @property
    def wanted(self) -> ListFilter:
        return ListFilter(
            search=self.search,
            instance_ids=self.instance_id or None,
            db_types=self.db_type or None,
            statuses=self.status or None,
        )


class InstanceListQuery(ListQuery):
    """A filter of instances, their order, and a page of them."""

    sort: InstanceOrder = Field(default="instance", description=SORTED)


class DatabaseListQuery(ListQuery):
    """A filter of databases, their order, and a page of them."""

    sort: DatabaseOrder = Field(default="instance", description=SORTED)
