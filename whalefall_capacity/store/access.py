"""Access to the console: users with a password, tokens for scripts; both have a role.

A password is kept as an argon2id hash. A token, and what a session's cookie holds, are 32 random bytes: their SHA-256
is enough, for nobody can guess what it was made of.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import SecretStr
from sqlalchemy import Engine, text

from whalefall_capacity.errors import AccessError
from whalefall_capacity.store.postgres.one_statement import read_rows, read_value, typed, write

if TYPE_CHECKING:
    from argon2 import PasswordHasher

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024


class Role(StrEnum):
    """A right: to look, also to measure and calculate, or to do everything. Each includes those before it."""

    VIEW = "view"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Tell whether whoever has this role may do what *other* allows."""
        roles = list(Role)
        return roles.index(self) >= roles.index(other)


@dataclass(frozen=True)
class User:
    """A user who has logged in; sessions that were opened with another key have ended."""

    name: str
    role: Role
    session_key: str


@dataclass(frozen=True)
class ListedUser:
    """One row of `user list`."""

    name: str
    role: Role
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Token:
    """One row of `token list`."""

    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


# A new password or role ends the sessions of the old one.
SET_USER = """
INSERT INTO console_users (name, role, password_hash)
VALUES (:name, :role, :password_hash)
ON CONFLICT (name) DO UPDATE
SET role = excluded.role, password_hash = excluded.password_hash, session_key = gen_random_uuid(),
    updated_at = now()
"""
REMOVE_USER = "DELETE FROM console_users WHERE name = :name"
LIST_USERS = "SELECT name, role, created_at, updated_at FROM console_users ORDER BY name"
FIND_USER = """
SELECT name, role, CAST(session_key AS text) AS session_key, password_hash FROM console_users WHERE name = :name
"""
# No row for a user who was changed or removed since the password was checked.
OPEN_SESSION = """
INSERT INTO console_sessions (cookie_hash, user_name, session_key)
SELECT :cookie_hash, name, session_key FROM console_users WHERE name = :name AND session_key = :session_key
"""
DELETE_OLD_SESSIONS = "DELETE FROM console_sessions WHERE created_at < now() - make_interval(hours => :hours)"
FIND_SESSION = """
SELECT u.name, u.role, CAST(u.session_key AS text) AS session_key
FROM console_sessions AS s
JOIN console_users AS u ON u.name = s.user_name AND u.session_key = s.session_key
WHERE s.cookie_hash = :cookie_hash AND s.created_at > now() - make_interval(hours => :hours)
"""
END_SESSION = "DELETE FROM console_sessions WHERE cookie_hash = :cookie_hash"
INSERT_BEARER = """
INSERT INTO console_tokens (name, role, token_hash) VALUES (:name, :role, :token_hash)
ON CONFLICT (name) DO NOTHING
"""
REVOKE_BEARER = """
UPDATE console_tokens SET revoked_at = now(), updated_at = now() WHERE name = :name AND revoked_at IS NULL
"""
LIST_BEARERS = "SELECT name, role, created_at, revoked_at FROM console_tokens ORDER BY name"
FIND_BEARER = "SELECT name, role FROM console_tokens WHERE token_hash = :token_hash AND revoked_at IS NULL"
HAS_ADMIN = """
SELECT EXISTS (SELECT FROM console_users WHERE role = 'admin')
    OR EXISTS (SELECT FROM console_tokens WHERE role = 'admin' AND revoked_at IS NULL)
"""


def set_user(engine: Engine, name: str, role: Role, password: SecretStr) -> None:
    """Make a user, or give one another password and role. Raises AccessError for a bad name or password."""
    _require_name(name)
    length = len(password.get_secret_value())
    if not SHORTEST_PASSWORD <= length <= LONGEST_PASSWORD:
        raise AccessError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, this one {length}")
    password_hash = _hasher().hash(password.get_secret_value())
    write(engine, SET_USER, name=name, role=role.value, password_hash=password_hash)


