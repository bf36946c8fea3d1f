"""Who asks, and what is refused before a handler sees it: authentication, role, CSRF, then the body.

A browser carries a signed session cookie, and for every unsafe method a token in X-CSRFToken (a form without script: in
the field csrf_token). A script carries a bearer token and needs nothing more. Reading takes the role view, everything
else admin.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import parse_qs

from fastapi.routing import APIRoute
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whalefall_capacity.console.envelope import ApiError, MessageCode
from whalefall_capacity.console.state import Console
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.access import Role, User, find_token, find_user, has_admin
from whalefall_capacity.store.engine import again_if_connection_lost

SESSION_COOKIE = "whalefall_session"
LOGIN_COOKIE = "whalefall_login"
CSRF_HEADER = "X-CSRFToken"
CSRF_FIELD = "csrf_token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LARGEST_BODY = 64 * 1024
# What is sent beyond that is read and thrown away, so that the sender hears why.
MOST_DISCARDED = 64 * 1024 * 1024
LOGIN_SECONDS = 3600
KEY_FILE = "console.key"
NO_ADMIN = (
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


# Is it a token (or the cookie of a session), and which.
Credential = tuple[bool, str]


@dataclass(frozen=True)
class Principal:
    """Who asks; *csrf_token* is None for a script."""

    name: str
    role: Role
    csrf_token: str | None


class Sessions:
    """Signs and reads the cookies."""

    def __init__(self, key: str, hours: int) -> None:
        self.seconds = hours * 3600
        self._sessions = URLSafeTimedSerializer(key, salt="session")
        self._logins = URLSafeTimedSerializer(key, salt="login")

    def open(self, user: User) -> str:
        """Return the cookie of a new session."""
        return self._sessions.dumps([user.name, user.session_key, secrets.token_urlsafe(24)])

    def read(self, cookie: str) -> tuple[str, str, str] | None:
        """Return user, session key and CSRF token of a session that has not expired."""
        found: tuple[str, str, str] | None = self._read(self._sessions, cookie, self.seconds, 3)
        return found

    def login_form(self) -> tuple[str, str]:
        """Return the cookie of a login form and the token that belongs into the form."""
        token = secrets.token_urlsafe(24)
        return self._logins.dumps([token]), token

    def login_token(self, cookie: str) -> str | None:
        """Return the token that came with a login form."""
        found = self._read(self._logins, cookie, LOGIN_SECONDS, 1)
        return None if found is None else str(found[0])

    @staticmethod
    def _read(signer: URLSafeTimedSerializer, cookie: str, seconds: int, length: int) -> Any:
        try:
            content = signer.loads(cookie, max_age=seconds)
        except (BadSignature, ValueError):
            return None
        return tuple(content) if isinstance(content, list) and len(content) == length else None


class Remembered:
    """Who was found a moment ago: a page of many requests asks the store once. What is revoked ends within a second."""

    def __init__(self, seconds: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._found: dict[Credential, tuple[float, Principal]] = {}

    def get(self, credential: Credential) -> Principal | None:
        """Return whose credential it is, when that was found within the last second."""
        until, principal = self._found.get(credential, (0.0, None))
        return principal if until > self._clock() else None

    def put(self, credential: Credential, principal: Principal) -> None:
        """Remember whose credential it is."""
        if len(self._found) >= 1000:
            self._found.clear()
        self._found[credential] = (self._clock() + self._seconds, principal)


class LoginLimiter:
    """Counts failed logins, per address and per name, within the last minutes."""

    def __init__(
        self, per_address: int = 10, per_name: int = 30, seconds: int = 300, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = {"address": per_address, "name": per_name}
        self._seconds = seconds
        self._clock = clock
        self._failures: dict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()

    def wait_seconds(self, address: str, name: str) -> int:
        """Return how long to wait before the next try; 0 when it may be made now."""
        with self._lock:
            now = self._clock()
            waits = [0.0]
            for key in (("address", address), ("name", name)):
                failures = self._recent(key, now)
                if len(failures) >= self._limits[key[0]]:
                    waits.append(failures[0] + self._seconds - now)
            return int(max(waits) + 0.999)

    def note_failure(self, address: str, name: str) -> None:
        """Count one failure."""
        with self._lock:
            now = self._clock()
            for key in (("address", address), ("name", name)):
                self._failures[key].append(now)
            if len(self._failures) > 10_000:
                for key in [key for key in self._failures if not self._recent(key, now)]:
                    self._failures.pop(key, None)

    def _recent(self, key: tuple[str, str], now: float) -> deque[float]:
        failures = self._failures.get(key)
        if failures is None:
            return deque()
        while failures and failures[0] <= now - self._seconds:
            failures.popleft()
        return failures


def signing_key(settings: Settings) -> str:
    """Return what cookies are signed with: the secret key, or one of the console's own, made once."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    path = Path(settings.home) / KEY_FILE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, readable by its owner alone; of two that start together one wins.
        with NamedTemporaryFile("w", dir=path.parent, encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            with suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_text(encoding="ascii")


def principal_of(request: Request) -> Principal | None:
    """Return who asks, by bearer token or by session; None when neither is valid."""
    console: Console = request.app.state.console
    credential = credential_of(request)
    # What changes something is not done for one who was revoked a moment ago.
    known = console.known.get(credential) if request.method in SAFE_METHODS else None
    if known is not None:
        return known
    found = look_up(console, *credential)
    if found is not None:
        console.known.put(credential, found)
    return found


def credential_of(request: HTTPConnection) -> Credential:
    """Return what the request carries: a token, or the cookie of a session."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return (True, token.strip()) if scheme.lower() == "bearer" else (False, request.cookies.get(SESSION_COOKIE, ""))


# It reads, and comes first of all that a request does: a store that was restarted is noticed here.
@again_if_connection_lost
def look_up(console: Console, is_token: bool, value: str) -> Principal | None:
    """Return whose credential this is, as the store knows."""
    if is_token:
        found = find_token(console.reading, value)
        return None if found is None else Principal(*found, csrf_token=None)
    session = console.sessions.read(value)
    if session is None:
        return None
    name, key, csrf_token = session
    user = find_user(console.reading, name)
    return Principal(user.name, user.role, csrf_token) if user is not None and user.session_key == key else None


def check(request: Request) -> Principal:
    """Return who asks. Raises ApiError when that is nobody, not enough of a role, or without CSRF token."""
    safe = request.method in SAFE_METHODS
    console: Console = request.app.state.console
    if not safe and not has_admin(console.reading):
        raise ApiError(403, MessageCode.PERMISSION_REQUIRED, NO_ADMIN)
    principal = principal_of(request)
    if principal is None:
        raise ApiError(
            401,
            MessageCode.AUTHENTICATION_REQUIRED,
            "log in, or send a token of `whalefall-capacity token create` as Authorization: Bearer",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if not safe:
        if principal.role is not Role.ADMIN:
            raise ApiError(403, MessageCode.PERMISSION_REQUIRED, "this takes the role admin")
        require_csrf(request, principal)
    return principal


def known_reader(request: Request) -> Principal | None:
    """Return who asks, when that needs no look into the store: somebody just seen, who reads."""
    console: Console = request.app.state.console
    return console.known.get(credential_of(request)) if request.method in SAFE_METHODS else None


def require_csrf(request: Request, principal: Principal) -> None:
    """Raise ApiError unless the request of a session carries its CSRF token."""
    if principal.csrf_token is not None and not is_same(sent_csrf_token(request), principal.csrf_token):
        raise ApiError(403, MessageCode.CSRF_MISSING, f"the header {CSRF_HEADER} must carry the session's CSRF token")


def sent_csrf_token(request: Request) -> str:
    """Return the token in the header, or in the field of a form."""
    return request.headers.get(CSRF_HEADER) or form_of(request).get(CSRF_FIELD, "")


def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form whose body has been read."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    body: bytes = getattr(request, "_body", b"")
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=None)
    return {name: values[-1] for name, values in fields.items()}


def is_same(first: str, second: str) -> bool:
    """Are two secrets equal? It takes as long whatever they have in common."""
    return secrets.compare_digest(first.encode("utf-8", "replace"), second.encode("utf-8", "replace"))


async def read_body(request: Request) -> bool:
    """Read the body, so that handlers find it; False when it is too large (and was thrown away)."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= LARGEST_BODY:
            parts.append(part)
        elif size > MOST_DISCARDED:
            break
    fits = size <= LARGEST_BODY
    request._body = b"".join(parts) if fits else b""
    return fits


class GuardedRoute(APIRoute):
    """A route of the API: nothing of the request is looked at before it is known who asks."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            fits = request.method in SAFE_METHODS or await read_body(request)
            request.state.principal = known_reader(request) or await run_in_threadpool(check, request)
            if not fits:
                raise too_large()
            return await handler(request)

        return guarded


def too_large() -> ApiError:
    """Return the error of a body that nobody needs to send."""
    return ApiError(413, MessageCode.PAYLOAD_TOO_LARGE, f"a body has at most {LARGEST_BODY // 1024} KiB")


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
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = ONE_YEAR
            await send(message)

        await self.app(scope, receive, send_with_headers)
