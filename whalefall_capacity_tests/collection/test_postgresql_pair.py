"""What one end of a pair says reaches the other, however the one leaves."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from whalefall_capacity.collection.postgresql.pair import Pair

Ends = tuple[socket.socket, socket.socket]


def connection() -> Ends:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), timeout=30)
        far, _ = listener.accept()
        return near, far


@pytest.fixture
def connections() -> Iterator[tuple[Ends, Ends]]:
    """One of libpq and one to a server, within this process."""
    libpq, server = connection(), connection()
    with libpq[0], libpq[1], server[0], server[1]:
        yield libpq, server


def test_the_last_words_of_a_server_arrive_though_it_hears_nothing_any_more(connections: tuple[Ends, Ends]) -> None:
    libpq, server = connections
    client_end, server_end = libpq[1], server[0]
    with closing(Pair(client_end, server_end)) as pair:
        server[1].sendall(b"goodbye")
        # With a reset.
        server[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server[1].close()
        for _ in range(2):
            libpq[0].sendall(b"hello")
            pair.exchange(client_end)
        assert not pair.is_over
        assert pair.exchange(server_end) == len(b"goodbye")
        assert libpq[0].recv(100) == b"goodbye"
        pair.exchange(server_end)
        assert pair.is_over
