"""The pages of the lists, which many open on the same morning: found again when something was measured or failed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from datetime import date, timedelta
from typing import TypeVar

from whalefall_capacity.console.http.list_queries import DatabaseListQuery, InstanceListQuery, ListQuery
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.kept import Kept
from whalefall_capacity.store.aggregations.basis import lists_basis
from whalefall_capacity.store.sizes.database_list import REACH_DAYS, ListedDatabase, database_lines, list_databases
from whalefall_capacity.store.sizes.instance_list import ListedInstance, list_instances
from whalefall_capacity.store.sizes.listing import BASELINE_REACH_DAYS, MONTH_DAYS, VISIT_DAYS, Listed

Found = TypeVar("Found")
# How long ago the oldest size of a list may be, with what it is compared with.
OLDEST = timedelta(days=REACH_DAYS + MONTH_DAYS + BASELINE_REACH_DAYS)


def listed_databases(console: Console, query: DatabaseListQuery) -> Listed[ListedDatabase]:
    """Return the page of databases that *query* asks for."""
    wanted, today = query.wanted, console.today()

    def find() -> Listed[ListedDatabase]:
        return list_databases(console.reading, wanted, today, query.sort, query.limit, query.offset)

    return _kept(console, console.database_lists, query, today, find)


def listed_instances(console: Console, query: InstanceListQuery) -> Listed[ListedInstance]:
    """Return the page of instances that *query* asks for."""
    wanted, today = query.wanted, console.today()

    def find() -> Listed[ListedInstance]:
        return list_instances(console.reading, wanted, today, query.sort, query.limit, query.offset)

    return _kept(console, console.instance_lists, query, today, find)


def every_database(
    console: Console, query: DatabaseListQuery, columns: Sequence[str], formula_signs: str
) -> Sequence[str]:
    """Return all databases that the filters of *query* let through, as parts of a CSV file."""
    wanted, today = query.wanted, console.today()

    def find() -> Sequence[str]:
        return database_lines(console.reading, wanted, today, query.sort, columns, formula_signs)

    return _kept(console, console.database_files, query, today, find)


def _kept(console: Console, kept: Kept[Found], query: ListQuery, today: date, find: Callable[[], Found]) -> Found:
    question: Hashable = (repr(query), today)
    return kept.get(question, lists_basis(console.reading, today - OLDEST, today, VISIT_DAYS), find)
