"""A relay in front of a real server of the MySQL family, which listens to statements and spoils some of them."""

from __future__ import annotations

import re
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from whalefall_capacity.collection.sizes import Target, Tls
from whalefall_capacity_tests.servers import FamilyServer

QUERY = 3


@dataclass(frozen=True)
class Refused:
    """The answer to a statement: an error of the server."""

    code: int
    text: str

    def packet(self) -> bytes:
        payload = b"\xff" + struct.pack("<H", self.code) + b"#HY000" + self.text.encode()
        return struct.pack("<I", len(payload))[:3] + b"\x01" + payload


class Silence:
    """The answer to a statement: none."""


class HangUp:
    """The answer to a statement: the connection is closed."""


Answer = Refused | Silence | HangUp


@dataclass
class Relay:
    """Everything that a relay has heard, and the address of the way to the server through it."""

    target: Target
    statements: list[str] = field(default_factory=list)


class _Relaying(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, socket_path: str, spoiled: Mapping[str, Answer], replaced: tuple[bytes, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.statements: list[str] = []
        self._socket_path = socket_path
        self._spoiled = spoiled
        self._replaced = replaced

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], _: object) -> None:
        assert isinstance(request, socket.socket)
        with socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(self._socket_path)
            back = threading.Thread(target=self._answers, args=(server, request), daemon=True)
            back.start()
            self._questions(request, server)
            server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _questions(self, client: socket.socket, server: socket.socket) -> None:
        while packet := _packet(client):
            answer = self._answer(packet)
            if answer is None:
                server.sendall(packet)
            elif isinstance(answer, HangUp):
                client.shutdown(socket.SHUT_RDWR)
            elif isinstance(answer, Refused):
                client.sendall(answer.packet())

    def _answer(self, packet: bytes) -> Answer | None:
        # The first packet of a command, and not one of the login.
        if packet[3] != 0 or packet[4] != QUERY:
            return None
        statement = packet[5:].decode()
        self.statements.append(statement)
        return next((answer for words, answer in self._spoiled.items() if re.search(words, statement)), None)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data.replace(*self._replaced))


def _packet(connection: socket.socket) -> bytes:
    head = _exactly(connection, 4)
    return head + _exactly(connection, int.from_bytes(head[:3], "little")) if head else b""


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            return b""
        data += more
    return data


@contextmanager
def relay(
    server: FamilyServer, spoiled: Mapping[str, Answer] | None = None, replaced: tuple[bytes, bytes] = (b"\0", b"\0")
) -> Iterator[Relay]:
    """Hold a relay that gives other answers to statements that match an expression, and replaces bytes of answers."""
    target = server.target()
    with _Relaying(target.host, spoiled or {}, replaced) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            port = listening.server_address[1]
            yield Relay(replace(target, host="127.0.0.1", port=port, tls=Tls("disable")), listening.statements)
        finally:
            listening.shutdown()
            thread.join()
