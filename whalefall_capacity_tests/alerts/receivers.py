"""Receivers of alerts: a web server and a mail server of our own, which take, refuse, hang or hang up as told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from aiosmtpd.smtp import AuthResult, LoginPassword

USER, PASSWORD = "alerts", "Tr0ub4dor/&3"
TOKEN = "t0ken-of-the-h00k"


@dataclass
class WebReceiver:
    """Requests that came in, and the answer to them."""

    port: int = 0
    status: int = 200
    location: str | None = None
    received: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/{TOKEN}"


@contextmanager
def web_receiver() -> Iterator[WebReceiver]:
    """Hold a web server that takes what is posted to it."""
    receiver = WebReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append(json.loads(content))
            receiver.headers.append(dict(self.headers.items()))
            self.send_response(receiver.status)
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


class Mailbox(MessageHandler):
    """Keeps the mails that came in; *refuses* are recipients that it does not want."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Message] = []
        self.refuses: set[str] = set()
        self.port = 0

    def handle_message(self, message: Message) -> None:
        self.mails.append(message)

    async def handle_RCPT(  # noqa: N802 - the name that the server looks for
        self, _server: object, _session: object, envelope: Any, address: str, _options: object
    ) -> str:
        if address in self.refuses:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"


@contextmanager
def mail_receiver(password: str | None = None) -> Iterator[Mailbox]:
    """Hold a mail server; with *password* it wants a login."""
    mailbox = Mailbox()

    def authenticate(_server: object, _session: object, _envelope: object, _mechanism: str, given: Any) -> AuthResult:
        good = isinstance(given, LoginPassword) and given.password.decode() == password
        return AuthResult(success=good, handled=False)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        mailbox.port = probe.getsockname()[1]
    options: dict[str, Any] = (
        {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False} if password else {}
    )
    controller = Controller(mailbox, hostname="127.0.0.1", port=mailbox.port, **options)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


@contextmanager
def mute_receiver(first_words: bytes = b"") -> Iterator[int]:
    """Hold a port that takes connections, says *first_words*, and then nothing."""
    taken: list[socket.socket] = []
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            taken.append(connection)
            if first_words:
                connection.sendall(first_words)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in taken:
                connection.close()
