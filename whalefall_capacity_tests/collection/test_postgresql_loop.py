"""The loop calls what waits for a descriptor, in one thread, and nothing that waits no more."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from whalefall_capacity.collection.postgresql.loop import Loop, loop_of_this_process
from whalefall_capacity_tests.other_account import in_another_process
from whalefall_capacity_tests.processes import PATIENCE_SECONDS

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[tuple[Ends, Ends]]:
    """Two connections within this process."""
    first, second = socket.socketpair(), socket.socketpair()
    yield first, second
    for end in (*first, *second):
        end.close()


def wait_until_idle(loop: Loop) -> None:
    """Wait until all has been called that was to be called before this."""
    reached = threading.Event()
    loop.call(reached.set)
    assert reached.wait(PATIENCE_SECONDS)


def test_calls_of_many_threads_are_made_once_each_in_their_order_in_one_thread() -> None:
    loop, made = Loop(), list[tuple[int, int]]()

    def note(caller: int, number: int) -> None:
        made.append((caller, number))
        threads.add(threading.get_ident())

    def ask(caller: int) -> None:
        for number in range(1_000):
            loop.call(partial(note, caller, number))

    threads: set[int] = set()
    callers = [threading.Thread(target=ask, args=(caller,)) for caller in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    wait_until_idle(loop)
    assert len(threads) == 1
    assert sorted(made) == [(caller, number) for caller in range(8) for number in range(1_000)]
    for asked in range(8):
        assert [number for caller, number in made if caller == asked] == list(range(1_000))


def test_what_is_no_longer_waited_for_is_not_called_though_it_was_ready_in_the_same_turn(
    pairs: tuple[Ends, Ends],
) -> None:
    loop, called = Loop(), list[socket.socket]()
    ends = [ours for ours, _ in pairs]

    def forget_both(end: socket.socket) -> None:
        called.append(end)
        for watched in ends:
            loop.forget(watched.fileno())

    def wait_for_both() -> None:
        for end in ends:
            loop.wait_for(end.fileno(), select.EPOLLIN, partial(forget_both, end))

    for _, theirs in pairs:
        theirs.send(b"hello")
    loop.call(wait_for_both)
    wait_until_idle(loop)
    # By a turn of the loop after that in which both were ready.
    wait_until_idle(loop)
    assert len(called) == 1


def test_a_later_wish_takes_the_place_of_an_earlier_one(pairs: tuple[Ends, Ends]) -> None:
    loop, called = Loop(), threading.Event()
    (ours, theirs), _ = pairs

    def must_not_be_called() -> None:
        raise AssertionError("there is nothing to read")

    def write() -> None:
        ours.send(b"hello")
        loop.forget(ours.fileno())
        called.set()

    loop.call(lambda: loop.wait_for(ours.fileno(), select.EPOLLIN, must_not_be_called))
    loop.call(lambda: loop.wait_for(ours.fileno(), select.EPOLLOUT, write))
    assert called.wait(PATIENCE_SECONDS)
    assert theirs.recv(100) == b"hello"


def own_pid() -> str:
    called, pids = threading.Event(), list[int]()

    def note() -> None:
        pids.append(os.getpid())
        called.set()

    loop_of_this_process().call(note)
    return "right" if called.wait(PATIENCE_SECONDS) and pids == [os.getpid()] else "wrong"


def test_a_process_that_is_a_copy_of_one_with_a_loop_has_its_own() -> None:
    assert own_pid() == "right"
    assert in_another_process(own_pid) == "right"
    assert own_pid() == "right"
