"""WhaleFall's filters as settings: what its LIKE patterns match, these regular expressions match."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from whalefall_capacity.collection.sizes import NameFilter
from whalefall_capacity.settings import build_settings, settings_of_file
from whalefall_capacity.store.moving_in.advice import like_to_regex, settings_lines


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [("tmp_%", "tmp..*"), ("%_bak", ".*.bak"), ("#sql%", r"\#sql.*"), ("a.b", r"a\.b"), ("50%_(x)", r"50.*.\(x\)")],
)
def test_a_pattern_becomes_the_regular_expression_of_the_same_names(pattern: str, regex: str) -> None:
    assert like_to_regex(pattern) == regex


@pytest.mark.parametrize(
    ("name", "excluded"),
    [("tmp_1", True), ("TMP_1", True), ("tmpfile", True), ("tmp", False), ("#sql-1_2", True), ("mytmp_1", False)],
)
def test_the_lines_work_in_a_settings_file(tmp_path: Path, name: str, excluded: bool) -> None:
    lines = settings_lines(None, None, build_settings())
    (tmp_path / ".env").write_text("\n".join(lines) + "\n")
    found = settings_of_file()
    regex = found["WHALEFALL_MYSQL_EXCLUDE_REGEX"]
    assert NameFilter(regex=regex).excludes(name) is excluded
    assert build_settings(mysql_exclude_regex=regex).mysql_exclude_regex == regex
    assert found["WHALEFALL_POSTGRESQL_EXCLUDE"] == "postgres"
    assert re.fullmatch(found["WHALEFALL_POSTGRESQL_EXCLUDE_REGEX"], "pg_cron")
