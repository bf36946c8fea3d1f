"""A stand-in for the Dagster webserver over HTTP: it notes the headers of what it is asked, and starts nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LAUNCHED = {"data": {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "run-1"}}}}


@dataclass
class Webserver:
    """Answers every request with *status* and *content*, text as it is; *asked* has the headers of each."""

    url: str
    status: int = 200
    content: object = field(default_factory=lambda: LAUNCHED)
    asked: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def webserver() -> Iterator[Webserver]:
    """Hold such a server on a port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            running.asked.append({name.lower(): value for name, value in self.headers.items()})
            text = running.content if isinstance(running.content, str) else json.dumps(running.content)
            body = text.encode()
            self.send_response(running.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Webserver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
