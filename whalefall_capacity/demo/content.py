"""Real databases with real tables: a shop's, some large, some small, one with a name in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import psycopg2
import pymysql
from psycopg2 import sql
from pydantic import SecretStr

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.demo.mysql_family import LocalServer
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres

ACCOUNT = "whalefall"

# Rows of some 150 bytes each.
POSTGRESQL_ROWS: Mapping[str, int] = {"analytics": 600_000, "shop": 250_000, "crm": 60_000, "blog": 5_000}
MYSQL_FAMILY_ROWS: Mapping[ServerEngine, Mapping[str, int]] = {
    ServerEngine.MARIADB: {"orders": 300_000, "web-logs": 120_000, "inventory": 40_000, "会员": 8_000},
    ServerEngine.MYSQL: {"billing": 200_000, "app/v2.1": 80_000, "sessions": 30_000, "客户": 6_000},
}

POSTGRESQL_TABLE = """
CREATE TABLE entries (id bigint PRIMARY KEY, token text NOT NULL, note text NOT NULL);
INSERT INTO entries SELECT n, md5(n::text), repeat('demo ', 15) FROM generate_series(1, %s) AS n;
"""
MYSQL_FAMILY_TABLES = """
CREATE TABLE `{database}`.entries (id BIGINT PRIMARY KEY, token CHAR(32) NOT NULL, note VARCHAR(100) NOT NULL);
INSERT INTO `{database}`.entries WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
SELECT i, LEFT(SHA2(i, 256), 32), REPEAT('demo ', 15) FROM n;
CREATE TABLE `{database}`.archive (id BIGINT NOT NULL, token CHAR(32) NOT NULL, note VARCHAR(100) NOT NULL)
    ENGINE = MyISAM;
INSERT INTO `{database}`.archive SELECT * FROM `{database}`.entries WHERE id % 4 = 0;
"""


def fill_postgresql(server: EmbeddedPostgres, password: SecretStr) -> None:
    """Create what is not there yet: the monitoring account and the databases."""
    with closing(_connect(server, "postgres")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ACCOUNT,))
        if cursor.fetchone() is None:
            role = sql.Identifier(ACCOUNT)
            cursor.execute(
                sql.SQL("CREATE ROLE {role} LOGIN PASSWORD {password}; GRANT pg_monitor TO {role}").format(
                    role=role, password=sql.Literal(password.get_secret_value())
                )
            )
        cursor.execute("SELECT datname FROM pg_database")
        present = {row[0] for row in cursor.fetchall()}
        for database, rows in POSTGRESQL_ROWS.items():
            if database not in present:
                # Under another name first: a database that is half filled would look like one that is done.
                unfinished = sql.Identifier(f"{database}_unfinished")
                cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(unfinished))
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(unfinished))
                _fill_postgresql_database(server, f"{database}_unfinished", rows)
                cursor.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(unfinished, sql.Identifier(database)))


def fill_mysql_family(server: LocalServer, password: SecretStr) -> None:
    """Create what is not there yet: the monitoring account and the databases."""
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE USER IF NOT EXISTS %s@localhost IDENTIFIED BY %s", (ACCOUNT, password.get_secret_value())
        )
        privileges = f"PROCESS, SHOW DATABASES, SHOW VIEW, {server.log_privilege}"
        cursor.execute(f"GRANT {privileges} ON *.* TO %s@localhost", (ACCOUNT,))
        cursor.execute(f"SET SESSION {server.recursion_limit} = 10000000")
        for database, rows in MYSQL_FAMILY_ROWS[server.engine].items():
            _fill_mysql_database(cursor, database, rows)


def _connect(server: EmbeddedPostgres, database: str) -> psycopg2.extensions.connection:
    connection = psycopg2.connect(server.url(database).get_secret_value().replace("+psycopg2", ""))
    connection.autocommit = True
    return connection


def _fill_postgresql_database(server: EmbeddedPostgres, database: str, rows: int) -> None:
    with closing(_connect(server, database)) as connection, connection.cursor() as cursor:
        cursor.execute(POSTGRESQL_TABLE, (rows,))
        # Otherwise autovacuum adds its maps later, and the size moves by itself.
        cursor.execute("VACUUM ANALYZE entries")


def _fill_mysql_database(cursor: pymysql.cursors.Cursor, database: str, rows: int) -> None:
    cursor.execute("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s", (database,))
    (tables,) = cursor.fetchone() or (0,)
    statements = [statement for statement in MYSQL_FAMILY_TABLES.split(";") if statement.strip()]
    if tables == len([statement for statement in statements if "CREATE TABLE" in statement]):
        return
    cursor.execute(f"DROP DATABASE IF EXISTS `{database}`")
    cursor.execute(f"CREATE DATABASE `{database}`")
    # MySQL wants to know in which database a WITH is at home.
    cursor.execute(f"USE `{database}`")
    for statement in statements:
        cursor.execute(statement.format(database=database, rows=rows))
