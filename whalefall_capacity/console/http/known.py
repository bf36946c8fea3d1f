"""One instance or database that a request names; an error when there is none."""

from __future__ import annotations

from whalefall_capacity.console.http.envelope import not_found
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.store.sizes.database_list import ListedDatabase, get_database
from whalefall_capacity.store.sizes.instance_list import ListedInstance, get_instance


def known_instance(console: Console, instance_id: int) -> ListedInstance:
    """Return an instance. Raises ApiError when there is none."""
    found = get_instance(console.reading, instance_id, console.today())
    if found is None:
        raise not_found("there is no such instance")
    return found


def known_database(console: Console, instance_id: int, database_name: str) -> ListedDatabase:
    """Return a database of an instance. Raises ApiError when there is none."""
    found = get_database(console.reading, instance_id, database_name, console.today())
    if found is None:
        raise not_found("there is no such database on that instance")
    return found
