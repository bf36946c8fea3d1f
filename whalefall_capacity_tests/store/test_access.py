"""Users and tokens of the console."""

from __future__ import annotations

import re

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.errors import AccessError
from whalefall_capacity.store.access import (
    Role,
    check_password,
    create_token,
    find_token,
    find_user,
    has_admin,
    list_tokens,
    list_users,
    remove_user,
    revoke_token,
    set_user,
)

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


def test_a_new_password_makes_another_session_key(store: Engine) -> None:
    keys = []
    for password in (GOOD, OTHER):
        set_user(store, "ann", Role.ADMIN, password)
        user = find_user(store, "ann")
        assert user is not None
        keys.append(user.session_key)
    assert keys[0] != keys[1]
    assert check_password(store, "ann", GOOD) is None
    assert [user.name for user in list_users(store)] == ["ann"]


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
