"""Connections to the store, and work that survives the loss of one."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import psycopg2
from pydantic import SecretStr
from sqlalchemy import Dialect, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError

from whalefall_capacity.libpq import forget_environment, variable_of
from whalefall_capacity.store.postgres.silence import GIVEN_UP_SOON, Connecting, watched_connections

APPLICATION_NAME = "whalefall_capacity"
# A store that restarts is back within seconds; one that fails over, within a minute.
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
# For so long the console's connections wait for an answer: longer than its statements may take. Those that write may
# have to wait for a lock, or look at every row of what they plan.
READING_SECONDS, WRITING_SECONDS, MONITORING_SECONDS = 35.0, 120.0, 10.0

P = ParamSpec("P")
T = TypeVar("T")


def create_store_engine(
    url: SecretStr,
    patience_seconds: float = 0.0,
    connect_args: Mapping[str, object] = MappingProxyType({}),
    **options: Any,
) -> Engine:
    """Return an engine for the store, which is where *url* says, whatever libpq would read from the environment.

    Bound values never appear in its error messages.

    *patience_seconds*: how long a new connection is tried for while the server does not take any; *connect_args* come
    before ours.
    """
    forget_environment()
    engine = create_engine(
        url.get_secret_value(),
        hide_parameters=True,
        # Names are UTF-8 here, whatever the locale of the process says.
        connect_args={
            "application_name": APPLICATION_NAME,
            "connect_timeout": 10,
            "client_encoding": "utf8",
            **connect_args,
        },
        # Whatever the role or the database begins transactions with: who waits for a lock is to see what was committed
        # meanwhile.
        **{"pool_pre_ping": True, "isolation_level": "READ COMMITTED", **options},
    )
    if patience_seconds:

        @event.listens_for(engine, "do_connect")
        def connect(dialect: Dialect, _record: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
            return keep_trying(
                lambda: dialect.connect(*arguments, **keywords),
                lambda error: isinstance(error, psycopg2.OperationalError),
                patience_seconds,
            )

    return engine


def create_reading_engine(url: SecretStr, connections: int) -> Engine:
    """Return an engine for many short queries at once; one that takes longer than half a minute is given up.

    No transactions and no ping before each query: a round trip would cost as much as the query. JIT compilation costs
    more than it saves on queries this short. The sizes of a day of 50,000 databases are joined in memory, not on disk.
    """
    engine = _create_watched_engine(
        url, READING_SECONDS, pool_size=connections, max_overflow=0, pool_pre_ping=False, isolation_level="AUTOCOMMIT"
    )
    _begin_with(engine, "SET jit = off; SET work_mem = '32MB'; SET statement_timeout = '30s'")
    return engine


def create_writing_engine(url: SecretStr) -> Engine:
    """Return an engine for what people change, who wait for it: a store that keeps silent is given up."""
    return _create_watched_engine(url, WRITING_SECONDS)


def create_monitoring_engine(url: SecretStr) -> Engine:
    """Return an engine for what watches the store: a few looks at a time, none of which waits for long.

    The latest sizes of 100,000 servers are joined and sorted in memory, not on disk.
    """
    engine = _create_watched_engine(
        url, MONITORING_SECONDS, pool_size=2, max_overflow=1, pool_timeout=3, isolation_level="AUTOCOMMIT"
    )
    _begin_with(engine, "SET jit = off; SET work_mem = '32MB'; SET statement_timeout = '8s'")
    return engine


def _create_watched_engine(url: SecretStr, seconds: float, **options: Any) -> Engine:
    """Return an engine whose connections wait *seconds* for an answer of the server, and no longer."""
    arguments = {**GIVEN_UP_SOON, "connection_factory": watched_connections(seconds)}
    engine = create_store_engine(url, connect_args=arguments, **options)
    connecting = Connecting()

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _record: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        return connecting.attempt(lambda: dialect.connect(*arguments, **keywords))

    return engine


def _begin_with(engine: Engine, statements: str) -> None:
    """Let every new connection of *engine* begin with *statements*."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statements)
        connection.commit()


def again_if_connection_lost(work: Callable[P, T]) -> Callable[P, T]:
    """Make *work*, which must be idempotent, start again when the connection to the store is lost meanwhile."""

    @functools.wraps(work)
    def persistent(*args: P.args, **kwargs: P.kwargs) -> T:
        return keep_trying(lambda: work(*args, **kwargs), connection_lost, PATIENCE_SECONDS)

    return persistent


def keep_trying(
    attempt: Callable[[], T],
    may_pass: Callable[[DBAPIError | psycopg2.Error], bool],
    patience_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> T:
    """Call *attempt* until it raises nothing; for *patience_seconds* at most, and only while the error *may_pass*."""
    deadline = monotonic() + patience_seconds
    while True:
        try:
            return attempt()
        except (DBAPIError, psycopg2.Error) as error:
            if not may_pass(error) or monotonic() > deadline:
                raise
        sleep(PAUSE_SECONDS)


def connection_lost(error: DBAPIError | psycopg2.Error) -> bool:
    """Tell whether *error* says that the connection is gone, rather than that the statement is wrong."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated
    # Of a cursor of our own, which SQLAlchemy does not watch.
    return isinstance(error, psycopg2.InterfaceError | psycopg2.OperationalError) and (
        error.pgcode is None or error.pgcode.startswith("57P")
    )


def libpq_environment(url: SecretStr) -> dict[str, str]:
    """Return *url* as the variables that libpq reads, for programs such as psql."""
    parts = make_url(url.get_secret_value())
    _, keywords = parts.get_dialect()().create_connect_args(parts)
    return {variable_of(keyword): str(value) for keyword, value in keywords.items()}
