"""Cookies: out of reach of scripts and of other sites, and over TLS alone where the page came so."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import Response

# Browsers take a cookie of such a name over TLS alone, and from this very host: no subdomain can plant one.
HOST_PREFIX = "__Host-"
SECURE_SCHEMES = frozenset({"https", "wss"})


def cookie_name(connection: HTTPConnection, name: str) -> str:
    """Return the name under which a cookie is set and read: with the prefix __Host- where the connection is TLS."""
    return f"{HOST_PREFIX}{name}" if is_secure(connection) else name


def is_secure(connection: HTTPConnection) -> bool:
    """Did the request come over TLS, here or at a proxy that is believed?"""
    return connection.scope["scheme"] in SECURE_SCHEMES


def set_cookie(answer: Response, connection: HTTPConnection, name: str, value: str, seconds: int) -> None:
    """Set a cookie under the name that `cookie_name` gives it."""
    answer.set_cookie(
        cookie_name(connection, name),
        value,
        max_age=seconds,
        secure=is_secure(connection),
        httponly=True,
        samesite="lax",
    )


def delete_cookie(answer: Response, connection: HTTPConnection, name: str) -> None:
    """Let the browser forget a cookie."""
    answer.delete_cookie(cookie_name(connection, name), secure=is_secure(connection), httponly=True, samesite="lax")
