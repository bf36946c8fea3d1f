"""`whalefall-capacity up`: everything in the foreground."""

from __future__ import annotations

from whalefall_capacity.commands.output import out
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.supervisor import serve


def up() -> None:
    """Start the store (the embedded server if no URL is set), migrate it, and serve the Dagster UI and the console.

    Runs in the foreground; Ctrl-C ends everything it started.

    Example: WHALEFALL_WEBSERVER_PORT=3001 whalefall-capacity up
    """
    with open_store(load_settings()):
        settings = load_settings()
        out.print(f"Dagster UI: http://127.0.0.1:{settings.webserver_port}  (Ctrl-C ends it)")
        out.print(f"Console: http://127.0.0.1:{settings.console_port}")
        serve(settings.webserver_port, settings.console_port)
