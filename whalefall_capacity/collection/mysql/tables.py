"""Contents of `information_schema.TABLES`: which tables there are, of which engine, and how long those are.

It shows only tables on which the account has some privilege, and of the others it is silent. To tell the length of a
table the server opens it, and that of a remote one may never end: lengths are asked for by name, and only of tables
whose engine keeps them on this server's disk.
https://dev.mysql.com/doc/refman/8.4/en/information-schema-tables-table.html
https://mariadb.com/docs/server/reference/system-tables/information-schema/information-schema-tables/information-schema-tables-table
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from whalefall_capacity.collection.mysql.server import Row, Server, text

# Engines that keep a table in files of this server and tell their length.
MEASURED_ENGINES = frozenset({"innodb", "myisam", "aria", "archive", "rocksdb", "tokudb", "mroonga"})
# A file of theirs is never empty: a length of 0 is that of a table which could not be opened.
NEVER_EMPTY = frozenset({"innodb", "myisam", "aria", "archive"})
# Engines that keep nothing on this server's disk that is not counted elsewhere, or nothing that is surely there.
IN_MEMORY_OR_MADE_UP = {"memory", "blackhole", "sequence", "example", "performance_schema"}
IN_OTHER_TABLES = {"mrg_myisam", "oqgraph"}
ON_OTHER_SERVERS = {"federated", "spider", "connect", "s3", "sphinx", "ndbcluster", "ndbinfo"}
NOTHING_HERE = IN_MEMORY_OR_MADE_UP | IN_OTHER_TABLES | ON_OTHER_SERVERS
CANNOT_OPEN = "the table {name} cannot be opened{error}"
# How many tables one statement asks for the lengths of, at most: a few hundred kilobytes of names.
BATCH = 2000
# Bytes of such a statement beside the names, and of each name beside itself.
AROUND_THE_NAMES = 1024
AROUND_A_NAME = len("'',")
# What MySQL shows instead of a length which a storage engine could not tell.
NO_LENGTH = (2**32 - 1, 2**64 - 1)
# As the server writes them: where the case of names counts, `SYS` is anybody's.
SYSTEM_SCHEMAS = ("information_schema", "performance_schema", "mysql", "sys")
LEFTOVER = "#sql"
LIST_DATABASES = "SELECT CAST(SCHEMA_NAME AS BINARY) FROM information_schema.SCHEMATA"
# Without the lengths: no table is opened. Compared as text, `mýsql` would be a name of the server, too.
LIST_TABLES = """
SELECT DISTINCT CAST(TABLE_SCHEMA AS BINARY), {name}, CAST(ENGINE AS BINARY),
       IF(ENGINE IS NULL, CAST(TABLE_COMMENT AS BINARY), NULL)
FROM information_schema.TABLES
WHERE TABLE_TYPE NOT IN ('VIEW', 'SYSTEM VIEW') AND CAST(TABLE_SCHEMA AS BINARY) NOT IN %s
"""
# Both in one round trip; a database by itself has no table beside it.
LIST_DATABASES_AND_TABLES = LIST_DATABASES.replace("BINARY)", "BINARY), NULL, NULL, NULL") + " UNION ALL " + LIST_TABLES
EVERY_NAME = "CAST(TABLE_NAME AS BINARY)"
# One row for all tables of InnoDB in a database, of which there may be hundreds of thousands.
NAMES_BESIDE_INNODB = f"IF(ENGINE = 'InnoDB', CAST('' AS BINARY), {EVERY_NAME})"
OF_SCHEMA = " AND HEX(TABLE_SCHEMA) = %s"
# Conditions on names alone are looked at before a table is opened. Names are compared as bytes: the collation of
# names would throw `Sales` and `sales` together.
LENGTHS = """
SELECT CAST(TABLE_SCHEMA AS BINARY), CAST(TABLE_NAME AS BINARY), DATA_LENGTH, INDEX_LENGTH, TABLE_ROWS,
       TABLE_COMMENT
FROM information_schema.TABLES
WHERE CONCAT(HEX(TABLE_SCHEMA), '/', HEX(TABLE_NAME)) IN %s
"""
# MySQL 8 shows in TABLES what it remembers, for a day; information_schema_stats_expiry, which turns that off, can be
# set for a whole session only. In PARTITIONS it remembers nothing.
FRESH_LENGTHS = """
SELECT CAST(TABLE_SCHEMA AS BINARY), CAST(TABLE_NAME AS BINARY), p.DATA_LENGTH, p.INDEX_LENGTH,
       p.TABLE_ROWS, t.TABLE_COMMENT