def remove_user(engine: Engine, name: str) -> None:
    """Remove a user and end the sessions. Raises AccessError when there is none of that name."""
    if not write(engine, REMOVE_USER, name=name):
        raise AccessError(f"there is no user {name}; `whalefall-capacity user list` shows them")


def list_users(engine: Engine) -> list[ListedUser]:
    """Return every user, by name."""
    return read_rows(engine, typed(ListedUser, role=Role), LIST_USERS)


def check_password(engine: Engine, name: str, password: SecretStr) -> User | None:
    """Return the user with this name and password, or None, which takes as long whether the name is known or not."""
    from argon2.exceptions import InvalidHashError, VerificationError

    with engine.connect() as connection:
        # What is no name is nobody's; PostgreSQL takes no NUL.
        values = {"name": name if NAME.fullmatch(name) else ""}
        row = connection.execute(text(FIND_USER), values).one_or_none()
    try:
        _hasher().verify(
            row.password_hash if row else _placeholder_hash(), password.get_secret_value()[: LONGEST_PASSWORD + 1]
        )
    except (VerificationError, InvalidHashError):
        return None
    return None if row is None else User(row.name, Role(row.role), row.session_key)


def open_session(engine: Engine, user: User, hours: int) -> SecretStr:
    """Return the cookie of a new session; it is kept nowhere. Sessions older than *hours* are deleted."""
    cookie = secrets.token_urlsafe(32)
    values = {"cookie_hash": _digest(cookie), "name": user.name, "session_key": user.session_key}
    with engine.begin() as connection:
        connection.execute(text(DELETE_OLD_SESSIONS), {"hours": hours})
        connection.execute(text(OPEN_SESSION), values)
    return SecretStr(cookie)


def find_session(engine: Engine, cookie: str, hours: int) -> User | None:
    """Return the user of the session with this cookie; None when it has ended or is older than *hours*."""
    with engine.connect() as connection:
        row = connection.execute(text(FIND_SESSION), {"cookie_hash": _digest(cookie), "hours": hours}).one_or_none()
    return None if row is None else User(row.name, Role(row.role), row.session_key)


def end_session(engine: Engine, cookie: str) -> None:
    """End the session of this cookie, if there is one."""
    write(engine, END_SESSION, cookie_hash=_digest(cookie))


def create_token(engine: Engine, name: str, role: Role) -> SecretStr:
    """Return a new token; it is kept nowhere. Raises AccessError for a bad name, or one that was ever used."""
    _require_name(name)
    token = secrets.token_urlsafe(32)
    if not write(engine, INSERT_BEARER, name=name, role=role.value, token_hash=_digest(token)):
        raise AccessError(f"there was a token {name} already: a name is used once; choose another")
    return SecretStr(token)


def revoke_token(engine: Engine, name: str) -> None:
    """End a token. Raises AccessError when there is no valid one of that name."""
    if not write(engine, REVOKE_BEARER, name=name):
        raise AccessError(f"there is no valid token {name}; `whalefall-capacity token list` shows them")


def list_tokens(engine: Engine) -> list[Token]:
    """Return every token, revoked ones too, by name."""
    return read_rows(engine, typed(Token, role=Role), LIST_BEARERS)


def find_token(engine: Engine, token: str) -> tuple[str, Role] | None:
    """Return the name and role of *token*; None when it is not valid."""
    with engine.connect() as connection:
        row = connection.execute(text(FIND_BEARER), {"token_hash": _digest(token)}).one_or_none()
    return None if row is None else (row.name, Role(row.role))


def has_admin(engine: Engine) -> bool:
    """Tell whether anybody can act as admin, by password or by token."""
    return bool(read_value(engine, HAS_ADMIN))


def _require_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise AccessError(
            f"{name!r}: a name has 1 to 64 letters, digits and . _ @ -, and begins with a letter or digit"
        )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=1)
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()


@lru_cache(maxsize=1)
def _placeholder_hash() -> str:
    """Return a hash to compare with where there is no user."""
    return _hasher().hash(secrets.token_urlsafe(32))
