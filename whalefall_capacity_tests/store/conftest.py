"""A store on either of the two servers that a wheel brings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import Engine

from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate

_numbers = itertools.count(1)


@pytest.fixture(params=["store_server", "postgresql"], ids=["PostgreSQL 18", "PostgreSQL 16"])
def either_store(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A migrated store without any row, on PostgreSQL 18 and on 16."""
    running = request.getfixturevalue(request.param)
    server = running if isinstance(running, EmbeddedPostgres) else running.embedded
    name = f"either_{next(_numbers)}"
    server.create_databases(name)
    engine = create_store_engine(server.url(name))
    migrate(engine)
    yield engine
    engine.dispose()
    connection = psycopg2.connect(host=str(server.socket_dir), user="postgres", dbname="postgres")
    connection.autocommit = True
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
