"""`whalefall-capacity serve` and `ui`: the console or the Dagster UI by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whalefall_capacity.commands.output import err, say
from whalefall_capacity.commands.ports import console_listener, require_free_ports, ui_listener
from whalefall_capacity.runtime import make_dagster_ready, open_store
from whalefall_capacity.settings import load_settings


def serve(
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port to listen on; default: WHALEFALL_CONSOLE_PORT.")
    ] = None,
) -> None:
    """Serve the console's pages and API until Ctrl-C; runs are started through the Dagster webserver.

    Example: whalefall-capacity serve --port 8080
    """
    settings = load_settings()
    require_free_ports(console_listener(settings, port))
    with open_store(settings, needs_dagster=False) as engine:
        # Imported here: other commands do not need it.
        from whalefall_capacity.console.http.security import NO_ADMIN
        from whalefall_capacity.console.server import serve_console
        from whalefall_capacity.store.access import has_admin

        if not has_admin(engine):
            say(NO_ADMIN, err)
        serve_console(settings, port or settings.console_port)


def ui(
    workspace: Annotated[
        Path,
        typer.Option("--workspace", "-w", exists=True, dir_okay=False, help="Workspace file with the code server."),
    ],
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port to listen on; default: WHALEFALL_WEBSERVER_PORT.")
    ] = None,
) -> None:
    """Serve the Dagster UI on 127.0.0.1 until Ctrl-C, guarded against pages from other origins.

    Requires the console's login if WHALEFALL_UI_LOGIN=true.

    Example: whalefall-capacity ui --workspace /etc/whalefall/workspace.yaml --port 3001
    """
    settings = load_settings()
    require_free_ports(ui_listener(settings, port))
    make_dagster_ready(settings)
    # Imported here: other commands do not need it.
    from whalefall_capacity.ui.server import serve_ui

    serve_ui(settings, workspace.resolve(), port or settings.webserver_port)
