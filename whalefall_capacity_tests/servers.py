"""Real servers for the tests, started once a session, and the targets that lead to them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import psycopg2
import pymysql
import pytest
from psycopg2 import sql
from pydantic import SecretStr

from whalefall_capacity.collection.sizes import Limits, NameFilter, ServerEngine, Target
from whalefall_capacity.demo.mysql_family import LocalServer, MysqlServer
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres

WITHOUT_MYSQL = "WHALEFALL_TEST_WITHOUT_MYSQL"
# Read at once: every test has the settings of the environment taken away.
may_go_without_mysql = bool(os.environ.get(WITHOUT_MYSQL))
LIMITS = Limits(connect_timeout_seconds=5, statement_timeout_seconds=20, deadline_seconds=30)
NO_FILTERS: Mapping[str, NameFilter] = {engine: NameFilter() for engine in ServerEngine}


def require_mysql() -> None:
    """Fail the test when there is no MySQL server, or skip it when that was said to be all right."""
    if MysqlServer.program() is None:
        if may_go_without_mysql:
            pytest.skip(f"there is no MySQL server, and {WITHOUT_MYSQL} is set")
        pytest.fail(f"there is no MySQL server: run scripts/mysql-server, or set {WITHOUT_MYSQL}=1 to go without")


@dataclass(frozen=True)
class PostgresqlServer:
    """A PostgreSQL server of the fleet; its superuser needs no password."""

    embedded: EmbeddedPostgres

    def target(self, name: str = "pg", instance_id: int = 1, username: str = "postgres", password: str = "") -> Target:
        return Target(
            instance_id,
            name,
            ServerEngine.POSTGRESQL,
            str(self.embedded.socket_dir),
            5432,
            None,
            username,
            SecretStr(password),
        )

    @contextmanager
    def connect(self, database: str = "postgres") -> Iterator[psycopg2.extensions.cursor]:
        """Yield a cursor of the superuser, in autocommit."""
        connection = psycopg2.connect(host=str(self.embedded.socket_dir), user="postgres", dbname=database)
        connection.autocommit = True
        with closing(connection), connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def database(self, name: str, options: str = "") -> Iterator[None]:
        """Hold a database."""
        with self.connect() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), sql.SQL(options)))
            try:
                yield
            finally:
                cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def behaving(self, function: str, body: str) -> Iterator[str]:
        """Yield a database from which a function of the catalog does what *body* says, in PL/pgSQL.

        What it did before is called `original`. Other databases of the server are not touched.
        """
        name = "behaving"
        with self.database(name):
            with self.connect(name) as cursor:
                cursor.execute("SET allow_system_table_mods = on")
                cursor.execute(
                    "SELECT pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc "
                    "WHERE oid = %s::regprocedure",
                    (function,),
                )
                ((arguments, result),) = cursor.fetchall()
                # Renamed, because a function with the id of a built-in one is never looked up.
                cursor.execute(f"ALTER FUNCTION pg_catalog.{function} RENAME TO original")
                cursor.execute(
                    f"CREATE FUNCTION pg_catalog.{function.partition('(')[0]}({arguments}) RETURNS {result} "
                    f"LANGUAGE plpgsql AS $body$ BEGIN {body} END $body$"
                )
            yield name


@dataclass(frozen=True)
class FamilyServer:
    """A server of the MySQL family in the fleet; its root needs no password."""

    server: LocalServer
    engine: ClassVar[ServerEngine]
    name: ClassVar[str]
    instance_id: ClassVar[int]

    def target(
        self, name: str | None = None, instance_id: int | None = None, username: str = "root", password: str = ""
    ) -> Target:
        return Target(
            instance_id or self.instance_id,
            name or self.name,
            self.engine,
            str(self.server.socket),
            3306,
            None,
            username,
            SecretStr(password),
        )

    @contextmanager
    def connect(self) -> Iterator[pymysql.cursors.Cursor]:
        """Yield a cursor of root, in autocommit."""
        connection: pymysql.Connection[Any] = self.server.connect()
        with closing(connection), connection.cursor() as cursor:
            yield cursor


class MariadbFleetServer(FamilyServer):
    """A MariaDB server of the fleet."""

    engine = ServerEngine.MARIADB
    name = "maria"
    instance_id = 2


class MysqlFleetServer(FamilyServer):
    """A MySQL server of the fleet."""

    engine = ServerEngine.MYSQL
    name = "my"
    instance_id = 3
