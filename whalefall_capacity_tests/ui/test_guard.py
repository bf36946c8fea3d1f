"""The guard of the Dagster UI: its own pages and scripts get through, pages of other origins do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import HttpUrl
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from whalefall_capacity.console.http.hosts import LOOPBACK
from whalefall_capacity.ui.documents import DocumentRules
from whalefall_capacity.ui.guard import Guard
from whalefall_capacity.ui.server import for_everybody
from whalefall_capacity_tests.ui.recorder import Recorder

HERE = "http://127.0.0.1:3000"
SOCKET = "ws://127.0.0.1:3000/graphql"
JSON = {"content-type": "application/json"}
MUTATION = 'mutation { stopRunningSchedule(id: "x") { __typename } }'
OWN_PAGE = {"origin": HERE, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.fixture
def dagster() -> Recorder:
    """A stand-in for the Dagster webserver."""
    return Recorder()


def client_of(dagster: Recorder, url: str = HERE, ui_url: str | None = None, *hosts: str) -> TestClient:
    app = for_everybody(DocumentRules(dagster))
    guard = Guard(app, LOOPBACK | set(hosts), None if ui_url is None else HttpUrl(ui_url))
    return TestClient(guard, base_url=url, raise_server_exceptions=False)


@pytest.fixture
def client(dagster: Recorder) -> TestClient:
    """Whoever sends requests to the guarded UI."""
    return client_of(dagster)


@pytest.mark.parametrize("url", [HERE, "http://localhost:3000", "http://[::1]:3000"])
def test_the_ui_and_scripts_post_mutations_under_each_name_of_this_machine(dagster: Recorder, url: str) -> None:
    client = client_of(dagster, url)
    for headers in ({}, {"origin": url}, OWN_PAGE | {"origin": url}):
        assert client.post("/graphql", json={"query": MUTATION}, headers=headers).status_code == 200
    assert [may_change for _, _, may_change in dagster.reached] == [True, True, True]


@pytest.mark.parametrize("path", ["/", "/graphql", "/server_info", "/runs/x", "/logs/x.out"])
@pytest.mark.parametrize(
    "host", ["evil.example:3000", "127.0.0.1.evil.example", "evil.example", "", "127.0.0.1:3000, evil"]
)
def test_a_host_that_was_not_configured_is_refused_with_what_to_do(
    client: TestClient, dagster: Recorder, path: str, host: str
) -> None:
    answer = client.get(path, headers={"host": host})
    assert answer.status_code == 400
    assert "WHALEFALL_ALLOWED_HOSTS" in answer.text
    assert dagster.reached == []


def test_a_host_that_was_configured_is_answered(dagster: Recorder) -> None:
    client = client_of(dagster, "https://dagster.example.com", None, "dagster.example.com")
    headers = {"origin": "https://dagster.example.com"}
    assert client.post("/graphql", json={"query": MUTATION}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://127.0.0.1:8000",
        "http://localhost:3000",
        "https://127.0.0.1:3000.evil.example",
        "http://evil.example",
        "null",
        "file://",
        "",
        "http://[",
    ],
)
def test_another_origin_is_refused_whatever_it_sends(client: TestClient, dagster: Recorder, origin: str) -> None:
    headers = {"origin": origin}
    assert client.post("/graphql", json={"query": MUTATION}, headers=headers).status_code == 403
    assert client.get("/graphql", params={"query": "{ version }"}, headers=headers).status_code == 403
    assert client.get("/runs", headers=headers).status_code == 403
    assert dagster.reached == []


def test_behind_tls_a_page_without_it_is_another_origin(dagster: Recorder) -> None:
    client = client_of(dagster, "https://localhost")
    assert client.post("/graphql", json={"query": MUTATION}, headers={"origin": "http://localhost"}).status_code == 403
    assert client.post("/graphql", json={"query": MUTATION}, headers={"origin": "https://localhost"}).status_code == 200


@pytest.mark.parametrize(
    "ui_url", ["https://dagster.example.com", "https://dagster.example.com/", "https://dagster.example.com:443"]
)
def test_the_page_at_the_configured_address_is_our_own_when_a_proxy_passes_another_host(
    dagster: Recorder, ui_url: str
) -> None:
    client = client_of(dagster, HERE, ui_url)
    own, other = {"origin": "https://dagster.example.com"}, {"origin": "http://dagster.example.com"}
    assert client.post("/graphql", json={"query": MUTATION}, headers=own).status_code == 200
    assert client.post("/graphql", json={"query": MUTATION}, headers=other).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
@pytest.mark.parametrize(
    "how",
    [
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {},
    ],
    ids=["image", "frame", "fetch", "unknown"],
)
def test_what_another_site_embeds_or_fetches_is_refused(
    client: TestClient, dagster: Recorder, site: str, how: Mapping[str, str]
) -> None:
    assert client.get("/", headers={"sec-fetch-site": site, **how}).status_code == 403
    assert dagster.reached == []


def test_another_site_may_link_to_a_page_and_not_post_to_one(client: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", **LINK}
    assert client.get("/runs/x", headers=link).status_code == 200
    assert client.post("/graphql", json={"query": MUTATION}, headers=link).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"sec-fetch-site": "none", **LINK}, {"sec-fetch-site": "cross-site", **LINK}])
@pytest.mark.parametrize(
    "queries",
    [
        [MUTATION],
        ["{ version }", MUTATION],
        [MUTATION, "{ version }"],
        ["query A { version } mutation B { x }"],
        ["fragment F on Mutation { x } mutation { ...F }"],
        ["subscription { x }"],
    ],
)
def test_no_mutation_is_sent_by_get(
    client: TestClient, dagster: Recorder, headers: Mapping[str, str], queries: list[str]
) -> None:
    answer = client.get("/graphql", params={"query": queries, "operationName": "B"}, headers=headers)
    assert answer.status_code == 405
    assert "can be sent by GET" in answer.text
    assert dagster.reached == []


def test_queries_are_sent_by_get(client: TestClient) -> None:
    assert client.get("/graphql", params={"query": "{ version }"}).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain; x=application/json",
        "application/json, text/plain",
        "APPLICATION/JSON",
        "application/graphql; x=application/json",
        None,
    ],
)
@pytest.mark.parametrize("path", ["/graphql", "/report_asset_materialization/database_size_stats"])
def test_no_form_changes_anything(client: TestClient, dagster: Recorder, content_type: str | None, path: str) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = client.post(path, params={"query": MUTATION}, content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert dagster.reached == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_those_of_forms(client: TestClient, method: str) -> None:
    assert client.request(method, "/graphql").status_code == 415


def test_a_document_that_cannot_be_read_goes_no_further(client: TestClient, dagster: Recorder) -> None:
    for query in ("mutation {", "{ a " * 5_000):
        assert client.get("/graphql", params={"query": query}).status_code == 400
    assert dagster.reached == []


def start(query: object) -> dict[str, Any]:
    return {"id": "1", "type": "start", "payload": {"query": query}}


def test_subscriptions_go_over_the_websocket(client: TestClient, dagster: Recorder) -> None:
    with client.websocket_connect(SOCKET, headers=OWN_PAGE) as websocket:
        for message in ({"type": "connection_init"}, start("subscription { x }"), {"id": "1", "type": "stop"}):
            websocket.send_json(message)
            assert websocket.receive_json() == {"type": "data"}
    assert len(dagster.reached) == 3


@pytest.mark.parametrize(
    "message",
    [
        start(MUTATION),
        start("{ version }"),
        start("subscription A { x } mutation B { x }"),
        start("mutation {"),
        start(None),
        start("subscription { x }" + " " * 2**18),
        {"type": "start", "payload": "x"},
        ["start"],
    ],
)
def test_nothing_else_goes_over_the_websocket(client: TestClient, dagster: Recorder, message: object) -> None:
    with client.websocket_connect(SOCKET) as websocket:
        websocket.send_json(message)
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
    assert closed.value.code == 1008
    assert dagster.reached == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "null"},
        {"host": "evil.example:3000"},
        {"host": "evil.example:3000", "origin": "http://evil.example:3000"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "websocket"},
    ],
)
def test_a_websocket_of_another_page_does_not_open(client: TestClient, headers: Mapping[str, str]) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(SOCKET, headers=dict(headers)):
        pass


def test_no_page_of_another_origin_frames_the_ui_and_the_policy_of_dagster_stays(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers.get_list("content-security-policy") == ["base-uri 'none'", "frame-ancestors 'self'"]
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/", headers={"host": "evil.example"}).headers["x-frame-options"] == "SAMEORIGIN"
