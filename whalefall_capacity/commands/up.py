"""`whalefall-capacity up`: everything in the foreground."""

from __future__ import annotations

from whalefall_capacity.commands.ports import console_listener, require_free_ports, ui_listener
from whalefall_capacity.commands.serving import VerboseOption, serve_in_foreground
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings


def up(verbose: VerboseOption = False) -> None:
    """Start the store (the embedded server if no URL is set), migrate it, and serve the Dagster UI and the console.

    Runs in the foreground; Ctrl-C ends everything it started. Shows when a run starts and ends, warnings and errors.

    Example: WHALEFALL_WEBSERVER_PORT=3001 whalefall-capacity up
    """
    settings = load_settings()
    require_free_ports(ui_listener(settings), console_listener(settings))
    with open_store(settings) as engine:
        serve_in_foreground(engine, settings, verbose)
