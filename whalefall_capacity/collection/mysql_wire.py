"""Sockets for PyMySQL that count what they receive: the driver itself reads as much as the server sends."""

from __future__ import annotations

import socket
from typing import Any

from whalefall_capacity.collection.meter import Meter

# What the driver keeps of a packet beside its content: a row, the description of a column.
PACKET_BYTES = 128
HEADER_BYTES = 4


class PacketMeter:
    """Counts packets and their bytes; a million empty ones take memory too.

    https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._header = b""
        self._body_left = 0

    def count(self, received: memoryview) -> None:
        """Count what has arrived. Raises CollectionError when it is too much."""
        self._meter.count(len(received))
        while received:
            if self._body_left:
                skipped = min(self._body_left, len(received))
                self._body_left -= skipped
                received = received[skipped:]
                continue
            needed = HEADER_BYTES - len(self._header)
            self._header += received[:needed]
            received = received[needed:]
            if len(self._header) == HEADER_BYTES:
                self._meter.count(PACKET_BYTES)
                self._body_left = int.from_bytes(self._header[:3], "little")
                self._header = b""


def metered(socket_class: type[socket.socket], meter: Meter) -> type[Any]:
    """Return a kind of *socket_class*, plain or of TLS, that counts what is read from it as packets."""
    packets = PacketMeter(meter)

    class MeteredSocket(socket_class):  # type: ignore[misc, valid-type]
        def recv_into(self, buffer: Any, *arguments: Any) -> int:
            received: int = super().recv_into(buffer, *arguments)
            packets.count(memoryview(buffer)[:received])
            return received

    return MeteredSocket
