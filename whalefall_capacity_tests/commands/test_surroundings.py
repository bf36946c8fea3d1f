"""Commands in surroundings that a program rarely has: a folder that is closed to it, streams that are not there."""

from __future__ import annotations

import subprocess
from pathlib import Path

from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.other_account import as_another_account, needs_root
from whalefall_capacity_tests.processes import PROGRAM, environment


@needs_root
def test_a_folder_that_may_not_be_searched_is_said(whalefall: CommandLine) -> None:
    Path.cwd().chmod(0o700)
    assert as_another_account(lambda: whalefall("fleet", "list").err) == (
        "error: .env: cannot be read: Permission denied; it must be readable by whoever starts the command\n"
    )


def test_closed_streams_get_nothing_and_cost_nothing(tmp_path: Path) -> None:
    closing = 'exec <&- >&-; "$0" fleet apply --help 2> said; "$0" fleet check --no-such-option 2>> said'
    done = subprocess.run(["sh", "-c", closing, PROGRAM], cwd=tmp_path, env=environment({}), check=False)
    assert done.returncode == 2
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said
    assert "No such option: --no-such-option" in said
