"""What `SHOW GRANTS` says of an account."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Any of them shows every table in information_schema.TABLES; SHOW VIEW lets the account read no data.
TABLE_PRIVILEGES = frozenset({"ALL PRIVILEGES", "SELECT", "SHOW VIEW"})
EVERYWHERE = re.compile(r"GRANT (.+?) ON \*\.\* TO ")
# MySQL 8: what holds everywhere may be revoked for single databases.
REVOKED = re.compile(r"REVOKE (.+?) ON `((?:[^`]|``)+)`\.\* FROM ")


@dataclass(frozen=True)
class Grants:
    """Privileges that an account has everywhere, its own and those of the roles that are on."""

    everywhere: frozenset[str]
    revoked: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, lines: Iterable[str]) -> Grants:
        """Read what `SHOW GRANTS` prints."""
        texts = list(lines)
        everywhere = (
            privilege for text in texts if (found := EVERYWHERE.match(text)) for privilege in _names(found[1])
        )
        revoked = (
            (found[2].replace("``", "`"), privilege)
            for text in texts
            if (found := REVOKED.match(text))
            for privilege in _names(found[1])
        )
        return cls(frozenset(everywhere), frozenset(revoked))

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


def _names(privileges: str) -> list[str]:
    return privileges.split(", ")
