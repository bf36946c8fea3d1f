"""Serving the console."""

from __future__ import annotations

from whalefall_capacity.console.app import THREADS, console_of, create_app
from whalefall_capacity.console.http.listening import listen
from whalefall_capacity.runtime import store_url
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.postgres.engine import (
    create_monitoring_engine,
    create_reading_engine,
    create_store_engine,
)


def serve_console(settings: Settings, port: int) -> None:
    """Serve the console until a signal."""
    url = store_url(settings)
    engine, reading = create_store_engine(url), create_reading_engine(url, THREADS)
    monitoring = create_monitoring_engine(url)
    try:
        console = console_of(engine, settings, reading=reading, monitoring=monitoring)
        listen(create_app(console), settings, settings.console_host, port)
    finally:
        for each in (engine, reading, monitoring):
            each.dispose()
