"""A database with WhaleFall's tables, as its public models and migrations have them, to move in from."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

import psycopg2
from cryptography.fernet import Fernet
from psycopg2 import sql
from psycopg2.extras import execute_values
from sqlalchemy import make_url

# Columns that nothing here reads are there as well, so that a query that names all columns would be noticed.
TABLES = """
CREATE TABLE credentials (
    id serial PRIMARY KEY, name varchar(255) NOT NULL UNIQUE, credential_type varchar(50) NOT NULL, db_type varchar(50),
    username varchar(255) NOT NULL, password varchar(255) NOT NULL, description text, category_id integer,
    is_active boolean NOT NULL DEFAULT true, created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
    deleted_at timestamptz);
CREATE TABLE instances (
    id serial PRIMARY KEY, name varchar(255) NOT NULL UNIQUE, db_type varchar(50) NOT NULL, host varchar(255) NOT NULL,
    port integer NOT NULL, database_name varchar(255), database_version varchar(1000), main_version varchar(20),
    detailed_version varchar(50), sync_count integer NOT NULL DEFAULT 0,
    credential_id integer REFERENCES credentials (id), description text, is_active boolean NOT NULL DEFAULT true,
    last_connected timestamptz, created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
    deleted_at timestamptz);
CREATE TABLE instance_databases (
    id serial PRIMARY KEY, instance_id integer NOT NULL REFERENCES instances (id), database_name varchar(255) NOT NULL,
    is_active boolean NOT NULL DEFAULT true, first_seen_date date NOT NULL, last_seen_date date NOT NULL,
    deleted_at timestamptz, created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
    UNIQUE (instance_id, database_name));
CREATE TABLE database_size_stats (
    id bigserial, instance_id integer NOT NULL, database_name varchar(255) NOT NULL, size_mb bigint NOT NULL,
    data_size_mb bigint, log_size_mb bigint, collected_date date NOT NULL,
    collected_at timestamptz NOT NULL DEFAULT now(), created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(), UNIQUE (instance_id, database_name, collected_date))
    PARTITION BY RANGE (collected_date);
CREATE TABLE instance_size_stats (
    id serial, instance_id integer NOT NULL, total_size_mb integer NOT NULL DEFAULT 0,
    database_count integer NOT NULL DEFAULT 0, collected_date date NOT NULL,
    collected_at timestamptz NOT NULL DEFAULT now(), is_deleted boolean NOT NULL DEFAULT false, deleted_at timestamptz,
    created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), PRIMARY KEY (id, collected_date))
    PARTITION BY RANGE (collected_date);
CREATE UNIQUE INDEX ON instance_size_stats (instance_id, collected_date) WHERE is_deleted = false;
CREATE TABLE users (
    id serial PRIMARY KEY, username varchar(255) NOT NULL UNIQUE, password varchar(255) NOT NULL,
    role varchar(50) NOT NULL DEFAULT 'user', is_active boolean NOT NULL DEFAULT true);
