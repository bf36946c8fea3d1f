"""The console as one ASGI application: API, pages, static files, and what holds for all of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from whalefall_capacity.console.actions.dagster_client import DagsterClient
from whalefall_capacity.console.api import routes as api
from whalefall_capacity.console.api.routing import PREFIX
from whalefall_capacity.console.http.envelope import ApiError, MessageCode, failure, invalid
from whalefall_capacity.console.http.faults import NO_JSON, fault_of
from whalefall_capacity.console.http.head_requests import HeadAsGet
from whalefall_capacity.console.http.hosts import AllowedHosts, allowed_hosts
from whalefall_capacity.console.http.login_limits import LoginLimiter
from whalefall_capacity.console.http.principals import SESSION_COOKIE, PrincipalCache
from whalefall_capacity.console.http.security import CSRF_HEADER, SAFE_METHODS, SecurityHeaders, put_security_headers
from whalefall_capacity.console.http.state import Console, Dagster
from whalefall_capacity.console.monitoring import routes as monitoring
from whalefall_capacity.console.monitoring.readiness import readiness_of
from whalefall_capacity.console.pages import routes as pages
from whalefall_capacity.console.pages.static_files import serve_static
from whalefall_capacity.console.pages.translations import preferred, said
from whalefall_capacity.errors import DagsterError
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.settings import Settings

DESCRIPTION = """Sizes of every database of a fleet: series, summaries, task runs.

Authenticate with `Authorization: Bearer TOKEN` (`whalefall-capacity token create NAME --role view|operator|admin`), or
with the session cookie of a login; then every unsafe method needs the header `X-CSRFToken`."""
UNEXPECTED_ERROR = Sentence("something went wrong; the console's log says what")

CSRF_PARAMETER = {
    "name": CSRF_HEADER,
    "in": "header",
    "required": False,
    "description": "Needed with a session cookie; a bearer token needs none.",
    "schema": {"type": "string"},
}

# The store is away, or busy beyond measure.
STORE_ERRORS = (OperationalError, InterfaceError, PoolTimeoutError)
NOT_AS_NEEDED = Sentence(
    "the store is not as this version of the program needs it: run `whalefall-capacity store migrate`"
)
# What the store says no to while it is there, by SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
REFUSALS = {
    "25006": Sentence("the store is read-only: nothing can be changed until it takes changes again"),
    "42501": Sentence("the console's account may not do that in the store; the console's log says what it lacks"),
    "42P01": NOT_AS_NEEDED,
    "42703": NOT_AS_NEEDED,
}

# Handlers that work at the same time; each has at most one connection to the store.
THREADS = 8

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

logger = logging.getLogger(__name__)


def create_app(console: Console) -> FastAPI:
    """Return the application over what every request needs."""
    app = FastAPI(
        title="whalefall_capacity",
        version=version("whalefall-capacity"),
        description=DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_few_threads,
    )
    app.state.console = console
    app.state.readiness = readiness_of(console)
    app.include_router(api.router)
    app.include_router(monitoring.router, include_in_schema=False)
    app.include_router(pages.router, include_in_schema=False)
    app.mount("/static", serve_static, name="static")
    app.add_middleware(AllowedHosts, allowed=allowed_hosts(console.settings))
    app.add_middleware(SecurityHeaders)
    app.add_middleware(HeadAsGet)
    answer_errors(app)
    app.openapi = _openapi(app)  # type: ignore[method-assign]
    return app


def console_of(
    engine: Engine,
    settings: Settings,
    dagster: Dagster | None = None,
    reading: Engine | None = None,
    monitoring: Engine | None = None,
) -> Console:
    """Return what every request needs.

    Unless given, *dagster* is that of the settings, *reading* is *engine* and *monitoring* is *reading*.
    """
    return Console(
        engine=engine,
        reading=reading or engine,
        monitoring=monitoring or reading or engine,
        settings=settings,
        dagster=dagster or DagsterClient(settings.dagster_webserver, settings.ui_login),
        limiter=LoginLimiter(),
        principals=PrincipalCache(),
    )


def answer_errors(app: FastAPI) -> None:
    """Answer every error in the console's words: as a page, or in the envelope of the API."""
    for kind in (ApiError, RequestValidationError, HTTPException, DagsterError, PoolTimeoutError, DBAPIError):
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(Exception, _answer_unexpected)


