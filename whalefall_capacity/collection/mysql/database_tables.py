"""The tables of one database with their lengths, which are InnoDB's estimates rather than the sizes of its files."""

from __future__ import annotations

from functools import partial

from whalefall_capacity.collection.database_tables import DatabaseTable, DatabaseTables, largest_first
from whalefall_capacity.collection.mysql.grants import Grants
from whalefall_capacity.collection.mysql.server import Server
from whalefall_capacity.collection.mysql.tables import Figures, Table, list_tables, read_figures

GONE = "dropped meanwhile"
ELSEWHERE = "its storage engine keeps nothing on this server's disk"


def read_tables(server: Server, database: str) -> DatabaseTables:
    """Return the tables of *database* that the account sees. Raises pymysql.Error."""
    grants = Grants.on(server)
    tables = list_tables(server, database, names_of_innodb=True)
    figures = read_figures(server, [table for table in tables if table.has_length])
    missing_grant = None
    if not grants.shows_all_tables_of(database):
        missing_grant = f"GRANT SHOW VIEW ON *.* TO {server.account()};"
    return largest_first((_table(table, figures.get(table)) for table in tables), missing_grant)


def _table(table: Table, figures: Figures | str | None) -> DatabaseTable:
    make = partial(DatabaseTable, None, table.name, table.engine)
    if isinstance(figures, Figures):
        return make(figures.data + figures.indexes, figures.data, figures.indexes, figures.rows)
    reason = figures or table.problem or (GONE if table.has_length else ELSEWHERE)
    return make(None, None, None, None, reason)
