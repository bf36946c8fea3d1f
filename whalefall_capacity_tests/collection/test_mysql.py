"""Sizes of MySQL and MariaDB databases are those of their files; what the account may not see is missing, never 0.

MariaDB is real here. Of MySQL, only the choices that depend on its version are tested, on a connection that plays it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pymysql
import pytest

from whalefall_capacity.collection import mysql
from whalefall_capacity.collection.mysql import MysqlSession
from whalefall_capacity.collection.sizes import (
    Capability,
    Cutoff,
    DatabaseSize,
    Findings,
    Limits,
    Measurement,
    NameFilter,
    Target,
)
from whalefall_capacity.demo.mariadb import MariadbServer
from whalefall_capacity.errors import CollectionError
from whalefall_capacity_tests.collection.support import EVERYTHING, settled
from whalefall_capacity_tests.servers import LIMITS, MariadbFleetServer

COLUMNS = "id INT PRIMARY KEY, note VARCHAR(200), KEY (note)"
TABLES = {
    "InnoDB": f"CREATE TABLE items ({COLUMNS}) ENGINE=InnoDB",
    "InnoDB, compressed rows": f"CREATE TABLE items ({COLUMNS}) ENGINE=InnoDB ROW_FORMAT=COMPRESSED",
    "InnoDB, partitioned": f"CREATE TABLE items ({COLUMNS}) ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 4",
    "InnoDB, full text": f"CREATE TABLE items ({COLUMNS}, FULLTEXT KEY words (note)) ENGINE=InnoDB",
    "MyISAM": f"CREATE TABLE items ({COLUMNS}) ENGINE=MyISAM",
    "MyISAM, partitioned": f"CREATE TABLE items ({COLUMNS}) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 4",
    "Aria": f"CREATE TABLE items ({COLUMNS}) ENGINE=Aria",
    "Aria, not crash-safe": f"CREATE TABLE items ({COLUMNS}) ENGINE=Aria TRANSACTIONAL=0",
}
ROWS = "INSERT INTO items SELECT seq, REPEAT('x', 200) FROM seq_1_to_2000"
DATA_FILES = {".ibd", ".MYD", ".MYI", ".MAD", ".MAI"}
DIRECTORIES = {
    "plain_1": "plain_1",
    "a-b": "a@002db",
    "a@002db": "a@0040002db",
    "café_ñ": "caf@0p_@0x",
    "ÄÖ": "@0K@1I",
    "数据库": "@6570@636e@5e93",
    "con": "con@@@",
    "CON": "CON@@@",
    "nul.x": "nul@002ex",
    "A@b c.d": "A@0040b@0020c@002ed",
    "Sales": "Sales",
    "sales": "sales",
    "a/b": "a@002fb",
    "back\\slash": "back@005cslash",
    "quo`te": "quo@0060te",
    "apo'strophe": "apo@0027strophe",
    "per%cent": "per@0025cent",
    "lost+found": "lost@002bfound",
    "select": "select",
    "é" * 40: "@0p" * 40,
    "x" * 64: "x" * 64,
}
NOT_VISIBLE = "the account cannot see its tables; `fleet check` prints the GRANT that is missing"
ONLY_OURS = NameFilter(regex="(?!audit_).*")


@contextmanager
def databases(server: MariadbFleetServer, *names: str) -> Iterator[pymysql.cursors.Cursor]:
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
def account(server: MariadbFleetServer, *rights: str, name: str = "visitor") -> Iterator[Target]:
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


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def run(cursor: pymysql.cursors.Cursor, database: str, *statements: str) -> None:
    cursor.connection.select_db(database)
    for statement in statements:
        cursor.execute(statement)
    # Until then, a part of what an Aria table holds is in memory only.
    cursor.execute("FLUSH TABLES")


def open_session(target: Target, limits: Limits = LIMITS) -> closing[MysqlSession]:
    return closing(mysql.connect(target, limits, Cutoff()))


def measure(target: Target, excluded: NameFilter = EVERYTHING) -> Measurement:
    with open_session(target) as session:
        return measured_by(session, excluded)


def measured_by(session: MysqlSession, excluded: NameFilter = EVERYTHING) -> Measurement:
    findings = Findings()
    session.measure(excluded, findings)
    return findings.measurement("not come to")


def measure_sizes(target: Target, excluded: NameFilter = EVERYTHING) -> dict[str, int | None]:
    return {database.name: database.size_bytes for database in measure(target, excluded).databases}


def capabilities(target: Target, excluded: NameFilter = EVERYTHING) -> dict[str, Capability]:
    with open_session(target) as session:
        return {capability.name: capability for capability in session.capabilities(excluded)}


def file_bytes(server: MariadbFleetServer, directory: str) -> int:
    """Return the length of all files of data and indexes in a directory of the server."""
    files = (server.server.data_dir / directory).iterdir()
    return sum(file.stat().st_size for file in files if file.suffix in DATA_FILES)


def estimate(cursor: pymysql.cursors.Cursor, database: str) -> int:
    cursor.execute(
        "SELECT SUM(DATA_LENGTH + INDEX_LENGTH) FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s", (database,)
    )
    row = cursor.fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("statement", TABLES.values(), ids=TABLES.keys())
def test_a_size_is_that_of_the_files_to_the_byte(mariadb: MariadbFleetServer, statement: str) -> None:
    with databases(mariadb, "orders") as cursor:
        run(cursor, "orders", statement, ROWS)
        files, sizes = settled(lambda: file_bytes(mariadb, "orders"), lambda: measure_sizes(mariadb.target()))
    assert sizes["orders"] == files > 100_000


def test_tables_of_all_engines_are_added_up(mariadb: MariadbFleetServer) -> None:
    with databases(mariadb, "orders") as cursor:
        for number, statement in enumerate(TABLES.values()):
            table = f"items_{number}"
            run(cursor, "orders", statement.replace("items", table), ROWS.replace("items", table))
        files, sizes = settled(lambda: file_bytes(mariadb, "orders"), lambda: measure_sizes(mariadb.target()))
    assert sizes["orders"] == files


def test_names_with_every_awkward_character_are_measured(mariadb: MariadbFleetServer) -> None:
    def files() -> dict[str, int]:
        return {name: file_bytes(mariadb, directory) for name, directory in DIRECTORIES.items()}

    with databases(mariadb, *DIRECTORIES) as cursor:
        for number, name in enumerate(DIRECTORIES, start=1):
            # A size of its own for each, so that none can pass for another.
            rows = f"INSERT INTO `a-b` VALUES {', '.join(['(1)'] * number)}"
            run(cursor, name, "CREATE TABLE `a-b` (id INT) ENGINE=MyISAM", rows, "CREATE TABLE i (id INT)")
        expected, sizes = settled(files, lambda: measure_sizes(mariadb.target()))
    assert {name: sizes[name] for name in DIRECTORIES} == expected
    assert len(set(expected.values())) == len(DIRECTORIES)


def test_a_directory_with_an_unencoded_name_is_measured(mariadb: MariadbFleetServer) -> None:
    directory = mariadb.server.data_dir / "old-dir"
    directory.mkdir()
    try:
        with mariadb.connect() as cursor:
            run(cursor, "#mysql50#old-dir", TABLES["InnoDB"], ROWS, TABLES["MyISAM"].replace("items", "more"))
            files, sizes = settled(lambda: file_bytes(mariadb, "old-dir"), lambda: measure_sizes(mariadb.target()))
            cursor.execute("DROP TABLE items, more")
    finally:
        shutil.rmtree(directory)
    assert sizes["#mysql50#old-dir"] == files > 100_000


def test_a_page_compressed_table_counts_what_its_file_allocates(mariadb: MariadbFleetServer) -> None:
    def allocated() -> int:
        return (mariadb.server.data_dir / "sparse" / "items.ibd").stat().st_blocks * 512

    with databases(mariadb, "sparse") as cursor:
        run(cursor, "sparse", f"{TABLES['InnoDB']} PAGE_COMPRESSED=1", ROWS)
        run(cursor, "sparse", "FLUSH TABLES items FOR EXPORT", "UNLOCK TABLES")
        files, sizes = settled(allocated, lambda: measure_sizes(mariadb.target()))
        assert sizes["sparse"] == files < file_bytes(mariadb, "sparse")


def test_a_table_whose_file_lies_elsewhere_is_counted(mariadb: MariadbFleetServer, tmp_path: Path) -> None:
    with databases(mariadb, "orders") as cursor:
        run(cursor, "orders", f"{TABLES['InnoDB']} DATA DIRECTORY='{tmp_path}'", ROWS)
        elsewhere = tmp_path / "orders" / "items.ibd"
        files, sizes = settled(lambda: elsewhere.stat().st_size, lambda: measure_sizes(mariadb.target()))
    assert sizes["orders"] == files


def test_tables_that_keep_nothing_on_disk_count_nothing(mariadb: MariadbFleetServer) -> None:
    with databases(mariadb, "orders") as cursor:
        run(
            cursor,
            "orders",
            "CREATE TABLE items (id INT) ENGINE=MyISAM",
            "INSERT INTO items VALUES (1), (2), (3)",
            "CREATE TABLE all_items (id INT) ENGINE=MERGE UNION=(items)",
            "CREATE TABLE in_memory (id INT) ENGINE=MEMORY",
            "INSERT INTO in_memory VALUES (1)",
            "CREATE VIEW seen AS SELECT id FROM items",
        )
        files, sizes = settled(lambda: file_bytes(mariadb, "orders"), lambda: measure_sizes(mariadb.target()))
    assert sizes["orders"] == files == 3 * 7 + 1024


@contextmanager
def shared_tablespace(cursor: pymysql.cursors.Cursor) -> Iterator[None]:
    """Create tables in the system tablespace."""
    cursor.execute("SET GLOBAL innodb_file_per_table = OFF")
    try:
        yield
    finally:
        cursor.execute("SET GLOBAL innodb_file_per_table = ON")


def test_tables_in_the_system_tablespace_count_their_pages(mariadb: MariadbFleetServer) -> None:
    with databases(mariadb, "orders", "a-b") as cursor:
        with shared_tablespace(cursor):
            run(cursor, "orders", TABLES["InnoDB"])
            run(cursor, "a-b", TABLES["InnoDB"], ROWS, "ANALYZE TABLE items")
        run(cursor, "orders", TABLES["InnoDB"].replace("items", "own_file"))
        own_file, sizes = settled(lambda: file_bytes(mariadb, "orders"), lambda: measure_sizes(mariadb.target()))
        # A page for the primary key and one for the other index.
        assert sizes["orders"] == own_file + 2 * 16384
        assert sizes["a-b"] == estimate(cursor, "a-b") > 400_000
        assert file_bytes(mariadb, "a@002db") == 0


def test_an_empty_database_measures_0(mariadb: MariadbFleetServer) -> None:
    with databases(mariadb, "empty"):
        assert measure_sizes(mariadb.target())["empty"] == 0


def test_system_databases_and_leftovers_of_the_server_are_left_out(mariadb: MariadbFleetServer) -> None:
    stray = mariadb.server.data_dir / "lost+found"
    stray.mkdir()
    try:
        with databases(mariadb, "orders", "#sql-1", "sys_2"):
            names = measure_sizes(mariadb.target()).keys()
    finally:
        stray.rmdir()
    assert {"orders", "sys_2"} <= names
    assert names.isdisjoint(
        {"information_schema", "performance_schema", "mysql", "sys", "#sql-1", "#mysql50#lost+found"}
    )


def test_a_database_that_the_filter_excludes_is_not_listed(mariadb: MariadbFleetServer) -> None:
    with databases(mariadb, "temp_1", "temperature", "scratch"):
        names = measure_sizes(mariadb.target(), NameFilter(frozenset({"scratch"}), "temp_.*")).keys()
    assert "temperature" in names
    assert names.isdisjoint({"temp_1", "scratch"})


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> MariadbFleetServer:
    """A server without binary logs, with a table of each kind in a database of its own, that does not run."""
    server = MariadbFleetServer(MariadbServer(tmp_path_factory.mktemp("stopped")))
    with server.server.running(), server.connect() as cursor:
        for number, statement in enumerate(TABLES.values()):
            cursor.execute(f"CREATE DATABASE kind_{number}")
            run(cursor, f"kind_{number}", statement, ROWS)
    return server


@pytest.fixture
def restarted(stopped: MariadbFleetServer) -> Iterator[MariadbFleetServer]:
    """That server when it has just been started, and has opened no table yet."""
    with stopped.server.running("--innodb-buffer-pool-load-at-startup=OFF", "--performance-schema=ON"):
        yield stopped


def test_after_a_restart_nothing_is_lost(restarted: MariadbFleetServer) -> None:
    kinds = [f"kind_{number}" for number in range(len(TABLES))]
    sizes = measure_sizes(restarted.target())
    assert {kind: sizes[kind] for kind in kinds} == {kind: file_bytes(restarted, kind) for kind in kinds}


def test_after_a_restart_the_files_are_seen_by_an_account_that_sees_no_tables(restarted: MariadbFleetServer) -> None:
    with account(restarted, "PROCESS", "SHOW DATABASES") as target:
        assert measure_sizes(target)["kind_0"] == file_bytes(restarted, "kind_0")


def test_after_a_restart_pages_of_the_system_tablespace_are_known_once_their_statistics_are_loaded(
    tmp_path: Path,
) -> None:
    server = MariadbFleetServer(MariadbServer(tmp_path))
    with server.server.running(), server.connect() as cursor:
        cursor.execute("CREATE DATABASE shared")
        with shared_tablespace(cursor):
            run(cursor, "shared", TABLES["InnoDB"], ROWS, "ANALYZE TABLE items")
    with server.server.running(), account(server, "PROCESS", "SHOW DATABASES") as blind, server.connect() as cursor:
        # This account cannot load them, and nobody else has yet.
        assert measure_sizes(blind) == {"shared": None}
        size = measure_sizes(server.target())["shared"]
        assert size == estimate(cursor, "shared") > 400_000
        assert measure_sizes(blind) == {"shared": size}


def test_the_session_is_named_for_the_server_to_see(restarted: MariadbFleetServer) -> None:
    with open_session(restarted.target()), restarted.connect() as cursor:
        cursor.execute(
            "SELECT ATTR_VALUE FROM performance_schema.session_connect_attrs WHERE ATTR_NAME = 'program_name'"
        )
        assert cursor.fetchall() == (("whalefall_capacity",),)


def test_without_binary_logs_their_size_is_not_known_and_no_grant_is_missing(restarted: MariadbFleetServer) -> None:
    assert measure(restarted.target()).log_size_bytes is None
    assert capabilities(restarted.target())["binary log size"] == Capability(
        "binary log size", True, False, "SHOW BINARY LOGS", None
    )


def test_the_binary_logs_are_the_sum_of_their_files(mariadb: MariadbFleetServer) -> None:
    def files() -> int:
        return sum(file.stat().st_size for file in mariadb.server.data_dir.glob("binlog.[0-9]*"))

    with mariadb.connect() as cursor:
        cursor.execute("FLUSH BINARY LOGS")
    expected, measurement = settled(files, lambda: measure(mariadb.target()))
    assert measurement.log_size_bytes == expected > 0


def test_the_binary_logs_are_not_known_without_binlog_monitor(mariadb: MariadbFleetServer) -> None:
    with databases(mariadb, "orders"), account(mariadb, "PROCESS", "SHOW VIEW") as target:
        measurement = measure(target)
    assert measurement.log_size_bytes is None
    assert all(database.size_bytes is not None for database in measurement.databases)


@contextmanager
def audited(server: MariadbFleetServer) -> Iterator[dict[str, int]]:
    """Hold four databases, and yield the length of their files."""
    names = ("audit_innodb", "audit_myisam", "audit_mixed", "audit_empty")
    with databases(server, *names) as cursor:
        run(cursor, "audit_innodb", TABLES["InnoDB"], ROWS)
        run(cursor, "audit_myisam", TABLES["MyISAM"], ROWS)
        run(cursor, "audit_mixed", TABLES["InnoDB"], TABLES["MyISAM"].replace("items", "more"), ROWS)
        files: dict[str, int] = {}
        settled(lambda: files.update({name: file_bytes(server, name) for name in names}) or dict(files), lambda: None)
        yield files


@pytest.mark.parametrize(
    "rights", [("PROCESS", "SHOW VIEW"), ("PROCESS", "SELECT"), ("ALL PRIVILEGES",), ("PROCESS", "SHOW VIEW", "INSERT")]
)
def test_an_account_that_sees_files_and_tables_measures_everything(
    mariadb: MariadbFleetServer, rights: tuple[str, ...]
) -> None:
    with audited(mariadb) as files, account(mariadb, *rights) as target:
        assert measure_sizes(target, ONLY_OURS) == files


def test_rights_may_come_from_a_role(mariadb: MariadbFleetServer) -> None:
    with audited(mariadb) as files, account(mariadb) as target, mariadb.connect() as cursor:
        cursor.execute("CREATE ROLE watchers")
        cursor.execute("GRANT PROCESS, SHOW VIEW ON *.* TO watchers")
        cursor.execute("GRANT watchers TO visitor@localhost")
        cursor.execute("SET DEFAULT ROLE watchers FOR visitor@localhost")
        sizes = measure_sizes(target, ONLY_OURS)
        cursor.execute("DROP ROLE watchers")
    assert sizes == files


@pytest.mark.parametrize("rights", [(), ("PROCESS",), ("PROCESS", "BINLOG MONITOR")])
def test_an_account_that_sees_no_database_fails_and_says_what_to_run(
    mariadb: MariadbFleetServer, rights: tuple[str, ...]
) -> None:
    with audited(mariadb), account(mariadb, *rights) as target, pytest.raises(CollectionError) as failure:
        measure(target)
    assert str(failure.value) == (
        "the account sees no database at all; run GRANT SHOW DATABASES ON *.* TO 'visitor'@'localhost';"
    )


def test_an_account_that_sees_only_names_measures_nothing(mariadb: MariadbFleetServer) -> None:
    with audited(mariadb) as files, account(mariadb, "SHOW DATABASES") as target:
        measurement = measure(target, ONLY_OURS)
    assert measurement.databases == tuple(DatabaseSize(name, None, NOT_VISIBLE) for name in sorted(files))


def test_an_account_that_sees_only_files_misses_what_has_none(mariadb: MariadbFleetServer) -> None:
    with audited(mariadb) as files, account(mariadb, "PROCESS", "SHOW DATABASES") as target:
        innodb_alone = (mariadb.server.data_dir / "audit_mixed" / "items.ibd").stat().st_size
        assert measure_sizes(target, ONLY_OURS) == {
            "audit_innodb": files["audit_innodb"],
            "audit_mixed": innodb_alone,
            "audit_myisam": None,
            "audit_empty": None,
        }


def test_an_account_that_sees_only_tables_estimates_innodb(mariadb: MariadbFleetServer) -> None:
    with audited(mariadb) as files, account(mariadb, "SHOW VIEW") as target, mariadb.connect() as cursor:
        assert measure_sizes(target, ONLY_OURS) == {
            "audit_innodb": estimate(cursor, "audit_innodb"),
            "audit_mixed": estimate(cursor, "audit_mixed"),
            "audit_myisam": files["audit_myisam"],
            "audit_empty": 0,
        }


def test_an_account_of_one_database_sees_that_one(mariadb: MariadbFleetServer) -> None:
    with audited(mariadb) as files, account(mariadb, "SELECT ON audit_myisam.*") as target:
        assert measure_sizes(target, ONLY_OURS) == {"audit_myisam": files["audit_myisam"]}


GRANTS = {
    "list of databases": "GRANT SHOW DATABASES ON *.* TO 'visitor'@'localhost';",
    "database sizes": "GRANT SHOW VIEW ON *.* TO 'visitor'@'localhost';",
    "InnoDB files": "GRANT PROCESS ON *.* TO 'visitor'@'localhost';",
    "tables of other engines": "GRANT SHOW VIEW ON *.* TO 'visitor'@'localhost';",
    "binary log size": "GRANT BINLOG MONITOR ON *.* TO 'visitor'@'localhost';",
}
MISSING = {
    (): {"list of databases", "InnoDB files", "tables of other engines", "binary log size"},
    ("PROCESS",): {"list of databases", "tables of other engines", "binary log size"},
    ("SHOW DATABASES",): {"database sizes", "InnoDB files", "tables of other engines", "binary log size"},
    ("PROCESS", "SHOW DATABASES"): {"database sizes", "tables of other engines", "binary log size"},
    ("SHOW VIEW",): {"InnoDB files", "binary log size"},
    ("PROCESS", "SHOW VIEW", "BINLOG MONITOR"): set(),
    ("ALL PRIVILEGES",): set(),
}


@pytest.mark.parametrize(("rights", "missing"), MISSING.items(), ids=lambda value: ", ".join(sorted(value)) or "none")
def test_what_cannot_be_measured_is_told_with_the_grant_that_is_missing(
    mariadb: MariadbFleetServer, rights: tuple[str, ...], missing: set[str]
) -> None:
    with audited(mariadb), account(mariadb, *rights) as target:
        told = capabilities(target, ONLY_OURS)
    assert {name: capability.grant for name, capability in told.items()} == {
        name: grant if name in missing else None for name, grant in GRANTS.items()
    }
    assert {name for name, capability in told.items() if not capability.available} == missing


def test_sizes_and_the_list_are_what_a_visit_cannot_do_without(mariadb: MariadbFleetServer) -> None:
    with audited(mariadb), account(mariadb, "PROCESS", "SHOW DATABASES") as target:
        told = capabilities(target, ONLY_OURS)
    assert {name for name, capability in told.items() if capability.required} == {"list of databases", "database sizes"}
    assert told["database sizes"].detail == "2 of 4 databases; not: audit_empty, audit_myisam"


@pytest.mark.parametrize("rights", MISSING, ids=lambda value: ", ".join(value) or "none")
def test_running_a_grant_mends_what_it_was_printed_for(mariadb: MariadbFleetServer, rights: tuple[str, ...]) -> None:
    with audited(mariadb) as files, account(mariadb, *rights) as target, mariadb.connect() as cursor:
        while missing := [found for found in capabilities(target, ONLY_OURS).values() if not found.available]:
            cursor.execute(str(missing[0].grant))
            assert capabilities(target, ONLY_OURS)[missing[0].name].available
        measurement = measure(target, ONLY_OURS)
    assert {database.name: database.size_bytes for database in measurement.databases} == files
    assert measurement.log_size_bytes


def test_a_grant_names_an_account_of_any_name(mariadb: MariadbFleetServer) -> None:
    with account(mariadb, name='o\'Neil "DBA" `x`\\') as target, mariadb.connect() as cursor:
        cursor.execute(str(capabilities(target)["InnoDB files"].grant))
        assert capabilities(target)["InnoDB files"].available


@pytest.mark.parametrize("rights", [("ALL PRIVILEGES",), ("SHOW VIEW",), ("PROCESS", "SHOW VIEW")])
def test_a_database_dropped_in_mid_visit_costs_that_database_alone(
    mariadb: MariadbFleetServer, monkeypatch: pytest.MonkeyPatch, rights: tuple[str, ...]
) -> None:
    class Interrupted(MysqlSession):
        def _list(self, excluded: NameFilter) -> dict[str, bytes]:
            listed = super()._list(excluded)
            with mariadb.connect() as cursor:
                cursor.execute("DROP DATABASE IF EXISTS audit_going")
            return listed

    monkeypatch.setattr(mysql, "MysqlSession", Interrupted)
    with databases(mariadb, "audit_going") as cursor, audited(mariadb) as files, account(mariadb, *rights) as target:
        run(cursor, "audit_going", TABLES["InnoDB"], ROWS)
        measurement = measure(target, ONLY_OURS)
    measured = {database.name: database for database in measurement.databases}
    assert measured.pop("audit_going") == DatabaseSize("audit_going", None, "dropped during the visit")
    assert measured.keys() == files.keys()
    assert all(database.size_bytes is not None for database in measured.values())


def test_the_session_cannot_write(mariadb: MariadbFleetServer) -> None:
    refused = pytest.raises(pymysql.err.Error, match="READ ONLY transaction")
    with databases(mariadb, "orders"), open_session(mariadb.target()) as session, refused:
        session._rows("CREATE TABLE orders.written (id INT)")


def test_a_statement_that_takes_too_long_is_ended_by_the_server(mariadb: MariadbFleetServer) -> None:
    with open_session(mariadb.target(), replace(LIMITS, statement_timeout_seconds=0.1)) as session:
        assert session._rows("SELECT @@max_statement_time") == [(0.1,)]
        with pytest.raises(pymysql.err.Error, match="max_statement_time exceeded"):
            session._rows("SELECT SLEEP(60)")


def test_the_version_is_the_servers(mariadb: MariadbFleetServer) -> None:
    with mariadb.connect() as cursor:
        cursor.execute("SELECT VERSION()")
        version = cursor.fetchall()[0][0]
    assert measure(mariadb.target()).version == version
    assert "MariaDB" in version


Rows = list[tuple[Any, ...]]


class PlayedConnection:
    """Plays a server of *version* that has the views in *views*, and no others."""

    def __init__(self, version: str, views: dict[str, Rows], grants: str = "ALL PRIVILEGES") -> None:
        self._views = views
        self._answers: dict[str, Rows] = {
            "SELECT VERSION()": [(version,)],
            "SELECT CURRENT_USER()": [("visitor@%",)],
            "SHOW GRANTS": [(f"GRANT {grants} ON *.* TO `visitor`@`%`",)],
        }
        self._rows: Rows = []
        self.statements: list[str] = []

    def cursor(self) -> PlayedConnection:
        return self

    def __enter__(self) -> PlayedConnection:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: str, _: object) -> None:
        self.statements.append(statement)
        asked = re.findall(r"information_schema\.(\w+)", statement)
        self._rows = self._views[asked[0]] if asked else self._answers.get(statement, [])
        assert set(asked) <= self._views.keys()

    def fetchall(self) -> Rows:
        return self._rows

    def escape(self, text: str) -> str:
        return f"'{text}'"


def played(connection: PlayedConnection) -> MysqlSession:
    return MysqlSession(cast("pymysql.Connection[Any]", connection), LIMITS)


def views_of(prefix: str, *, names: Rows, files: Rows, shared: Rows) -> dict[str, Rows]:
    return {
        "SCHEMATA": names,
        "TABLES": [(name, 0) for name, _ in names],
        f"{prefix}TABLESPACES": files,
        f"{prefix}TABLES": shared,
        f"{prefix}TABLESTATS": [(1,)],
    }


NAMES: Rows = [(b"a-b", b"a@002db"), (b"a@002db", b"a@0040002db")]


@pytest.mark.parametrize("version", ["8.0.11", "8.4.3", "9.1.0-commercial"])
def test_mysql_8_keeps_the_names_of_its_files_as_they_are(version: str) -> None:
    views = views_of(
        "INNODB_", names=NAMES, files=[(b"a-b", 100), (b"a@002db", 10)], shared=[(b"a@002db", 1), (b"a@0040002db", 2)]
    )
    databases = measured_by(played(PlayedConnection(version, views))).databases
    assert databases == (DatabaseSize("a-b", 101), DatabaseSize("a@002db", 12))


@pytest.mark.parametrize("version", ["5.7.44-log", "10.6.18-MariaDB", "11.8.2-MariaDB-ubu2404"])
def test_older_servers_and_mariadb_keep_the_names_of_directories(version: str) -> None:
    views = views_of(
        "INNODB_SYS_", names=NAMES, files=[(b"a@002db", 100), (b"a@0040002db", 10)], shared=[(b"a@0040002db", 2)]
    )
    databases = measured_by(played(PlayedConnection(version, views))).databases
    assert databases == (DatabaseSize("a-b", 100), DatabaseSize("a@002db", 12))


@pytest.mark.parametrize(
    ("version", "settings"),
    [
        ("5.7.44-log", ["SET SESSION max_execution_time = 20000"]),
        ("8.4.3", ["SET SESSION max_execution_time = 20000", "SET SESSION information_schema_stats_expiry = 0"]),
        ("10.6.18-MariaDB", ["SET SESSION max_statement_time = 20.0"]),
    ],
)
def test_each_version_is_limited_by_its_own_settings(version: str, settings: list[str]) -> None:
    connection = PlayedConnection(version, {})
    played(connection)
    assert connection.statements == ["SELECT VERSION()", "SET SESSION TRANSACTION READ ONLY", *settings]


@pytest.mark.parametrize(
    ("version", "grant"),
    [
        ("5.7.44-log", "GRANT REPLICATION CLIENT ON *.* TO 'visitor'@'%';"),
        ("8.4.3", "GRANT REPLICATION CLIENT ON *.* TO 'visitor'@'%';"),
        ("10.6.18-MariaDB", "GRANT BINLOG MONITOR ON *.* TO 'visitor'@'%';"),
    ],
)
def test_each_version_has_its_own_grant_for_binary_logs(
    version: str, grant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: MysqlSession) -> list[int]:
        raise pymysql.err.OperationalError(1227, "Access denied; you need (at least one of) the ... privilege(s)")

    monkeypatch.setattr(MysqlSession, "_binary_logs", refused)
    prefix = "INNODB_" if version.startswith("8") else "INNODB_SYS_"
    views = views_of(prefix, names=NAMES, files=[], shared=[])
    told = played(PlayedConnection(version, views)).capabilities(EVERYTHING)
    assert {capability.name: capability.grant for capability in told if capability.grant} == {"binary log size": grant}
