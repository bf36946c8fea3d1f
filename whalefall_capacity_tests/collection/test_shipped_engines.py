"""The engine files that are shipped, of servers that are not at hand here.

What can be shown without them: every statement is of its dialect and reads columns that the vendor documents, and does
with them what it should, in a PostgreSQL that has catalogs of the same shape. What becomes of what the drivers hand
over is shown by test_driver_standins.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlglot
import yaml
from sqlglot import exp

from whalefall_capacity.collection.sizes import Cutoff, DatabaseSize, Findings, Measurement, Target, Tls
from whalefall_capacity.collection.sql.engine_file import EngineFile, read_engine_file
from whalefall_capacity.collection.visit import check, read_tables, visit
from whalefall_capacity.engine_catalog import SHIPPED, engine_file
from whalefall_capacity.errors import CollectionError, EngineFileError
from whalefall_capacity_tests.collection.engine_files import PSYCOPG2
from whalefall_capacity_tests.collection.support import target
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS, PostgresqlServer

DIALECTS = {"sqlserver": "tsql", "oracle": "oracle"}
# https://learn.microsoft.com/sql/relational-databases/system-catalog-views/, …/system-dynamic-management-views/,
# https://docs.oracle.com/en/database/oracle/oracle-database/19/refrn/
DOCUMENTED = {
    "sys.databases": {"name", "database_id", "source_database_id", "state_desc", "replica_id"},
    "sys.master_files": {"database_id", "type", "size"},
    "sys.availability_replicas": {"replica_id", "secondary_role_allow_connections"},
    "sys.tables": {"name", "object_id", "schema_id"},
    "sys.schemas": {"name", "schema_id"},
    "sys.dm_db_partition_stats": {"object_id", "index_id", "reserved_page_count", "row_count"},
    "product_component_version": {"product", "version"},
    "v$containers": {"con_id", "name", "open_mode"},
    "v$datafile": {"con_id", "bytes"},
    "v$log": {"bytes", "members"},
    "v$archived_log": {"blocks", "block_size", "deleted", "standby_dest", "status"},
    "dual": set(),
}
SQLSERVER_CATALOG = """
CREATE SCHEMA sys;
CREATE TABLE sys.databases (name text, database_id int, source_database_id int, state_desc text, replica_id int);
CREATE TABLE sys.master_files (database_id int, type int, size int);
CREATE TABLE sys.availability_replicas (replica_id int, secondary_role_allow_connections int);
CREATE TABLE sys.tables (name text, object_id int, schema_id int);
CREATE TABLE sys.schemas (name text, schema_id int);
CREATE TABLE sys.dm_db_partition_stats (object_id int, index_id int, reserved_page_count bigint, row_count bigint);
CREATE FUNCTION sys.fn_hadr_is_primary_replica(text) RETURNS int LANGUAGE sql
    AS $$ SELECT CASE WHEN $1 LIKE 'second%' THEN 0 WHEN $1 = 'slow' THEN (SELECT 1 FROM pg_sleep(3600)) END $$;
CREATE FUNCTION serverproperty(text) RETURNS text LANGUAGE sql
    AS $$ SELECT CASE $1 WHEN 'ProductVersion' THEN '16.0.4135.4' WHEN 'IsHadrEnabled' THEN '1'
                        ELSE 'Standard Edition (64-bit)' END $$;
CREATE FUNCTION has_perms_by_name(text, text, text) RETURNS int LANGUAGE sql
    AS $$ SELECT CAST($3 = 'VIEW ANY DATABASE' AS int) $$;
INSERT INTO sys.databases VALUES ('master', 1, NULL, 'ONLINE', NULL), ('shop', 5, NULL, 'ONLINE', NULL),
    ('offline', 6, NULL, 'OFFLINE', NULL), ('restoring', 7, NULL, 'RESTORING', NULL),
    ('second', 8, NULL, 'ONLINE', 1), ('second readable', 9, NULL, 'ONLINE', 2), ('papers', 10, NULL, 'ONLINE', NULL),
    ('unseen', 11, NULL, 'ONLINE', NULL), ('shop snapshot', 12, 5, 'ONLINE', NULL),
    ('huge', 13, NULL, 'ONLINE', NULL), ('ReportServerTempDB', 14, NULL, 'ONLINE', NULL);
