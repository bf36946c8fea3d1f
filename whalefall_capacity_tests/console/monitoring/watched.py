"""A stand-in for the Dagster webserver as it is watched: of daemon and code location it says what a test sets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from whalefall_capacity.readiness_queries import CODE_LOCATION, DAEMONS

DAEMON_TYPES = ("SCHEDULER", "SENSOR")


@dataclass
class Watched:
    """Seconds since each daemon was heard of, and what becomes of a planned run; *status* for everything."""

    url: str = ""
    ages: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(DAEMON_TYPES, 5.0))
    planned: str = "ExecutionPlan"
    status: int = 200
    storage_answers: bool = True
    # Answered in place of everything, by something else than Dagster.
    instead: object = None
    # Set while nobody is kept waiting, for each of the two documents.
    tells_daemons: threading.Event = field(default_factory=threading.Event)
    tells_code_location: threading.Event = field(default_factory=threading.Event)

    def answer(self, query: str) -> object:
        if self.instead is not None:
            return self.instead
        if query == CODE_LOCATION:
            self.tells_code_location.wait()
            return {"data": {"executionPlanOrError": {"__typename": self.planned}}}
        assert query == DAEMONS
        self.tells_daemons.wait()
        if not self.storage_answers:
            return {"data": None, "errors": [{"message": "connection to server at db.internal failed"}]}
        now = time.time()
        statuses = [
            {"daemonType": name, "required": True, "lastHeartbeatTime": None if age is None else now - age}
            for name, age in self.ages.items()
        ]
        return {"data": {"instance": {"daemonHealth": {"allDaemonStatuses": statuses}}}}


@contextmanager
def watched_webserver() -> Iterator[Watched]:
    """Hold such a server on a port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (query,) = parse_qs(urlsplit(self.path).query)["query"]
            body = json.dumps(watched.answer(query)).encode()
            self.send_response(watched.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    watched = Watched(f"http://127.0.0.1:{server.server_port}")
    watched.tells_daemons.set()
    watched.tells_code_location.set()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield watched
    finally:
        watched.tells_daemons.set()
        watched.tells_code_location.set()
        server.shutdown()
        thread.join()
        server.server_close()
