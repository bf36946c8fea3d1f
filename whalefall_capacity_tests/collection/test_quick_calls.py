"""Calls on sockets never wait, and say what Python's own would say."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from whalefall_capacity.collection import quick_calls
from whalefall_capacity_tests.other_account import in_another_process

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Both ends of a connection, of which to read or to write would wait."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_bytes_arrive_as_they_were_sent(ends: Ends) -> None:
    one, other = ends
    assert quick_calls.send(one.fileno(), b"a\0b" * 1000) == 3000
    assert quick_calls.receive(other.fileno(), 4) == b"a\0ba"
    assert quick_calls.receive(other.fileno(), 65536) == (b"a\0b" * 1000)[4:]


def test_nothing_is_waited_for(ends: Ends) -> None:
    one, other = ends
    with pytest.raises(BlockingIOError):
        quick_calls.receive(other.fileno(), 100)
    # More than there is room for.
    much = b"x" * 100_000_000
    sent = quick_calls.send(one.fileno(), much)
    assert 0 < sent < len(much)
    with pytest.raises(BlockingIOError):
        quick_calls.send(one.fileno(), much)
    assert quick_calls.receive(other.fileno(), len(much)) == b"x" * sent
    assert quick_calls.send(one.fileno(), b"x") == 1


def test_an_end_that_has_gone_is_nothing_to_read_and_an_error_to_write(ends: Ends) -> None:
    one, other = ends
    other.close()
    assert quick_calls.receive(one.fileno(), 100) == b""
    with pytest.raises(BrokenPipeError):
        quick_calls.send(one.fileno(), b"x")


def test_the_addresses_of_both_ends_are_each_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            own = quick_calls.own_address(client.fileno())
            assert own == quick_calls.peer_address(accepted.fileno())
            assert quick_calls.peer_address(client.fileno()) == quick_calls.own_address(accepted.fileno())
            assert own[2:8] == struct.pack("!H4B", client.getsockname()[1], 127, 0, 0, 1)


def test_a_socket_without_a_connection_has_no_other_end() -> None:
    with socket.socket() as unconnected, pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        quick_calls.peer_address(unconnected.fileno())


@pytest.mark.parametrize("call", [quick_calls.own_address, quick_calls.peer_address])
def test_what_is_no_socket_has_no_address(call: Callable[[int], bytes]) -> None:
    with Path(os.devnull).open() as file, pytest.raises(OSError, match=os.strerror(errno.ENOTSOCK)):
        call(file.fileno())


def test_one_end_leads_to_the_other_and_nothing_else_does(ends: Ends) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            to, own = quick_calls.own_address(accepted.fileno()), quick_calls.peer_address(accepted.fileno())
            assert quick_calls.leads(client.fileno(), to, own)
            gone = socket.socket()
            gone.close()
            others = [accepted, listener, *ends, gone]
            assert not any(quick_calls.leads(other.fileno(), to, own) for other in others)


def foretell_three() -> str:
    with socket.socket() as known:
        foretold = quick_calls.next_descriptors(3, like=known.fileno())
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            return "right" if [first.fileno(), second.fileno(), third.fileno()] == foretold else "wrong"


def foretell_more_than_fit() -> str:
    with socket.socket() as known:
        first, second = quick_calls.next_descriptors(2, like=known.fileno())
        resource.setrlimit(resource.RLIMIT_NOFILE, (second, second))
        return "right" if quick_calls.next_descriptors(5, like=known.fileno()) == [first] else "wrong"


@pytest.mark.parametrize("foretell", [foretell_three, foretell_more_than_fit])
def test_the_next_files_have_the_numbers_that_were_foretold(foretell: Callable[[], str]) -> None:
    # Where no thread of another test opens or closes a file.
    assert in_another_process(foretell) == "right"


def test_a_connection_is_hung_up_though_somebody_has_a_duplicate_of_its_end(ends: Ends) -> None:
    one, other = ends
    with one.dup():
        quick_calls.hang_up(one)
        assert quick_calls.receive(other.fileno(), 100) == b""


def test_what_is_closed_may_be_closed_again(ends: Ends) -> None:
    one, _ = ends
    quick_calls.close(one)
    assert one.fileno() == -1
    quick_calls.close(one)
    quick_calls.hang_up(one)
