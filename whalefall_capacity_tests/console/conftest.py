"""The console in this process, on a small past, with something that stands for the Dagster webserver."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.console.http.dagster_checks import DagsterCheck
from whalefall_capacity.console.http.principals import Credential, PrincipalCache
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.errors import DagsterError
from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.settings import Settings, build_settings
from whalefall_capacity.store.access import Role, create_token, set_user
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.conftest import drop_database
from whalefall_capacity_tests.store.past import MIB, put_sizes

PASSWORD = "correct horse battery"
DAYS = 10
INVENTORY = """
INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)
SELECT instance_id, database_name, min(collected_date), max(collected_date) FROM database_size_stats GROUP BY 1, 2
"""


@dataclass
class FakeDagster:
    """Starts runs that never work, and knows of *checks* that failed; *problem* makes it refuse."""

    launched: list[tuple[str, Mapping[str, Any], Mapping[str, str]]] = field(default_factory=list)
    problem: str | None = None
    checks: list[DagsterCheck] = field(default_factory=list)
    on_launch: Callable[[], None] = lambda: None

    def launch(
        self,
        job: str,
        run_config: Mapping[str, object],
        tags: Mapping[str, str],
        credential: Credential,  # noqa: ARG002 - it asks nobody who they are
    ) -> str:
        self.on_launch()
        if self.problem is not None:
            raise DagsterError(self.problem)
        self.launched.append((job, run_config, tags))
        return str(uuid.uuid4())

    def failed_checks(self, credential: Credential) -> list[DagsterCheck]:  # noqa: ARG002
        if self.problem is not None:
            raise DagsterError(self.problem)
        return self.checks


def put_past(store: Engine, day: date) -> None:
    """Store ten days of three databases; `shop` is on both instances, crm was not there on the third day before *day*.

    instance-1 (postgresql): shop 100 MiB on *day*, 1 MiB less a day before; crm 10 MiB. instance-2 (mysql): shop
    1000 MiB.
    """
    days = [day - timedelta(days=n) for n in range(DAYS)]
    put_sizes(store, [(1, "shop", when, (100 - n) * MIB) for n, when in enumerate(days)])
    put_sizes(store, [(1, "crm", when, 10 * MIB) for n, when in enumerate(days) if n != 3])
    put_sizes(store, [(2, "shop", when, 1000 * MIB) for when in days])
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET db_type = 'mysql' WHERE id = 2"))
        connection.execute(text(INVENTORY))
    for period_type in PeriodType:
        for level in Level:
            aggregate(store, level, days_to_windows(days, period_type))


@pytest.fixture(scope="session")
def day() -> date:
    """Return today as the console has it."""
    return today()


@pytest.fixture(autouse=True)
def _stays_today(day: date, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it stay the day that the past ends on, also when the session goes on after midnight."""
    monkeypatch.setattr(Console, "today", lambda _: day)


@pytest.fixture(scope="session")
def past(store_server: EmbeddedPostgres, day: date) -> str:
    """The name of a database with the past, of which each test has a copy."""
    store_server.create_databases("console_past")
    engine = create_store_engine(store_server.url("console_past"))
    migrate(engine)
    put_past(engine, day)
    engine.dispose()
    return "console_past"


@pytest.fixture
def store(store_server: EmbeddedPostgres, past: str) -> Iterator[Engine]:
    """A store with the past, of the test's own."""
    with copied_store(store_server, past) as engine:
        yield engine


@contextmanager
def copied_store(server: EmbeddedPostgres, template: str) -> Iterator[Engine]:
    """Hold a copy of a database for the length of the block."""
    name = f"console_{uuid.uuid4().hex}"
    administrator = create_store_engine(server.url("postgres")).execution_options(isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        engine = create_store_engine(server.url(name))
        yield engine
        engine.dispose()
        drop_database(connection, name)
    administrator.dispose()


@pytest.fixture
def dagster() -> FakeDagster:
    """A stand-in for the Dagster webserver."""
    return FakeDagster()


@pytest.fixture
def app(store: Engine, settings: Settings, dagster: FakeDagster) -> FastAPI:
    """The application on the test's store, which is asked each time who somebody is."""
    return create_app(replace(console_of(store, settings, dagster), principals=PrincipalCache(0.0)))


@dataclass(frozen=True)
class Callers:
    """Clients of the application, each with an identity of its own."""

    app: FastAPI
    store: Engine

    def nobody(self) -> TestClient:
        return TestClient(self.app, base_url="http://localhost", raise_server_exceptions=False, follow_redirects=False)

    def script(self, role: Role) -> TestClient:
        """Return a client with a bearer token."""
        token = create_token(self.store, f"token-{uuid.uuid4()}", role)
        client = self.nobody()
        client.headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        return client

    def browser(self, role: Role, name: str | None = None) -> TestClient:
        """Return a client that has logged in, without the CSRF header."""
        user = name or f"{role.value}-user"
        set_user(self.store, user, role, SecretStr(PASSWORD))
        client = self.nobody()
        answer = log_in(client, user, PASSWORD)
        assert answer.status_code == 303, answer.text
        return client


def log_in(client: TestClient, name: str, password: str, next_url: str = "/instances") -> Any:
    """Fill in the login form and send it."""
    form = client.get("/login", params={"next": next_url}).text
    token = form.partition('name="csrf_token" value="')[2].partition('"')[0]
    fields = {"csrf_token": token, "next": next_url, "name": name, "password": password}
    return client.post("/login", data=fields)


def csrf_of(client: TestClient) -> dict[str, str]:
    """Return the header that the session's unsafe requests need."""
    return {"X-CSRFToken": client.get("/api/v1/session").json()["data"]["csrf_token"]}


@pytest.fixture
def callers(app: FastAPI, store: Engine) -> Callers:
    """Clients of the application."""
    return Callers(app, store)


@pytest.fixture
def viewer(callers: Callers) -> TestClient:
    """A script that may look."""
    return callers.script(Role.VIEW)


@pytest.fixture(scope="module")
def reader(store_server: EmbeddedPostgres, past: str) -> Iterator[TestClient]:
    """A script that may look, on a store that the tests of a module share: they change nothing."""
    with copied_store(store_server, past) as engine:
        yield Callers(create_app(console_of(engine, build_settings(), FakeDagster())), engine).script(Role.VIEW)


@pytest.fixture
def admin(callers: Callers) -> TestClient:
    """A script that may do everything."""
    return callers.script(Role.ADMIN)
