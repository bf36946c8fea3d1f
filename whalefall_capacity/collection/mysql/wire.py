"""Sockets for the driver that count what they receive: the driver itself reads as much as a server sends.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.errors import CollectionError

HEADER_BYTES = 4
# A count of columns in more than one byte, of which none of our statements has any need; the driver would keep the
# description of every one.
LONG_COUNTS = (0xFC, 0xFD, 0xFE)
LONGEST_COUNT_BYTES = 9


class AnswerCheck:
    """Looks at how each answer to a statement begins."""

    def __init__(self) -> None:
        self._beginning: bytes | None = None

    def sent(self, packet: bytes) -> None:
        """Hear what the driver sends; the first packet of a statement, and no other, is number 0."""
        if packet[HEADER_BYTES - 1] == 0:
            self._beginning = b""

    def received(self, content: memoryview) -> None:
        """Hear what the server sends. Raises CollectionError when it begins a table of hundreds of columns."""
        if self._beginning is None:
            return
        self._beginning += content[: HEADER_BYTES + 1 - len(self._beginning)]
        if len(self._beginning) <= HEADER_BYTES:
            return
        length, first = int.from_bytes(self._beginning[:3], "little"), self._beginning[HEADER_BYTES]
        self._beginning = None
        # The shorter packet with the last of these bytes is the end of an answer.
        if first in LONG_COUNTS and (first != LONG_COUNTS[-1] or length >= LONGEST_COUNT_BYTES):
            raise CollectionError("the server answered with more columns than were asked for")


def _metered(socket_class: type[socket.socket]) -> type[Any]:
    """Return a kind of *socket_class* that counts what is read from it, from `count_by` on."""

    class Metered(socket_class):  # type: ignore[misc, valid-type]
        def count_by(self, meter: Meter) -> None:
            self._meter = meter
            self._check = AnswerCheck()

        def sendall(self, data: bytes, *arguments: Any) -> None:
            self._check.sent(data)
            super().sendall(data, *arguments)

        def recv_into(self, buffer: Any, *arguments: Any) -> int:
            received: int = super().recv_into(buffer, *arguments)
            self._meter.count(received)
            self._check.received(memoryview(buffer)[:received])
            return received

    return Metered


MeteredSocket = _metered(socket.socket)
# What it receives before it counts is the handshake.
MeteredTlsSocket = _metered(ssl.SSLSocket)