INSERT INTO sys.availability_replicas VALUES (1, 0), (2, 2);
INSERT INTO sys.master_files VALUES (1, 0, 640), (5, 0, 1280), (5, 0, 128), (5, 1, 64), (6, 0, 10), (7, 0, 10),
    (8, 0, 10), (9, 0, 10), (9, 1, 2), (10, 0, 10), (10, 2, 0), (12, 0, 10), (13, 0, 2147483647), (13, 0, 2147483647),
    (14, 0, 10);
INSERT INTO sys.schemas VALUES ('dbo', 1);
INSERT INTO sys.tables VALUES ('orders', 100, 1), ('notes', 101, 1);
INSERT INTO sys.dm_db_partition_stats VALUES (100, 1, 20, 7), (100, 1, 10, 5), (100, 2, 4, 12), (101, 0, 1, 3);
"""
ORACLE_CATALOG = """
CREATE TABLE v$containers (con_id int, name text, open_mode text);
CREATE TABLE v$datafile (con_id int, bytes numeric);
CREATE TABLE v$log (bytes numeric, members int);
CREATE TABLE v$archived_log (blocks numeric, block_size int, deleted text, standby_dest text, status text);
CREATE TABLE product_component_version (product text, version text);
CREATE TABLE dual AS SELECT 'X' AS dummy;
CREATE FUNCTION sys_context(text, text) RETURNS text LANGUAGE sql AS $$ SELECT '1' $$;
INSERT INTO product_component_version VALUES ('Oracle Database 19c Enterprise Edition', '19.0.0.0.0');
INSERT INTO v$containers VALUES (1, 'CDB$ROOT', 'READ WRITE'), (2, 'PDB$SEED', 'READ ONLY'), (3, 'SHOP', 'READ WRITE'),
    (4, 'CRM', 'MOUNTED'), (5, 'UNSEEN', 'READ WRITE');
