"""Private files and folders: nobody but their owner opens them, whatever the umask, and nothing else is touched."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from whalefall_capacity.private_files import is_open_to_others, make_private_folder, open_private, write_private


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o077], ids=["umask 000", "umask 022", "umask 077"])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, "会员\n")
    assert mode_of(path) == 0o600
    assert path.read_text(encoding="utf-8") == "会员\n"


def test_a_file_that_was_open_to_others_is_closed_before_anything_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("an old and longer content")
    path.chmod(0o666)
    with open_private(path) as file:
        assert (mode_of(path), path.stat().st_size) == (0o600, 0)
        file.write(b"new")
    assert path.read_text() == "new"


def test_a_private_file_can_be_added_to(tmp_path: Path) -> None:
    for line in (b"one\n", b"two\n"):
        with open_private(tmp_path / "log", "ab") as file:
            file.write(line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert mode_of(tmp_path / "log") == 0o600


def test_a_private_folder_is_its_owners_alone_and_so_is_what_was_missing_above_it(tmp_path: Path) -> None:
    made = make_private_folder(tmp_path / "a" / "b")
    assert [mode_of(path) for path in (made, made.parent)] == [0o700, 0o700]


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o755)
    make_private_folder(there / "ours")
    make_private_folder(there)
    assert mode_of(there) == 0o755
    assert mode_of(there / "ours") == 0o700


@pytest.mark.parametrize(
    ("mode", "is_open"), [(0o600, False), (0o700, False), (0o640, True), (0o604, True), (0o601, True)]
)
def test_any_right_of_another_is_one_too_many(tmp_path: Path, mode: int, is_open: bool) -> None:
    path = tmp_path / ".env"
    path.touch()
    path.chmod(mode)
    assert is_open_to_others(path) is is_open
