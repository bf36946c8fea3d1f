"""`whalefall-capacity user` and `token`: who may use the console."""

from __future__ import annotations

import re

from pydantic import SecretStr

from whalefall_capacity.store.access import Role, check_password, find_token, list_users
from whalefall_capacity_tests.commands.conftest import CommandLine


def test_a_token_is_printed_alone_and_is_valid(whalefall: CommandLine) -> None:
    done = whalefall("token", "create", "grafana", "--role", "view")
    assert (done.status, done.err) == (0, "")
    assert re.fullmatch(r"[A-Za-z0-9_-]+\n", done.out)
    assert find_token(whalefall.store, done.out.strip()) == ("grafana", Role.VIEW)


def test_a_revoked_token_is_listed_and_not_valid(whalefall: CommandLine) -> None:
    token = whalefall("token", "create", "grafana", "--role", "admin").out.strip()
    assert whalefall("token", "revoke", "grafana").out == "revoked token grafana\n"
    assert find_token(whalefall.store, token) is None
    (listed,) = whalefall("token", "list", "--json").json
    assert (listed["name"], listed["role"], listed["revoked_at"] is None) == ("grafana", "admin", False)
    table = whalefall("token", "list").out
    assert "grafana" in table
    assert token not in table


def test_a_token_needs_a_role_and_a_name_of_its_own(whalefall: CommandLine) -> None:
    assert whalefall("token", "create", "grafana").status == 2
    assert whalefall("token", "create", "grafana", "--role", "root").status == 2
    whalefall("token", "create", "grafana", "--role", "view")
    again = whalefall("token", "create", "grafana", "--role", "view")
    assert (again.status, again.out) == (1, "")
    assert again.err.startswith("error: there was a token grafana already")
    unknown = whalefall("token", "revoke", "none")
    assert (unknown.status, unknown.err.startswith("error: there is no valid token none")) == (1, True)


def test_a_user_logs_in_with_the_password_from_standard_input(whalefall: CommandLine) -> None:
    done = whalefall("user", "set", "ann", "--role", "admin", stdin="correct horse\n")
    assert (done.status, done.out, done.err) == (0, "stored user ann (admin)\n", "")
    assert check_password(whalefall.store, "ann", SecretStr("correct horse")) is not None
    (listed,) = whalefall("user", "list", "--json").json
    assert (listed["name"], listed["role"]) == ("ann", "admin")
    assert "ann" in whalefall("user", "list").out
    assert whalefall("user", "remove", "ann").out == "removed user ann\n"
    assert list_users(whalefall.store) == []


def test_a_byte_order_mark_is_no_part_of_a_password(whalefall: CommandLine) -> None:
    assert whalefall("user", "set", "ann", "--role", "admin", stdin="\ufeffcorrect horse\r\n").status == 0
    assert check_password(whalefall.store, "ann", SecretStr("correct horse")) is not None


def test_a_password_that_is_not_utf8_is_refused_and_not_shown(whalefall: CommandLine) -> None:
    done = whalefall("user", "set", "ann", "--role", "admin", stdin="Größe von Haus".encode("latin-1"))
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: the password on standard input is not UTF-8; user ann was left as it is\n"


def test_an_argument_that_is_not_utf8_is_wrong_usage(whalefall: CommandLine) -> None:
    done = whalefall("user", "remove", "ann\udcff")
    assert (done.status, done.out, done.err) == (2, "", "error: ann\\udcff: is not UTF-8\n")


def test_no_password_makes_no_user(whalefall: CommandLine) -> None:
    done = whalefall("user", "set", "ann", "--role", "admin", stdin="")
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: no password on standard input; user ann was left as it is\n"
    assert whalefall("user", "list", "--json").json == []
