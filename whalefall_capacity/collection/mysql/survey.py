"""One round of questions to a server: which databases there are, and how large each is.

InnoDB's views tell the true size of its files; `information_schema.TABLES` tells the lengths of the tables of other
engines, and estimates of InnoDB's where those views cannot be read. A database of which nothing can be seen is
missing, never 0, unless the account may see every table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from typing import ParamSpec, TypeVar

import pymysql
from pymysql.constants import ER

from whalefall_capacity.collection.mysql.grants import Grants
from whalefall_capacity.collection.mysql.innodb import InnodbSizes, read_files, read_pages, read_sizes_by_name
from whalefall_capacity.collection.mysql.names import UNENCODED, directory_of
from whalefall_capacity.collection.mysql.server import Server, is_denied, text
from whalefall_capacity.collection.mysql.tables import (
    BATCH,
    Table,
    is_of_server,
    list_databases,
    list_databases_and_tables,
    list_tables,
    read_lengths,
)
from whalefall_capacity.collection.sizes import Findings, NameFilter
from whalefall_capacity.errors import CollectionError
from whalefall_capacity.printable import first_of

P = ParamSpec("P")
T = TypeVar("T")
# Bytes, or the reason why they are not known.
Size = int | str

NOT_VISIBLE = "the account cannot see its tables; `fleet check` prints the GRANT that is missing"
SOME_VISIBLE = "the account has privileges on some of its tables, and sees no others; it needs SHOW VIEW on all"
NOT_LOADED = "the server has not loaded the statistics of its tables in a shared tablespace"
DROPPED = "dropped during the visit"
ESTIMATED = "the sizes of InnoDB tables are estimates of information_schema.TABLES"
INNODB_ALONE = (
    "only InnoDB's files are counted in {databases}: the account does not see whether there are tables of other "
    "engines; it needs SHOW VIEW on all"
)
LOGS_NAMED = 3
DATABASES_NAMED = 3


class Survey:
    """Answers of a server, noted in *findings* as they come.

    After `run`, *sizes* has every database, and *innodb* and *logs* have an error where those could not be read.
    """

    def __init__(self, server: Server, excluded: NameFilter, findings: Findings) -> None:
        self._server = server
        self._excluded = excluded
        self._findings = findings
        self.grants = Grants.on(server)
        self.sizes: dict[str, Size] = {}
        # Of which the server has just said that there is nothing in them.
        self._empty: set[str] = set()
        self.innodb: InnodbSizes | pymysql.Error = InnodbSizes({}, {})
        self.logs: int | pymysql.Error | None = None

    def run(self, fail_when_blind: bool) -> None:
        """Measure all; what is optional and cannot be read costs no size."""
        # MySQL 8 and newer have one dictionary for the server and InnoDB: there, no table is in one alone.
        listed, tables, problems = self._list_with_tables(names_of_innodb=not self._server.has_dictionary)
        if fail_when_blind and not listed and not self.grants.shows_every_database:
            raise CollectionError(f"the account sees no database at all; run {self.missing_grant('SHOW DATABASES')}")
        self.innodb = self._read_innodb(listed)
        if not self._server.has_dictionary:
            problems |= self._unknown_to_innodb(tables)
        elif isinstance(self.innodb, pymysql.Error):
            tables, problems = self._tables(listed)
        folders = {name for name in listed if name not in problems and self._is_mere_folder(name, tables[name])}
        names = [name for name in listed if name not in folders]
        self._findings.listed(self._server.version, names)
        for name, problem in problems.items():
            self._note(name, problem)
        for name, size in self._measured({name: tables[name] for name in names if name not in problems}):
            self._note(name, size)
        self._note_gone()
        self.logs = self._optional(self._binary_logs)
        self._findings.logs(None if isinstance(self.logs, pymysql.Error) else self.logs)
        self._note_caveats()

    def missing_grant(self, privilege: str) -> str | None:
        """Return the statement that gives the account a privilege, None when it has it."""
        if self.grants.has(privilege):
            return None
        return f"GRANT {privilege} ON *.* TO {self._server.account()};"

    def _list(self) -> list[str]:
        return self._chosen(list_databases(self._server))

    def _chosen(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if not is_of_server(name) and not self._excluded.excludes(name)]

    def _list_with_tables(self, names_of_innodb: bool) -> tuple[list[str], dict[str, list[Table]], dict[str, str]]:
        """Return the databases, the tables of each, and why those of some cannot be listed."""
        found = self._optional(list_databases_and_tables, self._server, names_of_innodb)
        if isinstance(found, pymysql.Error):
            names = self._list()
            return names, *self._tables_one_by_one(names, names_of_innodb)
        names = self._chosen(found[0])
        return names, _by_database(names, found[1]), {}

    def _tables(self, names: Sequence[str]) -> tuple[dict[str, list[Table]], dict[str, str]]:
        """Return the tables of each database, by name, and why those of some cannot be listed."""
        found = self._optional(list_tables, self._server, None, True)
        if isinstance(found, pymysql.Error):
            return self._tables_one_by_one(names, names_of_innodb=True)
        return _by_database(names, found), {}

    def _tables_one_by_one(
        self, names: Sequence[str], names_of_innodb: bool
    ) -> tuple[dict[str, list[Table]], dict[str, str]]:
        """Do the same when all could not be listed at once: one of the databases may be the cause."""
        tables: list[Table] = []
        problems: dict[str, str] = {}
        for name in names:
            own = self._optional(list_tables, self._server, name, names_of_innodb)
            if isinstance(own, pymysql.Error):
                problems[name] = self._server.explain(own)
            else:
                tables += own
        return _by_database(names, tables), problems

    def _read_innodb(self, names: Sequence[str]) -> InnodbSizes | pymysql.Error:
        """Ask InnoDB; of tables in shared tablespaces whose statistics are not loaded, ask the tables."""
        files = self._optional(read_files, self._server)
        if isinstance(files, pymysql.Error):
            if not self._server.has_dictionary or is_denied(files):
                return files
            by_name = self._innodb_by_name(names, self._server.explain(files))
            return files if isinstance(by_name, pymysql.Error) else by_name
        measured = {self._directory(name) for name in names}
        not_loaded = [key for key in files.not_loaded if key[0] in measured]
        if not not_loaded:
            return files.sizes({})
        estimates = self._estimates(names, frozenset(not_loaded))
        # MariaDB has loaded them now.
        pages = self._optional(read_pages, self._server, files.tables)
        return pages if isinstance(pages, pymysql.Error) else replace(files, pages=pages).sizes(estimates)

    def _innodb_by_name(self, names: Sequence[str], why: str) -> InnodbSizes | pymysql.Error:
        """Ask InnoDB for files without their tables, of which one may be locked; *why* those cannot be had."""
        tables, problems = self._tables(names)
        # Those that the account does not see may have no file of their own.
        problems |= {name: NOT_VISIBLE for name in names if not self.grants.shows_all_tables_of(name)}
        own = {name: [table.name for table in members if table.is_innodb] for name, members in tables.items()}
        found = self._optional(read_sizes_by_name, self._server, own, why)
        if isinstance(found, pymysql.Error):
            return found
        problems |= {name: size for name, size in found.items() if isinstance(size, str)}
        return InnodbSizes(
            {self._directory(name): size for name, size in found.items() if isinstance(size, int)},
            {self._directory(name): problem for name, problem in problems.items()},
        )

    def _unknown_to_innodb(self, tables: Mapping[str, list[Table]]) -> dict[str, str]:
        """Return which databases have a table that the server knows and InnoDB does not, and what happens to it."""
        if isinstance(self.innodb, pymysql.Error):
            return {}
        problems: dict[str, str] = {}
        for name, members in tables.items():
            directory = self._directory(name)
            known = self.innodb.tables
            own = [t for t in members if t.is_innodb and (directory, self._directory(t.name)) not in known]
            lengths = self._optional(read_lengths, self._server, own) if own else {}
            if isinstance(lengths, pymysql.Error):
                problems[name] = self._server.explain(lengths)
            elif reasons := [length for length in lengths.values() if isinstance(length, str)]:
                problems[name] = reasons[0]
        return problems

    def _estimates(
        self, names: Sequence[str], not_loaded: Collection[tuple[bytes, bytes]]
    ) -> dict[tuple[bytes, bytes], int]:
        """Return the lengths, as far as the tables tell them, of those whose statistics are *not_loaded*."""
        estimates: dict[tuple[bytes, bytes], int] = {}
        for name, members in self._tables(names)[0].items():
            keys = {table: (self._directory(name), self._directory(table.name)) for table in members}
            own = [table for table in members if table.is_innodb and keys[table] in not_loaded]
            lengths = self._optional(read_lengths, self._server, own) if own else {}
            if not isinstance(lengths, pymysql.Error):
                estimates.update((keys[t], size) for t, size in lengths.items() if isinstance(size, int))
        return estimates

    def _is_mere_folder(self, name: str, tables: Sequence[Table]) -> bool:
        """Is this a folder among those of the databases, in which there is no table?"""
        return name.startswith(UNENCODED) and not tables and self._files_of(name) is None

    def _measured(self, tables: Mapping[str, list[Table]]) -> Iterator[tuple[str, Size]]:
        """Yield the size of each database; first of those for which no table need be opened."""
        to_open: dict[str, list[Table]] = {}
        without_tables: list[str] = []
        for name, members in tables.items():
            problem = self._problem(name, members)
            own = [table for table in members if self._needs_length(table)]
            if problem is not None:
                yield name, problem
            elif own:
                to_open[name] = own
            elif members:
                yield name, self._size(name, True, [])
            else:
                without_tables.append(name)
        for name, lengths in self._lengths(to_open):
            yield name, lengths if isinstance(lengths, str) else self._size(name, True, lengths)
        for name in without_tables:
            yield name, self._closed_folder(name) or self._size(name, False, [])

    def _closed_folder(self, name: str) -> str | None:
        """Say that the server cannot open the folder of a database in which it lists no table, if it cannot.

        A server without a dictionary looks for tables in the folder, and is silent when it cannot open it. SHOW tells.
        """
        if self._server.has_dictionary or not self.grants.shows_all_tables_of(name):
            return None
        quoted = name.replace("`", "``")
        answer = self._optional(self._server.rows, f"SHOW TABLES FROM `{quoted}` LIKE ''")
        if not isinstance(answer, pymysql.Error):
            self._empty.add(name)
            return None
        # A name outside ASCII may be unknown where the server reads statements in another character set. Others are
        # when they are in capitals, of before the server was told to write names in small letters.
        may_be_misread = answer.args[0] == ER.BAD_DB_ERROR and not name.isascii()
        return None if may_be_misread else self._server.explain(answer)

    def _problem(self, name: str, members: Sequence[Table]) -> str | None:
        """Say what keeps the size of a database from being known, if anything does."""
        for table in members:
            if table.problem is not None:
                return table.problem
        return None if isinstance(self.innodb, pymysql.Error) else self.innodb.problems.get(self._directory(name))

    def _needs_length(self, table: Table) -> bool:
        return table.has_length and (not table.is_innodb or isinstance(self.innodb, pymysql.Error))

    def _size(self, name: str, sees_tables: bool, lengths: Sequence[Size]) -> Size:
        files = self._files_of(name)
        if files is None and not sees_tables and not self.grants.shows_tables_of(name):
            return NOT_VISIBLE
        if self.grants.shows_only_some_tables_of(name):
            return SOME_VISIBLE
        return _total([files or 0, *lengths])

    def _files_of(self, name: str) -> Size | None:
        """Return what InnoDB has of a database; None when it has nothing, or cannot be asked."""
        if isinstance(self.innodb, pymysql.Error):
            return None
        directory = self._directory(name)
        if directory in self.innodb.not_loaded:
            return NOT_LOADED if self.grants.shows_tables_of(name) else NOT_VISIBLE
        return self.innodb.bytes_by_directory.get(directory)

    def _directory(self, name: str) -> bytes:
        return directory_of(name.lower() if self._server.folds_case else name).encode()

    def _lengths(self, tables: Mapping[str, list[Table]]) -> Iterator[tuple[str, list[Size] | str]]:
        """Yield the lengths of the tables of each database, or why they could not be had.

        Many databases are asked for at once, and when that fails, each by itself.
        """
        for batch in _batches(tables):
            together = self._optional(read_lengths, self._server, [table for name in batch for table in tables[name]])
            for name in batch:
                found = together
                if isinstance(found, pymysql.Error) and len(batch) > 1:
                    found = self._optional(read_lengths, self._server, tables[name])
                if isinstance(found, pymysql.Error):
                    yield name, self._server.explain(found)
                else:
                    # A table that is gone meanwhile has no length.
                    yield name, [found[table] for table in tables[name] if table in found]

    def _note(self, name: str, size: Size) -> None:
        self.sizes[name] = size
        if isinstance(size, str):
            self._findings.missing(name, size)
        elif size or name in self._empty:
            self._findings.measured(name, size)

    def _note_gone(self) -> None:
        """Note databases that measured 0, and say of those without a size when they were dropped meanwhile."""
        doubtful = [name for name, size in self.sizes.items() if isinstance(size, str) or size == 0]
        still_there = set(self._list()) if doubtful else set()
        for name in doubtful:
            if name not in still_there:
                self._note(name, DROPPED)
            elif self.sizes[name] == 0:
                self._findings.measured(name, 0)

    def _note_caveats(self) -> None:
        """Note which sizes are estimates, and which may leave out tables that the account does not see."""
        if isinstance(self.innodb, pymysql.Error):
            why = "the account needs PROCESS" if is_denied(self.innodb) else self._server.explain(self.innodb)
            self._findings.caveat(f"{ESTIMATED}: {why}")
        measured = [name for name, size in self.sizes.items() if isinstance(size, int)]
        if partly := [name for name in measured if not self.grants.shows_all_tables_of(name)]:
            self._findings.caveat(INNODB_ALONE.format(databases=first_of(partly, DATABASES_NAMED)))

    def _binary_logs(self) -> int | None:
        """Return the bytes of the binary logs; None when the server keeps none. Raises pymysql.Error."""
        try:
            sizes = {text(row[0]): int(row[1]) for row in self._server.rows("SHOW BINARY LOGS")}
        except pymysql.Error as error:
            if error.args[0] == ER.NO_BINARY_LOGGING:
                return None
            raise
        # Even a new one has a header.
        if lost := [name for name, size in sizes.items() if size == 0]:
            raise pymysql.DataError(f"the server cannot open {first_of(lost, LOGS_NAMED)}, which its index lists")
        return sum(sizes.values()) if sizes else None

    def _optional(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | pymysql.Error:
        """Return what *ask* returns, or its error, unless that ended the connection."""
        try:
            return ask(*args, **kwargs)
        except pymysql.Error as error:
            if not self._server.is_connected:
                raise
            return error


def _by_database(names: Iterable[str], tables: Iterable[Table]) -> dict[str, list[Table]]:
    """Return the *tables* of each database in *names*."""
    found: dict[str, list[Table]] = {name: [] for name in names}
    for table in tables:
        if table.database in found:
            found[table.database].append(table)
    return found


def _total(sizes: Sequence[Size]) -> Size:
    """Return the sum of *sizes*, or the reason why one of them is not known."""
    reasons = [size for size in sizes if isinstance(size, str)]
    return reasons[0] if reasons else sum(size for size in sizes if not isinstance(size, str))


def _batches(tables: Mapping[str, list[Table]]) -> Iterator[list[str]]:
    """Yield databases in lists that have few enough tables for one statement, unless a single one has more."""
    tables_before = accumulate(map(len, tables.values()), initial=0)
    for _, group in groupby(zip(tables_before, tables, strict=False), key=lambda pair: pair[0] // BATCH):
        yield [name for _, name in group]
