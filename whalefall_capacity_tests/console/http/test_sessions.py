"""Sessions: what their cookies are, and that they end on the server, for every console of a store."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.console.http.principals import PrincipalCache
from whalefall_capacity.settings import Settings, build_settings
from whalefall_capacity.store.access import Role, remove_user, set_user
from whalefall_capacity_tests.console.conftest import PASSWORD, Callers, FakeDagster, csrf_of, log_in
from whalefall_capacity_tests.store.records import rows

CURRENT = "/api/v1/capacity/aggregations/current"
OLD_KEY = "4Uf0rFhRtqk4ZpYyQBRjE3fWbBfwGyRkTtJgk1xXrzo="
NEW_KEY = "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def copy_of(client: TestClient, app: FastAPI) -> TestClient:
    """Return a client of *app* that has got hold of the session cookie of another one."""
    thief = Callers(app, app.state.console.engine).nobody()
    thief.cookies.set("whalefall_session", client.cookies["whalefall_session"])
    return thief


@pytest.fixture
def other_console(store: Engine, settings: Settings) -> FastAPI:
    """A second console on the same store."""
    app = create_app(console_of(store, settings, FakeDagster()))
    app.state.console = replace(app.state.console, principals=PrincipalCache(0.0))
    return app


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(callers: Callers) -> None:
    client = callers.nobody()
    set_user(callers.store, "root", Role.ADMIN, SecretStr(PASSWORD))
    cookie = log_in(client, "root", PASSWORD).headers["set-cookie"]
    assert cookie.startswith("whalefall_session=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/;" in cookie
    assert "Secure" not in cookie
    assert "Domain" not in cookie


def test_behind_tls_every_cookie_is_bound_to_the_host(app: FastAPI, store: Engine) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    client = TestClient(app, base_url="https://localhost", follow_redirects=False)
    answers = [client.get("/login?lang=zh&theme=dark"), log_in(client, "root", PASSWORD)]
    cookies = [cookie for answer in answers for cookie in answer.headers.get_list("set-cookie")]
    assert {cookie.partition("=")[0] for cookie in cookies} == {
        "__Host-whalefall_session",
        "__Host-whalefall_login",
        "__Host-whalefall_language",
        "__Host-whalefall_theme",
    }
    for cookie in cookies:
        assert "Secure" in cookie
        assert "Path=/;" in cookie
        assert "Domain" not in cookie
    assert answers[1].headers["strict-transport-security"] == "max-age=31536000"
    assert client.get("/api/v1/session").json()["data"]["name"] == "root"


def test_behind_tls_a_cookie_that_a_subdomain_may_have_planted_is_not_looked_at(callers: Callers, app: FastAPI) -> None:
    session = callers.browser(Role.ADMIN).cookies["whalefall_session"]
    client = TestClient(app, base_url="https://localhost", follow_redirects=False)
    client.cookies.set("whalefall_session", session)
    assert client.get("/api/v1/session").status_code == 401
    client.cookies.set("__Host-whalefall_session", session)
    assert client.get("/api/v1/session").status_code == 200


def test_a_copied_cookie_is_worthless_after_the_logout(
    callers: Callers, app: FastAPI, other_console: FastAPI, admin: TestClient
) -> None:
    client = callers.browser(Role.ADMIN)
    token = csrf_of(client)
    thieves = [copy_of(client, app), copy_of(client, other_console)]
    assert [thief.get("/api/v1/session").status_code for thief in thieves] == [200, 200]
    answer = client.post("/logout", data={"csrf_token": token["X-CSRFToken"]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert answer.headers["set-cookie"].startswith('whalefall_session="";')
    for thief in thieves:
        assert thief.get("/api/v1/session").status_code == 401
        assert thief.get("/instances").headers["location"] == "/login?next=%2Finstances"
        assert thief.post(CURRENT, headers=token).status_code == 401
    assert admin.get("/api/v1/session").status_code == 200


def test_a_logout_is_not_forgotten_for_the_second_that_who_reads_is_remembered(
    callers: Callers, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state, "console", replace(app.state.console, principals=PrincipalCache(1.0, lambda: 100.0)))
    client = callers.browser(Role.ADMIN)
    thief = copy_of(client, app)
    assert thief.get("/api/v1/session").status_code == 200
    client.post("/logout", data={"csrf_token": csrf_of(client)["X-CSRFToken"]})
    assert thief.get("/api/v1/session").status_code == 401


def test_a_logout_ends_this_session_and_no_other_one(callers: Callers) -> None:
    here, elsewhere = callers.browser(Role.ADMIN, "root"), callers.nobody()
    log_in(elsewhere, "root", PASSWORD)
    here.post("/logout", data={"csrf_token": csrf_of(here)["X-CSRFToken"]})
    assert here.get("/api/v1/session").status_code == 401
    assert elsewhere.get("/api/v1/session").status_code == 200


def test_a_logout_without_the_token_of_the_session_changes_nothing(callers: Callers) -> None:
    other, client = callers.browser(Role.ADMIN, "other"), callers.browser(Role.VIEW)
    for fields in ({}, {"csrf_token": ""}, {"csrf_token": csrf_of(other)["X-CSRFToken"]}):
        assert client.post("/logout", data=fields).status_code == 403
    assert client.get("/api/v1/session").status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_only_a_post_logs_out(callers: Callers, method: str) -> None:
    client = callers.browser(Role.ADMIN)
    assert client.request(method, "/logout", headers=csrf_of(client)).status_code == 405
    assert client.get("/api/v1/session").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/login", "GET, HEAD, POST"),
        ("GET", "/logout", "POST"),
        ("POST", "/instances", "GET, HEAD"),
        ("POST", "/static/console.css", "GET, HEAD"),
        ("DELETE", "/api/v1/partitions", "GET, HEAD, POST"),
        ("DELETE", "/api/v1/instances", "GET, HEAD"),
        ("DELETE", "/healthz", "GET, HEAD"),
    ],
)
def test_who_uses_a_wrong_method_is_told_every_one_that_the_path_takes(
    callers: Callers, method: str, path: str, allowed: str
) -> None:
    answer = callers.script(Role.ADMIN).request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_who_logs_out_when_the_session_has_expired_comes_to_the_login(callers: Callers, store: Engine) -> None:
    client = callers.browser(Role.ADMIN)
    token = csrf_of(client)["X-CSRFToken"]
    with store.begin() as connection:
        connection.execute(text("UPDATE console_sessions SET created_at = created_at - interval '12 hours'"))
    answer = client.post("/logout", data={"csrf_token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert answer.headers["set-cookie"].startswith('whalefall_session="";')


def test_a_session_ends_with_its_time(callers: Callers, store: Engine) -> None:
    client = callers.browser(Role.ADMIN)
    assert client.get("/instances").status_code == 200
    with store.begin() as connection:
        connection.execute(text("UPDATE console_sessions SET created_at = created_at - interval '12 hours'"))
    assert client.get("/api/v1/session").status_code == 401
    assert client.get("/instances").headers["location"] == "/login?next=%2Finstances"


@pytest.mark.parametrize("change", ["password", "role", "removed", "made again"])
def test_a_session_ends_when_its_user_changes(callers: Callers, store: Engine, change: str) -> None:
    client = callers.browser(Role.ADMIN, "root")
    if change in {"removed", "made again"}:
        remove_user(store, "root")
    if change != "removed":
        role = Role.VIEW if change == "role" else Role.ADMIN
        set_user(store, "root", role, SecretStr("another password" if change == "password" else PASSWORD))
    assert client.get("/api/v1/session").status_code == 401


def test_the_store_holds_nothing_that_could_be_sent_as_a_cookie(callers: Callers, store: Engine) -> None:
    client = callers.browser(Role.ADMIN)
    cookie = client.cookies["whalefall_session"]
    (session,) = rows(store, "SELECT * FROM console_sessions")
    assert cookie not in str(session)
    assert csrf_of(client)["X-CSRFToken"] not in str(session)
    thief = callers.nobody()
    thief.cookies.set("whalefall_session", session[0])
    assert thief.get("/api/v1/session").status_code == 401


@pytest.mark.parametrize("keys", [f"{NEW_KEY},{OLD_KEY}", NEW_KEY], ids=["both keys", "the new key"])
def test_a_session_outlives_the_key_under_which_it_was_opened(store: Engine, keys: str) -> None:
    before = create_app(console_of(store, build_settings(secret_key=OLD_KEY), FakeDagster()))
    after = create_app(console_of(store, build_settings(secret_key=keys), FakeDagster()))
    client = Callers(before, store).browser(Role.ADMIN)
    moved = copy_of(client, after)
    assert moved.get("/api/v1/session").json()["data"]["name"] == "admin-user"
    assert moved.post(CURRENT, headers=csrf_of(client)).status_code == 202
