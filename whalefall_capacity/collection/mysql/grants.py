"""Privileges of an account, as `SHOW GRANTS` lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from whalefall_capacity.collection.mysql.server import Server, text

# Any of them shows a table in information_schema.TABLES, or all tables of a database, or all; no other does.
# TABLE_ACLS in sql/auth/auth_acls.h (MySQL) and sql/privilege.h (MariaDB)
TABLE_PRIVILEGES = frozenset(
    {"ALL PRIVILEGES", "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "REFERENCES", "INDEX", "ALTER"}
    | {"CREATE VIEW", "SHOW VIEW", "TRIGGER", "DELETE HISTORY", "DELETE VERSIONING ROWS"}
)
EVERYWHERE = re.compile(r"GRANT (.+?) ON \*\.\* TO ")
# ANSI_QUOTES and sql_quote_show_create decide how the server quotes it.
NAME = r"""(`(?:[^`]|``)+`|"(?:[^"]|"")+"|[^`"*.\s]+)"""
ON_DATABASE = re.compile(rf"GRANT (.+?) ON {NAME}\.\* TO ")
ON_TABLE = re.compile(rf"GRANT .+? ON {NAME}\.{NAME} TO ")
# MySQL 8: what holds everywhere may be revoked for single databases.
REVOKED = re.compile(rf"REVOKE (.+?) ON {NAME}\.\* FROM ")


@dataclass(frozen=True)
class Grants:
    """Privileges that an account has everywhere, its own and those of the roles that are on.

    *take_wildcards*: the names of databases in them may be patterns; under partial_revokes, MySQL takes each literally.
    """

    take_wildcards: bool
    everywhere: set[str] = field(default_factory=set)
    revoked: set[tuple[str, str]] = field(default_factory=set)
    # Whether all tables of a database are shown, by its name, which may have the wildcards of LIKE.
    shown_databases: dict[str, bool] = field(default_factory=dict)
    on_tables_of: set[str] = field(default_factory=set)

    @classmethod
    def on(cls, server: Server) -> Grants:
        """Ask for the grants of the connected account. Raises pymysql.Error."""
        return cls.of((text(row[0]) for row in server.rows("SHOW GRANTS")), server.grants_take_wildcards)

    @classmethod
    def of(cls, lines: Iterable[str], take_wildcards: bool) -> Grants:
        """Read what `SHOW GRANTS` prints."""
        grants = cls(take_wildcards)
        for line in lines:
            if found := EVERYWHERE.match(line):
                grants.everywhere.update(_names(found[1]))
            if found := REVOKED.match(line):
                grants.revoked.update((_unquoted(found[2]), privilege) for privilege in _names(found[1]))
            if found := ON_DATABASE.match(line):
                name, shows = _unquoted(found[2]), not TABLE_PRIVILEGES.isdisjoint(_names(found[1]))
                # Again for a role.
                grants.shown_databases[name] = shows or grants.shown_databases.get(name, False)
            if found := ON_TABLE.match(line):
                grants.on_tables_of.add(_unquoted(found[1]))
        return grants

    def has(self, privilege: str) -> bool:
        """Does the account have *privilege* everywhere?"""
        return bool(self.everywhere & {privilege, "ALL PRIVILEGES"})

    @property
    def shows_every_database(self) -> bool:
        return bool(self.everywhere & (TABLE_PRIVILEGES | {"SHOW DATABASES"}))

    @property
    def shows_every_table(self) -> bool:
        return bool(self.everywhere & TABLE_PRIVILEGES)

    def shows_tables_of(self, database: str) -> bool:
        """Does information_schema.TABLES show the account every table of *database*?"""
        taken = {privilege for name, privilege in self.revoked if name == database}
        return bool((self.everywhere & TABLE_PRIVILEGES) - taken)

    def shows_only_some_tables_of(self, database: str) -> bool:
        """Does the account see tables of *database* only because it has a privilege on each of those?"""
        return database in self.on_tables_of and not self.shows_all_tables_of(database)

    def shows_all_tables_of(self, database: str) -> bool:
        """Does a privilege on everything, or on the whole of *database*, show the account all of its tables?"""
        if self.shows_tables_of(database):
            return True
        if not self.take_wildcards:
            return self.shown_databases.get(database, False)
        # The server takes the grant whose name is the closest, and no other: one for the database itself before any
        # with a wildcard. Of several of those all have to show the tables, for each server has its own order.
        close = {name: shows for name, shows in self.shown_databases.items() if _is_like(database, name)}
        exact = [shows for name, shows in close.items() if not _has_wildcard(name)]
        return any(exact) if exact else bool(close) and all(close.values())


def _is_like(name: str, pattern: str) -> bool:
    """Does *name* match *pattern*, in which `%` and `_` are wildcards unless a backslash is before them?"""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wildcards = {"%": ".*", "_": "."}
    return (
        re.fullmatch("".join(wildcards.get(part) or re.escape(part[-1]) for part in parts), name, re.DOTALL) is not None
    )


def _has_wildcard(pattern: str) -> bool:
    return re.search(r"[%_]", re.sub(r"\\.", "", pattern)) is not None


def _unquoted(name: str) -> str:
    quote = name[0]
    return name[1:-1].replace(quote * 2, quote) if quote in '`"' else name


def _names(privileges: str) -> list[str]:
    return privileges.split(", ")
