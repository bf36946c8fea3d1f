"""Answers are kept until their basis changes, found once however many ask, and forgotten when they are too many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from whalefall_capacity.kept import Kept


def counted(found: list[str], answer: str) -> Callable[[], str]:
    def find() -> str:
        found.append(answer)
        return answer

    return find


def test_an_answer_is_found_once_on_each_basis() -> None:
    kept, found = Kept[str](most=5), list[str]()
    answers = [kept.get("size", basis, counted(found, f"on {basis}")) for basis in (1, 1, 2, 2, 1)]
    assert answers == ["on 1", "on 1", "on 2", "on 2", "on 1"]
    assert found == ["on 1", "on 2", "on 1"]


def test_the_answers_asked_for_last_are_kept() -> None:
    kept, found = Kept[str](most=2), list[str]()
    for question in ("a", "b", "a", "c", "a", "b"):
        kept.get(question, 0, counted(found, question))
    assert found == ["a", "b", "c", "b"]


def test_whoever_asks_meanwhile_waits_for_the_same_answer_and_no_other() -> None:
    kept, found = Kept[str](most=5), list[str]()
    started, may_end = Event(), Event()

    def slow() -> str:
        found.append("slow")
        started.set()
        may_end.wait()
        return "slow"

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(kept.get, "total", 1, slow)
        started.wait()
        second = pool.submit(kept.get, "total", 1, slow)
        assert kept.get("other", 1, counted(found, "other")) == "other"
        may_end.set()
        assert (first.result(), second.result()) == ("slow", "slow")
    assert found == ["slow", "other"]


def test_an_error_keeps_nothing() -> None:
    kept, found = Kept[str](most=5), list[str]()

    def fail() -> str:
        raise RuntimeError("the store is away")

    kept.get("size", 1, counted(found, "before"))
    with pytest.raises(RuntimeError):
        kept.get("size", 2, fail)
    assert kept.get("size", 2, counted(found, "after")) == "after"
