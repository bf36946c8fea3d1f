"""`whalefall-capacity serve`: the console alone."""

from __future__ import annotations

from typing import Annotated

import typer

from whalefall_capacity.commands.output import err
from whalefall_capacity.commands.ports import console_listener, require_free_ports
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings


def serve(
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Where to listen; WHALEFALL_CONSOLE_PORT when not given.")
    ] = None,
) -> None:
    """Serve the console's pages and its API until Ctrl-C; runs are started through the Dagster webserver.

    Example: whalefall-capacity serve --port 8080
    """
    settings = load_settings()
    require_free_ports(console_listener(settings, port))
    with open_store(settings, needs_dagster=False) as engine:
        # Imported here: other commands need none of it.
        from whalefall_capacity.console.http.security import NO_ADMIN
        from whalefall_capacity.console.server import serve_console
        from whalefall_capacity.store.access import has_admin

        if not has_admin(engine):
            err.print(NO_ADMIN, markup=False, soft_wrap=True)
        serve_console(engine, settings, port or settings.console_port)
