"""Values to filter by: instances, and names of databases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, text

from whalefall_capacity.collection.sizes import UNKNOWN_ENGINE, ServerEngine
from whalefall_capacity.store.postgres.one_statement import read_rows
from whalefall_capacity.store.postgres.tables import LARGEST_ID
from whalefall_capacity.store.sizes.listing import IN_FLEET, OF_SEARCH

INSTANCE_OPTIONS = """
SELECT i.id, i.name, i.db_type, {in_fleet} AS in_fleet FROM instances AS i
WHERE {of_search} ORDER BY i.name LIMIT :limit
""".format(in_fleet=IN_FLEET, of_search=OF_SEARCH.format(name="i.name"))
ENGINES = "SELECT DISTINCT db_type FROM instances"
# Of some instances by the primary key, which begins with them; of all by a look at each.
DATABASE_OPTIONS = """
SELECT DISTINCT d.database_name FROM instance_databases AS d
WHERE (CAST(:ids AS integer[]) IS NULL OR d.instance_id = ANY (CAST(:ids AS integer[]))) AND {of_search}
ORDER BY d.database_name LIMIT :limit
""".format(of_search=OF_SEARCH.format(name="d.database_name"))


@dataclass(frozen=True)
class InstanceOption:
    """An instance to filter by."""

    id: int
    name: str
    db_type: str
    in_fleet: bool


def instance_options(engine: Engine, search: str | None, limit: int) -> list[InstanceOption]:
    """Return the first *limit* instances with *search* in their names, by name."""
    return read_rows(engine, InstanceOption, INSTANCE_OPTIONS, search=search, limit=limit)


def engine_options(engine: Engine) -> list[str]:
    """Return the engines: those with modules here, whether or not an instance has them, then the others by name."""
    always = [*(own.value for own in ServerEngine), UNKNOWN_ENGINE]
    with engine.connect() as connection:
        found = connection.execute(text(ENGINES)).scalars()
        return always + sorted(set(found) - set(always))


def database_options(engine: Engine, instance_ids: Sequence[int] | None, search: str | None, limit: int) -> list[str]:
    """Return the first *limit* names of databases with *search* in them, of *instance_ids* or of all, by name."""
    ids = None if instance_ids is None else [instance_id for instance_id in instance_ids if instance_id <= LARGEST_ID]
    values = {"ids": ids, "search": search, "limit": limit}
    with engine.connect() as connection:
        return list(connection.execute(text(DATABASE_OPTIONS), values).scalars())
