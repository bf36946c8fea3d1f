"""The tables of a database, read from its server while somebody waits; nothing of it is stored."""

from __future__ import annotations

from dataclasses import replace

from whalefall_capacity.collection.database_tables import DatabaseTables
from whalefall_capacity.collection.fleet import read_tables_of
from whalefall_capacity.console.http.envelope import ApiError, MessageCode
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.errors import CollectionError
from whalefall_capacity.runtime import collection_limits
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.fleet import is_in_fleet, load_roster

# A visit may take longer; nobody waits so long for a page.
LONGEST_SECONDS = 60.0
BUSY = Sentence("the tables of two databases are being read already; try again in a moment")


def read_live_tables(console: Console, instance_id: int, database_name: str) -> DatabaseTables:
    """Read the tables of a database that is known.

    Raises ApiError when its instance is not in the fleet, when its server does not tell in time or refuses, and when
    others are being read.
    """
    if not is_in_fleet(console.reading, instance_id):
        raise ApiError(MessageCode.CONFLICT, "the instance is not in the fleet any more: it is not visited")
    if not console.live_reads.acquire(blocking=False):
        raise ApiError(MessageCode.UNAVAILABLE, BUSY)
    try:
        return _read(console, instance_id, database_name)
    except CollectionError as error:
        raise ApiError(MessageCode.UNAVAILABLE, str(error)) from error
    finally:
        console.live_reads.release()


def _read(console: Console, instance_id: int, database_name: str) -> DatabaseTables:
    roster = load_roster(console.engine, console.settings.secret_key, [instance_id])
    for unresolved in roster.unresolved:
        raise CollectionError(unresolved.error)
    limits = collection_limits(console.settings)
    deadline = min(limits.deadline_seconds, LONGEST_SECONDS)
    connecting = min(limits.connect_timeout_seconds, deadline)
    limits = replace(limits, deadline_seconds=deadline, connect_timeout_seconds=connecting)
    return read_tables_of(roster.targets[0], database_name, limits)
