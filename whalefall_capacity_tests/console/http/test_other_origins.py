"""A page of another origin, in the browser of somebody who has logged in: it changes nothing, and reads nothing."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.store.access import Role, set_user
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity_tests.browser import open_browser
from whalefall_capacity_tests.console.conftest import PASSWORD, copied_store
from whalefall_capacity_tests.console.serving import Served, served
from whalefall_capacity_tests.store.records import rows

pytestmark = pytest.mark.slow

HOSTILE = Path(__file__).with_name("hostile.html")
REBOUND = "rebound.example"
STATE = """
SELECT (SELECT count(*) FROM pg_class WHERE relispartition), (SELECT count(*) FROM task_runs),
       (SELECT count(*) FROM console_sessions), (SELECT count(*) FROM console_users)
"""


class Recorder(ThreadingHTTPServer):
    """Serves the hostile page, or stands for the Dagster webserver, and keeps what was asked of it."""

    daemon_threads = True

    def __init__(self, page: str = "") -> None:
        super().__init__(("127.0.0.1", 0), RecordingHandler)
        self.page = page
        self.mutations: list[bytes] = []


class RecordingHandler(BaseHTTPRequestHandler):
    server: Recorder

    def do_GET(self) -> None:
        self._answer("text/html", self.server.page.encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"mutation" not in body:
            # The overview asks which checks failed.
            self._answer("application/json", b'{"data": {"assetNodes": []}}')
            return
        self.server.mutations.append(body)
        run = {"data": {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": str(uuid.uuid4())}}}}
        self._answer("application/json", json.dumps(run).encode())

    def _answer(self, content_type: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def recording(page: str = "") -> Iterator[Recorder]:
    with Recorder(page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Scene:
    """A console with an admin logged in, what stands for the Dagster webserver, and the store."""

    console: Served
    dagster: Recorder
    store: Engine
    context: BrowserContext

    def state(self) -> list[tuple[object, ...]]:
        """Return what an attack could have changed, and what was asked of Dagster."""
        sessions = rows(self.store, "SELECT cookie_hash FROM console_sessions")
        return [*rows(self.store, STATE), *sessions, tuple(self.dagster.mutations)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Where names are looked up, the name of the attacker leads to the console (DNS rebinding).
    with open_browser(f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1") as found:
        yield found


@pytest.fixture(scope="module")
def scene(
    store_server: EmbeddedPostgres, past: str, tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> Iterator[Scene]:
    with ExitStack() as stack:
        store = stack.enter_context(copied_store(store_server, past))
        set_user(store, "admin", Role.ADMIN, SecretStr(PASSWORD))
        dagster = stack.enter_context(recording())
        webserver = f"http://127.0.0.1:{dagster.server_port}"
        console = stack.enter_context(served(store, tmp_path_factory.mktemp("console"), webserver_url=webserver))
        context = browser.new_context()
        stack.callback(context.close)
        page = context.new_page()
        page.goto(f"{console.url}/login")
        page.fill("[name=name]", "admin")
        page.fill("[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{console.url}/")
        yield Scene(console, dagster, store, context)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["of the same site", "of another site"])
def test_a_page_of_another_origin_changes_nothing_and_reads_nothing(scene: Scene, host: str) -> None:
    before = scene.state()
    with recording(HOSTILE.read_text().replace("TARGET", scene.console.url)) as hostile:
        page = scene.context.new_page()
        asked: list[tuple[str, int]] = []
        page.on("response", lambda answer: asked.append((answer.request.method, answer.status)))
        page.goto(f"http://{host}:{hostile.server_port}/")
        page.wait_for_function("window.read !== undefined", timeout=60_000)
        assert page.evaluate("window.read") == []
    # The requests did get there, and were refused.
    posts = [status for method, status in asked if method == "POST"]
    # Without a cookie there is nobody to log out: that leads to the login.
    assert len(posts) >= 15
    assert set(posts) <= {401, 403} | ({303} if host == "localhost" else set())
    assert scene.state() == before
    page.goto(f"{scene.console.url}/instances")
    assert page.url.endswith("/instances")


def test_a_name_that_was_made_to_point_at_us_gets_nothing(scene: Scene) -> None:
    before = scene.state()
    page = scene.context.new_page()
    for path in ("/instances", "/login", "/api/v1/session", "/healthz"):
        answer = page.goto(f"http://{REBOUND}:{scene.console.port}{path}")
        assert answer is not None
        assert answer.status == 400
        assert "WHALEFALL_ALLOWED_HOSTS" in answer.text()
    status = page.evaluate("fetch('/api/v1/capacity/aggregations/current', {method: 'POST'}).then(r => r.status)")
    assert status == 400
    assert scene.state() == before


def test_the_admin_may_do_what_the_page_may_not(scene: Scene) -> None:
    before = len(scene.dagster.mutations)
    page: Page = scene.context.pages[0]
    page.goto(f"{scene.console.url}/instances")
    with page.expect_response("**/aggregations/current") as answer:
        page.get_by_role("button", name="Aggregate current period").click()
    assert answer.value.status == 202
    assert len(scene.dagster.mutations) == before + 1
