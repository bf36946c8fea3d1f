"""Rights: authentication, role, CSRF, body, in this order; logins; headers."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.console.http.principals import PrincipalCache
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.access import Role, create_token, revoke_token, set_user
from whalefall_capacity.store.aggregations import console_series
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity_tests.console.conftest import PASSWORD, Callers, FakeDagster, csrf_of, log_in
from whalefall_capacity_tests.store.records import rows

CURRENT = "/api/v1/capacity/aggregations/current"
READS = (
    "/api/v1/session",
    "/api/v1/capacity/databases",
    "/api/v1/capacity/databases/summary",
    "/api/v1/capacity/instances",
    "/api/v1/capacity/instances/summary",
    "/api/v1/task-runs",
    "/api/v1/task-runs/none",
    "/api/v1/task-runs/none/errors",
    "/api/v1/options/task-runs",
    "/api/v1/partitions",
    "/api/v1/partitions/status",
)
OPERATED = (
    CURRENT,
    "/api/v1/capacity/collections",
    "/api/v1/task-runs/none/actions/cancel",
)
ADMINISTERED = (
    "/api/v1/partitions",
    "/api/v1/partitions/actions/cleanup",
)
CHANGES = OPERATED + ADMINISTERED
PAGES = (
    "/instances",
    "/databases",
    "/partitions",
    "/runs",
    "/runs/none",
    "/instances/size.csv",
    "/databases/percent.csv",
)
TEN_MEGABYTES = b"[" * 10_000_000


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["message_code"]


@pytest.mark.parametrize("path", READS)
def test_the_api_answers_nobody(callers: Callers, path: str) -> None:
    answer = callers.nobody().get(path)
    assert code_of(answer) == (401, "AUTHENTICATION_REQUIRED")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_leads_nobody_to_the_login_and_back(callers: Callers, path: str) -> None:
    answer = callers.nobody().get(path, params={"top": "10"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/login?next={path.replace('/', '%2F')}%3Ftop%3D10"


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.usefixtures("admin")
@pytest.mark.parametrize("body", [b"", b"{", TEN_MEGABYTES], ids=["none", "broken", "huge"])
def test_authentication_comes_before_the_body(callers: Callers, path: str, body: bytes) -> None:
    answer = callers.nobody().post(path, content=body)
    assert code_of(answer) == (401, "AUTHENTICATION_REQUIRED")


@pytest.mark.usefixtures("admin")
@pytest.mark.parametrize("path", CHANGES)
def test_the_role_comes_before_csrf_and_body(callers: Callers, dagster: FakeDagster, path: str) -> None:
    for client in (callers.script(Role.VIEW), callers.browser(Role.VIEW)):
        answer = client.post(path, content=b"{")
        assert code_of(answer) == (403, "PERMISSION_REQUIRED")
    assert dagster.launched == []


def test_what_the_api_changes_is_known_here(viewer: TestClient) -> None:
    paths = viewer.get("/api/v1/openapi.json").json()["paths"]
    changing = {path.replace("{run_id}", "none") for path, found in paths.items() if set(found) - {"get"}}
    assert changing == set(CHANGES)


@pytest.mark.usefixtures("admin")
def test_an_operator_collects_aggregates_and_cancels_and_retires_nothing(callers: Callers) -> None:
    for client in (callers.script(Role.OPERATOR), callers.browser(Role.OPERATOR)):
        headers = csrf_of(client) if client.cookies else {}
        answers = {path: client.post(path, headers=headers) for path in CHANGES}
        assert [answers[path].status_code for path in OPERATED] == [202, 202, 404]
        for path in ADMINISTERED:
            assert code_of(answers[path]) == (403, "PERMISSION_REQUIRED")
            assert answers[path].json()["message"] == "this takes the role admin"


def test_an_operator_is_no_admin_who_could_have_been_made(callers: Callers) -> None:
    answer = callers.script(Role.OPERATOR).post(CURRENT)
    assert code_of(answer) == (403, "PERMISSION_REQUIRED")


@pytest.mark.parametrize("path", CHANGES)
def test_csrf_comes_before_the_body(callers: Callers, dagster: FakeDagster, path: str) -> None:
    client = callers.browser(Role.ADMIN)
    other = callers.browser(Role.ADMIN, "other")
    for headers in ({}, {"X-CSRFToken": ""}, {"X-CSRFToken": "guess"}, csrf_of(other)):
        answer = client.post(path, content=b"{", headers=headers)
        assert code_of(answer) == (403, "CSRF_MISSING")
    assert dagster.launched == []


def test_the_body_comes_last(callers: Callers) -> None:
    client = callers.browser(Role.ADMIN)
    answer = client.post(CURRENT, content=b"{", headers=csrf_of(client) | {"Content-Type": "application/json"})
    assert code_of(answer) == (400, "VALIDATION_ERROR")


def test_a_session_with_its_csrf_token_may_act(callers: Callers) -> None:
    client = callers.browser(Role.ADMIN)
    assert client.post(CURRENT, headers=csrf_of(client)).status_code == 202


def test_a_token_needs_no_csrf_token(admin: TestClient) -> None:
    assert admin.post(CURRENT).status_code == 202


@pytest.mark.parametrize("path", CHANGES)
def test_a_body_of_ten_megabytes_is_too_large(admin: TestClient, path: str) -> None:
    answer = admin.post(path, content=TEN_MEGABYTES, headers={"Content-Type": "application/json"})
    assert code_of(answer) == (413, "PAYLOAD_TOO_LARGE")


def test_without_an_admin_nothing_can_be_changed_and_it_says_how_to_make_one(callers: Callers) -> None:
    client = callers.script(Role.VIEW)
    answer = client.post(CURRENT)
    assert code_of(answer) == (403, "PERMISSION_REQUIRED")
    assert "whalefall-capacity user set NAME --role admin" in answer.json()["message"]
    page = callers.nobody().get("/login").text
    assert "whalefall-capacity user set admin --role admin" in page


def test_the_login_page_says_nothing_of_it_when_there_is_an_admin(callers: Callers, admin: TestClient) -> None:  # noqa: ARG001
    assert "user set" not in callers.nobody().get("/login").text


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Bearer x", "Basic eDp5", "Bearer \u4f1a"])
def test_what_is_no_token_is_nobody(callers: Callers, value: str) -> None:
    answer = callers.nobody().get("/api/v1/session", headers={b"Authorization": value.encode()})
    assert answer.status_code == 401


def test_a_revoked_token_is_nobody(callers: Callers, store: Engine) -> None:
    token = create_token(store, "script", Role.ADMIN).get_secret_value()
    client = callers.nobody()
    client.headers["Authorization"] = f"Bearer {token}"
    assert client.get("/api/v1/session").json()["data"] == {"name": "script", "role": "admin", "csrf_token": None}
    revoke_token(store, "script")
    assert client.get("/api/v1/session").status_code == 401


def test_who_was_seen_a_moment_ago_is_remembered_for_reading_alone(
    callers: Callers, app: FastAPI, store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    console = replace(app.state.console, principals=PrincipalCache(1.0, lambda: now[0]))
    monkeypatch.setattr(app.state, "console", console)
    callers.script(Role.ADMIN)
    token = create_token(store, "script", Role.ADMIN).get_secret_value()
    client = callers.nobody()
    client.headers["Authorization"] = f"Bearer {token}"
    assert client.get("/api/v1/session").status_code == 200
    revoke_token(store, "script")
    assert client.post(CURRENT).status_code == 401
    assert client.get("/api/v1/session").status_code == 200
    now[0] += 1.0
    assert client.get("/api/v1/session").status_code == 401


def test_the_store_knows_neither_token_nor_password(callers: Callers, store: Engine) -> None:
    token = create_token(store, "script", Role.VIEW).get_secret_value()
    callers.browser(Role.ADMIN)
    content = str(rows(store, "SELECT * FROM console_users")) + str(rows(store, "SELECT * FROM console_tokens"))
    assert token not in content
    assert PASSWORD not in content
    assert "$argon2id$" in content


def test_a_viewer_logs_in(callers: Callers, admin: TestClient) -> None:  # noqa: ARG001 - there is an admin
    assert callers.browser(Role.VIEW).get("/api/v1/session").json()["data"]["role"] == "view"


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(callers: Callers, store: Engine) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    answers = [log_in(callers.nobody(), *pair) for pair in (("root", "wrong"), ("nobody", PASSWORD), ("", ""))]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert len({re.sub(r'value="[^"]*"', "", answer.text) for answer in answers}) == 1


@pytest.mark.parametrize("name", ["a\x00b", "n" * 10_000, "' OR 1=1 --", "root\n"])
def test_a_strange_name_is_a_wrong_name(callers: Callers, store: Engine, name: str) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    assert log_in(callers.nobody(), name, PASSWORD).status_code == 401


def test_a_login_form_that_another_browser_got_is_refused(callers: Callers, store: Engine) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    form = callers.nobody().get("/login").text
    token = form.partition('name="csrf_token" value="')[2].partition('"')[0]
    client = callers.nobody()
    client.get("/login")
    answer = client.post("/login", data={"csrf_token": token, "name": "root", "password": PASSWORD})
    assert answer.status_code == 403
    assert "whalefall_session" not in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "next_url", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "", "/a\nb"]
)
def test_a_login_leads_to_no_other_site(callers: Callers, store: Engine, next_url: str) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    assert log_in(callers.nobody(), "root", PASSWORD, next_url).headers["location"] == "/"


def test_a_login_leads_back_to_where_one_was(callers: Callers, store: Engine) -> None:
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    answer = log_in(callers.nobody(), "root", PASSWORD, "/databases?top=10&period_type=weekly")
    assert answer.headers["location"] == "/databases?top=10&period_type=weekly"


@pytest.mark.parametrize(
    "path", ["/login", "/instances", "/api/v1/session", "/static/console.css", "/none", "/healthz"]
)
def test_every_answer_has_the_security_headers(callers: Callers, path: str) -> None:
    headers = callers.nobody().get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"


def test_no_other_site_is_let_in(viewer: TestClient) -> None:
    answer = viewer.options(
        "/api/v1/capacity/databases",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"},
    )
    assert not [name for name in answer.headers if name.startswith("access-control")]
    answer = viewer.get("/api/v1/session", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_pages_and_answers_are_kept_by_no_cache(viewer: TestClient) -> None:
    assert viewer.get("/api/v1/session").headers["cache-control"] == "no-store"
    assert viewer.get("/login").headers["cache-control"] == "no-store"


def test_the_pages_have_no_inline_script_and_no_inline_style(callers: Callers) -> None:
    client = callers.browser(Role.ADMIN)
    for path in ("/instances", "/databases?chart=bar", "/runs", "/partitions", "/none"):
        page = client.get(path).text
        scripts = re.findall(r"<script[^>]*>", page)
        assert [tag for tag in scripts if "src=" not in tag and 'type="application/json"' not in tag] == []
        assert re.findall(r"\sstyle=|<style|\son[a-z]+=", page) == []
        assert re.findall(r'(?:src|href|action)="(?:https?:)?//', page) == []


def test_an_unexpected_error_shows_nothing_of_it(
    store: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("password is hunter2")

    monkeypatch.setattr(console_series, "database_page", fails)
    client = Callers(create_app(console_of(store, settings, FakeDagster())), store).script(Role.VIEW)
    answer = client.get("/api/v1/capacity/databases")
    assert code_of(answer) == (500, "INTERNAL_ERROR")
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == client.get("/login").headers["content-security-policy"]


@pytest.mark.parametrize(
    "change", ["DROP TABLE instances CASCADE", "ALTER TABLE instances RENAME COLUMN is_active TO active"]
)
def test_a_store_of_another_version_is_a_503_that_says_what_to_run(
    callers: Callers, store: Engine, change: str
) -> None:
    client = callers.script(Role.VIEW)
    with store.begin() as connection:
        connection.execute(text(change))
    told = "the store is not as this version of the program needs it: run `whalefall-capacity store migrate`"
    answer = client.get("/api/v1/instances")
    assert code_of(answer) == (503, "UNAVAILABLE")
    assert answer.json()["message"] == told
    page = client.get("/")
    assert (page.status_code, told in page.text) == (503, True)


@pytest.mark.parametrize(
    ("session", "told"),
    [
        ("default_transaction_read_only=on", "the store is read-only: nothing can be changed until it takes changes"),
        ("role=pg_monitor", "the console's account may not do that in the store"),
    ],
)
def test_a_store_that_takes_no_changes_of_the_console_is_a_503_that_says_why(
    store: Engine, settings: Settings, session: str, told: str
) -> None:
    set_user(store, "ann", Role.ADMIN, SecretStr(PASSWORD))
    url = SecretStr(store.url.render_as_string(hide_password=False))
    engine = create_store_engine(url, connect_args={"options": f"-c {session}"})
    app = create_app(console_of(engine, settings, FakeDagster(), reading=store))
    page = log_in(Callers(app, store).nobody(), "ann", PASSWORD)
    engine.dispose()
    assert (page.status_code, told in html.unescape(page.text)) == (503, True)


def test_a_store_that_is_away_is_a_503_without_its_address(settings: Settings) -> None:
    engine = create_store_engine(SecretStr("postgresql+psycopg2://u:hunter2@127.0.0.1:1/whalefall"))
    app = create_app(console_of(engine, settings, FakeDagster()))
    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    answer = client.get("/api/v1/session", headers={"Authorization": "Bearer x"})
    assert code_of(answer) == (503, "UNAVAILABLE")
    assert "hunter2" not in answer.text
    assert client.get("/instances", headers={"Authorization": "Bearer x"}).status_code == 503


@pytest.mark.parametrize(
    "url", ["/healthz", "/login", "/static/console.css", *READS[:2], *PAGES[:2], "/nowhere", "/logout"]
)
def test_a_head_request_is_answered_like_a_get_without_its_body(callers: Callers, url: str) -> None:
    client = callers.script(Role.VIEW)
    got, head = client.get(url), client.head(url)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert [head.headers.get(name) for name in ("content-type", "cache-control")] == [
        got.headers.get(name) for name in ("content-type", "cache-control")
    ]
