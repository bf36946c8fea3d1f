"""Serving the console."""

from __future__ import annotations

from sqlalchemy import Engine

from whalefall_capacity.console.app import THREADS, console_of, create_app
from whalefall_capacity.console.http.listening import listen
from whalefall_capacity.runtime import disposed, store_url
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.postgres.engine import create_reading_engine


def serve_console(engine: Engine, settings: Settings, port: int) -> None:
    """Serve the console on the store behind *engine*, which is that of the settings, until a signal."""
    with disposed(create_reading_engine(store_url(settings), THREADS)) as reading:
        listen(create_app(console_of(engine, settings, reading=reading)), settings, settings.console_host, port)
