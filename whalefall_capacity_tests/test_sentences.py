"""A sentence is English text that keeps what it was made of, wherever it travels."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest

from whalefall_capacity.sentences import Sentence

TOLD = Sentence("{count} table partitions would be dropped", count=24)


def test_a_sentence_is_its_text() -> None:
    assert TOLD == "24 table partitions would be dropped"
    assert json.dumps({"question": TOLD}) == '{"question": "24 table partitions would be dropped"}'


def test_a_sentence_without_blanks_may_look_like_one_with_them() -> None:
    assert Sentence("relation {x} does not exist") == "relation {x} does not exist"


def stored_and_loaded(sentence: Sentence) -> Sentence:
    loaded: Sentence = pickle.loads(pickle.dumps(sentence))  # noqa: S301 - our own
    return loaded


@pytest.mark.parametrize("travel", [copy.deepcopy, stored_and_loaded])
def test_a_sentence_that_was_copied_or_stored_can_still_be_translated(
    travel: Callable[[Sentence], Sentence],
) -> None:
    arrived = travel(TOLD)
    assert (arrived, arrived.template, arrived.values) == (TOLD, TOLD.template, {"count": 24})
