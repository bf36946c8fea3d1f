"""Users and tokens of the console."""

from __future__ import annotations

import re

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from whalefall_capacity.errors import AccessError
from whalefall_capacity.store.access import (
    Role,
    check_password,
    create_token,
    end_session,
    find_session,
    find_token,
    has_admin,
    list_tokens,
    list_users,
    open_session,
    remove_user,
    revoke_token,
    set_user,
)
from whalefall_capacity_tests.store.records import rows

GOOD, OTHER = SecretStr("correct horse"), SecretStr("battery staple")


def test_a_password_opens_for_its_user_alone(store: Engine) -> None:
    set_user(store, "ann", Role.ADMIN, GOOD)
    set_user(store, "bob", Role.VIEW, OTHER)
    user = check_password(store, "ann", GOOD)
    assert user is not None
    assert (user.name, user.role) == ("ann", Role.ADMIN)
    assert check_password(store, "ann", OTHER) is None
    assert check_password(store, "Ann", GOOD) is None
    assert check_password(store, "nobody", GOOD) is None


def logged_in(store: Engine, name: str, password: SecretStr = GOOD, hours: int = 12) -> str:
    """Return the cookie of a new session."""
    user = check_password(store, name, password)
    assert user is not None
    return open_session(store, user, hours).get_secret_value()


def test_a_session_says_whose_it_is_until_it_is_ended(store: Engine) -> None:
    set_user(store, "ann", Role.ADMIN, GOOD)
    first, second = logged_in(store, "ann"), logged_in(store, "ann")
    for cookie in (first, second):
        user = find_session(store, cookie, 12)
        assert user is not None
        assert (user.name, user.role) == ("ann", Role.ADMIN)
    end_session(store, first)
    assert find_session(store, first, 12) is None
    assert find_session(store, second, 12) is not None
    end_session(store, first)


def test_a_session_lives_for_its_hours_and_is_then_forgotten(store: Engine) -> None:
    set_user(store, "ann", Role.ADMIN, GOOD)
    old = logged_in(store, "ann")
    with store.begin() as connection:
        connection.execute(text("UPDATE console_sessions SET created_at = now() - interval '11 hours 59 minutes'"))
    assert find_session(store, old, 12) is not None
    assert find_session(store, old, 11) is None
    with store.begin() as connection:
        connection.execute(text("UPDATE console_sessions SET created_at = now() - interval '12 hours'"))
    assert find_session(store, old, 12) is None
    logged_in(store, "ann")
    assert rows(store, "SELECT count(*) FROM console_sessions") == [(1,)]


def test_a_new_password_ends_the_sessions_of_the_old_one_also_those_that_open_meanwhile(store: Engine) -> None:
    set_user(store, "ann", Role.ADMIN, GOOD)
    before = logged_in(store, "ann")
    user = check_password(store, "ann", GOOD)
    assert user is not None
    set_user(store, "ann", Role.ADMIN, OTHER)
    late = open_session(store, user, 12).get_secret_value()
    assert [find_session(store, cookie, 12) for cookie in (before, late)] == [None, None]
    assert find_session(store, logged_in(store, "ann", OTHER), 12) is not None
    assert check_password(store, "ann", GOOD) is None
    assert [user.name for user in list_users(store)] == ["ann"]


def test_a_user_who_is_removed_takes_the_sessions_along(store: Engine) -> None:
    set_user(store, "ann", Role.ADMIN, GOOD)
    cookie = logged_in(store, "ann")
    remove_user(store, "ann")
    set_user(store, "ann", Role.ADMIN, GOOD)
    assert find_session(store, cookie, 12) is None
    assert rows(store, "SELECT count(*) FROM console_sessions") == [(0,)]


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_a_password_has_a_sensible_length(store: Engine, password: str) -> None:
    with pytest.raises(AccessError, match="8 to 1024 characters"):
        set_user(store, "ann", Role.VIEW, SecretStr(password))
    assert list_users(store) == []


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a\n", "n" * 65, "a\x00", "会员", "'; --"])
def test_a_name_is_one_that_can_be_typed(store: Engine, name: str) -> None:
    with pytest.raises(AccessError, match="a name has 1 to 64"):
        set_user(store, name, Role.VIEW, GOOD)
    with pytest.raises(AccessError, match="a name has 1 to 64"):
        create_token(store, name, Role.VIEW)


def test_a_token_is_random_and_says_who_it_is(store: Engine) -> None:
    tokens = [
        create_token(store, name, role).get_secret_value() for name, role in (("a", Role.VIEW), ("b", Role.ADMIN))
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens)
    assert [find_token(store, token) for token in tokens] == [("a", Role.VIEW), ("b", Role.ADMIN)]
    assert find_token(store, tokens[0][:-1]) is None


def test_a_token_ends_when_it_is_revoked_and_its_name_is_not_used_again(store: Engine) -> None:
    token = create_token(store, "a", Role.VIEW).get_secret_value()
    revoke_token(store, "a")
    assert find_token(store, token) is None
    for again in (lambda: revoke_token(store, "a"), lambda: create_token(store, "a", Role.VIEW)):
        with pytest.raises(AccessError):
            again()
    ((listed),) = list_tokens(store)
    assert listed.revoked_at is not None


def test_an_admin_is_a_user_or_a_token_that_is_valid(store: Engine) -> None:
    assert not has_admin(store)
    set_user(store, "bob", Role.VIEW, GOOD)
    create_token(store, "view", Role.VIEW)
    assert not has_admin(store)
    create_token(store, "admin", Role.ADMIN)
    assert has_admin(store)
    revoke_token(store, "admin")
    assert not has_admin(store)
    set_user(store, "bob", Role.ADMIN, GOOD)
    assert has_admin(store)
    remove_user(store, "bob")
    assert not has_admin(store)


def test_who_is_not_there_cannot_be_removed(store: Engine) -> None:
    with pytest.raises(AccessError, match="there is no user ann"):
        remove_user(store, "ann")
