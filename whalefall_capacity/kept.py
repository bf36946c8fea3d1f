"""Answers that are kept until what they rest on has changed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


@dataclass
class _Place(Generic[Answer]):
    """The room for one answer. Whoever waits for its lock finds what the other has found."""

    lock: Lock = field(default_factory=Lock)
    basis: Hashable = None
    answer: Answer | None = None


@dataclass
class Kept(Generic[Answer]):
    """The *most* answers that were asked for last, each with the basis on which it was found."""

    most: int
    _places: OrderedDict[Hashable, _Place[Answer]] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, question: Hashable, basis: Hashable, find: Callable[[], Answer]) -> Answer:
        """Return the answer to *question*, by *find* unless it was found on the same *basis*, which is never None."""
        place = self._place(question)
        with place.lock:
            if place.answer is None or place.basis != basis:
                place.answer, place.basis = find(), basis
            return place.answer

    def _place(self, question: Hashable) -> _Place[Answer]:
        with self._lock:
            place = self._places.setdefault(question, _Place())
            self._places.move_to_end(question)
            while len(self._places) > self.most:
                self._places.popitem(last=False)
            return place
