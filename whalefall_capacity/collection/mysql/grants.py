"""What `SHOW GRANTS` says of an account."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

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

    everywhere: frozenset[str]
    revoked: frozenset[tuple[str, str]]
    # Databases all of whose tables are shown, with the wildcards of LIKE.
    shown_databases: frozenset[str]
    on_tables_of: frozenset[str]

    @classmethod
    def of(cls, lines: Iterable[str]) -> Grants:
        """Read what `SHOW GRANTS` prints."""
        texts = list(lines)
        everywhere = (
            privilege for text in texts if (found := EVERYWHERE.match(text)) for privilege in _names(found[1])
        )
        revoked = (
            (_unquoted(found[2]), privilege)
            for text in texts
            if (found := REVOKED.match(text))
            for privilege in _names(found[1])
        )
        return cls(
            frozenset(everywhere),
            frozenset(revoked),
            frozenset(
                _unquoted(found[2])
                for text in texts
                if (found := ON_DATABASE.match(text)) and TABLE_PRIVILEGES.intersection(_names(found[1]))
            ),
            frozenset(_unquoted(found[1]) for text in texts if (found := ON_TABLE.match(text))),
        )

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
        if database not in self.on_tables_of or self.shows_tables_of(database):
            return False
        return not any(_is_like(database, pattern) for pattern in self.shown_databases)


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
