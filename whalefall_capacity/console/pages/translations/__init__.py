"""The words of the pages, in English and Chinese: one catalogue a language, with the same keys.

Sentences that are made elsewhere, in English, are translated as a whole: `zh_sentences.json` has them by their English
template. What is in none of these files is somebody else's text, such as the error of a server, and stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from whalefall_capacity.sentences import Sentence, filled_in

LANGUAGES = {"en": "English", "zh": "中文"}
DEFAULT = "en"


@lru_cache(maxsize=len(LANGUAGES))
def catalogue(language: str) -> Mapping[str, str]:
    """Return the words of a language by key."""
    return _read(f"{language}.json")


@lru_cache(maxsize=len(LANGUAGES))
def sentences(language: str) -> Mapping[str, str]:
    """Return the sentences of a language by their English template; of English there are none."""
    return {} if language == DEFAULT else _read(f"{language}_sentences.json")


def said(text: str, language: str) -> str:
    """Return *text* in a language, with the sentences that are part of it; as it is when it is in no catalogue."""
    if not isinstance(text, Sentence):
        return sentences(language).get(text, text)
    values = {name: said(part, language) if isinstance(part, Sentence) else part for name, part in text.values.items()}
    return filled_in(sentences(language).get(text.template, text.template), values)


def preferred(accept_language: str) -> str:
    """Return the language that a browser would rather have, of those that there are; of equals, the first.

    https://www.rfc-editor.org/rfc/rfc9110#name-accept-language
    """
    wanted: dict[str, float] = {}
    for entry in accept_language.lower().split(","):
        name, _, parameter = entry.partition(";")
        language, weight = name.strip().partition("-")[0], _weight(parameter)
        if language in LANGUAGES and weight > wanted.get(language, 0):
            wanted[language] = weight
    return max(wanted, key=wanted.__getitem__, default=DEFAULT)


def _weight(parameter: str) -> float:
    """Return the quality value of a language: 1 where none is given, 0 (not wanted) where it is none."""
    if not parameter.strip():
        return 1
    given = re.fullmatch(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", parameter)
    return float(given[1]) if given else 0


def _read(name: str) -> dict[str, str]:
    content: dict[str, str] = json.loads(files(__name__).joinpath(name).read_text(encoding="utf-8"))
    return content
