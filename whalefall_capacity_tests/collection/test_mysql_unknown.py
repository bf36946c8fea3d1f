"""A size that is not known is never smaller: the database is missing, with the name of the table as the reason."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pymysql
import pytest

from whalefall_capacity.collection.mysql.names import directory_of
from whalefall_capacity.collection.sizes import DatabaseSize, Limits, NameFilter
from whalefall_capacity.demo.mysql_family import MariadbServer, MysqlServer
from whalefall_capacity_tests.collection.mysql_family import (
    FULL_TEXT,
    INNODB,
    MYISAM,
    NOT_VISIBLE,
    ROWS,
    TABLES,
    account,
    capabilities,
    databases,
    estimate,
    file_bytes,
    measure,
    measure_sizes,
    reasons,
    run,
    server_setting,
    shared_tablespace,
)
from whalefall_capacity_tests.collection.relay import Refused, relay
from whalefall_capacity_tests.collection.support import peer, settled, silent
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.servers import FamilyServer, MariadbFleetServer, MysqlFleetServer, require_mysql

OURS = NameFilter(regex="(?!audit_).*")
GARBAGE = b"no index" * 200


def lose(path: Path) -> None:
    path.unlink()


def spoil(path: Path) -> None:
    path.write_bytes(GARBAGE)


DAMAGES = [
    pytest.param(server, engine, suffix, damage, id=f"{server}: {damage.__name__} {suffix}")
    for server, engine, suffix, damage in [
        ("mariadb", "MyISAM", "MYI", lose),
        ("mariadb", "MyISAM", "MYI", spoil),
        ("mariadb", "MyISAM", "MYD", lose),
        ("mariadb", "Aria", "MAI", lose),
        ("mariadb", "Aria", "MAI", spoil),
        ("mariadb", "Aria", "MAD", lose),
        ("mariadb", "InnoDB", "ibd", lose),
        ("mysql", "MyISAM", "MYI", lose),
        ("mysql", "MyISAM", "MYI", spoil),
        ("mysql", "MyISAM", "MYD", lose),
        ("mysql", "ARCHIVE", "ARZ", lose),
    ]
]


@contextmanager
def cleaned_up(cursor: pymysql.cursors.Cursor, directory: Path) -> Iterator[None]:
    """Drop the damaged table at the end, whose database could otherwise not be dropped."""
    try:
        yield
    finally:
        with suppress(pymysql.Error):
            cursor.execute("DROP TABLE broken")
        for path in directory.glob("broken.*"):
            path.unlink()


@pytest.mark.parametrize(("family", "engine", "suffix", "damage"), DAMAGES, indirect=["family"])
def test_a_table_that_cannot_be_opened_is_the_reason(
    family: FamilyServer, engine: str, suffix: str, damage: Callable[[Path], None]
) -> None:
    directory = family.server.data_dir / "audit_damaged"
    with databases(family, "audit_damaged", "audit_whole") as cursor, cleaned_up(cursor, directory):
        assert_damage_is_the_reason(family, cursor, engine, suffix, damage)


def test_a_file_of_innodb_that_mysql_has_lost_is_the_reason(tmp_path_factory: pytest.TempPathFactory) -> None:
    require_mysql()
    # On a server of its own, where nothing is cleaned up: MySQL may end when such a table is dropped.
    with MysqlServer(tmp_path_factory.mktemp("lost")).running() as server:
        family = MysqlFleetServer(server)
        with family.connect() as cursor:
            for name in ("audit_damaged", "audit_whole"):
                cursor.execute(f"CREATE DATABASE {name}")
            assert_damage_is_the_reason(family, cursor, "InnoDB", "ibd", lose)


def assert_damage_is_the_reason(
    family: FamilyServer, cursor: pymysql.cursors.Cursor, engine: str, suffix: str, damage: Callable[[Path], None]
) -> None:
    columns = "id INT" if engine == "ARCHIVE" else "id INT PRIMARY KEY"
    run(cursor, "audit_whole", INNODB, ROWS, MYISAM.replace("items", "more"))
    run(cursor, "audit_damaged", INNODB, ROWS, f"CREATE TABLE broken ({columns}) ENGINE={engine}")
    run(cursor, "audit_damaged", "INSERT INTO broken VALUES (1)")
    damage(family.server.data_dir / "audit_damaged" / f"broken.{suffix}")
    run(cursor, "audit_damaged")
    whole, found = settled(lambda: file_bytes(family, "audit_whole"), lambda: measure(family.target(), OURS))
    damaged, other = found.databases
    assert damaged.name == "audit_damaged"
    assert damaged.size_bytes is None
    assert "broken" in str(damaged.reason)
    assert "cannot be opened" in str(damaged.reason)
    assert other == DatabaseSize("audit_whole", whole)


def test_without_process_a_table_that_cannot_be_opened_is_the_reason_too(family: FamilyServer) -> None:
    with databases(family, "audit_damaged") as cursor, account(family, "SHOW VIEW") as target:
        run(cursor, "audit_damaged", INNODB, ROWS, MYISAM.replace("items", "broken"))
        directory = family.server.data_dir / "audit_damaged"
        with cleaned_up(cursor, directory):
            lose(directory / "broken.MYI")
            run(cursor, "audit_damaged")
            found = reasons(target, OURS)
    assert str(found["audit_damaged"]).startswith("the table broken cannot be opened: ")


def test_a_table_whose_engine_tells_no_length_is_the_reason(family: FamilyServer) -> None:
    with databases(family, "audit_csv") as cursor:
        run(cursor, "audit_csv", "CREATE TABLE notes (id INT NOT NULL) ENGINE=CSV", "INSERT INTO notes VALUES (1), (2)")
        found = reasons(family.target(), OURS)
    assert found == {
        "audit_csv": "the size of the table notes is not known: its storage engine CSV does not tell it",
    }


@contextmanager
def engine_renamed(server: FamilyServer, database: str, table: str, engine: bytes) -> Iterator[None]:
    """Have a MyISAM table be of another engine of a name of six letters, which this server has not got."""
    definition = server.server.data_dir / database / f"{table}.frm"
    before = definition.read_bytes()
    assert before.count(b"MyISAM") == 1
    # The fourth byte is the number of an engine that was there before engines had names.
    definition.write_bytes(before[:3] + b"\x2a" + before[4:].replace(b"MyISAM", engine))
    try:
        yield
    finally:
        definition.write_bytes(before)


def test_a_table_whose_engine_is_gone_is_the_reason(mariadb: MariadbFleetServer) -> None:
    with databases(mariadb, "audit_gone") as cursor:
        run(cursor, "audit_gone", MYISAM, ROWS)
        with engine_renamed(mariadb, "audit_gone", "items", b"Tokyo1"):
            run(cursor, "audit_gone")
            found = reasons(mariadb.target(), OURS)
        run(cursor, "audit_gone")
    assert found == {"audit_gone": "the table items cannot be opened: Unknown storage engine 'Tokyo1'"}


def test_a_table_of_a_remote_engine_is_left_out_and_its_length_is_not_asked(family: FamilyServer) -> None:
    with databases(family, "audit_remote") as cursor, relay(family, replaced=(b"\x06MyISAM", b"\x06SPIDER")) as way:
        run(cursor, "audit_remote", INNODB, ROWS, MYISAM.replace("items", "far"))
        file = family.server.data_dir / "audit_remote" / "items.ibd"
        local, sizes = settled(lambda: file.stat().st_size, lambda: measure_sizes(way.target, OURS))
    assert sizes == {"audit_remote": local}
    assert [statement for statement in way.statements if b"far".hex().upper() in statement] == []


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MysqlFleetServer]:
    """A MySQL server with tables of other servers."""
    require_mysql()
    with MysqlServer(tmp_path_factory.mktemp("federated")).running("--federated") as server:
        yield MysqlFleetServer(server)


def test_a_remote_table_that_hangs_costs_nothing(federated: MysqlFleetServer) -> None:
    with peer(silent) as remote, databases(federated, "audit_remote", "audit_view") as cursor:
        far = f"CREATE TABLE far (id INT) ENGINE=FEDERATED CONNECTION='mysql://u:p@127.0.0.1:{remote.port}/d/t'"
        run(cursor, "audit_remote", MYISAM, ROWS, far)
        run(cursor, "audit_view", "CREATE VIEW seen AS SELECT id FROM audit_remote.items", INNODB)

        def files() -> dict[str, int]:
            return {name: file_bytes(federated, name) for name in ("audit_remote", "audit_view")}

        expected, sizes = settled(files, lambda: measure_sizes(federated.target(), OURS))
        assert remote.arrivals == 0
    assert sizes == expected


def test_general_tablespaces_are_divided_among_the_databases_that_use_them(mysql: MysqlFleetServer) -> None:
    def file(name: str) -> int:
        return (mysql.server.data_dir / name).stat().st_size

    with databases(mysql, "audit_alone", "audit_large", "audit_small") as cursor:
        for name in ("alone", "divided"):
            cursor.execute(f"CREATE TABLESPACE {name} ADD DATAFILE '{name}.ibd'")
        run(cursor, "audit_alone", f"{INNODB} TABLESPACE alone", ROWS)
        run(cursor, "audit_large", f"{INNODB} TABLESPACE divided", ROWS, "ANALYZE TABLE items")
        run(cursor, "audit_small", f"{INNODB} TABLESPACE divided", "ANALYZE TABLE items")
        expected, sizes = settled(
            lambda: (file("alone.ibd"), file("divided.ibd")), lambda: measure_sizes(mysql.target(), OURS)
        )
        for name in ("audit_alone", "audit_large", "audit_small"):
            run(cursor, name, "DROP TABLE items")
        for name in ("alone", "divided"):
            cursor.execute(f"DROP TABLESPACE {name}")
    alone, large, small = (sizes[f"audit_{which}"] for which in ("alone", "large", "small"))
    assert alone == expected[0]
    assert large is not None
    assert small is not None
    assert large + small == pytest.approx(expected[1], abs=2)
    assert large > small > 0


def test_a_general_tablespace_with_a_full_text_index_is_divided_by_the_pages_that_are_known(
    mysql: MysqlFleetServer,
) -> None:
    file = mysql.server.data_dir / "divided.ibd"
    with databases(mysql, "audit_large", "audit_small") as cursor:
        cursor.execute("CREATE TABLESPACE divided ADD DATAFILE 'divided.ibd'")
        run(cursor, "audit_large", f"{FULL_TEXT} TABLESPACE divided", ROWS, "ANALYZE TABLE items")
        run(cursor, "audit_small", f"{INNODB} TABLESPACE divided", "ANALYZE TABLE items")
        whole, sizes = settled(lambda: file.stat().st_size, lambda: measure_sizes(mysql.target(), OURS))
        for name in ("audit_large", "audit_small"):
            run(cursor, name, "DROP TABLE items")
        cursor.execute("DROP TABLESPACE divided")
    large, small = sizes["audit_large"], sizes["audit_small"]
    assert large is not None
    assert small is not None
    assert large + small == pytest.approx(whole, abs=2)
    assert large > small > 0


@contextmanager
def waiting_to_change(server: FamilyServer, database: str) -> Iterator[None]:
    """Hold a statement that waits to change `items`, which another connection has read and does not let go of."""
    change = "ALTER TABLE items ADD COLUMN more INT"

    def wait() -> None:
        with server.connect() as cursor:
            cursor.connection.select_db(database)
            cursor.execute(change)

    with server.connect() as reader, server.connect() as watcher:
        reader.execute("BEGIN")
        reader.execute(f"SELECT COUNT(*) FROM {database}.items")
        thread = threading.Thread(target=wait)
        thread.start()
        try:
            waiting = "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO = %s AND STATE LIKE 'Waiting%%'"
            wait_for(lambda: watcher.execute(waiting, (change,)) == 1, "a statement that waits for the table")
            yield
        finally:
            reader.execute("ROLLBACK")
            thread.join()


def test_a_table_that_somebody_waits_to_change_costs_no_size(family: FamilyServer) -> None:
    with databases(family, "audit_waiting", "audit_whole") as cursor:
        for name in ("audit_waiting", "audit_whole"):
            run(
                cursor,
                name,
                INNODB,
                ROWS,
                FULL_TEXT.replace("items", "notes"),
                TABLES["InnoDB, partitioned"].replace("items", "parts"),
            )
        with waiting_to_change(family, "audit_waiting"):
            files, found = settled(
                lambda: [file_bytes(family, name) for name in ("audit_waiting", "audit_whole")],
                lambda: measure(family.target(), OURS),
            )
    assert [database.size_bytes for database in found.databases] == files
    assert found.caveats == ()


@contextmanager
def being_created(server: FamilyServer, database: str, table: str) -> Iterator[None]:
    """Hold a statement that creates a MyISAM table from what it selects, and has not selected all of it yet."""

    def create() -> None:
        with server.connect() as cursor:
            # MySQL refuses to log it where transactions have global ids.
            cursor.execute("SET SESSION sql_log_bin = 0")
            cursor.execute(f"CREATE TABLE {database}.{table} ENGINE=MyISAM AS SELECT GET_LOCK('rows', 60) AS more")

    with server.connect() as holder, server.connect() as watcher:
        holder.execute("SELECT GET_LOCK('rows', 0)")
        thread = threading.Thread(target=create)
        thread.start()
        try:
            waiting = "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'"
            wait_for(lambda: watcher.execute(waiting) == 1, "a statement that creates a table")
            yield
        finally:
            holder.execute("SELECT RELEASE_LOCK('rows')")
            thread.join()


def test_a_table_that_is_being_created_costs_its_database_alone_and_little_time(family: FamilyServer) -> None:
    limits = Limits(connect_timeout_seconds=5, statement_timeout_seconds=30, deadline_seconds=30)
    with databases(family, "audit_creating", "audit_whole") as cursor:
        run(cursor, "audit_whole", INNODB, ROWS, MYISAM.replace("items", "more"))
        whole = file_bytes(family, "audit_whole")
        with being_created(family, "audit_creating", "report"):
            found = measure(family.target(), OURS, limits).databases
    reason = "the table report cannot be opened: Lock wait timeout exceeded; try restarting transaction"
    assert found == (DatabaseSize("audit_creating", None, reason), DatabaseSize("audit_whole", whole))


def test_what_has_no_file_of_its_own_is_the_reason_while_a_table_is_locked(mysql: MysqlFleetServer) -> None:
    untold = (
        "cannot be told while InnoDB does not show its tables: a table stayed locked; `Waiting for table metadata "
        "lock` in SHOW PROCESSLIST leads to its holder"
    )
    with databases(mysql, "audit_shared", "audit_slash", "audit_waiting") as cursor:
        cursor.execute("CREATE TABLESPACE shared ADD DATAFILE 'shared.ibd'")
        run(cursor, "audit_shared", f"{INNODB} TABLESPACE shared")
        run(cursor, "audit_slash", INNODB.replace("items", "`a/b`"))
        run(cursor, "audit_waiting", INNODB)
        with waiting_to_change(mysql, "audit_waiting"):
            found = reasons(mysql.target(), OURS)
        run(cursor, "audit_shared", "DROP TABLE items")
        cursor.execute("DROP TABLESPACE shared")
    assert found == {
        "audit_shared": f"the table items has no file of its own, and its size {untold}",
        "audit_slash": f"whose the file audit_slash/a/b is {untold}",
    }


def test_a_database_whose_tables_the_account_does_not_see_is_missing_while_one_is_locked(
    mysql: MysqlFleetServer,
) -> None:
    with databases(mysql, "audit_waiting") as cursor, account(mysql, "PROCESS", "SHOW DATABASES") as target:
        run(cursor, "audit_waiting", INNODB)
        with waiting_to_change(mysql, "audit_waiting"):
            found = reasons(target, OURS)
    assert found == {"audit_waiting": NOT_VISIBLE}


def test_a_full_text_index_in_the_system_tablespace_is_the_reason_until_its_table_is_moved(
    family: FamilyServer,
) -> None:
    reason = (
        "InnoDB does not tell how large the full-text index of the table audit_text/items is in the system tablespace; "
        "ALTER TABLE ... TABLESPACE innodb_file_per_table gives it a file of its own"
    )
    with databases(family, "audit_text", "audit_plain") as cursor:
        with shared_tablespace(cursor):
            run(cursor, "audit_text", FULL_TEXT, ROWS)
            run(cursor, "audit_plain", INNODB, ROWS, "ANALYZE TABLE items")
        before = measure(family.target(), OURS).databases
        plain = estimate(cursor, "audit_plain")
        run(cursor, "audit_text", "ALTER TABLE items TABLESPACE innodb_file_per_table")
        files, after = settled(lambda: file_bytes(family, "audit_text"), lambda: measure_sizes(family.target(), OURS))
    assert before == (DatabaseSize("audit_plain", plain), DatabaseSize("audit_text", None, reason))
    assert after == {"audit_plain": plain, "audit_text": files}
    assert files > plain > 400_000


def test_a_database_with_a_slash_and_one_with_the_name_before_it_are_two(mysql: MysqlFleetServer) -> None:
    def files() -> dict[str, int]:
        return {"audit_a": file_bytes(mysql, "audit_a"), "audit_a/b.c": file_bytes(mysql, "audit_a@002fb@002ec")}

    with databases(mysql, "audit_a", "audit_a/b.c") as cursor:
        run(cursor, "audit_a", INNODB)
        run(cursor, "audit_a/b.c", INNODB.replace("items", "`x/y.z`"), INNODB, ROWS)
        expected, sizes = settled(files, lambda: measure_sizes(mysql.target(), OURS))
    assert sizes == expected
    assert expected["audit_a/b.c"] > expected["audit_a"] > 0


def test_a_length_that_mysql_remembers_is_not_taken(mysql: MysqlFleetServer) -> None:
    remembered = "SELECT SUM(DATA_LENGTH) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'audit_grown'"
    with databases(mysql, "audit_grown") as cursor:
        run(cursor, "audit_grown", MYISAM)
        cursor.execute(remembered)
        run(cursor, "audit_grown", ROWS)
        files, found = settled(lambda: file_bytes(mysql, "audit_grown"), lambda: measure_sizes(mysql.target(), OURS))
        assert found == {"audit_grown": files}


def test_a_folder_that_is_no_database_is_left_out(mariadb: MariadbFleetServer) -> None:
    folder = mariadb.server.data_dir / "audit-backup 2026"
    folder.mkdir()
    (folder / "dump.sql").write_text("-- nothing of the server's")
    try:
        with databases(mariadb, "audit_real"):
            only_these = NameFilter(regex="(?!.*audit).*")
            assert measure_sizes(mariadb.target(), only_these) == {"audit_real": 0}
    finally:
        (folder / "dump.sql").unlink()
        folder.rmdir()


# As it answers when somebody has restored the folder and left it to root, and lists no table of it; and with an error
# that says nothing about the folder.
@pytest.mark.parametrize(
    "refused",
    [
        Refused(1018, "Can't read dir of './audit_closed/' (errno: 13 \"Permission denied\")"),
        Refused(1317, "Query execution was interrupted"),
    ],
    ids=["closed", "interrupted"],
)
def test_a_folder_that_the_server_cannot_open_is_the_reason_and_no_empty_database(
    mariadb: MariadbFleetServer, refused: Refused
) -> None:
    with (
        databases(mariadb, "audit_closed", "audit_empty"),
        relay(mariadb, {r"SHOW TABLES FROM `audit_closed`": refused}) as way,
    ):
        assert reasons(way.target, OURS) == {"audit_closed": f"{refused.code} {refused.text}"}
        assert measure_sizes(way.target, OURS) == {"audit_closed": None, "audit_empty": 0}


def test_a_database_for_which_a_right_was_revoked_is_missing_and_not_empty(mysql: MysqlFleetServer) -> None:
    with databases(mysql, "audit_secret", "audit_open") as cursor:
        cursor.execute("SET GLOBAL partial_revokes = ON")
        try:
            run(cursor, "audit_secret", MYISAM, ROWS)
            with account(mysql, "PROCESS", "SHOW DATABASES", "SELECT") as target:
                cursor.execute("REVOKE SELECT ON audit_secret.* FROM visitor@localhost")
                found = measure(target, OURS).databases
                told = capabilities(target, OURS)["database sizes"]
        finally:
            cursor.execute("SET GLOBAL partial_revokes = OFF")
    assert found == (DatabaseSize("audit_open", 0), DatabaseSize("audit_secret", None, NOT_VISIBLE))
    assert not told.available


@pytest.mark.parametrize("process", [(), ("PROCESS",)], ids=["without PROCESS", "with PROCESS"])
def test_a_database_of_which_the_account_sees_some_tables_is_missing(
    family: FamilyServer, process: tuple[str, ...]
) -> None:
    with databases(family, "audit_some", "audit_all_1") as cursor:
        run(cursor, "audit_some", MYISAM, ROWS, MYISAM.replace("items", "hidden"))
        run(cursor, "audit_all_1", MYISAM, ROWS)
        rights = ("SELECT ON audit_some.items", r"SELECT ON `audit\_all\__`.*", "SELECT ON audit_all_1.items")
        with account(family, *process, *rights) as target:
            whole, measurement = settled(lambda: file_bytes(family, "audit_all_1"), lambda: measure(target, OURS))
            found = measurement.databases
            told = capabilities(target, OURS)["database sizes"]
    some = "the account has privileges on some of its tables, and sees no others; it needs SHOW VIEW on all"
    assert found == (DatabaseSize("audit_all_1", whole), DatabaseSize("audit_some", None, some))
    assert told.grant == "GRANT SHOW VIEW ON *.* TO 'visitor'@'localhost';"


def test_a_grant_for_the_database_itself_comes_before_one_with_a_wildcard(family: FamilyServer) -> None:
    with databases(family, "audit_some") as cursor:
        run(cursor, "audit_some", INNODB, MYISAM.replace("items", "hidden"), MYISAM.replace("items", "seen"))
        # EXECUTE shows no table, and is all that the account has on the whole database.
        rights = ("PROCESS", "SELECT ON `audit%%`.*", r"EXECUTE ON `audit\_some`.*", "SELECT ON audit_some.seen")
        with account(family, *rights) as target:
            assert measure_sizes(target, OURS) == {"audit_some": None}


@pytest.mark.parametrize("pattern", ["audit%%", "audit_som_", r"audit\_some"])
def test_a_wildcard_in_a_grant_shows_nothing_where_the_server_takes_it_literally(
    mysql: MysqlFleetServer, pattern: str
) -> None:
    with databases(mysql, "audit_some", "audit_all") as cursor:
        for name in ("audit_some", "audit_all"):
            run(cursor, name, INNODB, ROWS, MYISAM.replace("items", "hidden"), MYISAM.replace("items", "seen"))
        rights = ("PROCESS", f"SELECT ON `{pattern}`.*", "SELECT ON `audit_all`.*")
        seen = ("SELECT ON audit_some.seen", "SELECT ON audit_all.seen")
        with server_setting(cursor, "partial_revokes", "ON"), account(mysql, *rights, *seen) as target:
            whole, found = settled(lambda: file_bytes(mysql, "audit_all"), lambda: measure_sizes(target, OURS))
    assert found == {"audit_all": whole, "audit_some": None}


def test_names_from_before_the_server_wrote_them_in_small_letters_are_the_reason(tmp_path: Path) -> None:
    server = MariadbFleetServer(MariadbServer(tmp_path))
    with server.server.running(), server.connect() as cursor:
        for name in ("Audit_Old", "audit_new"):
            cursor.execute(f"CREATE DATABASE {name}")
            run(cursor, name, MYISAM, ROWS)
    with server.server.running("--lower-case-table-names=1"):
        assert reasons(server.target()) == {"Audit_Old": "1049 Unknown database 'audit_old'"}


def test_a_table_that_innodb_does_not_know_is_the_reason(mariadb: MariadbFleetServer) -> None:
    with databases(mariadb, "audit_whole", "audit_stray") as cursor:
        run(cursor, "audit_whole", INNODB, ROWS)
        strays = []
        for database in ("audit_whole", "audit_stray"):
            for suffix in (".frm", ".ibd"):
                source = (mariadb.server.data_dir / "audit_whole" / "items").with_suffix(suffix)
                strays.append(source.parent.with_name(database) / f"stray{suffix}")
                strays[-1].write_bytes(source.read_bytes())
        try:
            found = reasons(mariadb.target(), OURS)
        finally:
            for stray in strays:
                stray.unlink()
    assert found == {
        name: f"the table stray cannot be opened: Table '{name}.stray' doesn't exist in engine"
        for name in ("audit_whole", "audit_stray")
    }


@pytest.mark.parametrize(
    ("setting", "value"),
    [("sql_mode", "''"), ("sql_mode", "'ANSI_QUOTES'"), ("sql_quote_show_create", "0")],
    ids=["backticks", "double quotes", "no quotes"],
)
def test_tables_that_the_account_does_not_see_are_known_however_the_server_prints_grants(
    family: FamilyServer, setting: str, value: str
) -> None:
    # EXECUTE shows no table.
    rights = ("PROCESS", "SELECT ON audit_some.items", "EXECUTE ON `audit_som_`.*", "INSERT ON audit_all.*")
    with databases(family, "audit_some", "audit_all") as cursor:
        for name in ("audit_some", "audit_all"):
            run(cursor, name, MYISAM, ROWS, MYISAM.replace("items", "hidden"))
        with account(family, *rights) as target, server_setting(cursor, setting, value):
            whole, found = settled(lambda: file_bytes(family, "audit_all"), lambda: measure_sizes(target, OURS))
        assert found == {"audit_all": whole, "audit_some": None}


@pytest.mark.parametrize(("setting", "value"), [("sql_select_limit", "1"), ("max_join_size", "1")])
def test_a_limit_of_the_server_on_answers_cuts_nothing_short(family: FamilyServer, setting: str, value: str) -> None:
    names = ("audit_1", "audit_2", "audit_3")
    with databases(family, *names) as cursor:
        for name in names:
            run(cursor, name, INNODB, MYISAM.replace("items", "more"))
        with server_setting(cursor, setting, value):
            expected, found = settled(
                lambda: {name: file_bytes(family, name) for name in names},
                lambda: measure_sizes(family.target(), OURS),
            )
        assert found == expected


# The server reads no statement in UTF-16, but answers in it.
@pytest.mark.parametrize("setting", ["NAMES latin1", "NAMES gbk", "character_set_results = utf16"])
def test_the_character_set_in_which_the_server_answers_does_not_matter(family: FamilyServer, setting: str) -> None:
    with databases(family, "audit_café", "audit_東京") as cursor:
        for name in ("audit_café", "audit_東京"):
            run(cursor, name, f"{MYISAM} COMMENT='café'", ROWS, MYISAM.replace("items", "hidden"))
        rights = ("PROCESS", "INSERT ON `audit_café`.*", "SELECT ON `audit_東京`.items", "EXECUTE ON `audit_東京`.*")
        # Of the superuser it is not asked.
        with account(family, *rights) as target, server_setting(cursor, "init_connect", f"'SET {setting}'"):
            found = measure_sizes(target, OURS)
            told = capabilities(target, OURS)["database sizes"]
        assert told.grant == "GRANT SHOW VIEW ON *.* TO 'visitor'@'localhost';"
        assert found == {"audit_café": file_bytes(family, directory_of("audit_café")), "audit_東京": None}
