"""Serving the Dagster UI, on this machine's own address alone."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from whalefall_capacity.console.http.hosts import allowed_hosts
from whalefall_capacity.console.http.listening import listen
from whalefall_capacity.settings import Settings
from whalefall_capacity.ui.dagster_app import dagster_app
from whalefall_capacity.ui.documents import ADMIN, ROLE, DocumentRules
from whalefall_capacity.ui.guard import Guard


def serve_ui(settings: Settings, workspace: Path, port: int) -> None:
    """Listen on 127.0.0.1 until a signal."""
    with ExitStack() as stack:
        app: ASGIApp = DocumentRules(stack.enter_context(dagster_app(workspace, may_change)))
        if settings.ui_login:
            # Imported here: without a login nothing of the console is needed.
            from whalefall_capacity.ui.login import behind_login

            app = stack.enter_context(behind_login(app, settings))
        else:
            app = for_everybody(app)
        guarded = Guard(app, allowed_hosts(settings), settings.ui_url)
        listen(guarded, settings, "127.0.0.1", port)


def may_change(connection: HTTPConnection) -> bool:
    """May whoever sends the request change anything? Not unless a login, or the lack of one, said so."""
    return connection.scope.get(ROLE) == ADMIN


def for_everybody(app: ASGIApp) -> ASGIApp:
    """Return *app* for a UI without login: whoever gets here may do everything."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, ROLE: ADMIN}, receive, send)

    return call
