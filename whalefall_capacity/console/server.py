"""Serving the console."""

from __future__ import annotations

from whalefall_capacity.console.app import THREADS, console_of, create_app
from whalefall_capacity.console.http.listening import listen
from whalefall_capacity.runtime import store_url
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.postgres.engine import create_reading_engine, create_store_engine


def serve_console(settings: Settings, port: int) -> None:
    """Serve the console until a signal."""
    url = store_url(settings)
    engine, reading = create_store_engine(url), create_reading_engine(url, THREADS)
    try:
        listen(create_app(console_of(engine, settings, reading=reading)), settings, settings.console_host, port)
    finally:
        engine.dispose()
        reading.dispose()
