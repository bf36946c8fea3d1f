"""Serving the console with uvicorn."""

from __future__ import annotations

import uvicorn

from whalefall_capacity.console.app import THREADS, create_app
from whalefall_capacity.runtime import store_url
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.engine import create_reading_engine, create_store_engine


def serve_console(settings: Settings, port: int) -> None:
    """Listen until a signal; the scheme of a proxy on this machine (X-Forwarded-Proto) is believed."""
    url = store_url(settings)
    engine, reading = create_store_engine(url), create_reading_engine(url, THREADS)
    try:
        uvicorn.run(
            create_app(engine, settings, reading=reading),
            host=settings.console_host,
            port=port,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=5,
        )
    finally:
        engine.dispose()
        reading.dispose()