FROM information_schema.PARTITIONS AS p
JOIN information_schema.TABLES AS t USING (TABLE_SCHEMA, TABLE_NAME)
WHERE CONCAT(HEX(TABLE_SCHEMA), '/', HEX(TABLE_NAME)) IN %s
"""


class Figures(NamedTuple):
    """Bytes of a table, and how many rows the server believes it to have."""

    data: int
    indexes: int
    rows: int | None

    def plus(self, other: Figures) -> Figures:
        rows = None if self.rows is None or other.rows is None else self.rows + other.rows
        return Figures(self.data + other.data, self.indexes + other.indexes, rows)


NO_FIGURES = Figures(0, 0, 0)


class Table(NamedTuple):
    """A table that the account sees; no engine when the server does not tell it, with the *error* if there was one."""

    database: str
    name: str
    engine: str | None
    error: str = ""

    @property
    def has_length(self) -> bool:
        return self._engine in MEASURED_ENGINES

    @property
    def is_innodb(self) -> bool:
        return self._engine == "innodb"

    @property
    def is_never_empty(self) -> bool:
        """True when the table takes some bytes, however few rows it has."""
        return self._engine in NEVER_EMPTY

    @property
    def _engine(self) -> str:
        return (self.engine or "").lower()

    @property
    def problem(self) -> str | None:
        """Say why the size of such a table cannot be known."""
        if self.engine is None and self.error:
            return CANNOT_OPEN.format(name=self.name, error=f": {self.error}")
        if self.engine is None:
            return f"the server does not know the storage engine of the table {self.name}"
        if not self.has_length and self._engine not in NOTHING_HERE:
            return f"the size of the table {self.name} is not known: its storage engine {self.engine} does not tell it"
        return None


def is_of_server(database: str) -> bool:
    """Is this one of the server's own databases, or what it left of a table?"""
    return database in SYSTEM_SCHEMAS or database.startswith(LEFTOVER)


def list_databases(server: Server) -> list[str]:
    """Return the databases that the account sees, those of the server itself too. Raises pymysql.Error."""
    return sorted(text(row[0]) for row in server.current_rows(LIST_DATABASES))


def list_databases_and_tables(server: Server, names_of_innodb: bool) -> tuple[list[str], list[Table]]:
    """Return what `list_databases` and `list_tables` do. Raises pymysql.Error, of whichever it is."""
    statement = LIST_DATABASES_AND_TABLES.format(name=EVERY_NAME if names_of_innodb else NAMES_BESIDE_INNODB)
    rows = server.current_rows(statement, (SYSTEM_SCHEMAS,))
    tables = [_table(*row) for row in rows if row[1] is not None]
    return sorted(text(row[0]) for row in rows if row[1] is None), tables


def list_tables(server: Server, database: str | None = None, names_of_innodb: bool = False) -> list[Table]:
    """Return the tables that the account sees, in all databases or in one. Raises pymysql.Error.

    Without *names_of_innodb*, one without a name stands for all of InnoDB in a database.
    """
    statement = LIST_TABLES.format(name=EVERY_NAME if names_of_innodb else NAMES_BESIDE_INNODB)
    if database is None:
        rows = server.current_rows(statement, (SYSTEM_SCHEMAS,))
    else:
        rows = server.current_rows(statement + OF_SCHEMA, (SYSTEM_SCHEMAS, _hexadecimal(database)))
    return [_table(*row) for row in rows]


def read_lengths(server: Server, tables: Sequence[Table]) -> dict[Table, int | str]:
    """Return the bytes of each table, or why it could not be opened; nothing of one that is gone.

    Raises pymysql.Error.
    """
    found = read_figures(server, tables).items()
    return {table: figures if isinstance(figures, str) else figures.data + figures.indexes for table, figures in found}


def read_figures(server: Server, tables: Sequence[Table]) -> dict[Table, Figures | str]:
    """Return the figures of each table, or why it could not be opened; nothing of one that is gone.

    Raises pymysql.Error.
    """
    found: dict[Table, Figures | str] = {}
    for wanted in _batches(tables, server.longest_statement_bytes):
        found |= _read_batch(server, wanted)
    return found


def _batches(tables: Sequence[Table], longest_statement_bytes: int) -> Iterator[dict[str, Table]]:
    """Yield *tables* by what a statement calls them, as many at once as a statement may ask for."""
    batch: dict[str, Table] = {}
    room = left = longest_statement_bytes - AROUND_THE_NAMES
    for table in tables:
        key = f"{_hexadecimal(table.database)}/{_hexadecimal(table.name)}"
        taken = len(key) + AROUND_A_NAME
        if batch and (taken > left or len(batch) == BATCH):
            yield batch
            batch, left = {}, room
        batch[key] = table
        left -= taken
    if batch:
        yield batch


def _read_batch(server: Server, tables: Mapping[str, Table]) -> dict[Table, Figures | str]:
    wanted = {(table.database, table.name): table for table in tables.values()}
    rows = server.current_rows(FRESH_LENGTHS if server.has_dictionary else LENGTHS, (tuple(tables),))
    # MySQL 8 shows the error instead of the comment, and 0 instead of the lengths.
    errors = server.warnings() if server.has_dictionary and any(row[2:4] == (0, 0) for row in rows) else frozenset()
    found: dict[Table, Figures | str] = {}
    for row in rows:
        table = wanted[text(row[0]), text(row[1])]
        figures = _figures(table, row, errors)
        before = found.get(table, NO_FIGURES)
        # Several rows are those of table partitions.
        found[table] = figures if isinstance(before, str) or isinstance(figures, str) else before.plus(figures)
    return found


def _table(schema: bytes, name: bytes, engine: bytes | None, error: bytes | None) -> Table:
    return Table(text(schema), text(name), None if engine is None else text(engine), text(error or b""))


def _figures(table: Table, row: Row, errors: frozenset[str]) -> Figures | str:
    _, _, data, index, rows, raw_comment = row
    comment = text(raw_comment or b"")
    is_known = not {data, index} & {None, *NO_LENGTH}
    if is_known and (data + index > 0 or not (table.is_never_empty or comment in errors)):
        return Figures(int(data), int(index), None if rows is None else int(rows))
    return CANNOT_OPEN.format(name=table.name, error=f": {comment}" if comment else "")


def _hexadecimal(name: str) -> str:
    return name.encode().hex().upper()
