"""Shared parts of the tests of MySQL and MariaDB: databases, accounts, tables of every kind, sizes of their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

import pymysql
import pytest

from whalefall_capacity.collection import mysql
from whalefall_capacity.collection.mysql import MysqlSession
from whalefall_capacity.collection.sizes import Capability, Cutoff, Findings, Limits, Measurement, NameFilter, Target
from whalefall_capacity_tests.collection.support import EVERYTHING
from whalefall_capacity_tests.servers import LIMITS, FamilyServer, MariadbFleetServer

COLUMNS = "id INT PRIMARY KEY, note VARCHAR(200), KEY (note)"
INNODB = f"CREATE TABLE items ({COLUMNS}) ENGINE=InnoDB"
FULL_TEXT = f"CREATE TABLE items ({COLUMNS}, FULLTEXT KEY words (note)) ENGINE=InnoDB"
MYISAM = f"CREATE TABLE items ({COLUMNS}) ENGINE=MyISAM"
TABLES = {
    "InnoDB": INNODB,
    "InnoDB, compressed rows": f"{INNODB} ROW_FORMAT=COMPRESSED",
    "InnoDB, partitioned": f"{INNODB} PARTITION BY HASH (id) PARTITIONS 4",
    "InnoDB, subpartitioned": f"{INNODB} PARTITION BY RANGE (id) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 "
    "(PARTITION `low #1` VALUES LESS THAN (1000), PARTITION `b/c` VALUES LESS THAN MAXVALUE)",
    "InnoDB, full text": FULL_TEXT,
    "MyISAM": MYISAM,
}
TABLES_OF_MARIADB = {
    "MyISAM, partitioned": f"{MYISAM} PARTITION BY HASH (id) PARTITIONS 4",
    "Aria": f"CREATE TABLE items ({COLUMNS}) ENGINE=Aria",
    "Aria, not crash-safe": f"CREATE TABLE items ({COLUMNS}) ENGINE=Aria TRANSACTIONAL=0",
}
TABLES_OF_MYSQL = {"ARCHIVE": "CREATE TABLE items (id INT, note VARCHAR(200)) ENGINE=ARCHIVE"}
EVERY_TABLE = [
    *(
        pytest.param("mariadb", statement, id=f"MariaDB: {kind}")
        for kind, statement in (TABLES | TABLES_OF_MARIADB).items()
    ),
    *(pytest.param("mysql", statement, id=f"MySQL: {kind}") for kind, statement in (TABLES | TABLES_OF_MYSQL).items()),
]
ROWS = "INSERT INTO items VALUES " + ", ".join(f"({number}, REPEAT('x', 200))" for number in range(1, 2001))
DATA_FILES = {".ibd", ".MYD", ".MYI", ".MAD", ".MAI", ".ARZ"}
NOT_VISIBLE = "the account cannot see its tables; `fleet check` prints the GRANT that is missing"
ONLY_OURS = NameFilter(regex="(?!audit_).*")


def tables_of(server: FamilyServer) -> Mapping[str, str]:
    """Return a statement for a table of each kind that *server* knows."""
    return TABLES | (TABLES_OF_MARIADB if isinstance(server, MariadbFleetServer) else TABLES_OF_MYSQL)


def log_privilege(server: FamilyServer) -> str:
    """Return the privilege that shows binary logs."""
    return "BINLOG MONITOR" if isinstance(server, MariadbFleetServer) else "REPLICATION CLIENT"


@contextmanager
def databases(server: FamilyServer, *names: str) -> Iterator[pymysql.cursors.Cursor]:
    """Hold databases, and yield a cursor of root."""
    with server.connect() as cursor:
        try:
            for name in names:
                cursor.execute(f"CREATE DATABASE {quoted(name)}")
            yield cursor
        finally:
            for name in names:
                cursor.execute(f"DROP DATABASE IF EXISTS {quoted(name)}")


@contextmanager
def account(server: FamilyServer, *rights: str, name: str = "visitor") -> Iterator[Target]:
    """Hold an account with *rights*, such as `PROCESS` or `SELECT ON orders.*`, and with no others."""
    with server.connect() as cursor:
        cursor.execute("CREATE USER %s@localhost", (name,))
        try:
            for right in rights:
                scope = "" if " ON " in right else " ON *.*"
                cursor.execute(f"GRANT {right}{scope} TO %s@localhost", (name,))
            yield server.target(username=name)
        finally:
            cursor.execute("DROP USER %s@localhost", (name,))


@contextmanager
def server_setting(cursor: pymysql.cursors.Cursor, name: str, value: str) -> Iterator[None]:
    """Hold a setting that every new session of the server begins with."""
    cursor.execute(f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        cursor.execute(f"SET GLOBAL {name} = DEFAULT")


@contextmanager
def shared_tablespace(cursor: pymysql.cursors.Cursor) -> Iterator[None]:
    """Create tables in the system tablespace."""
    cursor.execute("SET GLOBAL innodb_file_per_table = OFF")
    try:
        yield
    finally:
        cursor.execute("SET GLOBAL innodb_file_per_table = ON")


def quoted(name: str) -> str:
    """Return a name as it stands in a statement."""
    return f"`{name.replace('`', '``')}`"


def run(cursor: pymysql.cursors.Cursor, database: str, *statements: str) -> None:
    """Run statements in a database."""
    cursor.connection.select_db(database)
    for statement in statements:
        cursor.execute(statement)
    # Until then, a part of what an Aria table holds is in memory only.
    cursor.execute("FLUSH TABLES")


def open_session(target: Target, limits: Limits = LIMITS) -> closing[MysqlSession]:
    """Hold a session."""
    return closing(mysql.connect(target, limits, Cutoff()))


def measure(target: Target, excluded: NameFilter = EVERYTHING, limits: Limits = LIMITS) -> Measurement:
    """Measure a server."""
    findings = Findings()
    with open_session(target, limits) as session:
        session.measure(excluded, findings)
    return findings.measurement("not come to")


def measure_sizes(target: Target, excluded: NameFilter = EVERYTHING) -> dict[str, int | None]:
    """Return bytes by database."""
    return sizes_of(measure(target, excluded))


def sizes_of(measurement: Measurement) -> dict[str, int | None]:
    """Return bytes by database."""
    return {database.name: database.size_bytes for database in measurement.databases}


def reasons(target: Target, excluded: NameFilter = EVERYTHING) -> dict[str, str | None]:
    """Return why databases were not measured."""
    found = measure(target, excluded).databases
    return {database.name: database.reason for database in found if database.size_bytes is None}


def capabilities(target: Target, excluded: NameFilter = EVERYTHING) -> dict[str, Capability]:
    """Return what a check-up says, by name."""
    with open_session(target) as session:
        return {capability.name: capability for capability in session.capabilities(excluded)}


def file_bytes(server: FamilyServer, directory: str) -> int:
    """Return the length of all files of data and indexes in a directory of the server."""
    files = (server.server.data_dir / directory).iterdir()
    return sum(file.stat().st_size for file in files if file.suffix in DATA_FILES)


def estimate(cursor: pymysql.cursors.Cursor, database: str) -> int:
    """Return what the server tells of a database's tables, in the view in which MySQL remembers nothing."""
    cursor.execute(
        "SELECT SUM(DATA_LENGTH + INDEX_LENGTH) FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = %s", (database,)
    )
    row = cursor.fetchone()
    assert row is not None
    return int(row[0])
