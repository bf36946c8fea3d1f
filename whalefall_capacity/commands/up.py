"""`whalefall-capacity up`: everything in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Engine

from whalefall_capacity.commands.output import say
from whalefall_capacity.commands.ports import console_listener, console_url, require_free_ports, ui_listener
from whalefall_capacity.commands.run_lines import run_lines_shown
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import Settings, load_settings
from whalefall_capacity.supervisor import serve

VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Show every line that Dagster logs, not only warnings and errors.")
]


def up(verbose: VerboseOption = False) -> None:
    """Start the store (the embedded server if no URL is set), migrate it, and serve the Dagster UI and the console.

    Runs in the foreground; Ctrl-C ends everything it started. Prints the start and end of runs, warnings and errors.

    Example: WHALEFALL_WEBSERVER_PORT=3001 whalefall-capacity up
    """
    settings = load_settings()
    require_free_ports(ui_listener(settings), console_listener(settings))
    with open_store(settings) as engine:
        serve_in_foreground(engine, settings, verbose)


def serve_in_foreground(engine: Engine, settings: Settings, verbose: bool, login: str = "") -> None:
    """Print the URLs of the Dagster UI and the console, the latter with *login*, and serve both until a signal."""
    say(f"Dagster UI: http://127.0.0.1:{settings.webserver_port}  (Ctrl-C ends it)")
    say(f"Console: {console_url(settings)}{login}")
    with run_lines_shown(engine, settings.zone):
        serve(settings.webserver_port, settings.console_port, verbose)
