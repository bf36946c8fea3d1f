"""A look that hangs is waited for only so long, is shared, and is not joined by another one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from whalefall_capacity.console.monitoring.looks import Look


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_those_who_ask_while_it_looks_share_what_it_finds() -> None:
    calls, may_end = [], threading.Event()

    def find() -> int:
        calls.append(1)
        may_end.wait()
        return 7

    async def ask() -> list[int]:
        look = Look(find)
        asking = [asyncio.create_task(look.found(60.0)) for _ in range(20)]
        await asyncio.sleep(0)
        may_end.set()
        return await asyncio.gather(*asking)

    assert asyncio.run(ask()) == [7] * 20
    assert calls == [1]


def test_a_look_that_hangs_is_left_alone_and_serves_who_asks_once_it_ends() -> None:
    calls, may_end = [], threading.Event()

    def find() -> int:
        calls.append(1)
        may_end.wait()
        return 7

    async def ask() -> int:
        look = Look(find)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await look.found(0.01)
        may_end.set()
        return await look.found(60.0)

    assert asyncio.run(ask()) == 7
    assert calls == [1]


def test_what_was_found_within_the_last_second_is_not_looked_for_again() -> None:
    clock, calls = Clock(), []

    def find() -> int:
        calls.append(1)
        return len(calls)

    look = Look(find, clock)
    assert asyncio.run(look.found(60.0)) == 1
    clock.now = 0.9
    assert asyncio.run(look.found(60.0)) == 1
    clock.now = 1.0
    assert asyncio.run(look.found(60.0)) == 2


def test_what_goes_wrong_is_raised_to_everybody_who_asks() -> None:
    def fail() -> int:
        raise LookupError("nothing there")

    async def ask() -> list[int | BaseException]:
        look = Look(fail)
        return [*await asyncio.gather(look.found(60.0), look.found(60.0), return_exceptions=True)]

    assert [str(error) for error in asyncio.run(ask())] == ["nothing there", "nothing there"]
