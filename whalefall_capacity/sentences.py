"""Sentences with blanks: English wherever they are printed, logged or sent, and whole enough to be translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Sentence(str):
    """A sentence in English that keeps the *template* and the *values* that it was made of."""

    template: str
    values: Mapping[str, Any]

    def __new__(cls, template: str, **values: Any) -> Sentence:
        self = super().__new__(cls, filled_in(template, values))
        self.template = template
        self.values = values
        return self


def filled_in(template: str, values: Mapping[str, Any]) -> str:
    """Return *template* with its blanks filled in; without values it has none, whatever it looks like."""
    return template.format(**values) if values else template
