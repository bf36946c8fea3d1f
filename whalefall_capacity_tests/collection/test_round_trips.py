"""Round trips of a visit: with a server 200 ms away, each is a fifth of a second in which a thread waits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from whalefall_capacity.collection.sizes import Cutoff, Findings, NameFilter, Target, Tls
from whalefall_capacity.collection.visit import visit
from whalefall_capacity_tests.collection.round_trips import counted
from whalefall_capacity_tests.servers import (
    LIMITS,
    MariadbFleetServer,
    MysqlFleetServer,
    PostgresqlServer,
)

# A database in which nothing was ever made, as another test may leave one, costs a round trip to see whether it is
# still there.
DATABASE = "round_trips"
OWN_ALONE = NameFilter(regex=f"(?!{DATABASE}$).*")


def round_trips(to: Target, socket: str) -> int:
    """Visit a server through a proxy and return how often the visit waited for it."""
    with counted(socket) as trips:
        # Of TLS, what is a round trip depends on what happens to arrive together.
        to = replace(to, host="127.0.0.1", port=trips.port, tls=Tls("disable"))
        found = visit(to, LIMITS, {to.engine: OWN_ALONE}, Cutoff(), Findings()).measurement.databases
    assert [(database.name, bool(database.size_bytes)) for database in found] == [(DATABASE, True)]
    return trips.count


def test_a_visit_to_postgresql_waits_five_times(postgresql: PostgresqlServer) -> None:
    """To connect, for the login, the list with the folders, the sizes, and what was dropped meanwhile with the WAL."""
    with postgresql.database(DATABASE):
        assert round_trips(postgresql.target(), str(postgresql.embedded.socket_dir / ".s.PGSQL.5432")) == 5


# To connect, for the login, to begin a transaction, for version and grants, the databases with their tables, all of
# InnoDB, the logs, and to end the transaction.
@pytest.mark.parametrize("fixture", ["mariadb", "mysql"])
def test_a_visit_to_the_mysql_family_waits_nine_times(request: pytest.FixtureRequest, fixture: str) -> None:
    family: MariadbFleetServer | MysqlFleetServer = request.getfixturevalue(fixture)
    with family.connect() as cursor:
        cursor.execute(f"CREATE DATABASE {DATABASE}")
        cursor.execute(f"CREATE TABLE {DATABASE}.orders (id int)")
        try:
            assert round_trips(family.target(), str(family.server.socket)) == 9
        finally:
            cursor.execute(f"DROP DATABASE {DATABASE}")