INSERT INTO v$datafile VALUES (1, 1000), (1, 500), (2, 300), (3, 9000000000), (3, 1), (4, 0), (4, 0), (4, 7);
INSERT INTO v$log VALUES (200, 2), (200, 2);
INSERT INTO v$archived_log VALUES (10, 512, 'NO', 'NO', 'A'), (10, 512, 'YES', 'NO', 'D'), (10, 512, 'NO', 'YES', 'A');
"""


def statements(engine: EngineFile) -> list[str]:
    return [query for _, query in engine.queries if query is not None] + [grant.probe for grant in engine.grants]


def shipped(name: str) -> EngineFile:
    file = engine_file(name)
    assert file is not None
    return read_engine_file(file)


@contextmanager
def standing_in(name: str, catalog: str, server: PostgresqlServer, folder: Path) -> Iterator[Target]:
    """Yield a target whose engine file has the queries of a shipped one, in the words of PostgreSQL."""

    def translated(statement: str) -> str:
        return sqlglot.transpile(statement, read=DIALECTS[name], write="postgres")[0]

    engine = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text()) | yaml.safe_load(PSYCOPG2)
    engine["queries"] = {field: translated(query) for field, query in engine["queries"].items()}
    engine["grants"] = [grant | {"probe": translated(grant["probe"])} for grant in engine["grants"]]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(engine))
    with server.database("catalog"), server.connect("catalog") as cursor:
        cursor.execute(catalog)
        yield replace(server.target(), engine=name, engine_file=path, database="catalog")


def measured(to: Target) -> Measurement:
    return visit(to, LIMITS, NO_FILTERS, Cutoff(), Findings()).measurement


def test_these_files_are_shipped() -> None:
    assert [file.stem for file in sorted(SHIPPED.iterdir())] == sorted(DIALECTS)


@pytest.mark.parametrize("name", DIALECTS)
def test_every_statement_is_one_query_of_its_dialect(name: str) -> None:
    for statement in statements(shipped(name)):
        (tree,) = sqlglot.parse(statement, dialect=DIALECTS[name])
        assert isinstance(tree, exp.Select)
    for statement in shipped(name).session_statements(5):
        (tree,) = sqlglot.parse(statement, dialect=DIALECTS[name])
        assert isinstance(tree, exp.Set)


@pytest.mark.parametrize("name", DIALECTS)
def test_every_column_is_one_that_the_vendor_documents(name: str) -> None:
    unknown = set()
    for statement in statements(shipped(name)):
        tree = sqlglot.parse_one(statement, dialect=DIALECTS[name])
        tables = {table.alias_or_name: f"{table.db}.{table.name}".strip(".") for table in tree.find_all(exp.Table)}
        assert set(tables.values()) <= set(DOCUMENTED)
        derived = {
            part.alias: set(select.named_selects)
            for part in tree.find_all(exp.Subquery, exp.Lateral)
            if part.alias and (select := part.find(exp.Select))
        }
        documented = {alias: DOCUMENTED[table] for alias, table in tables.items()} | derived
        for column in tree.find_all(exp.Column):
            columns = documented[column.table] if column.table else set().union(*documented.values())
            unknown |= {column.sql()} if column.name not in columns else set()
    assert unknown == set()


def test_databases_of_sql_server_have_data_and_log_or_the_reason_why_not(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    with standing_in("sqlserver", SQLSERVER_CATALOG, postgresql, tmp_path) as to:
        found = measured(to)
    assert found.version == "16.0.4135.4 Standard Edition (64-bit)"
    assert sorted(found.databases, key=lambda database: database.name) == [
        DatabaseSize("huge", 2 * 2147483647 * 8192, None, 2 * 2147483647 * 8192, 0),
        DatabaseSize("offline", None, "the database is OFFLINE"),
        DatabaseSize("papers", None, "it has FILESTREAM containers, whose size sys.master_files does not know"),
        DatabaseSize("restoring", None, "the database is RESTORING"),
        DatabaseSize("second", None, "a secondary replica of Always On that cannot be read"),
        DatabaseSize("second readable", 12 * 8192, None, 10 * 8192, 2 * 8192),
        DatabaseSize("shop", 1472 * 8192, None, 1408 * 8192, 64 * 8192),
        DatabaseSize("unseen", None, "its files are not visible in sys.master_files"),
    ]
    assert found.log_size_bytes is None


def test_grants_of_sql_server_are_advised(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    with standing_in("sqlserver", SQLSERVER_CATALOG, postgresql, tmp_path) as to:
        found = check(to, LIMITS, NO_FILTERS, Cutoff())
    assert [(one.name, one.grant) for one in found.capabilities if not one.available and one.grant] == [
        ("files of every database", "GRANT VIEW ANY DEFINITION TO [postgres]"),
        ("roles of Always On", "GRANT VIEW SERVER STATE TO [postgres]"),
        ("tables", "GRANT CONNECT ANY DATABASE TO [postgres]"),
    ]
    assert not found.healthy


def test_a_sql_server_without_always_on_needs_no_privilege_for_its_roles(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    alone = SQLSERVER_CATALOG.replace("'IsHadrEnabled' THEN '1'", "'IsHadrEnabled' THEN '0'")
    alone += """
        UPDATE sys.databases SET replica_id = NULL;
        CREATE OR REPLACE FUNCTION sys.fn_hadr_is_primary_replica(text) RETURNS int LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'VIEW SERVER STATE permission was denied'; END $$;
    """
    with standing_in("sqlserver", alone, postgresql, tmp_path) as to:
        found = check(to, LIMITS, NO_FILTERS, Cutoff())
        sizes = {database.name: database.size_bytes for database in measured(to).databases}
    assert sizes["shop"] == 1472 * 8192
    assert "roles of Always On" not in [one.name for one in found.capabilities if not one.available]


def test_a_catalog_of_sql_server_that_hangs_is_left_in_time(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    hangs = SQLSERVER_CATALOG + "INSERT INTO sys.databases VALUES ('slow', 20, NULL, 'ONLINE', 1)"
    with standing_in("sqlserver", hangs, postgresql, tmp_path) as to:
        limits = replace(LIMITS, statement_timeout_seconds=0.5)
        with pytest.raises(
            CollectionError, match=r"queries\.databases: took longer than the statement limit of 0\.5 s"
        ):
            visit(to, limits, NO_FILTERS, Cutoff(), Findings())


def test_tables_of_sql_server_have_data_and_indexes(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    with standing_in("sqlserver", SQLSERVER_CATALOG, postgresql, tmp_path) as to:
        found = read_tables(to, "catalog", LIMITS, Cutoff())
    assert [
        (table.schema_name, table.name, table.size_bytes, table.data_size_bytes, table.index_size_bytes, table.rows)
        for table in found.tables
    ] == [("dbo", "orders", 34 * 8192, 30 * 8192, 4 * 8192, 12), ("dbo", "notes", 8192, 8192, 0, 3)]


def test_containers_of_oracle_have_their_data_files_or_the_reason_why_not(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    with standing_in("oracle", ORACLE_CATALOG, postgresql, tmp_path) as to:
        found = measured(to)
    assert found.version == "19.0.0.0.0"
    assert sorted(found.databases, key=lambda database: database.name) == [
        DatabaseSize("CDB$ROOT", 1500),
        DatabaseSize("CRM", None, "2 of 3 data files cannot be read; it is open as MOUNTED"),
        DatabaseSize("SHOP", 9_000_000_001),
        DatabaseSize("UNSEEN", None, "no data file of it is visible; it is open as READ WRITE"),
    ]
    assert found.log_size_bytes == 2 * 2 * 200 + 10 * 512


def test_grants_of_oracle_are_advised(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    alone = ORACLE_CATALOG + "DELETE FROM v$containers WHERE con_id > 1; DROP TABLE v$archived_log"
    with standing_in("oracle", alone, postgresql, tmp_path) as to:
        found = check(to, LIMITS, NO_FILTERS, Cutoff())
        assert measured(to).log_size_bytes is None
    assert [(one.name, one.grant) for one in found.capabilities if one.grant] == [
        ("every pluggable database", "ALTER USER postgres SET CONTAINER_DATA = ALL CONTAINER = CURRENT"),
        (
            "redo logs",
            "GRANT SELECT ON sys.v_$log TO postgres; GRANT SELECT ON sys.v_$archived_log TO postgres",
        ),
    ]


def test_the_drivers_are_told_where_and_how_to_connect() -> None:
    to = replace(target("sqlserver", 1433, tls=Tls("require")), database="shop")
    assert shipped("sqlserver").connect_arguments(to, 5, 60) == {
        "server": "127.0.0.1",
        "port": 1433,
        "database": "shop",
        "user": "whalefall",
        "password": "correct horse",
        "login_timeout": 5,
        "timeout": 60,
        "appname": "whalefall_capacity",
        "tds_version": "7.4",
        "encryption": "require",
    }
    to = replace(to, tls=Tls("verify-full", "/etc/oracle/wallet"))
    assert shipped("oracle").connect_arguments(to, 5, 60) == {
        "host": "127.0.0.1",
        "port": 1433,
        "service_name": "shop",
        "user": "whalefall",
        "password": "correct horse",
        "tcp_connect_timeout": 5,
        "program": "whalefall_capacity",
        "protocol": "tcps",
        "ssl_server_dn_match": True,
        "wallet_location": "/etc/oracle/wallet",
    }
    assert shipped("oracle").attributes(to, 5, 60) == {"call_timeout": 60_000}
    with pytest.raises(EngineFileError, match="engine sqlserver has no such mode"):
        shipped("sqlserver").connect_arguments(to, 5, 60)
