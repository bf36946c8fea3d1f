"""Fleets for the tests: many names for the same few real servers, and addresses at which nobody answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, text

from whalefall_capacity.collection.sizes import Target
from whalefall_capacity.fleet_file import FleetFile
from whalefall_capacity.store.fleet import apply_fleet

PASSWORD_VARIABLE = "FLEET_PASSWORD"


def register(store: Engine, *entries: dict[str, Any]) -> dict[str, int]:
    """Make *entries* the fleet and return the id of each by name."""
    os.environ.setdefault(PASSWORD_VARIABLE, "")
    apply_fleet(store, FleetFile.model_validate({"instances": list(entries)}))
    with store.connect() as connection:
        return {row.name: row.id for row in connection.execute(text("SELECT id, name FROM instances"))}


def entry(name: str, target: Target, **changes: Any) -> dict[str, Any]:
    """Return the entry of a fleet file that leads to *target* under *name*."""
    return {
        "name": name,
        "engine": str(target.engine),
        "host": target.host,
        "port": target.port,
        "credential": {"username": target.username, "password_env": PASSWORD_VARIABLE},
    } | changes


def refusing(name: str) -> dict[str, Any]:
    """Return an entry at which nobody listens."""
    return {
        "name": name,
        "engine": "postgresql",
        "host": "127.0.0.1",
        "port": 1,
        "credential": {"username": "nobody", "password_env": PASSWORD_VARIABLE},
    }


@contextmanager
def silent(name: str) -> Iterator[dict[str, Any]]:
    """Yield an entry of a server that accepts connections and never speaks."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield {**refusing(name), "port": server.getsockname()[1]}
