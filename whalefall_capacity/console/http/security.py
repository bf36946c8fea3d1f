"""Checks before a handler sees a request: authentication, role, CSRF, then the body.

A browser carries the cookie of a session, and for every unsafe method a token in X-CSRFToken (a form without script: in
the field csrf_token). A script carries a bearer token and needs nothing more. A router says which role its routes take.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs

from anyio import fail_after
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whalefall_capacity.console.http.envelope import ApiError, MessageCode
from whalefall_capacity.console.http.principals import Principal, credential_of, find_principal
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.access import Role, has_admin

CSRF_HEADER = "X-CSRFToken"
CSRF_FIELD = "csrf_token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LARGEST_BODY = 64 * 1024
# What is sent beyond that is read and thrown away, so that the sender hears why.
MOST_DISCARDED = 64 * 1024 * 1024
BODY_SECONDS = 20.0
NO_ADMIN = Sentence(
    "nobody can act as admin yet, so nothing can be changed: make one with "
    "`whalefall-capacity user set NAME --role admin`, or a token with "
    "`whalefall-capacity token create NAME --role admin`"
)
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
ONE_YEAR = "max-age=31536000"


def known_reader(console: Console, connection: HTTPConnection) -> Principal | None:
    """Return who asks, when that needs no look into the store: somebody just seen, who reads.

    What changes something is not done for one who was revoked a moment ago, and a websocket may do so.
    """
    reads = connection.scope.get("method") in SAFE_METHODS
    return console.principals.get(credential_of(connection)) if reads else None


def principal_of(console: Console, connection: HTTPConnection) -> Principal | None:
    """Return who asks, by bearer token or by session; None when neither is valid."""
    if (known := known_reader(console, connection)) is not None:
        return known
    credential = credential_of(connection)
    found = find_principal(console.reading, credential, console.settings.session_hours)
    if found is not None:
        console.principals.put(credential, found)
    return found


def authenticate(request: Request) -> Principal:
    """Return who asks. Raises ApiError when that is nobody, or when nobody at all could change anything."""
    console: Console = request.app.state.console
    if request.method not in SAFE_METHODS and not has_admin(console.reading):
        raise ApiError(MessageCode.PERMISSION_REQUIRED, NO_ADMIN)
    principal = principal_of(console, request)
    if principal is None:
        raise ApiError(
            MessageCode.AUTHENTICATION_REQUIRED,
            "log in, or send a token of `whalefall-capacity token create` as Authorization: Bearer",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return principal


def authorize(request: Request, principal: Principal, role: Role) -> None:
    """Raise ApiError unless *principal* has *role*, and a session that changes something its CSRF token."""
    if not principal.role.includes(role):
        raise ApiError(MessageCode.PERMISSION_REQUIRED, Sentence("this takes the role {role}", role=role.value))
    if request.method not in SAFE_METHODS:
        require_csrf(request, principal)


def require_csrf(request: Request, principal: Principal) -> None:
    """Raise ApiError unless the request of a session carries its CSRF token."""
    if principal.csrf_token is not None and not is_same(sent_csrf_token(request), principal.csrf_token):
        raise ApiError(
            MessageCode.CSRF_MISSING,
            Sentence("the header {header} must carry the session's CSRF token", header=CSRF_HEADER),
        )


def sent_csrf_token(request: Request) -> str:
    """Return the token in the header, or in the field of a form."""
    return request.headers.get(CSRF_HEADER) or form_of(request).get(CSRF_FIELD, "")


def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form whose body has been read."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    body: bytes = getattr(request, "_body", b"")
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[-1] for name, values in fields.items()}


def is_same(first: str, second: str) -> bool:
    """Are two secrets equal? It takes as long whatever they have in common."""
    return secrets.compare_digest(first.encode("utf-8", "replace"), second.encode("utf-8", "replace"))


async def read_body(request: Request) -> bool:
    """Read the body, so that handlers find it; False when it is too large (and was thrown away).

    Raises ApiError when it does not arrive in time.
    """
    parts: list[bytes] = []
    size = 0
    try:
        with fail_after(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size <= LARGEST_BODY:
                    parts.append(part)
                elif size > MOST_DISCARDED:
                    break
    except TimeoutError:
        raise ApiError(
            MessageCode.REQUEST_TIMEOUT,
            Sentence("the body did not arrive within {seconds:g} seconds", seconds=BODY_SECONDS),
            headers={"Connection": "close"},
        ) from None
    fits = size <= LARGEST_BODY
    request._body = b"".join(parts) if fits else b""
    return fits


def guarded_route(role: Role) -> type[APIRoute]:
    """Return the class of a route that takes *role*: nothing of a request is looked at before it is known who asks."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                fits = request.method in SAFE_METHODS or await read_body(request)
                principal = known_reader(request.app.state.console, request)
                if principal is None:
                    principal = await run_in_threadpool(authenticate, request)
                authorize(request, principal, role)
                request.state.principal = principal
                if not fits:
                    raise too_large()
                return await handler(request)

            return guarded

    return GuardedRoute


def too_large() -> ApiError:
    """Return the error of a body that nobody needs to send."""
    return ApiError(MessageCode.PAYLOAD_TOO_LARGE, Sentence("a body has at most {size} KiB", size=LARGEST_BODY // 1024))


def put_security_headers(headers: MutableHeaders, scheme: str) -> None:
    """Put the headers on an answer that every answer has."""
    for name, value in HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "no-store")
    if scheme == "https":
        headers["Strict-Transport-Security"] = ONE_YEAR


class SecurityHeaders:
    """Puts the security headers on every answer; answers that are no static files are kept by nobody."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                put_security_headers(MutableHeaders(scope=message), scope["scheme"])
            await send(message)

        await self.app(scope, receive, send_with_headers)
