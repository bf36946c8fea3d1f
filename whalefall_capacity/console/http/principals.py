"""Callers: the one place that finds who asks, by the cookie of a session or by a bearer token.

A session is a row of the store, so that it ends for every console that serves the store: when somebody logs out, with
its hours, and when the user's password or role changes. The cookie is 32 random bytes, of which the store has the
SHA-256 alone; nothing is signed, and no key has to be shared.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field
from sqlalchemy import Engine
from starlette.requests import HTTPConnection

from whalefall_capacity.console.http.cookies import cookie_name
from whalefall_capacity.store.access import Role, find_session, find_token
from whalefall_capacity.store.postgres.engine import again_if_connection_lost

SESSION_COOKIE = "whalefall_session"

# Is it a token (or the cookie of a session), and which.
Credential = tuple[bool, str]


@dataclass(frozen=True)
class Principal:
    """The caller."""

    name: str
    role: Role
    csrf_token: Annotated[str | None, Field(description="For X-CSRFToken; null for a bearer token, which needs none.")]


@dataclass(frozen=True)
class Caller:
    """A principal, and the credential with which Dagster is asked in its name."""

    principal: Principal
    credential: Credential = field(repr=False)


class PrincipalCache:
    """Callers found a moment ago: a page of many requests asks the store once. What is revoked ends within a second."""

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

    def forget(self, credential: Credential) -> None:
        """Forget whose credential it was, for it is nobody's any more."""
        self._found.pop(credential, None)


def credential_of(connection: HTTPConnection) -> Credential:
    """Return what a request or a websocket carries: a token, or the cookie of a session."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return True, token.strip()
    return False, connection.cookies.get(cookie_name(connection, SESSION_COOKIE), "")


# It reads, and comes first of all that a request does: a store that was restarted is noticed here.
@again_if_connection_lost
def find_principal(engine: Engine, credential: Credential, session_hours: int) -> Principal | None:
    """Return whose credential this is, as the store knows; None when it is nobody's (any more)."""
    is_token, value = credential
    if is_token:
        found = find_token(engine, value)
        return None if found is None else Principal(*found, csrf_token=None)
    user = find_session(engine, value, session_hours) if value else None
    return None if user is None else Principal(user.name, user.role, csrf_token(value))


def csrf_token(session: str) -> str:
    """Return the token that the unsafe requests of a session carry: only who has the cookie can tell it."""
    return hmac.new(session.encode("utf-8", "surrogateescape"), b"csrf", "sha256").hexdigest()
