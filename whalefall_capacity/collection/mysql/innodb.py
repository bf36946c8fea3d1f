"""InnoDB's own views: the true size of each file, in its directory.

They need the PROCESS privilege. Tablespaces are found by their id: the names that MySQL 8 shows for them are not
encoded, and `a/b.c/t` may be a table of `a` or of `a/b.c`.
https://dev.mysql.com/doc/refman/8.4/en/information-schema-innodb-tablespaces-table.html
https://mariadb.com/docs/server/reference/system-tables/information-schema/information-schema-tables/information-schema-innodb-tables/information-schema-innodb_sys_tablespaces-table
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pymysql

from whalefall_capacity.collection.mysql.server import Server, is_timed_out, text

# In NULLs and small numbers, which take no memory: there may be hundreds of thousands of tables.
TABLE = """IF(SPACE_TYPE = 'Single', NULL, CAST(TABLE_ID AS SIGNED)), CAST(NAME AS BINARY), CAST(SPACE AS SIGNED),
       SPACE_TYPE = 'Single', SPACE_TYPE = 'General', ROW_FORMAT = 'Compressed'"""
OF_TABLES = "FROM information_schema.{prefix}TABLES WHERE NAME LIKE '%/%'"
TABLES = f"SELECT {TABLE} {OF_TABLES}"
IN_DIRECTORIES = " AND HEX(SUBSTRING_INDEX(NAME, '/', 1)) IN ({directories})"
# A file just made may not have been allocated yet.
FILE = "CAST(FILE_SIZE AS SIGNED), IF(ALLOCATED_SIZE < FILE_SIZE, CAST(ALLOCATED_SIZE AS SIGNED), NULL)"
OF_TABLESPACES = "FROM information_schema.{prefix}TABLESPACES"
TABLESPACES = f"SELECT CAST(SPACE AS SIGNED), {FILE} {OF_TABLESPACES}"
# MariaDB opens a table's file when the table is first used (since MDEV-32027), and lists only files that are open:
# after a restart most would be missing. Reading this view opens every one.
OPENED = "FROM information_schema.INNODB_SYS_TABLESTATS"
OPEN_FILES = f"SELECT COUNT(*) {OPENED}"
# As long as the statistics of a table are not loaded, its pages read 0.
IS_LOADED = "CAST(s.STATS_INITIALIZED AS CHAR) IN ('1', 'Initialized')"
BYTES = """CAST((s.CLUST_INDEX_SIZE + s.OTHER_INDEX_SIZE) * IF(t.ZIP_PAGE_SIZE > 0, t.ZIP_PAGE_SIZE, @@innodb_page_size)
            AS SIGNED)"""
OF_PAGES = """FROM information_schema.{prefix}TABLES AS t
JOIN information_schema.{prefix}TABLESTATS AS s ON s.TABLE_ID = t.TABLE_ID
WHERE t.SPACE_TYPE <> 'Single' AND t.NAME LIKE '%/%'"""
PAGES = f"SELECT CAST(s.TABLE_ID AS SIGNED), {IS_LOADED}, {BYTES} {OF_PAGES}"
# In one round trip: what opens the files, then tables, which have a name, then tablespaces, which have only an id. Were
# it answered in another order, files would seem to be lost, and be looked for again.
# MariaDB makes decimals of what is unsigned in one part and lacking in another.
ALL_AT_ONCE = f"""
SELECT {TABLE}, NULL, NULL {OF_TABLES}
UNION ALL
SELECT NULL, NULL, CAST(SPACE AS SIGNED), NULL, NULL, NULL, {FILE} {OF_TABLESPACES}
"""
OPENED_FIRST = f"SELECT COUNT(*), NULL, NULL, NULL, NULL, NULL, NULL, NULL {OPENED} UNION ALL"
# MySQL 8 and newer always have tables of their own in a shared tablespace.
WITH_PAGES = f"""
UNION ALL
SELECT CAST(s.TABLE_ID AS SIGNED), NULL, NULL, {IS_LOADED}, NULL, NULL, {BYTES}, NULL {OF_PAGES}
"""
OF_SPACES = " WHERE SPACE IN ({spaces})"
NAMED_FILES = (
    f"SELECT CAST(NAME AS BINARY), ROW_FORMAT = 'Compressed', {FILE} {OF_TABLESPACES} WHERE SPACE_TYPE = 'Single'"
)
# Files are made of pages, of which the smallest has this size; what a view shows of a lost file is not made of them.
SMALLEST_PAGE = 1024
# The tables behind a full-text index: the id of the table that has the index, in lower case on MySQL 8 and newer.
AUXILIARY = re.compile(rb"fts_([0-9a-f]{16})_", re.IGNORECASE)
# Between the names of a table and of its partition.
PARTITION = re.compile("#p#", re.IGNORECASE)
CANNOT_OPEN = "the file of the InnoDB table {name} cannot be opened"
UNSURE_FILE = "whose the file {name} is cannot be told while InnoDB does not show its tables: {why}"
SHARED_FILE = (
    "the table {name} has no file of its own, and its size cannot be told while InnoDB does not show its tables: {why}"
)
# How often tables are looked for again of which a file seems to be lost.
SECOND_LOOKS = 2


class File(NamedTuple):
    """The file of a tablespace: no length when it is lost, and what is allocated when that is less."""

    length: int | None
    allocated: int | None

    def taken(self, has_compressed_rows: bool) -> int:
        """Return what the file takes: less than its length when its pages are compressed."""
        # The file of a table with compressed rows may not be allocated to its last page.
        return self.allocated if self.allocated and not has_compressed_rows else self.length or 0


LOST_FILE = File(None, None)


class Table(NamedTuple):
    """A table, or a table partition, or one of the tables behind a full-text index."""

    # None for a table with a tablespace of its own.
    table_id: int | None
    name: bytes
    space: int
    has_own_tablespace: int
    is_in_general_tablespace: int
    is_compressed: int

    @property
    def directory(self) -> bytes:
        return self.name.partition(b"/")[0]

    @property
    def key(self) -> tuple[bytes, bytes]:
        """The directory and the name of the file of the table, without that of a table partition."""
        directory, _, file = self.name.partition(b"/")
        return directory, file.partition(b"#")[0]

    @property
    def is_shared(self) -> bool:
        return not self.has_own_tablespace

    @property
    def has_untold_pages(self) -> bool:
        """Is this one of the tables behind a full-text index, in a shared tablespace?

        Nobody opens those by name, and only then does the server load statistics of a table.
        """
        return self.is_shared and self.indexed_table_id is not None

    @property
    def indexed_table_id(self) -> int | None:
        """The id of the table with the full-text index behind which this one is, if it is behind one."""
        found = AUXILIARY.match(self.name.partition(b"/")[2])
        return None if found is None else int(found[1], 16)


@dataclass(frozen=True)
class InnodbSizes:
    """Bytes by directory, and why the size of what is in a directory is not known."""

    bytes_by_directory: Mapping[bytes, int]
    problems: Mapping[bytes, str]
    # Directories with tables in a shared tablespace of which neither the pages nor an estimate is known.
    not_loaded: frozenset[bytes] = frozenset()
    # Directories and names of the files of all tables.
    tables: frozenset[tuple[bytes, bytes]] = frozenset()


@dataclass(frozen=True)
class InnodbFiles:
    """Tables, files by the id of their tablespace, and the bytes of the pages of tables in shared ones, if known."""

    tables: Sequence[Table]
    files: Mapping[int, File]
    pages: Mapping[int | None, int | None]
    lost: frozenset[bytes]

    @property
    def not_loaded(self) -> frozenset[tuple[bytes, bytes]]:
        """Keys of tables whose statistics the server has not loaded, and would load."""
        return frozenset(
            t.key for t in self.tables if t.is_shared and self.pages.get(t.table_id) is None and not t.has_untold_pages
        )

    def sizes(self, estimates: Mapping[tuple[bytes, bytes], int]) -> InnodbSizes:
        """Add all up, with *estimates* for the pages of tables that are not loaded."""
        totals: dict[bytes, int] = defaultdict(int)
        problems = self._untold()
        for table in self.tables:
            if table.name in self.lost:
                problems[table.directory] = CANNOT_OPEN.format(name=_shown(table))
            elif not table.is_shared:
                totals[table.directory] += self.files[table.space].taken(bool(table.is_compressed))
        not_loaded = set()
        for directory, size in self._shared(estimates):
            if size is None:
                not_loaded.add(directory)
            else:
                totals[directory] += size
        return InnodbSizes(totals, problems, frozenset(not_loaded), frozenset(table.key for table in self.tables))

    def _untold(self) -> dict[bytes, str]:
        """Return which directories have a full-text index in the system tablespace, and what moves it out of there."""
        untold = [table for table in self.tables if table.has_untold_pages and not table.is_in_general_tablespace]
        if not untold:
            return {}
        by_id = {table.table_id: table for table in self.tables if table.is_shared}
        return {
            table.directory: "InnoDB does not tell how large the full-text index of the table "
            f"{_shown(by_id.get(table.indexed_table_id, table))} is in the system tablespace; "
            "ALTER TABLE ... TABLESPACE innodb_file_per_table gives it a file of its own"
            for table in untold
        }

    def _shared(self, estimates: Mapping[tuple[bytes, bytes], int]) -> list[tuple[bytes, int | None]]:
        """Return what directories have in each shared tablespace.

        The file of a general tablespace is divided among them, by the pages of which the server tells. The system
        tablespace holds much beside tables: of that, only their pages count.
        """
        left = dict(estimates)
        used: dict[tuple[int, bool], dict[bytes, int | None]] = defaultdict(dict)
        for table in self.tables:
            if table.is_shared:
                # An estimate is that of a whole table, with its partitions: the first of them stands for all.
                pages = self.pages.get(table.table_id)
                if pages is None and table.key in left:
                    pages, left[table.key] = left[table.key], 0
                if pages is None and table.has_untold_pages:
                    pages = 0
                members = used[table.space, bool(table.is_in_general_tablespace)]
                before = members.get(table.directory, 0)
                members[table.directory] = None if before is None or pages is None else before + pages
        return [
            share
            for (space, is_general), members in used.items()
            for share in _divided(members, self.files.get(space, LOST_FILE).length if is_general else None).items()
        ]


def read_files(server: Server) -> InnodbFiles:
    """Ask InnoDB for its files. Raises pymysql.Error."""
    tables, files, pages = _read_all(server)
    lost = _lost(tables, files)
    for _ in range(SECOND_LOOKS):
        if not lost:
            break
        # A table that was made, dropped or rebuilt between the two statements looks like one whose file is lost.
        changing = {name.partition(b"/")[0] for name in lost}
        again = _read_tables(server, changing)
        tables = [table for table in tables if table.directory not in changing] + again
        files |= dict.fromkeys((table.space for table in again), LOST_FILE) | _read_tablespaces(server, again)
        lost &= _lost(again, files)
    tables = [table for table in tables if table.is_shared or table.name in lost or files[table.space].length]
    return InnodbFiles(tables, files, read_pages(server, tables) if pages is None else pages, frozenset(lost))


def read_sizes_by_name(server: Server, tables: Mapping[str, Iterable[str]], why: str) -> dict[str, int | str]:
    """Return the bytes of each database with these *tables* of InnoDB, or the reason why they are not known.

    MySQL 8 and newer open every table that INNODB_TABLES shows, and wait for whoever has locked one, or waits to. Their
    view of tablespaces waits for nobody, and a name with a single slash in it says whose the file is. *why*: what has
    kept `read_files` from its tables. Raises pymysql.Error.
    """
    rows = server.rows(NAMED_FILES.format(prefix=_prefix(server)))
    files = [(text(name), is_compressed, _file(*file)) for name, is_compressed, *file in rows]
    totals: dict[str, int] = dict.fromkeys(tables, 0)
    problems: dict[str, str] = {}
    for name, is_compressed, file in files:
        database, _, rest = name.partition("/")
        if "/" in rest:
            problems |= dict.fromkeys(
                (one for one in tables if name.startswith(f"{one}/")), UNSURE_FILE.format(name=name, why=why)
            )
        elif database not in totals:
            continue
        elif file.length is None:
            problems[database] = CANNOT_OPEN.format(name=name)
        else:
            totals[database] += file.taken(bool(is_compressed))
    # A table partition has a file of its own: the name of its table, then `#p#`.
    have_files = {part for name, *_ in files for part in (name, PARTITION.split(name)[0])}
    for database, members in tables.items():
        if elsewhere := [name for name in members if f"{database}/{name}" not in have_files]:
            problems.setdefault(database, SHARED_FILE.format(name=elsewhere[0], why=why))
    return totals | problems


def read_pages(server: Server, tables: Sequence[Table]) -> dict[int | None, int | None]:
    """Return the bytes of the pages of those *tables* that are in shared tablespaces. Raises pymysql.Error."""
    if not any(table.is_shared for table in tables):
        return {}
    rows = server.rows(PAGES.format(prefix=_prefix(server)), waits_for_locks=False)
    return {table_id: _pages(loaded, size) for table_id, loaded, size in rows}


def _read_all(server: Server) -> tuple[list[Table], dict[int, File], dict[int | None, int | None] | None]:
    """Return tables, files, and the pages of tables in shared tablespaces if those were asked for.

    All at once; and by parts, each with a limit of its own, when that takes too long. Raises pymysql.Error.
    """
    before, after = OPENED_FIRST if server.is_mariadb else "", WITH_PAGES if server.has_dictionary else ""
    try:
        statement = (before + ALL_AT_ONCE + after).format(prefix=_prefix(server))
        rows = server.rows(statement, waits_for_locks=False)
    except pymysql.Error as error:
        if not (is_timed_out(error) and server.is_connected):
            raise
        if server.is_mariadb:
            server.rows(OPEN_FILES)
        return _read_tables(server), _read_tablespaces(server), None
    tables = [Table(*row[:6]) for row in rows if row[1] is not None]
    files = {row[2]: _file(*row[6:]) for row in rows if row[1] is None and row[2] is not None}
    pages = {row[0]: _pages(row[3], row[6]) for row in rows if row[2] is None}
    return tables, files, pages if server.has_dictionary else None


def _prefix(server: Server) -> str:
    return "INNODB_" if server.has_dictionary else "INNODB_SYS_"


def _read_tables(server: Server, directories: Iterable[bytes] | None = None) -> list[Table]:
    statement = TABLES.format(prefix=_prefix(server))
    if directories is not None:
        names = ", ".join(f"'{directory.hex().upper()}'" for directory in directories)
        statement += IN_DIRECTORIES.format(directories=names)
    return [Table(*row) for row in server.rows(statement, waits_for_locks=False)]


def _read_tablespaces(server: Server, tables: Sequence[Table] | None = None) -> dict[int, File]:
    statement = TABLESPACES.format(prefix=_prefix(server))
    if tables is not None:
        statement += OF_SPACES.format(spaces=", ".join(str(table.space) for table in tables) or "NULL")
    return {space: _file(size, allocated) for space, size, allocated in server.rows(statement)}


def _file(size: int | None, allocated: int | None) -> File:
    length = int(size) if size and size % SMALLEST_PAGE == 0 else None
    return File(length, None if allocated is None else int(allocated))


def _pages(is_loaded: int, size: int) -> int | None:
    return int(size) if is_loaded else None


def _shown(table: Table) -> str:
    return table.name.decode("utf-8", "backslashreplace")


def _lost(tables: Sequence[Table], files: Mapping[int, File]) -> set[bytes]:
    return {table.name for table in tables if not table.is_shared and files.get(table.space, LOST_FILE).length is None}


def _divided(used: Mapping[bytes, int | None], file: int | None) -> Mapping[bytes, int | None]:
    """Divide the bytes of a file, if there is one, by what is used of it."""
    if file is None:
        return used
    if len(used) == 1:
        return dict.fromkeys(used, file)
    known = [size for size in used.values() if size is not None]
    total = sum(known) if len(known) == len(used) else 0
    return {directory: file * (size or 0) // total if total else None for directory, size in used.items()}
