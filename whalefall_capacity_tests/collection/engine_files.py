"""Engine files of the tests: servers that have modules of their own, known by queries alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from whalefall_capacity.collection.sizes import ServerEngine, Target

PSYCOPG2 = """
dialect: postgresql
driver: psycopg2
install: psycopg2-binary
default_port: 5432
connection:
  database: postgres
  arguments:
    host: "{host}"
    port: "{port}"
    dbname: "{database}"
    user: "{username}"
    password: "{password}"
    connect_timeout: "{connect_timeout_seconds}"
  tls:
    disable: {sslmode: disable}
    verify-full: {sslmode: verify-full, sslrootcert: "{ca_file}"}
session:
  - SET TRANSACTION READ ONLY
  - SET LOCAL statement_timeout = {statement_timeout_milliseconds}
"""
POSTGRESQL = (
    """
name: elephant
title: PostgreSQL by queries
"""
    + PSYCOPG2
    + """
queries:
  version: SELECT current_setting('server_version')
  databases: |
    SELECT datname AS name,
           CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END AS size_bytes,
           CASE WHEN NOT has_database_privilege(oid, 'CONNECT') THEN 'no CONNECT, 100 % of it' END AS reason
    FROM pg_database WHERE datallowconn AND NOT datistemplate
  logs: SELECT sum(size) FROM pg_ls_waldir()
  tables: |
    SELECT n.nspname AS schema_name, c.relname AS name,
           pg_table_size(c.oid) + pg_indexes_size(c.oid) AS size_bytes, pg_table_size(c.oid) AS data_size_bytes,
           pg_indexes_size(c.oid) AS index_size_bytes
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
exclude: [left_out]
exclude_regex: scratch_.*
grants:
  - name: sizes of every database
    probe: SELECT pg_has_role('pg_read_all_stats', 'USAGE')
    grant: GRANT pg_read_all_stats TO {username}
  - name: WAL
    probe: SELECT 1 FROM pg_ls_waldir() LIMIT 1
    grant: GRANT pg_monitor TO {username}
    required: false
"""
)
MYSQL_FAMILY = """
name: {name}
title: A MySQL by queries
dialect: mysql
driver: pymysql
install: pymysql
default_port: 3306
connection:
  arguments:
    unix_socket: "{{host}}"
    user: "{{username}}"
    password: "{{password}}"
    database: "{{database}}"
    connect_timeout: "{{connect_timeout_seconds}}"
    read_timeout: "{{statement_timeout_seconds}}"
session:
  - START TRANSACTION READ ONLY
queries:
  version: SELECT VERSION()
  databases: |
    SELECT s.SCHEMA_NAME AS name, coalesce(sum(f.FILE_SIZE), 0) AS size_bytes
    FROM information_schema.SCHEMATA AS s
    LEFT JOIN information_schema.{files} AS f ON f.NAME LIKE concat(s.SCHEMA_NAME, '/%')
    GROUP BY s.SCHEMA_NAME
exclude: [information_schema, performance_schema, mysql, sys]
"""
FILES = {
    ServerEngine.POSTGRESQL: POSTGRESQL,
    ServerEngine.MARIADB: MYSQL_FAMILY.format(name="seal", files="INNODB_SYS_TABLESPACES"),
    ServerEngine.MYSQL: MYSQL_FAMILY.format(name="dolphin", files="INNODB_TABLESPACES"),
}


def by_file(target: Target, folder: Path, content: str | None = None, **changes: Any) -> Target:
    """Return *target* as a server that is known by an engine file alone, with *changes* of the file's top fields."""
    engine = yaml.safe_load(FILES[ServerEngine(target.engine)] if content is None else content) | changes
    path = folder / f"{engine['name']}.yaml"
    path.write_text(yaml.safe_dump(engine))
    return replace(target, engine=engine["name"], engine_file=path)


def with_queries(content: str = POSTGRESQL, **queries: str | None) -> dict[str, Any]:
    """Return the field of *content* that holds the queries, with some of them changed or taken away."""
    found = yaml.safe_load(content)["queries"] | queries
    return {"queries": {name: query for name, query in found.items() if query is not None}}
