"""The Dagster UI with a login: who is led there, who may change anything, and that a logout ends it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from whalefall_capacity.console.actions.dagster_client import DagsterClient
from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.console.http.hosts import LOOPBACK
from whalefall_capacity.console.http.principals import PrincipalCache
from whalefall_capacity.launch_request import LAUNCH, launch_params
from whalefall_capacity.readiness_queries import CODE_LOCATION, DAEMONS
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.access import Role, create_token, revoke_token, set_user
from whalefall_capacity.tasks import LOCATION
from whalefall_capacity.ui.documents import DocumentRules
from whalefall_capacity.ui.guard import Guard
from whalefall_capacity.ui.login import RECHECK_SECONDS, LoginRequired, with_login
from whalefall_capacity_tests.console.conftest import FakeDagster
from whalefall_capacity_tests.console.webserver import webserver
from whalefall_capacity_tests.ui.recorder import Recorder

PASSWORD = "correct horse battery"
HERE, SOCKET = "http://127.0.0.1:3000", "ws://127.0.0.1:3000/graphql"
PAGE = {"accept": "text/html"}
QUERY, MUTATION = "{ version }", 'mutation { stopRunningSchedule(id: "x") { __typename } }'
SUBSCRIPTION = {"id": "1", "type": "start", "payload": {"query": "subscription { x }"}}


@dataclass(frozen=True)
class Ui:
    """The UI with a login, and whoever uses it; *dagster* notes what got through."""

    app: Guard
    dagster: Recorder
    store: Engine

    def nobody(self) -> TestClient:
        return TestClient(self.app, base_url=HERE, follow_redirects=False, raise_server_exceptions=False)

    def script(self, role: Role) -> TestClient:
        return self.with_token(create_token(self.store, f"{role.value}-script", role).get_secret_value())

    def with_token(self, token: str) -> TestClient:
        client = self.nobody()
        client.headers["Authorization"] = f"Bearer {token}"
        return client

    def browser(self, role: Role) -> TestClient:
        set_user(self.store, role.value, role, SecretStr(PASSWORD))
        client = self.nobody()
        assert log_in(client, role.value).status_code == 303
        return client


def log_in(client: TestClient, name: str, prefix: str = "/whalefall", next_url: str = "/runs") -> Any:
    """Fill in the login form and send it."""
    form = client.get(f"{prefix}/login", params={"next": next_url}).text
    assert f'action="{prefix}/login"' in form
    fields = {"csrf_token": csrf_in(form), "next": next_url, "name": name, "password": PASSWORD}
    return client.post(f"{prefix}/login", data=fields)


def csrf_in(page: str) -> str:
    return page.partition('name="csrf_token" value="')[2].partition('"')[0]


@pytest.fixture
def ui(store: Engine, settings: Settings) -> Ui:
    """The UI with a login, whose store has an admin; it asks the store each time who somebody is."""
    set_user(store, "root", Role.ADMIN, SecretStr(PASSWORD))
    dagster = Recorder()
    console = replace(console_of(store, settings), principals=PrincipalCache(0.0))
    app = with_login(DocumentRules(dagster), console)
    return Ui(Guard(app, LOOPBACK, None), dagster, store)


@pytest.mark.parametrize("path", ["/", "/runs/x?tab=logs", "/graphql", "/_next/static/x.js", "/whalefall"])
def test_a_person_who_is_nobody_is_led_to_the_login_and_back(ui: Ui, path: str) -> None:
    answer = ui.nobody().get(path, headers=PAGE)
    assert answer.status_code == 303
    client = ui.nobody()
    assert answer.headers["location"].startswith("/whalefall/login?next=%2F")
    assert client.get(answer.headers["location"]).status_code == 200
    assert ui.dagster.reached == []


def test_a_program_that_is_nobody_is_told_what_to_send(ui: Ui) -> None:
    client = ui.nobody()
    for answer in (client.post("/graphql", json={"query": QUERY}), client.get("/graphql", params={"query": QUERY})):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "whalefall-capacity token create" in answer.json()["errors"][0]["message"]
    assert ui.dagster.reached == []


def test_what_watches_the_ui_needs_no_login(ui: Ui) -> None:
    assert ui.nobody().get("/server_info").status_code == 200
    assert [path for path, _, _ in ui.dagster.reached] == ["/server_info"]


@pytest.mark.parametrize(
    "authorization", ["Bearer x", "Bearer", "Basic " + base64.b64encode(f"root:{PASSWORD}".encode()).decode()]
)
def test_what_is_no_token_is_nobody(ui: Ui, authorization: str) -> None:
    answer = ui.nobody().post("/graphql", json={"query": QUERY}, headers={"authorization": authorization})
    assert answer.status_code == 401


def test_the_login_leads_back_and_an_admin_may_do_everything(ui: Ui) -> None:
    client = ui.nobody()
    assert log_in(client, "root", next_url="/runs/x?tab=logs").headers["location"] == "/runs/x?tab=logs"
    assert client.get("/runs/x", headers=PAGE).status_code == 200
    assert client.post("/graphql", json={"query": MUTATION}, headers={"origin": HERE}).status_code == 200
    assert [may_change for _, _, may_change in ui.dagster.reached] == [True, True]


@pytest.mark.parametrize(
    "next_url", ["https://evil.example", "//evil.example", "/\\evil.example", "/whalefall/login", ""]
)
def test_the_login_leads_nowhere_else(ui: Ui, next_url: str) -> None:
    assert log_in(ui.nobody(), "root", next_url=next_url).headers["location"] == "/"


@pytest.mark.parametrize("who", ["browser", "script"])
def test_a_viewer_reads_and_changes_nothing(ui: Ui, who: str) -> None:
    client = ui.browser(Role.VIEW) if who == "browser" else ui.script(Role.VIEW)
    assert client.post("/graphql", json={"query": QUERY}).status_code == 200
    assert client.get("/runs", headers=PAGE).status_code == 200
    assert [may_change for _, _, may_change in ui.dagster.reached] == [False, False]
    assert ui.dagster.reached[0][1] == '{"query":"{ version }"}'
    ui.dagster.reached.clear()
    refused = [
        client.post("/graphql", json={"query": MUTATION}),
        client.post("/graphql", json={"query": "query A { x } mutation B { x }", "operationName": "A"}),
        client.post("/graphql", params={"query": MUTATION}, json={"query": MUTATION}),
        client.post("/report_asset_materialization/database_size_stats", json={}),
        client.request("DELETE", "/graphql", headers={"content-type": "application/json"}),
    ]
    assert [answer.status_code for answer in refused] == [403, 403, 403, 403, 400]
    assert refused[0].json()["errors"] == [{"message": "No mutation can be sent with the role view."}]
    assert ui.dagster.reached == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"query": 1}', b'[{"query": "{ x }"}]', b"\xff", b"[" * 100_000])
def test_what_a_viewer_sends_must_be_understood_first(ui: Ui, body: bytes) -> None:
    answer = ui.script(Role.VIEW).post("/graphql", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert ui.dagster.reached == []


def test_a_viewer_sends_no_more_than_a_query_needs(ui: Ui) -> None:
    answer = ui.script(Role.VIEW).post("/graphql", json={"query": QUERY, "variables": {"x": "x" * 2**18}})
    assert answer.status_code == 413


def launch(job: str, document: str = LAUNCH, **selector: str) -> dict[str, object]:
    """Return the body with which the console starts a job."""
    params = launch_params(job, {}, {})
    params["selector"] |= selector
    return {"query": document, "variables": {"params": params}}


@pytest.mark.parametrize("job", ["sync_databases", "capacity_aggregate_current"])
def test_an_operator_starts_what_the_console_starts_for_one(ui: Ui, job: str) -> None:
    assert ui.script(Role.OPERATOR).post("/graphql", json=launch(job)).status_code == 200
    assert [may_change for _, _, may_change in ui.dagster.reached] == [True]


@pytest.mark.parametrize(
    "body",
    [
        {"query": MUTATION},
        launch("partition_maintenance"),
        launch("sync_databases", LAUNCH + " mutation B { x }"),
        launch("sync_databases", LAUNCH.replace("__typename", "__typename x: y")),
        launch("sync_databases", repositoryLocationName="another"),
        {"query": LAUNCH},
        {"query": LAUNCH, "variables": {"params": []}},
        {"query": LAUNCH, "variables": {"params": {"selector": {"repositoryLocationName": LOCATION, "jobName": []}}}},
    ],
    ids=str,
)
def test_an_operator_changes_nothing_else_in_the_ui(ui: Ui, body: dict[str, object]) -> None:
    client = ui.script(Role.OPERATOR)
    answer = client.post("/graphql", json=body)
    assert answer.status_code == 403
    assert answer.json()["errors"] == [{"message": "No mutation can be sent with the role operator."}]
    assert client.post("/graphql", json={"query": QUERY}).status_code == 200
    assert [may_change for _, _, may_change in ui.dagster.reached] == [False]


def test_a_viewer_starts_nothing(ui: Ui) -> None:
    assert ui.script(Role.VIEW).post("/graphql", json=launch("sync_databases")).status_code == 403
    assert ui.dagster.reached == []


def test_an_admin_script_may_do_everything_until_its_token_is_revoked(ui: Ui) -> None:
    client = ui.script(Role.ADMIN)
    assert client.post("/graphql", json={"query": MUTATION}).status_code == 200
    revoke_token(ui.store, "admin-script")
    assert client.post("/graphql", json={"query": MUTATION}).status_code == 401


def test_a_page_of_another_origin_can_do_nothing_with_the_session(ui: Ui) -> None:
    client = ui.browser(Role.ADMIN)
    assert (
        client.post("/graphql", json={"query": MUTATION}, headers={"origin": "http://127.0.0.1:8000"}).status_code
        == 403
    )
    assert client.post("/graphql", data={"query": MUTATION}, headers={"origin": HERE}).status_code == 415
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(SOCKET, headers={"origin": "http://evil.example"}),
    ):
        pass
    assert client.post("/whalefall/logout", headers={"origin": "http://evil.example"}).status_code == 403
    assert ui.dagster.reached == []


def test_the_page_of_the_account_says_who_one_is_and_logs_out(ui: Ui) -> None:
    client = ui.browser(Role.VIEW)
    page = client.get("/whalefall/", headers=PAGE).text
    assert "You may look at everything here and change nothing." in page
    assert client.post("/whalefall/logout").status_code == 403
    answer = client.post("/whalefall/logout", data={"csrf_token": csrf_in(page)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/whalefall/login")
    assert client.post("/graphql", json={"query": QUERY}).status_code == 401
    assert client.get("/whalefall/", headers=PAGE).headers["location"] == "/whalefall/login?next=%2Fwhalefall%2F"


def test_everything_that_the_pages_of_the_login_name_is_there(ui: Ui) -> None:
    client = ui.nobody()
    page = client.get("/whalefall/login").text
    for name in ("console.css", "console.js", "icon.svg"):
        url = page.partition(f'"/whalefall/static/{name}')
        assert client.get(f"/whalefall/static/{name}{url[2].partition(chr(34))[0]}").status_code == 200


def test_a_session_of_the_console_is_one_of_the_ui_and_the_other_way_round(ui: Ui, settings: Settings) -> None:
    console = TestClient(
        create_app(console_of(ui.store, settings, FakeDagster())),
        base_url="http://127.0.0.1:8000",
        follow_redirects=False,
    )
    assert log_in(console, "root", "").status_code == 303
    client = ui.nobody()
    client.cookies = console.cookies
    assert client.post("/graphql", json={"query": MUTATION}).status_code == 200

    console.cookies = ui.browser(Role.ADMIN).cookies
    assert console.get("/api/v1/session").json()["data"]["name"] == "admin"


def test_websockets_ask_for_a_login_too(ui: Ui) -> None:
    with pytest.raises(WebSocketDisconnect), ui.nobody().websocket_connect(SOCKET):
        pass
    for client in (ui.browser(Role.VIEW), ui.script(Role.ADMIN)):
        with client.websocket_connect(SOCKET, headers=dict(client.headers)) as websocket:
            websocket.send_json(SUBSCRIPTION)
            assert websocket.receive_json() == {"type": "data"}


def test_a_websocket_ends_soon_after_its_token_is_revoked(ui: Ui, settings: Settings) -> None:
    now = [100.0]
    console = replace(console_of(ui.store, settings), principals=PrincipalCache(0.0))
    app = Guard(LoginRequired(ui.dagster, console, lambda: now[0]), LOOPBACK, None)
    token = create_token(ui.store, "follower", Role.VIEW).get_secret_value()
    headers = {"Authorization": f"Bearer {token}"}
    with TestClient(app).websocket_connect(SOCKET, headers=headers) as websocket:
        websocket.send_json(SUBSCRIPTION)
        assert websocket.receive_json() == {"type": "data"}
        revoke_token(ui.store, "follower")
        now[0] += RECHECK_SECONDS
        websocket.send_json(SUBSCRIPTION)
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
    assert closed.value.code == 1008


@pytest.mark.parametrize("who", ["browser", "script"])
def test_the_console_starts_runs_in_the_name_of_whoever_asks_it(ui: Ui, settings: Settings, who: str) -> None:
    caller = ui.browser(Role.ADMIN) if who == "browser" else ui.script(Role.ADMIN)
    with webserver() as running:
        app = create_app(console_of(ui.store, settings, DagsterClient(running.url, asks_for_login=True)))
        console = TestClient(app, base_url="http://127.0.0.1:8000")
        console.cookies, console.headers = caller.cookies, caller.headers
        token = console.get("/api/v1/session").json()["data"]["csrf_token"]
        headers = {} if token is None else {"X-CSRFToken": token}
        assert console.post("/api/v1/capacity/aggregations/current", headers=headers).status_code == 202
        (asked,) = running.asked
    named = {name: value for name, value in asked.items() if name in {"cookie", "authorization"}}
    assert ui.nobody().post("/graphql", json={"query": MUTATION}, headers=named).status_code == 200


def test_without_its_store_the_ui_lets_nobody_in_and_says_why(ui: Ui, settings: Settings) -> None:
    away = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    app = LoginRequired(ui.dagster, console_of(away, settings))
    answer = TestClient(app).post("/graphql", json={"query": QUERY}, headers={"authorization": "Bearer x"})
    assert answer.status_code == 503
    assert "store" in answer.text
    assert ui.dagster.reached == []


@pytest.mark.parametrize("document", [DAEMONS, CODE_LOCATION])
def test_what_watches_the_pipeline_needs_no_login_and_may_change_nothing(ui: Ui, document: str) -> None:
    assert ui.nobody().get("/graphql", params={"query": document}).status_code == 200
    assert ui.dagster.reached == [("/graphql", "", False)]


@pytest.mark.parametrize(
    "parameters",
    [
        {"query": f"{DAEMONS} "},
        {"query": QUERY},
        {"query": [DAEMONS, QUERY]},
        {"query": DAEMONS, "variables": "{}"},
        {"query": DAEMONS, "operationName": "x"},
    ],
)
def test_any_other_document_needs_a_login(ui: Ui, parameters: dict[str, str | list[str]]) -> None:
    assert ui.nobody().get("/graphql", params=parameters).status_code == 401


def test_a_watching_document_in_another_place_needs_a_login(ui: Ui) -> None:
    assert ui.nobody().post("/graphql", json={"query": DAEMONS}).status_code == 401
    assert ui.nobody().post("/graphql", params={"query": DAEMONS}).status_code == 401
    assert ui.nobody().get("/graphql/", params={"query": DAEMONS}).status_code == 401
    assert ui.nobody().get("/runs", params={"query": DAEMONS}).status_code == 401
