"""The session that a visit and a check-up use."""

from __future__ import annotations

import pymysql

from whalefall_capacity.collection.database_tables import DatabaseTables
from whalefall_capacity.collection.mysql.connection import open_connection
from whalefall_capacity.collection.mysql.database_tables import read_tables
from whalefall_capacity.collection.mysql.server import Server, is_denied
from whalefall_capacity.collection.mysql.survey import NOT_VISIBLE, SOME_VISIBLE, Survey
from whalefall_capacity.collection.sizes import Capability, Cutoff, Findings, Limits, NameFilter, Target, TimeLeft
from whalefall_capacity.errors import CollectionError

ESTIMATES = "estimates of information_schema.TABLES instead"


class MysqlSession:
    """An open connection to one MySQL or MariaDB server, in a transaction that only reads."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def version(self) -> str:
        return self._server.version

    def measure(self, excluded: NameFilter, findings: Findings) -> None:
        Survey(self._server, excluded, findings).run(fail_when_blind=True)

    def capabilities(self, excluded: NameFilter) -> list[Capability]:
        """Ask all that a visit asks, and say what came of it."""
        survey = Survey(self._server, excluded, Findings())
        survey.run(fail_when_blind=False)
        log_privilege = "BINLOG MONITOR" if self._server.is_mariadb else "REPLICATION CLIENT"
        grants, logs = survey.grants, "SHOW BINARY LOGS"
        return [
            _visible(survey, "list of databases", "database", grants.shows_every_database, "SHOW DATABASES"),
            _database_sizes(survey),
            self._optional(survey, "InnoDB files", survey.innodb, "PROCESS", "sizes of the files", ESTIMATES),
            _visible(survey, "tables of other engines", "table", grants.shows_every_table, "SHOW VIEW"),
            self._optional(survey, "binary log size", survey.logs, log_privilege, logs, logs),
        ]

    def tables(self, database: str) -> DatabaseTables:
        try:
            return read_tables(self._server, database)
        except pymysql.Error as error:
            raise CollectionError(self._server.explain(error)) from None

    def close(self) -> None:
        self._server.close()

    def _optional(
        self, survey: Survey, name: str, answer: object, privilege: str, detail: str, instead: str
    ) -> Capability:
        if not isinstance(answer, pymysql.Error):
            return Capability(name, True, required=False, detail=detail)
        grant = survey.missing_grant(privilege) if is_denied(answer) else None
        detail = instead if grant else f"{instead}: {self._server.explain(answer)}"
        return Capability(name, False, required=False, detail=detail, grant=grant)


def _visible(survey: Survey, name: str, kind: str, every: bool, privilege: str) -> Capability:
    """Say whether the account sees *every* database or table, and what shows it the others."""
    return Capability(
        name,
        every,
        # A database that is not listed is not even missing; one whose tables are not seen is.
        required=kind == "database",
        detail=f"every {kind}" if every else f"only {kind}s on which the account has a privilege",
        grant=None if every else survey.missing_grant(privilege),
    )


def _database_sizes(survey: Survey) -> Capability:
    # Of those that the account cannot see, the grant says it all.
    unseen = {NOT_VISIBLE, SOME_VISIBLE}
    missing = {name: None if why in unseen else why for name, why in survey.sizes.items() if isinstance(why, str)}
    grant = survey.missing_grant("SHOW VIEW") if None in missing.values() else None
    return Capability.of_sizes(len(survey.sizes), missing, grant)


def connect(target: Target, limits: Limits, cutoff: Cutoff) -> MysqlSession:
    """Open a session. Raises CollectionError, pymysql.Error or OSError."""
    time_left = TimeLeft(limits)
    connection = open_connection(target, limits, cutoff)
    try:
        return MysqlSession(Server(connection, time_left))
    except BaseException:
        connection.close()
        raise
