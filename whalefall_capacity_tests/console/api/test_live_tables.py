"""Tables of a database, read live through the console from a server of each engine; nothing of them is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.collection.database_tables import DatabaseTables
from whalefall_capacity.store.access import Role
from whalefall_capacity_tests.collection import mysql_family
from whalefall_capacity_tests.collection.mysql_family import INNODB
from whalefall_capacity_tests.console.conftest import Callers
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import FamilyServer, PostgresqlServer
from whalefall_capacity_tests.store.records import row_versions

NAME = "live_tables"


@pytest.fixture(autouse=True)
def _ids_beyond_the_past(store: Engine) -> None:
    """Give new instances ids that those of the past do not have."""
    with store.begin() as connection:
        connection.execute(text("ALTER TABLE instances ALTER id RESTART WITH 100"))


def know(store: Engine, instance_id: int) -> None:
    """Store that the instance has the database."""
    statement = (
        "INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)"
        " VALUES (:id, :name, current_date, current_date)"
    )
    with store.begin() as connection:
        connection.execute(text(statement), {"id": instance_id, "name": NAME})


def ask(client: TestClient, instance_id: int) -> Any:
    return client.get(f"/api/v1/instances/{instance_id}/database/tables", params={"database_name": NAME})


@contextmanager
def known_database(store: Engine, server: PostgresqlServer | FamilyServer) -> Iterator[int]:
    """Hold a database with a table `items` on a server of the fleet, and yield the id of the instance."""
    instance_id = register(store, entry("live", server.target()))["live"]
    know(store, instance_id)
    if isinstance(server, PostgresqlServer):
        with server.database(NAME):
            with server.connect(NAME) as cursor:
                cursor.execute("CREATE TABLE items AS SELECT n FROM generate_series(1, 1000) AS n")
            yield instance_id
    else:
        with mysql_family.databases(server, NAME) as cursor:
            mysql_family.run(cursor, NAME, INNODB)
            yield instance_id


@pytest.fixture(params=["postgresql", "mariadb", "mysql"])
def server(request: pytest.FixtureRequest) -> PostgresqlServer | FamilyServer:
    """A server of each engine."""
    started = request.getfixturevalue(request.param)
    assert isinstance(started, PostgresqlServer | FamilyServer)
    return started


def test_the_tables_come_from_the_server_and_are_not_stored(
    store: Engine, viewer: TestClient, server: PostgresqlServer | FamilyServer
) -> None:
    with known_database(store, server) as instance_id:
        before = row_versions(store)
        found = ask(viewer, instance_id).json()["data"]
        page = viewer.get(f"/instances/{instance_id}/database/tables", params={"name": NAME}).text
        assert row_versions(store) == before
    TypeAdapter(DatabaseTables).validate_python(found)
    (items,) = [table for table in found["tables"] if table["name"] == "items"]
    assert items["size_bytes"] == items["data_size_bytes"] + items["index_size_bytes"] > 8000
    assert found["missing_grant"] is None
    assert '<th scope="row">items</th>' in page


def test_a_server_that_is_away_is_a_503_and_a_page_that_says_why(store: Engine, viewer: TestClient) -> None:
    instance_id = register(store, refusing("away"))["away"]
    know(store, instance_id)
    answer = ask(viewer, instance_id)
    assert answer.status_code == 503
    assert answer.json()["message"].startswith("away: connecting to 127.0.0.1:1 as nobody failed: ")
    page = viewer.get(f"/instances/{instance_id}/database/tables", params={"name": NAME})
    assert page.status_code == 200
    assert "The server did not tell its tables" in page.text


def test_an_instance_that_left_the_fleet_is_not_visited(store: Engine, viewer: TestClient) -> None:
    instance_id = register(store, refusing("away"))["away"]
    know(store, instance_id)
    register(store, refusing("another"))
    assert ask(viewer, instance_id).status_code == 409


def test_a_third_reader_is_asked_to_wait(store: Engine, app: FastAPI, callers: Callers) -> None:
    instance_id = register(store, refusing("away"))["away"]
    know(store, instance_id)
    viewer = callers.script(Role.VIEW)
    reads = app.state.console.live_reads
    assert reads.acquire(blocking=False)
    assert reads.acquire(blocking=False)
    assert "are being read already" in ask(viewer, instance_id).json()["message"]
    reads.release()
    reads.release()
    assert "failed" in ask(viewer, instance_id).json()["message"]


def test_a_database_that_nobody_knows_is_a_404(store: Engine, viewer: TestClient) -> None:
    instance_id = register(store, refusing("away"))["away"]
    assert ask(viewer, instance_id).status_code == 404
