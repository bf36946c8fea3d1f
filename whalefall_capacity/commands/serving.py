"""What `up` and `demo` have in common: all programs in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Engine

from whalefall_capacity.commands.output import out
from whalefall_capacity.commands.run_lines import run_lines_shown
from whalefall_capacity.settings import Settings
from whalefall_capacity.supervisor import serve

VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Show every line that Dagster logs, not only warnings and errors.")
]


def serve_in_foreground(engine: Engine, settings: Settings, verbose: bool, login: str = "") -> None:
    """Say where the Dagster UI and the console are, and serve both until a signal; *login* is for the console."""
    out.print(f"Dagster UI: http://127.0.0.1:{settings.webserver_port}  (Ctrl-C ends it)")
    out.print(f"Console: http://127.0.0.1:{settings.console_port}{login}", markup=False)
    with run_lines_shown(engine, settings.zone):
        serve(settings.webserver_port, settings.console_port, verbose)
