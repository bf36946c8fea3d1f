"""Host names that are answered: a page whose own name points to us (DNS rebinding) gets nothing."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.console.http.hosts import allowed_hosts, host_name, is_allowed
from whalefall_capacity.errors import SettingsError
from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.access import Role
from whalefall_capacity_tests.console.conftest import Callers, FakeDagster, csrf_of

CURRENT = "/api/v1/capacity/aggregations/current"
PATHS = ("/login", "/instances", "/api/v1/session", "/static/console.css", "/healthz", "/none")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.", ""])
@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_is_not_ours_is_refused(callers: Callers, host: str, path: str) -> None:
    answer = callers.nobody().get(path, headers={"Host": host})
    assert answer.status_code == 400
    assert "WHALEFALL_ALLOWED_HOSTS" in answer.text
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_rebound_name_does_not_get_at_the_session_of_a_browser(callers: Callers, dagster: FakeDagster) -> None:
    client = callers.browser(Role.ADMIN)
    rebound = csrf_of(client) | {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
    assert client.get("/api/v1/session", headers=rebound).status_code == 400
    assert client.post(CURRENT, headers=rebound).status_code == 400
    assert dagster.launched == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[0:0::1]"])
def test_this_machine_is_answered_under_each_of_its_names(callers: Callers, host: str) -> None:
    assert callers.nobody().get("/healthz", headers={"Host": host}).text == "ok\n"


def test_what_the_settings_name_is_answered(store: Engine) -> None:
    settings = build_settings(
        allowed_hosts="Capacity.example.com, 10.0.0.7,::ffff",
        ui_url="https://dagster.example.com/ui",
        webserver_url="http://dagster.internal:3000",
        console_host="192.0.2.9",
    )
    client = Callers(create_app(console_of(store, settings, FakeDagster())), store).nobody()
    names = ("capacity.example.com", "10.0.0.7", "dagster.example.com", "dagster.internal", "192.0.2.9", "localhost")
    statuses = {name: client.get("/healthz", headers={"Host": f"{name}:8000"}).status_code for name in names}
    assert statuses == dict.fromkeys(names, 200)
    assert client.get("/healthz", headers={"Host": "[0::ffff]"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "example.com"}).status_code == 400


@pytest.mark.parametrize(("host", "name"), [("2001:DB8:0:0::1", "2001:db8::1"), ("DB.example.com", "db.example.com")])
def test_what_is_listened_on_is_allowed_as_it_is_compared(host: str, name: str) -> None:
    assert name in allowed_hosts(build_settings(console_host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - allows nothing
def test_to_listen_everywhere_allows_no_name(host: str) -> None:
    assert allowed_hosts(build_settings(console_host=host)) == {"localhost", "127.0.0.1", "::1"}


@pytest.mark.parametrize("value", ["*", "*.example.com", "http://example.com", "example.com:8000", "a b", "[::1]"])
def test_a_setting_that_is_no_name_is_an_error(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^WHALEFALL_ALLOWED_HOSTS: .*must be host names such as"):
        build_settings(allowed_hosts=value)


def test_no_host_and_two_hosts_are_refused() -> None:
    ours = frozenset({"localhost"})
    assert is_allowed([(b"host", b"localhost")], ours)
    assert not is_allowed([], ours)
    assert not is_allowed([(b"host", b"localhost"), (b"host", b"localhost")], ours)
    assert not is_allowed([(b"host", b"localhost"), (b"host", b"evil.example")], ours)


@pytest.mark.parametrize("header", ["user@localhost", "localhost/x", "local host", "[::1", "localhost:", "[v1.a]", "é"])
def test_what_is_no_host_is_none(header: str) -> None:
    assert host_name(header) is None


def test_a_websocket_for_another_name_is_refused(app: FastAPI) -> None:
    client = TestClient(app, base_url="http://localhost")
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/api/v1/session", headers={"Host": "evil.example"}),
    ):
        pass
