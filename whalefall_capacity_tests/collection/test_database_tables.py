"""The tables of one database, read live: largest first, unknown where the server cannot say, within the deadline."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from psycopg2 import sql

from whalefall_capacity.collection.database_tables import MOST_TABLES, DatabaseTable, DatabaseTables, largest_first
from whalefall_capacity.collection.fleet import read_tables_of
from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.errors import CollectionError
from whalefall_capacity_tests.collection import mysql_family
from whalefall_capacity_tests.collection.mysql_family import MYISAM, ROWS
from whalefall_capacity_tests.collection.support import peer, target
from whalefall_capacity_tests.collection.test_postgresql import account, databases
from whalefall_capacity_tests.servers import LIMITS, FamilyServer, MariadbFleetServer, PostgresqlServer

TABLES = """
CREATE SCHEMA sales;
CREATE TABLE sales.orders AS SELECT n AS id, repeat('x', 100) AS note FROM generate_series(1, 20000) AS n;
CREATE INDEX ON sales.orders (id);
CREATE TABLE public."Ünïts" (id int);
CREATE MATERIALIZED VIEW public.totals AS SELECT count(*) FROM sales.orders;
CREATE VIEW public.shown AS SELECT 1 AS one;
CREATE TABLE public.parts (day date) PARTITION BY RANGE (day);
CREATE TABLE public.parts_2026 PARTITION OF public.parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ANALYZE;
"""


@pytest.fixture(params=["postgresql", "store_server"], ids=["16", "18"])
def server(request: pytest.FixtureRequest) -> PostgresqlServer:
    started = request.getfixturevalue(request.param)
    return started if isinstance(started, PostgresqlServer) else PostgresqlServer(started)


def by_name(found: DatabaseTables) -> dict[str, DatabaseTable]:
    return {table.name: table for table in found.tables}


def test_postgresql_tells_tables_with_their_schemas_largest_first(server: PostgresqlServer) -> None:
    with databases(server, "shop"), account(server) as visitor:
        with server.connect("shop") as cursor:
            cursor.execute(TABLES)
            cursor.execute(
                "SELECT pg_table_size('sales.orders'), pg_indexes_size('sales.orders'), pg_table_size('totals')"
            )
            data, indexes, totals = cursor.fetchone() or (0, 0, 0)
        found = read_tables_of(visitor, "shop", LIMITS)
    assert sorted(by_name(found)) == ["orders", "parts_2026", "pg_largeobject", "totals", "Ünïts"]
    orders = found.tables[0]
    assert (orders.schema_name, orders.name) == ("sales", "orders")
    assert (orders.size_bytes, orders.data_size_bytes, orders.index_size_bytes) == (data + indexes, data, indexes)
    assert orders.rows == 20_000
    assert by_name(found)["totals"].size_bytes == totals
    assert (by_name(found)["Ünïts"].size_bytes, by_name(found)["Ünïts"].rows) == (0, None)
    assert found.total == 5
    assert found.total_size_bytes == sum(table.size_bytes or 0 for table in found.tables)
    assert found.missing_grant is None


def test_a_locked_table_of_postgresql_is_not_waited_for_and_not_0(server: PostgresqlServer) -> None:
    with databases(server, "shop"):
        with server.connect("shop") as cursor:
            cursor.execute(TABLES)
        with server.connect("shop") as holder:
            holder.execute("BEGIN")
            holder.execute("LOCK TABLE sales.orders IN ACCESS EXCLUSIVE MODE")
            found = read_tables_of(server.target(), "shop", LIMITS)
            holder.execute("ROLLBACK")
    assert found.tables[0] == DatabaseTable(
        "sales", "orders", None, None, None, None, 20_000, "it is locked, and its size would wait"
    )
    assert found.tables[1].size_bytes is not None


def test_an_account_that_may_not_connect_hears_which_grant_is_missing(server: PostgresqlServer) -> None:
    with databases(server, "shop"), account(server, "pg_read_all_stats") as visitor:
        with server.connect() as cursor:
            cursor.execute(sql.SQL("REVOKE CONNECT ON DATABASE shop FROM PUBLIC"))
        with pytest.raises(CollectionError, match=r"GRANT CONNECT ON DATABASE"):
            read_tables_of(visitor, "shop", LIMITS)


def test_the_mysql_family_tells_data_indexes_rows_and_engines(family: FamilyServer) -> None:
    with mysql_family.databases(family, "shop", "Shop"), mysql_family.account(family, "SELECT") as visitor:
        with family.connect() as cursor:
            mysql_family.run(cursor, "shop", MYISAM, ROWS)
            mysql_family.run(cursor, "shop", "CREATE TABLE empty_one (id INT PRIMARY KEY) ENGINE=InnoDB")
            mysql_family.run(cursor, "shop", "CREATE TABLE quick (id INT) ENGINE=MEMORY")
            mysql_family.run(cursor, "shop", "CREATE VIEW shown AS SELECT 1")
            mysql_family.run(cursor, "Shop", "CREATE TABLE other (id INT) ENGINE=InnoDB")
        found = read_tables_of(visitor, "shop", LIMITS)
    assert [table.name for table in found.tables] == ["quick", "items", "empty_one"]
    tables = by_name(found)
    items = tables["items"]
    assert (items.engine, items.rows) == ("MyISAM", 2000)
    assert items.data_size_bytes is not None
    assert items.index_size_bytes is not None
    assert items.size_bytes == items.data_size_bytes + items.index_size_bytes > 400_000
    assert tables["empty_one"].data_size_bytes == 16384
    assert (tables["quick"].size_bytes, tables["quick"].reason) == (
        None,
        "its storage engine keeps nothing on this server's disk",
    )
    assert found.missing_grant is None


def test_an_account_of_the_mysql_family_hears_what_it_does_not_see(family: FamilyServer) -> None:
    with mysql_family.databases(family, "shop") as cursor:
        mysql_family.run(cursor, "shop", MYISAM, ROWS)
        mysql_family.run(cursor, "shop", "CREATE TABLE other (id INT) ENGINE=InnoDB")
        with mysql_family.account(family, "SELECT ON shop.items") as visitor:
            found = read_tables_of(visitor, "shop", LIMITS)
        with mysql_family.account(family, "SELECT ON shop.*") as visitor:
            everything = read_tables_of(visitor, "shop", LIMITS)
    assert [table.name for table in found.tables] == ["items"]
    assert found.missing_grant is not None
    assert found.missing_grant.startswith("GRANT SHOW VIEW ON *.* TO ")
    assert (everything.total, everything.missing_grant) == (2, None)


def test_partitions_of_a_table_are_one_table(family: FamilyServer) -> None:
    statement = f"{MYISAM} PARTITION BY HASH (id) PARTITIONS 4"
    if not isinstance(family, MariadbFleetServer):
        statement = statement.replace("MyISAM", "InnoDB")
    with mysql_family.databases(family, "shop") as cursor:
        mysql_family.run(cursor, "shop", statement, ROWS)
        found = read_tables_of(family.target(), "shop", LIMITS)
    assert [table.name for table in found.tables] == ["items"]
    # Four partitions of two pages at least, of 8 or of 16 KiB.
    assert (found.tables[0].size_bytes or 0) >= 65_536


@pytest.mark.parametrize("engine", [ServerEngine.POSTGRESQL, ServerEngine.MARIADB])
def test_a_server_that_never_answers_costs_no_more_than_the_deadline(engine: ServerEngine) -> None:
    def say_nothing(_: socket.socket) -> None:
        """Accept, and wait."""

    limits = replace(LIMITS, connect_timeout_seconds=60, deadline_seconds=0.5)
    with peer(say_nothing) as silent, pytest.raises(CollectionError, match=r"db-7: .*deadline of 0.5 s"):
        read_tables_of(target(engine, silent.port), "shop", limits)


def test_only_the_largest_of_very_many_tables_are_shown() -> None:
    tables = [DatabaseTable(None, f"t{n}", None, n, n, 0, None) for n in range(MOST_TABLES + 5)]
    found = largest_first(tables)
    assert (len(found.tables), found.total, found.tables[0].size_bytes) == (500, 505, 504)
    assert found.total_size_bytes == 504 * 505 // 2
