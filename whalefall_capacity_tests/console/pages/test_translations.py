"""Both languages say everything, with the same blanks to fill in."""

from __future__ import annotations

import re
from importlib.resources import files
from string import Formatter

import pytest

from whalefall_capacity.console.pages.translations import LANGUAGES, catalogue, preferred

TEMPLATES = files("whalefall_capacity.console.pages").joinpath("templates")
SCRIPT = files("whalefall_capacity.console.pages").joinpath("static", "console.js")
STATUSES = ("pending", "running", "completed", "completed_with_errors", "failed", "cancelled")


def blanks(words: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(words) if name}


def test_both_catalogues_have_the_same_keys_in_the_same_order() -> None:
    assert list(catalogue("en")) == list(catalogue("zh"))


@pytest.mark.parametrize("key", catalogue("en"))
def test_both_languages_fill_in_the_same_blanks(key: str) -> None:
    assert catalogue("en")[key].strip()
    assert blanks(catalogue("en")[key]) == blanks(catalogue("zh")[key])


def test_every_word_of_the_pages_is_in_the_catalogue() -> None:
    templates = "".join(entry.read_text() for entry in TEMPLATES.iterdir())
    used = set(re.findall(r"\bt\('([a-z_.]+)'[,)]", templates)) | set(
        re.findall(r'word\("([a-z_.]+)"', SCRIPT.read_text())
    )
    assert len(used) > 50
    assert used - set(catalogue("en")) == set()


def test_every_status_has_a_word() -> None:
    assert [status for status in STATUSES if f"status.{status}" not in catalogue("en")] == []


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9", "zh"),
        ("de-DE,de;q=0.9,en;q=0.5", "en"),
        ("fr", "en"),
        ("ZH", "zh"),
        (";;,", "en"),
    ],
)
def test_the_language_is_the_first_that_the_browser_asks_for_and_there_is(header: str, language: str) -> None:
    assert preferred(header) == language
    assert language in LANGUAGES
