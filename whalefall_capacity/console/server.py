"""Serving the console."""

from __future__ import annotations

from whalefall_capacity.console.app import THREADS, console_of, create_app
from whalefall_capacity.console.http.listening import listen
from whalefall_capacity.runtime import disposed, store_url
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.postgres.engine import (
    create_monitoring_engine,
    create_reading_engine,
    create_writing_engine,
)


def serve_console(settings: Settings, port: int) -> None:
    """Serve the console on the store of the settings, which is held and migrated, until a signal."""
    url = store_url(settings)
    with (
        disposed(create_writing_engine(url)) as writing,
        disposed(create_reading_engine(url, THREADS)) as reading,
        disposed(create_monitoring_engine(url)) as monitoring,
    ):
        console = console_of(writing, settings, reading=reading, monitoring=monitoring)
        listen(create_app(console), settings, settings.console_host, port)
