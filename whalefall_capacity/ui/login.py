"""The console's login in front of the Dagster UI: users and tokens, their roles, and pages to log in and out.

The pages lie below /whalefall, where Dagster has none. A session of the console is one of the UI wherever both have the
same host name, for cookies know no ports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Request
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whalefall_capacity.console.app import answer_errors, console_of
from whalefall_capacity.console.http.principals import Principal
from whalefall_capacity.console.http.security import SecurityHeaders, known_reader, principal_of
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.console.pages import login as console_login
from whalefall_capacity.console.pages.rendering import page_context, render, to_login
from whalefall_capacity.console.pages.static_files import serve_static
from whalefall_capacity.readiness_queries import asks_for_readiness
from whalefall_capacity.runtime import held_store_url
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.postgres.engine import create_reading_engine, create_writing_engine
from whalefall_capacity.store.postgres.schema import require_current
from whalefall_capacity.ui.documents import ROLE
from whalefall_capacity.ui.guard import SAFE_METHODS
from whalefall_capacity.ui.refusal import POLICY_VIOLATION, RefusedError

PREFIX = "/whalefall"
router = APIRouter()
# Versions only: what watches whether the UI answers needs no login.
OPEN_PATHS = frozenset({"/server_info"})
# A websocket that was opened with a session ends so soon after it.
RECHECK_SECONDS = 5.0
# Requests that ask the store at the same time who sends them.
LOOK_UPS = 4


@router.get("/")
def account(request: Request) -> Response:
    """Show who is logged in, with a button to log out."""
    context = page_context(request)
    return to_login(request) if context.principal is None else render(context, "account.html")


@contextmanager
def behind_login(app: ASGIApp, settings: Settings) -> Iterator[ASGIApp]:
    """Hold *app* behind the login of the console in the store of the settings."""
    with held_store_url(settings) as url:
        engine, reading = create_writing_engine(url), create_reading_engine(url, LOOK_UPS)
        try:
            require_current(engine)
            yield with_login(app, console_of(engine, settings, reading=reading))
        finally:
            engine.dispose()
            reading.dispose()


def with_login(app: ASGIApp, console: Console) -> ASGIApp:
    """Return *app* behind the login, and the pages of the login beside it."""
    return Starlette(routes=[Mount(PREFIX, login_app(console)), Mount("/", LoginRequired(app, console))])


def login_app(console: Console) -> FastAPI:
    """Return the pages to log in and out."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.state.console = console
    app.include_router(console_login.router)
    app.include_router(router)
    app.mount("/static", serve_static)
    app.add_middleware(SecurityHeaders)
    answer_errors(app)
    return app


class LoginRequired:
    """Lets through who has logged in or sends a token, and says in the scope which role they have."""

    def __init__(self, app: ASGIApp, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._console = console
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS or asks_for_readiness(scope):
            await self._app(scope, receive, send)
            return
        try:
            principal = await self._principal(scope)
        except RefusedError as refusal:
            await refusal.answer(scope, receive, send)
            return
        if principal is None:
            await _ask_for_login(scope, receive, send)
            return
        if scope["type"] == "websocket":
            send = self._while_known(scope, send)
        await self._app({**scope, ROLE: principal.role}, receive, send)

    async def _principal(self, scope: Scope) -> Principal | None:
        """Return who asks. Raises RefusedError when the store cannot say."""
        connection = HTTPConnection(scope)
        if (known := known_reader(self._console, connection)) is not None:
            return known
        try:
            return await run_in_threadpool(principal_of, self._console, connection)
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise RefusedError(503, "The store, which knows users and tokens, cannot be reached just now.") from error

    async def _is_known(self, scope: Scope) -> bool:
        """Is whoever opened a websocket still known? Not while the store cannot say; the UI opens another one then."""
        try:
            return await self._principal(scope) is not None
        except RefusedError:
            return False

    def _while_known(self, scope: Scope, send: Send) -> Send:
        """Return a send that closes the websocket when whoever opened it is logged out."""
        asked = self._clock()
        closed = False

        async def send_while_known(message: Message) -> None:
            nonlocal asked, closed
            if closed:
                return
            if self._clock() - asked >= RECHECK_SECONDS:
                asked = self._clock()
                closed = not await self._is_known(scope)
            await send({"type": "websocket.close", "code": POLICY_VIOLATION} if closed else message)

        return send_while_known


async def _ask_for_login(scope: Scope, receive: Receive, send: Send) -> None:
    """Lead a person to the login, and tell a program what to send."""
    if scope.get("method") in SAFE_METHODS and "text/html" in Headers(scope=scope).get("accept", ""):
        query = scope["query_string"].decode("latin-1")
        here = scope["path"] + (f"?{query}" if query else "")
        await RedirectResponse(f"{PREFIX}/login?{urlencode({'next': here})}", 303)(scope, receive, send)
        return
    message = "Log in, or send a token of `whalefall-capacity token create` as Authorization: Bearer."
    await RefusedError(401, message).answer(scope, receive, send)
