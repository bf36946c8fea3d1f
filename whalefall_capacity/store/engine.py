"""Connections to the store."""

from __future__ import annotations

from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, make_url

APPLICATION_NAME = "whalefall_capacity"


def create_store_engine(url: SecretStr) -> Engine:
    """Return an engine for the store; bound values never appear in its error messages."""
    return _engine(url)


def create_reading_engine(url: SecretStr, connections: int) -> Engine:
    """Return an engine for many short queries at once; one that takes longer than half a minute is given up.

    What compiling such queries costs, running them never brings back.
    """
    return _engine(url, pool_size=connections, max_overflow=0, options="-c jit=off -c statement_timeout=30s")


def _engine(url: SecretStr, options: str = "", **pool: int) -> Engine:
    return create_engine(
        url.get_secret_value(),
        hide_parameters=True,
        pool_pre_ping=True,
        # Names are UTF-8 here, whatever the locale of the process says.
        connect_args={
            "application_name": APPLICATION_NAME,
            "connect_timeout": 10,
            "client_encoding": "utf8",
            "options": options,
        },
        **pool,
    )


def libpq_environment(url: SecretStr) -> dict[str, str]:
    """Return *url* as the variables that libpq reads, for programs such as psql."""
    parts = make_url(url.get_secret_value())
    host = parts.host or parts.query.get("host")
    values = {
        "PGHOST": host,
        "PGPORT": parts.port,
        "PGDATABASE": parts.database,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGSSLMODE": parts.query.get("sslmode"),
        "PGSSLROOTCERT": parts.query.get("sslrootcert"),
    }
    return {name: str(value) for name, value in values.items() if value}