CREATE TABLE task_runs (
    id serial PRIMARY KEY, run_id varchar(36) NOT NULL UNIQUE, task_key varchar(128) NOT NULL,
    task_name varchar(255) NOT NULL, task_category varchar(50) NOT NULL, trigger_source varchar(20) NOT NULL,
    status varchar(32) NOT NULL, started_at timestamptz NOT NULL DEFAULT now(), completed_at timestamptz,
    created_by integer, progress_total integer NOT NULL DEFAULT 0, progress_completed integer NOT NULL DEFAULT 0,
    progress_failed integer NOT NULL DEFAULT 0, summary_json jsonb, result_url varchar(255), error_message text,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE task_run_items (
    id serial PRIMARY KEY, run_id varchar(36) NOT NULL REFERENCES task_runs (run_id), item_type varchar(20) NOT NULL,
    item_key varchar(128) NOT NULL, item_name varchar(255), instance_id integer, status varchar(20) NOT NULL,
    started_at timestamptz, completed_at timestamptz, metrics_json jsonb, details_json jsonb, error_message text,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (run_id, item_type, item_key));
CREATE TABLE email_alert_settings (
    id serial PRIMARY KEY, global_enabled boolean NOT NULL DEFAULT false, recipients_json jsonb NOT NULL DEFAULT '[]',
    database_capacity_enabled boolean NOT NULL DEFAULT false,
    database_capacity_percent_threshold integer NOT NULL DEFAULT 30,
    database_capacity_absolute_gb_threshold integer NOT NULL DEFAULT 20);
"""


@dataclass(frozen=True)
class WhaleFall:
    """WhaleFall's database, and the key under which it keeps passwords."""

    url: str
    key: str

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, if it has any."""
        with _connected(self.url) as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def insert(self, table: str, **columns: Any) -> int:
        """Insert a row and return its id."""
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING id").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.SQL(", ").join(map(sql.Literal, columns.values())),
        )
        with _connected(self.url) as cursor:
            cursor.execute(statement)
            return int(cursor.fetchall()[0][0])

    def encrypted(self, password: str, key: str | None = None) -> str:
        """Return a password as WhaleFall keeps it."""
        return base64.b64encode(Fernet(key or self.key).encrypt(password.encode())).decode()

    def credential(self, name: str, password: str, username: str = "monitor", **columns: Any) -> int:
        return self.insert(
            "credentials",
            **{"name": name, "credential_type": "database", "username": username, "password": self.encrypted(password)}
            | columns,
        )

    def instance(self, name: str, db_type: str = "postgresql", **columns: Any) -> int:
        address = {"host": f"{name.lower()}.example", "port": 3306 if db_type == "mysql" else 5432}
        return self.insert("instances", **{"name": name, "db_type": db_type} | address | columns)

    def database(self, instance_id: int, name: str, first: date, last: date, **columns: Any) -> int:
        return self.insert(
            "instance_databases",
            **{"instance_id": instance_id, "database_name": name, "first_seen_date": first, "last_seen_date": last}
            | columns,
        )

    def sizes(self, instance_id: int, day: date, sizes: Mapping[str, int], total: int | None = None) -> None:
        """Store what a night brought, in MiB, with the total of the instance as WhaleFall does."""
        collected_at = night(day)
        with _connected(self.url) as cursor:
            self._make_months(cursor, [day])
            execute_values(
                cursor,
                "INSERT INTO database_size_stats (instance_id, database_name, size_mb, data_size_mb, collected_date, "
                "collected_at) VALUES %s",
                [(instance_id, name, size, size, day, collected_at) for name, size in sizes.items()],
            )
        self.total(instance_id, day, sum(sizes.values()) if total is None else total, len(sizes))

    def total(self, instance_id: int, day: date, total: int, count: int, is_deleted: bool = False) -> None:
        """Store the total of an instance, in MiB."""
        with _connected(self.url) as cursor:
            self._make_months(cursor, [day])
            cursor.execute(
                "INSERT INTO instance_size_stats (instance_id, total_size_mb, database_count, collected_date, "
                "collected_at, is_deleted) VALUES (%s, %s, %s, %s, %s, %s)",
                (instance_id, total, count, day, night(day), is_deleted),
            )

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(self.execute(f"SELECT count(*) FROM {table}")[0][0])

    def everything(self) -> list[tuple[Any, ...]]:
        """Return every row of every table with its place and transaction: equal lists mean that nothing was touched."""
        tables = self.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
            "ORDER BY relname"
        )
        return [
            (table, *row)
            for (table,) in tables
            for row in self.execute(f"SELECT ctid::text, xmin::text, t::text FROM {table} AS t ORDER BY ctid")
        ]

    @staticmethod
    def _make_months(cursor: Any, days: Iterable[date]) -> None:
        for month in sorted({day.replace(day=1) for day in days}):
            after = (month + timedelta(days=31)).replace(day=1)
            for table in ("database_size_stats", "instance_size_stats"):
                cursor.execute(
                    f"CREATE TABLE IF NOT EXISTS {table}_{month:%Y_%m} PARTITION OF {table} "
                    f"FOR VALUES FROM ('{month}') TO ('{after}')"
                )


def night(day: date) -> datetime:
    """Return when the sizes of *day* were collected, early in the morning in Shanghai."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc) - timedelta(hours=5, seconds=-7)


def make_whalefall(url: str) -> WhaleFall:
    """Make WhaleFall's tables in the empty database at *url*."""
    with _connected(url) as cursor:
        cursor.execute(TABLES)
    return WhaleFall(url, Fernet.generate_key().decode())


@contextmanager
def _connected(url: str) -> Iterator[Any]:
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(address)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()
