"""Both languages say everything, with the same blanks to fill in."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from pathlib import Path
from string import Formatter

import pytest

from whalefall_capacity.console.http.envelope import MessageCode
from whalefall_capacity.console.http.faults import FAULTS
from whalefall_capacity.console.pages.translations import LANGUAGES, catalogue, preferred, said, sentences
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.settings import PROJECT_ROOT

TEMPLATES = files("whalefall_capacity.console.pages").joinpath("templates")
SCRIPT = files("whalefall_capacity.console.pages").joinpath("static", "console.js")
# What makes sentences, and which of its arguments is one.
TAKES_A_SENTENCE = {"Sentence": 0, "ApiError": 1, "invalid": 1, "not_found": 0, "ValueError": 0}
PACKAGE = PROJECT_ROOT / "whalefall_capacity"
MAKERS = [
    PACKAGE / "byte_sizes.py",
    *(PACKAGE / "console").rglob("*.py"),
    *(PACKAGE / "store" / "maintenance").glob("*.py"),
    *(PACKAGE / "store" / "table_partitions").glob("*.py"),
]
BY_STARLETTE = ("Not Found", "Method Not Allowed")
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
        ("en;q=0.5,zh;q=0.9", "zh"),
        ("zh;q=0.8,en", "en"),
        ("zh;q=0,de", "en"),
        ("en-US;q=0.2, zh ; q = 0.3", "zh"),
        ("zh;q=often,en;q=0.1", "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_would_rather_have_of_those_that_there_are(
    header: str, language: str
) -> None:
    assert preferred(header) == language
    assert language in LANGUAGES


def test_every_sentence_of_the_program_that_a_page_may_show_is_translated_with_its_blanks() -> None:
    chinese = sentences("zh")
    made = {said for path in MAKERS for said in _sentences_of(path)} | set(FAULTS.values())
    assert len(made) > 40
    assert made - set(chinese) == set()
    assert set(chinese) - made == set(BY_STARLETTE)
    assert [said for said in made if blanks(said) != blanks(chinese[said])] == []


def test_the_page_of_every_error_has_words_of_its_own() -> None:
    assert [code for code in MessageCode if f"error.{code.status}" not in catalogue("en")] == []


def test_a_sentence_is_said_with_the_sentences_in_it_and_the_text_of_others_stays() -> None:
    fault = Sentence("must be a whole number")
    assert (
        said(Sentence("{field}: {fault}", field="periods", fault=fault), "zh") == "periods\N{FULLWIDTH COLON}必须是整数"
    )
    assert said(Sentence("{field}: {fault}", field="periods", fault=fault), "en") == "periods: must be a whole number"
    assert said('FATAL: role "{most}" does not exist', "zh") == 'FATAL: role "{most}" does not exist'
    assert said("log in first", "zh") == "请先登录"


def _sentences_of(path: Path) -> set[str]:
    """Return the literals that a module makes sentences, errors of requests and faults of parameters of."""
    tree = ast.parse(path.read_text())
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TAKES_A_SENTENCE:
            for argument in node.args[TAKES_A_SENTENCE[node.func.id] :][:1]:
                said = constants.get(argument.id) if isinstance(argument, ast.Name) else argument
                if isinstance(said, ast.Constant):
                    said = said.value
                if isinstance(said, str):
                    found.add(said)
    return found
