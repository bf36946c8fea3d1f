"""Serving the Dagster UI with uvicorn, on this machine's own address alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from whalefall_capacity.console.app import console_of
from whalefall_capacity.console.own_token import OwnTokens
from whalefall_capacity.console.security import signing_key
from whalefall_capacity.console.state import Console
from whalefall_capacity.runtime import store_url
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.engine import create_reading_engine, create_store_engine
from whalefall_capacity.store.schema import require_current
from whalefall_capacity.ui.dagster_app import dagster_app
from whalefall_capacity.ui.documents import READ_ONLY, DocumentRules
from whalefall_capacity.ui.guard import Guard, origins_by_host
from whalefall_capacity.ui.login import PREFIX, LoginRequired, login_app

# Requests that ask the store at the same time who sends them.
LOOK_UPS = 4


def serve_ui(settings: Settings, workspace: Path, port: int) -> None:
    """Listen on 127.0.0.1 until a signal."""
    with ExitStack() as stack:
        dagster = stack.enter_context(dagster_app(workspace, may_change))
        console = stack.enter_context(_console(settings)) if settings.ui_login else None
        uvicorn.run(
            guarded(dagster, settings, port, console),
            host="127.0.0.1",
            port=port,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=5,
        )


def may_change(connection: HTTPConnection) -> bool:
    """May whoever sends the request change anything? Not, unless it was said so."""
    return connection.scope.get(READ_ONLY) is False


def guarded(dagster: ASGIApp, settings: Settings, port: int, console: Console | None) -> ASGIApp:
    """Return Dagster's application behind the guard; with what the console knows also behind its login."""
    app: ASGIApp = DocumentRules(dagster)
    if console is None:
        app = _for_everybody(app)
    else:
        behind_login = LoginRequired(app, console, OwnTokens(signing_key(settings)))
        app = Starlette(routes=[Mount(PREFIX, login_app(console)), Mount("/", behind_login)])
    return Guard(app, origins_by_host(port, settings.ui_url, settings.ui_hosts))


def _for_everybody(app: ASGIApp) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, READ_ONLY: False}, receive, send)

    return call


@contextmanager
def _console(settings: Settings) -> Iterator[Console]:
    url = store_url(settings)
    engine, reading = create_store_engine(url), create_reading_engine(url, LOOK_UPS)
    try:
        require_current(engine)
        yield console_of(engine, settings, reading=reading)
    finally:
        engine.dispose()
        reading.dispose()