@asynccontextmanager
async def _few_threads(_: FastAPI) -> AsyncIterator[None]:
    """Let requests wait in line, first come first served, where more at once would only get in each other's way."""
    current_default_thread_limiter().total_tokens = THREADS
    yield


def _openapi(app: FastAPI) -> Any:
    """Return a function that gives the document: bad parameters are 400 here, where FastAPI would say 422."""
    made = type(app).openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made(app)
            for path in schema["paths"].values():
                for method, operation in path.items():
                    operation["responses"].pop("422", None)
                    operation["security"] = [{"token": []}, {"session": []}]
                    if method.upper() not in SAFE_METHODS:
                        operation.setdefault("parameters", []).append(CSRF_PARAMETER)
            schema["components"]["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
            }
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
        return app.openapi_schema or {}

    return document


def _answer(request: Request, error: Exception) -> Response:
    answered = _api_error(error)
    if answered.code is MessageCode.METHOD_NOT_ALLOWED:
        answered.headers = _allow(request, answered.headers)
    if request.url.path.startswith("/api/") or request.url.path in monitoring.PATHS:
        return failure(answered, said(answered.message, preferred(request.headers.get("accept-language", ""))))
    return pages.error_page(request, answered)


def _answer_unexpected(request: Request, error: Exception) -> Response:
    """Answer what nobody expected: that is done outside of the middleware, which would put the headers on."""
    answer = _answer(request, error)
    put_security_headers(answer.headers, request.url.scheme)
    return answer


def _api_error(error: Exception) -> ApiError:
    """Return *error* in the console's words; the server logs what is unexpected."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        errors = {_field(problem["loc"]): fault_of(problem) for problem in error.errors()}
        field, reason = next(iter(errors.items()))
        told = Sentence("{field}: {fault}", field=field, fault=reason)
        return ApiError(MessageCode.VALIDATION_ERROR, told, errors)
    if isinstance(error, HTTPException):
        # 404 and 405 of the router, 400 of a body that is nested too deeply.
        code = next((code for code in MessageCode if code.status == error.status_code), MessageCode.VALIDATION_ERROR)
        if code is MessageCode.VALIDATION_ERROR:
            return invalid("body", NO_JSON)
        return ApiError(code, str(error.detail), headers=error.headers)
    if isinstance(error, DagsterError):
        return ApiError(MessageCode.UNAVAILABLE, error.args[0])
    if isinstance(error, STORE_ERRORS):
        logger.error("the store cannot be used: %s", error)
        return ApiError(MessageCode.UNAVAILABLE, "the store cannot be reached just now; try again in a moment")
    if isinstance(error, DBAPIError):
        refusal = REFUSALS.get(getattr(error.orig, "pgcode", None) or "")
        logger.error("the store refused a statement: %s", error, exc_info=None if refusal else error)
        if refusal:
            return ApiError(MessageCode.UNAVAILABLE, refusal)
    return ApiError(MessageCode.INTERNAL_ERROR, UNEXPECTED_ERROR)


def _allow(request: Request, otherwise: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return the header Allow for a path that several routes share: the router names the methods of the first alone."""
    # A mount has made its own path the root.
    root = request.scope.get("app_root_path", request.scope.get("root_path", ""))

    def takes(method: str) -> bool:
        scope = {**request.scope, "root_path": root, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    if takes(request.method):
        # Refused by what the route leads to, which knows what it takes.
        return otherwise
    return {"Allow": ", ".join(method for method in METHODS if takes("GET" if method == "HEAD" else method))}


def _field(location: Sequence[int | str]) -> str:
    # ("query", "instance_id", 0): the name is what the caller wrote; ("body", 17): the body is no JSON at all.
    names = [part for part in location[1:] if isinstance(part, str)]
    return _printable(names[0]) if names else str(location[0])


def _printable(value: str) -> str:
    return value[:64].encode("utf-8", "replace").decode()
