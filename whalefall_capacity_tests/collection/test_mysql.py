"""Sizes of MySQL and MariaDB databases are those of their files; what the account may not see is missing, never 0."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from whalefall_capacity.collection.meter import VISIT_LIMIT_BYTES
from whalefall_capacity.collection.mysql import MysqlSession
from whalefall_capacity.collection.mysql.connection import open_connection
from whalefall_capacity.collection.mysql.server import Server
from whalefall_capacity.collection.sizes import Capability, Cutoff, DatabaseSize, Findings, NameFilter, TimeLeft
from whalefall_capacity.demo.mysql_family import MariadbServer, MysqlServer
from whalefall_capacity.errors import CollectionError
from whalefall_capacity_tests.collection.mysql_family import (
    EVERY_TABLE,
    INNODB,
    MYISAM,
    NOT_VISIBLE,
    ONLY_OURS,
    ROWS,
    account,
    capabilities,
    databases,
    estimate,
    file_bytes,
    log_privilege,
    measure,
    measure_sizes,
    open_session,
    run,
    shared_tablespace,
    sizes_of,
    tables_of,
)
from whalefall_capacity_tests.collection.support import settled
from whalefall_capacity_tests.servers import (
    LIMITS,
    FamilyServer,
    MariadbFleetServer,
    MysqlFleetServer,
    require_mysql,
)

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


@pytest.mark.parametrize(("family", "statement"), EVERY_TABLE, indirect=["family"])
def test_a_size_is_that_of_the_files_to_the_byte(family: FamilyServer, statement: str) -> None:
    with databases(family, "orders") as cursor:
        run(cursor, "orders", statement, ROWS)
        files, sizes = settled(lambda: file_bytes(family, "orders"), lambda: measure_sizes(family.target()))
    assert sizes["orders"] == files > 5_000


def test_tables_of_all_engines_are_added_up(family: FamilyServer) -> None:
    with databases(family, "orders") as cursor:
        for number, statement in enumerate(tables_of(family).values()):
            table = f"items_{number}"
            run(cursor, "orders", statement.replace("items", table), ROWS.replace("items", table))
        files, sizes = settled(lambda: file_bytes(family, "orders"), lambda: measure_sizes(family.target()))
    assert sizes["orders"] == files


def test_names_with_every_awkward_character_are_measured(family: FamilyServer) -> None:
    def files() -> dict[str, int]:
        return {name: file_bytes(family, directory) for name, directory in DIRECTORIES.items()}

    with databases(family, *DIRECTORIES) as cursor:
        for number, name in enumerate(DIRECTORIES, start=1):
            # A size of its own for each, so that none can pass for another.
            rows = f"INSERT INTO `a-b` VALUES {', '.join(['(1)'] * number)}"
            run(cursor, name, "CREATE TABLE `a-b` (id INT) ENGINE=MyISAM", rows, "CREATE TABLE i (id INT)")
        expected, sizes = settled(files, lambda: measure_sizes(family.target()))
    assert {name: sizes[name] for name in DIRECTORIES} == expected
    assert len(set(expected.values())) == len(DIRECTORIES)


def test_a_directory_with_an_unencoded_name_is_measured(mariadb: MariadbFleetServer) -> None:
    family = mariadb
    directory = family.server.data_dir / "old-dir"
    directory.mkdir()
    try:
        with family.connect() as cursor:
            run(cursor, "#mysql50#old-dir", INNODB, ROWS, MYISAM.replace("items", "more"))
            files, sizes = settled(lambda: file_bytes(family, "old-dir"), lambda: measure_sizes(family.target()))
            cursor.execute("DROP TABLE items, more")
    finally:
        shutil.rmtree(directory)
    assert sizes["#mysql50#old-dir"] == files > 100_000


def test_a_page_compressed_table_counts_what_its_file_allocates(family: FamilyServer) -> None:
    def allocated() -> int:
        return (family.server.data_dir / "sparse" / "items.ibd").stat().st_blocks * 512

    with databases(family, "sparse") as cursor:
        compression = "PAGE_COMPRESSED=1" if isinstance(family, MariadbFleetServer) else "COMPRESSION='zlib'"
        run(cursor, "sparse", f"{INNODB} {compression}", ROWS)
        run(cursor, "sparse", "FLUSH TABLES items FOR EXPORT", "UNLOCK TABLES")
        files, sizes = settled(allocated, lambda: measure_sizes(family.target()))
        assert sizes["sparse"] == files < file_bytes(family, "sparse")


def test_a_table_whose_file_lies_elsewhere_is_counted(mariadb: MariadbFleetServer, tmp_path: Path) -> None:
    family = mariadb
    with databases(family, "orders") as cursor:
        run(cursor, "orders", f"{INNODB} DATA DIRECTORY='{tmp_path}'", ROWS)
        elsewhere = tmp_path / "orders" / "items.ibd"
        files, sizes = settled(lambda: elsewhere.stat().st_size, lambda: measure_sizes(family.target()))
    assert sizes["orders"] == files


def test_tables_that_keep_nothing_on_disk_count_nothing(family: FamilyServer) -> None:
    with databases(family, "orders") as cursor:
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
        files, sizes = settled(lambda: file_bytes(family, "orders"), lambda: measure_sizes(family.target()))
    assert sizes["orders"] == files == 3 * 7 + 1024


def test_tables_in_the_system_tablespace_count_their_pages(family: FamilyServer) -> None:
    with databases(family, "orders", "a-b") as cursor:
        with shared_tablespace(cursor):
            run(cursor, "orders", INNODB)
            run(cursor, "a-b", INNODB, ROWS, "ANALYZE TABLE items")
        run(cursor, "orders", INNODB.replace("items", "own_file"))
        own_file, sizes = settled(lambda: file_bytes(family, "orders"), lambda: measure_sizes(family.target()))
        # A page for the primary key and one for the other index.
        assert sizes["orders"] == own_file + 2 * 16384
        assert sizes["a-b"] == estimate(cursor, "a-b") > 400_000
        assert file_bytes(family, "a@002db") == 0


def test_an_empty_database_measures_0(family: FamilyServer) -> None:
    with databases(family, "empty"):
        assert measure_sizes(family.target())["empty"] == 0


def test_system_databases_and_leftovers_of_the_server_are_left_out(mariadb: MariadbFleetServer) -> None:
    family = mariadb
    stray = family.server.data_dir / "lost+found"
    stray.mkdir()
    try:
        with databases(family, "orders", "#sql-1", "sys_2"):
            names = measure_sizes(family.target()).keys()
    finally:
        stray.rmdir()
    assert {"orders", "sys_2"} <= names
    assert names.isdisjoint(
        {"information_schema", "performance_schema", "mysql", "sys", "#sql-1", "#mysql50#lost+found"}
    )


# `mýsql` is `mysql` to the collation of names in MariaDB.
@pytest.mark.parametrize("name", ["SYS", "MySQL", "mýsql", "#SQL import", "sys_"])
def test_a_database_whose_name_resembles_one_of_the_server_is_measured_whole(family: FamilyServer, name: str) -> None:
    with databases(family, name, "plain") as cursor:
        for database in (name, "plain"):
            run(cursor, database, INNODB, ROWS, MYISAM.replace("items", "more"), ROWS.replace("items", "more"))
        sizes = measure_sizes(family.target())
    assert sizes[name] == sizes["plain"]


def test_a_database_that_the_filter_excludes_is_not_listed(family: FamilyServer) -> None:
    with databases(family, "temp_1", "temperature", "scratch"):
        names = measure_sizes(family.target(), NameFilter(frozenset({"scratch"}), "temp_.*")).keys()
    assert "temperature" in names
    assert names.isdisjoint({"temp_1", "scratch"})


@pytest.fixture(scope="module", params=[MariadbFleetServer, MysqlFleetServer])
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FamilyServer:
    """A server without binary logs, with a table of each kind in a database of its own, that does not run."""
    folder = tmp_path_factory.mktemp("stopped")
    if request.param is MysqlFleetServer:
        require_mysql()
    local = MariadbServer(folder) if request.param is MariadbFleetServer else MysqlServer(folder)
    server: FamilyServer = request.param(local)
    with server.server.running(), server.connect() as cursor:
        for number, statement in enumerate(tables_of(server).values()):
            cursor.execute(f"CREATE DATABASE kind_{number}")
            run(cursor, f"kind_{number}", statement, ROWS)
        cursor.execute("CREATE DATABASE shared")
        with shared_tablespace(cursor):
            run(cursor, "shared", INNODB, ROWS, "ANALYZE TABLE items")
    return server


@pytest.fixture
def restarted(stopped: FamilyServer) -> Iterator[FamilyServer]:
    """That server when it has just been started, and has opened no table yet."""
    with stopped.server.running("--innodb-buffer-pool-load-at-startup=OFF", "--performance-schema=ON"):
        yield stopped


def test_after_a_restart_nothing_is_lost(restarted: FamilyServer) -> None:
    kinds = [f"kind_{number}" for number in range(len(tables_of(restarted)))]
    files, sizes = settled(
        lambda: {kind: file_bytes(restarted, kind) for kind in kinds}, lambda: measure_sizes(restarted.target())
    )
    assert {kind: sizes[kind] for kind in kinds} == files


def test_after_a_restart_the_files_are_seen_by_an_account_that_sees_no_tables(restarted: FamilyServer) -> None:
    with account(restarted, "PROCESS", "SHOW DATABASES") as target:
        files, sizes = settled(lambda: file_bytes(restarted, "kind_0"), lambda: measure_sizes(target))
    assert sizes["kind_0"] == files


def test_after_a_restart_pages_of_the_system_tablespace_are_known_once_their_statistics_are_loaded(
    restarted: FamilyServer,
) -> None:
    with account(restarted, "PROCESS", "SHOW DATABASES") as blind, restarted.connect() as cursor:
        # This account cannot load them, and nobody else has yet.
        assert measure_sizes(blind)["shared"] is None
        size = measure_sizes(restarted.target())["shared"]
        assert size == estimate(cursor, "shared") > 400_000
        # MySQL tells the lengths without loading them.
        assert measure_sizes(blind)["shared"] == (size if isinstance(restarted, MariadbFleetServer) else None)


def test_the_session_is_named_for_the_server_to_see(restarted: FamilyServer) -> None:
    with open_session(restarted.target()), restarted.connect() as cursor:
        cursor.execute(
            "SELECT ATTR_VALUE FROM performance_schema.session_connect_attrs WHERE ATTR_NAME = 'program_name'"
        )
        assert cursor.fetchall() == (("whalefall_capacity",),)


def test_without_binary_logs_their_size_is_not_known_and_no_grant_is_missing(restarted: FamilyServer) -> None:
    assert measure(restarted.target()).log_size_bytes is None
    assert capabilities(restarted.target())["binary log size"] == Capability(
        "binary log size", True, False, "SHOW BINARY LOGS", None
    )


def test_the_binary_logs_are_the_sum_of_their_files(family: FamilyServer) -> None:
    def files() -> int:
        return sum(file.stat().st_size for file in family.server.data_dir.glob("binlog.[0-9]*"))

    with family.connect() as cursor:
        cursor.execute("FLUSH BINARY LOGS")
    expected, measurement = settled(files, lambda: measure(family.target()))
    assert measurement.log_size_bytes == expected > 0


@pytest.mark.parametrize("stopped", [MariadbFleetServer, MysqlFleetServer], indirect=True)
def test_the_binary_logs_are_not_known_when_one_of_them_was_removed(stopped: FamilyServer) -> None:
    logs = stopped.server.folder / "logs"
    with stopped.server.running(f"--log-bin={logs}"):
        with stopped.connect() as cursor:
            cursor.execute("FLUSH BINARY LOGS")
        logs.with_suffix(".000001").unlink()
        measurement = measure(stopped.target())
        told = capabilities(stopped.target())["binary log size"]
    assert all(database.size_bytes for database in measurement.databases)
    assert measurement.log_size_bytes is None
    assert (told.available, told.grant) == (False, None)
    assert "logs.000001" in told.detail


def test_the_binary_logs_are_not_known_without_the_privilege_for_them(family: FamilyServer) -> None:
    with databases(family, "orders"), account(family, "PROCESS", "SHOW VIEW") as target:
        measurement = measure(target)
    assert measurement.log_size_bytes is None
    assert all(database.size_bytes is not None for database in measurement.databases)


@contextmanager
def audited(server: FamilyServer) -> Iterator[dict[str, int]]:
    """Hold four databases, and yield the length of their files."""
    names = ("audit_innodb", "audit_myisam", "audit_mixed", "audit_empty")
    with databases(server, *names) as cursor:
        run(cursor, "audit_innodb", INNODB, ROWS)
        run(cursor, "audit_myisam", MYISAM, ROWS)
        run(cursor, "audit_mixed", INNODB, MYISAM.replace("items", "more"), ROWS)
        files: dict[str, int] = {}
        settled(lambda: files.update({name: file_bytes(server, name) for name in names}) or dict(files), lambda: None)
        yield files


@pytest.mark.parametrize(
    "rights", [("PROCESS", "SHOW VIEW"), ("PROCESS", "SELECT"), ("ALL PRIVILEGES",), ("PROCESS", "SHOW VIEW", "INSERT")]
)
def test_an_account_that_sees_files_and_tables_measures_everything(
    family: FamilyServer, rights: tuple[str, ...]
) -> None:
    with audited(family) as files, account(family, *rights) as target:
        measurement = measure(target, ONLY_OURS)
    assert (sizes_of(measurement), measurement.caveats) == (files, ())


def test_rights_may_come_from_a_role(family: FamilyServer) -> None:
    with audited(family) as files, account(family) as target, family.connect() as cursor:
        cursor.execute("CREATE ROLE watchers")
        cursor.execute("GRANT PROCESS, SHOW VIEW ON *.* TO watchers")
        cursor.execute("GRANT watchers TO visitor@localhost")
        on_at_login = "FOR" if isinstance(family, MariadbFleetServer) else "TO"
        cursor.execute(f"SET DEFAULT ROLE watchers {on_at_login} visitor@localhost")
        sizes = measure_sizes(target, ONLY_OURS)
        told = capabilities(target, ONLY_OURS)
        cursor.execute("DROP ROLE watchers")
    assert sizes == files
    assert [name for name, capability in told.items() if capability.grant] == ["binary log size"]


@pytest.mark.parametrize("rights", [(), ("PROCESS",), ("PROCESS", "REPLICATION CLIENT")])
def test_an_account_that_sees_no_database_fails_and_says_what_to_run(
    family: FamilyServer, rights: tuple[str, ...]
) -> None:
    with audited(family), account(family, *rights) as target, pytest.raises(CollectionError) as failure:
        measure(target)
    assert str(failure.value) == (
        "the account sees no database at all; run GRANT SHOW DATABASES ON *.* TO 'visitor'@'localhost';"
    )


def test_an_account_that_sees_only_names_measures_nothing(family: FamilyServer) -> None:
    with audited(family) as files, account(family, "SHOW DATABASES") as target:
        measurement = measure(target, ONLY_OURS)
    assert measurement.databases == tuple(DatabaseSize(name, None, NOT_VISIBLE) for name in sorted(files))


def test_an_account_that_sees_only_files_misses_what_has_none(family: FamilyServer) -> None:
    with audited(family) as files, account(family, "PROCESS", "SHOW DATABASES") as target:
        innodb_alone = (family.server.data_dir / "audit_mixed" / "items.ibd").stat().st_size
        measurement = measure(target, ONLY_OURS)
        assert sizes_of(measurement) == {
            "audit_innodb": files["audit_innodb"],
            "audit_mixed": innodb_alone,
            "audit_myisam": None,
            "audit_empty": None,
        }
        assert measurement.caveats == (
            "only InnoDB's files are counted in audit_innodb, audit_mixed: the account does not see whether there are "
            "tables of other engines; it needs SHOW VIEW on all",
        )


def test_an_account_that_sees_only_tables_estimates_innodb(family: FamilyServer) -> None:
    with audited(family) as files, account(family, "SHOW VIEW") as target, family.connect() as cursor:
        measurement = measure(target, ONLY_OURS)
        assert sizes_of(measurement) == {
            "audit_innodb": estimate(cursor, "audit_innodb"),
            "audit_mixed": estimate(cursor, "audit_mixed"),
            "audit_myisam": files["audit_myisam"],
            "audit_empty": 0,
        }
        assert measurement.caveats == (
            "the sizes of InnoDB tables are estimates of information_schema.TABLES: the account needs PROCESS",
        )


def test_an_account_of_one_database_sees_that_one(family: FamilyServer) -> None:
    with audited(family) as files, account(family, "SELECT ON audit_myisam.*") as target:
        assert measure_sizes(target, ONLY_OURS) == {"audit_myisam": files["audit_myisam"]}


PRIVILEGES = {
    "list of databases": "SHOW DATABASES",
    "database sizes": "SHOW VIEW",
    "InnoDB files": "PROCESS",
    "tables of other engines": "SHOW VIEW",
}
MISSING = {
    (): {"list of databases", "InnoDB files", "tables of other engines", "binary log size"},
    ("PROCESS",): {"list of databases", "tables of other engines", "binary log size"},
    ("SHOW DATABASES",): {"database sizes", "InnoDB files", "tables of other engines", "binary log size"},
    ("PROCESS", "SHOW DATABASES"): {"database sizes", "tables of other engines", "binary log size"},
    ("SHOW VIEW",): {"InnoDB files", "binary log size"},
    ("PROCESS", "SHOW VIEW", "REPLICATION CLIENT"): set(),
    ("ALL PRIVILEGES",): set(),
}


@pytest.mark.parametrize(("rights", "missing"), MISSING.items(), ids=lambda value: ", ".join(sorted(value)) or "none")
def test_what_cannot_be_measured_is_told_with_the_grant_that_is_missing(
    family: FamilyServer, rights: tuple[str, ...], missing: set[str]
) -> None:
    with audited(family), account(family, *rights) as target:
        told = capabilities(target, ONLY_OURS)
    privileges = PRIVILEGES | {"binary log size": log_privilege(family)}
    assert {name: capability.grant for name, capability in told.items()} == {
        name: f"GRANT {privilege} ON *.* TO 'visitor'@'localhost';" if name in missing else None
        for name, privilege in privileges.items()
    }
    assert {name for name, capability in told.items() if not capability.available} == missing


def test_sizes_and_the_list_are_what_a_visit_cannot_do_without(family: FamilyServer) -> None:
    with audited(family), account(family, "PROCESS", "SHOW DATABASES") as target:
        told = capabilities(target, ONLY_OURS)
    assert {name for name, capability in told.items() if capability.required} == {"list of databases", "database sizes"}
    assert told["database sizes"].detail == "2 of 4 databases; not: audit_empty, audit_myisam"


@pytest.mark.parametrize("rights", MISSING, ids=lambda value: ", ".join(value) or "none")
def test_running_a_grant_mends_what_it_was_printed_for(family: FamilyServer, rights: tuple[str, ...]) -> None:
    with audited(family) as files, account(family, *rights) as target, family.connect() as cursor:
        while missing := [found for found in capabilities(target, ONLY_OURS).values() if not found.available]:
            cursor.execute(str(missing[0].grant))
            assert capabilities(target, ONLY_OURS)[missing[0].name].available
        measurement = measure(target, ONLY_OURS)
    assert {database.name: database.size_bytes for database in measurement.databases} == files
    assert measurement.log_size_bytes


def test_a_grant_names_an_account_of_any_name(family: FamilyServer) -> None:
    with account(family, name='o\'Neil "DBA" `x`\\') as target, family.connect() as cursor:
        cursor.execute(str(capabilities(target)["InnoDB files"].grant))
        assert capabilities(target)["InnoDB files"].available


@dataclass(frozen=True)
class Dropping(NameFilter):
    """A filter that has a database dropped as soon as the databases are listed."""

    server: FamilyServer = field(kw_only=True)

    def excludes(self, name: str) -> bool:
        with self.server.connect() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS audit_going")
        return not name.startswith("audit_")


@pytest.mark.parametrize("rights", [("ALL PRIVILEGES",), ("SHOW VIEW",), ("PROCESS", "SHOW VIEW")])
def test_a_database_dropped_in_mid_visit_costs_that_database_alone(
    family: FamilyServer, rights: tuple[str, ...]
) -> None:
    with databases(family, "audit_going") as cursor, audited(family) as files, account(family, *rights) as target:
        run(cursor, "audit_going", INNODB, ROWS)
        measurement = measure(target, Dropping(server=family))
    measured = {database.name: database for database in measurement.databases}
    assert measured.pop("audit_going") == DatabaseSize("audit_going", None, "dropped during the visit")
    assert measured.keys() == files.keys()
    assert all(database.size_bytes is not None for database in measured.values())


def test_the_version_is_the_servers(family: FamilyServer) -> None:
    with family.connect() as cursor:
        cursor.execute("SELECT VERSION()")
        version = cursor.fetchall()[0][0]
    assert measure(family.target()).version == version
    assert ("MariaDB" in version) is isinstance(family, MariadbFleetServer)


def test_hundreds_of_thousands_of_innodb_tables_fit_into_the_memory_of_a_visit(family: FamilyServer) -> None:
    def taken() -> int:
        with closing(open_connection(family.target(), LIMITS, Cutoff())) as connection:
            MysqlSession(Server(connection, TimeLeft(LIMITS))).measure(ONLY_OURS, Findings())
            return connection.meter.taken_bytes

    with databases(family, "audit_warehouse") as cursor:
        cursor.connection.select_db("audit_warehouse")
        before = taken()
        for number in range(200):
            cursor.execute(f"CREATE TABLE orders_{number} (id INT) ENGINE=InnoDB")
        after = taken()
    tables = 200_000 if isinstance(family, MariadbFleetServer) else 300_000
    assert (after - before) / 200 * tables < VISIT_LIMIT_BYTES
