"""Privileges of an account, as `SHOW GRANTS` lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

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
    """Privileges that an account has everywhere, its own and those of the roles that are on."""

    everywhere: set[str] = field(default_factory=set)
    revoked: set[tuple[str, str]] = field(default_factory=set)
    # Databases all of whose tables are shown, with the wildcards of LIKE.
    shown_databases: set[str] = field(default_factory=set)
    on_tables_of: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, lines: Iterable[str]) -> Grants:
        """Read what `SHOW GRANTS` prints."""
        grants = cls()
        for line in lines:
            if found := EVERYWHERE.match(line):
                grants.everywhere.update(_names(found[1]))
            if found := REVOKED.match(line):
                grants.revoked.update((_unquoted(found[2]), privilege) for privilege in _names(found[1]))
            if (found := ON_DATABASE.match(line)) and TABLE_PRIVILEGES.intersection(_names(found[1])):
                grants.shown_databases.add(_unquoted(found[2]))
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
        return self.shows_tables_of(database) or any(_is_like(database, name) for name in self.shown_databases)


def _is_like(name: str, pattern: str) -> bool:
    """Does *name* match *pattern*, in which `%` and `_` are wildcards unless a backslash is before them?"""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wildcards = {"%": ".*", "_": "."}
    return (
        re.fullmatch("".join(wildcards.get(part) or re.escape(part[-1]) for part in parts), name, re.DOTALL) is not None
    )


def _unquoted(name: str) -> str:
    quote = name[0]
    return name[1:-1].replace(quote * 2, quote) if quote in '`"' else name


def _names(privileges: str) -> list[str]:
    return privileges.split(", ")
