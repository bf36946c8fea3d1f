"""Folders of databases, of which each tablespace has one for each database that keeps something there.

`pg_database_size` counts a folder that it cannot open as nothing: whether the folders are there is asked before.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

import psycopg2

from whalefall_capacity.collection.postgresql.databases import Database, why_without_size
from whalefall_capacity.collection.postgresql.names import decode
from whalefall_capacity.collection.postgresql.server import RAW_NAMES, LimitReachedError, Server, words
from whalefall_capacity.errors import CollectionError

LIST_TABLESPACES = "SELECT oid, namesend(spcname) FROM pg_tablespace WHERE spcname <> 'pg_global' ORDER BY oid"
# It tells which databases have files in a tablespace, fails at a folder that it cannot open, and warns when the
# tablespace has no folder. src/backend/utils/adt/misc.c
LIST_FOLDERS = "SELECT pg_tablespace_databases({tablespace})"
# The same of all at once, where nothing is wrong with any of them.
LIST_ALL_FOLDERS = """
SELECT t.oid, d.oid FROM pg_tablespace AS t LEFT JOIN LATERAL pg_tablespace_databases(t.oid) AS d (oid) ON true
WHERE t.spcname <> 'pg_global'
"""
# Where tables of the connection's own database are that are not where most of them are.
LIST_USED_TABLESPACES = "SELECT DISTINCT reltablespace FROM pg_class WHERE reltablespace <> 0"
# The folder at which the server failed, in a message of any language: of a database, whose id is in it, or of all.
FOLDER = re.compile(r'\bpg_tblspc/\d+(?:/PG_\w+(?:/(\d+))?)?|\bbase/(\d+)|["«„“「]\s?base\s?["»“”」]')
# A look at one entry of each folder, or into each database; what takes longer is left to the sizes themselves.
FOLDERS_SECONDS = 10.0

# Connects to another database of the same server.
OpenOther = Callable[[str], Server]


@dataclass(frozen=True)
class Folders:
    """Databases with files in each tablespace, why some databases cannot be read, and why some tablespaces cannot."""

    databases: dict[int, set[int]]
    unreadable: dict[int, str]
    troubles: dict[int, str]


def folders_of(pairs: Iterable[tuple[int | None, int | None]]) -> Folders:
    """Return the folders of the rows of LIST_ALL_FOLDERS, of which those without a tablespace are something else."""
    found: dict[int, set[int]] = {}
    for tablespace, oid in pairs:
        if tablespace is not None:
            found.setdefault(tablespace, set()).update(() if oid is None else (oid,))
    return Folders(found, {}, {})


def list_folders(server: Server) -> Folders | None:
    """Look for the folders of each tablespace; return None when the server does not tell.

    Raises psycopg2.Error or CollectionError when the connection has ended.
    """
    try:
        return _folders_one_by_one(server)
    except (psycopg2.Error, LimitReachedError):
        if not server.is_connected:
            raise
        return None


def unreadable_folders(
    server: Server, databases: Iterable[Database], folders: Folders, open_other: OpenOther
) -> dict[int, str]:
    """Return why the sizes of some databases would be too small: pg_database_size says nothing of lost folders."""
    if not any(folders.databases.values()) and not folders.troubles:
        # A server that keeps its databases elsewhere, as some clouds do.
        return {}
    ends_at = time.monotonic() + FOLDERS_SECONDS
    reasons: dict[int, str] = {}
    for database in databases:
        if database.reason is not None:
            continue
        listed = folders.databases.get(database.tablespace)
        if database.oid in folders.unreadable:
            reasons[database.oid] = folders.unreadable[database.oid]
        elif listed is not None and database.oid not in listed:
            reasons[database.oid] = why_without_size(server, database.oid)
        elif folders.troubles and (lost := _lost_part(database, folders.troubles, open_other, ends_at)):
            reasons[database.oid] = lost
    return reasons


def _folders_one_by_one(server: Server) -> Folders:
    found = Folders({}, {}, {})
    for tablespace, raw_name in server.rows(RAW_NAMES + LIST_TABLESPACES):
        name = decode(bytes(raw_name), "utf-8")
        server.taken_notices()
        try:
            rows = server.rows(LIST_FOLDERS, FOLDERS_SECONDS, tablespace=tablespace)
        except psycopg2.Error as error:
            folder = FOLDER.search(words(error))
            if not server.is_connected or folder is None:
                raise
            if oid := folder[1] or folder[2]:
                found.unreadable[int(oid)] = words(error)
            else:
                found.troubles[tablespace] = f"the folder of tablespace {name} cannot be read ({words(error)})"
            continue
        if any(re.search(rf"\b{tablespace}\b", notice) for notice in server.taken_notices()):
            found.troubles[tablespace] = f"the folder of tablespace {name} is lost"
        else:
            found.databases[tablespace] = {oid for (oid,) in rows}
    return found


def _lost_part(database: Database, troubles: Mapping[int, str], open_other: OpenOther, ends_at: float) -> str | None:
    """Say in which of the tablespaces with *troubles* there is something of *database*; only that one knows."""
    if trouble := troubles.get(database.tablespace):
        return f"{trouble}, in which the database is"
    try:
        used = _used_tablespaces(open_other, database.name) if time.monotonic() < ends_at else None
    except (psycopg2.Error, OSError, CollectionError):
        used = None
    if used is None:
        return f"{next(iter(troubles.values()))}, and with it perhaps a part of the database"
    return next((f"{troubles[one]}, and with it a part of the database" for one in used if one in troubles), None)


def _used_tablespaces(open_other: OpenOther, name: str) -> list[int]:
    """Ask a database which tablespaces it uses. Raises psycopg2.Error, OSError or CollectionError."""
    with closing(open_other(name)) as other:
        return [oid for (oid,) in other.rows(LIST_USED_TABLESPACES)]
