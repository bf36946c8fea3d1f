"""Limits of guessing: an address is refused, a name is only slowed down, and memory stays small."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine
from starlette.testclient import TestClient

from whalefall_capacity.console.http.login_limits import FailureLog, LoginLimiter, delay_seconds, site_of
from whalefall_capacity.console.pages import login
from whalefall_capacity.store.access import Role, set_user
from whalefall_capacity_tests.console.conftest import PASSWORD, Callers, log_in


def client_at(app: FastAPI, address: str) -> TestClient:
    """Return a client whose connections come from *address*."""
    return TestClient(
        app, base_url="http://localhost", client=(address, 4711), raise_server_exceptions=False, follow_redirects=False
    )


def test_after_ten_wrong_passwords_an_address_has_to_wait(callers: Callers, store: Engine) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    client = callers.nobody()
    assert [log_in(client, f"user-{n}", "wrong").status_code for n in range(10)] == [401] * 10
    answer = log_in(client, "root", PASSWORD)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 300


def test_another_address_of_the_same_ipv6_network_has_to_wait_too(app: FastAPI, store: Engine) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    statuses = [log_in(client_at(app, f"2001:db8:1:2::{n:x}"), f"user-{n}", "wrong").status_code for n in range(1, 11)]
    assert statuses == [401] * 10
    assert log_in(client_at(app, "2001:db8:1:2:ffff:ffff:ffff:ffff"), "root", PASSWORD).status_code == 429
    assert log_in(client_at(app, "2001:db8:1:3::1"), "root", PASSWORD).status_code == 303


def test_an_ipv4_address_counts_as_itself_however_it_is_written(app: FastAPI, store: Engine) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    for number in range(10):
        log_in(client_at(app, "::ffff:192.0.2.1" if number % 2 else "192.0.2.1"), f"user-{number}", "wrong")
    assert log_in(client_at(app, "192.0.2.1"), "root", PASSWORD).status_code == 429
    assert log_in(client_at(app, "::ffff:192.0.2.1"), "root", PASSWORD).status_code == 429
    assert log_in(client_at(app, "::ffff:192.0.2.2"), "root", PASSWORD).status_code == 303


def test_an_attacker_with_many_addresses_cannot_lock_the_admin_out(
    app: FastAPI, store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[float] = []

    async def sleep(seconds: float) -> None:
        held.append(seconds)

    monkeypatch.setattr(login, "sleep", sleep)
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    limiter = app.state.console.limiter
    for number in range(1000):
        assert limiter.admit(f"10.0.{number // 250}.{number % 250}", "root") is not None
    assert log_in(client_at(app, "192.0.2.1"), "root", PASSWORD).status_code == 303
    assert held == [4.0]


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0.0), (4, 0.0), (5, 0.25), (6, 0.5), (7, 1.0), (8, 2.0), (9, 4.0), (5000, 4.0)]
)
def test_failures_of_a_name_delay_its_logins_by_seconds_at_most(failures: int, seconds: float) -> None:
    assert delay_seconds(failures) == seconds


def test_the_wait_is_over_after_five_minutes() -> None:
    now = [0.0]
    limiter = LoginLimiter(clock=lambda: now[0])
    for second in range(10):
        now[0] = float(second)
        assert limiter.admit("10.0.0.1", "root") is not None
    assert limiter.admit("10.0.0.1", "root") is None
    assert limiter.wait_seconds("10.0.0.1") == 291
    assert limiter.wait_seconds("10.0.0.2") == 0
    now[0] = 300.0
    assert limiter.wait_seconds("10.0.0.1") == 0
    attempt = limiter.admit("10.0.0.1", "root")
    assert attempt is not None
    assert attempt.delay_seconds == 4.0


def test_what_comes_at_once_is_counted_before_any_of_it_has_failed() -> None:
    limiter = LoginLimiter(clock=lambda: 0.0)
    admitted = [limiter.admit("10.0.0.1", f"user-{number}") for number in range(100)]
    assert len([attempt for attempt in admitted if attempt is not None]) == 10


def test_a_right_password_is_not_counted() -> None:
    limiter = LoginLimiter(clock=lambda: 0.0)
    for _ in range(100):
        attempt = limiter.admit("10.0.0.1", "root")
        assert attempt is not None
        assert attempt.delay_seconds == 0.0
        limiter.forgive(attempt)


def test_what_is_remembered_of_failures_has_a_bound() -> None:
    log = FailureLog(most=10, keys=100)
    for number in range(5000):
        log.add(f"user-{number}", float(number))
        log.add("root", float(number))
    assert len(log) == 100
    assert log.since("root", 0.0) == [float(number) for number in range(4990, 5000)]
    assert log.since("user-0", -1.0) == []


def test_names_that_fail_do_not_push_addresses_out() -> None:
    limiter = LoginLimiter(clock=lambda: 0.0, most_remembered=100)
    for _ in range(10):
        limiter.admit("192.0.2.1", "root")
    for number in range(900):
        limiter.admit(f"10.0.0.{number // 10}", f"user-{number}")
    assert limiter.admit("192.0.2.1", "root") is None


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:0201", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:0DB8:0001:0002:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("x" * 10_000, "x" * 64),
    ],
)
def test_an_address_stands_for_whoever_has_it(address: str, site: str) -> None:
    assert site_of(address) == site
