"""Of what programs print, the terminal shows warnings, errors and whatever is no log line; or all, when it is asked to.

The lines are made by Dagster's own loggers, in a program of their own.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from whalefall_capacity.program_output import is_routine

LOGGING = """
import logging, sys
from dagster._utils.log import configure_loggers, create_console_logger
run = create_console_logger("dagster", logging.DEBUG)
run.debug("job - 4caf4f59 - 17 - STEP_START - Started execution of step.")
run.info("job - 4caf4f59 - shop: 5 databases")
run.warning("a table partition stays\\nfor this reason")
try:
    raise ValueError("no such thing")
except ValueError:
    run.exception("job - 4caf4f59 - STEP_FAILURE")
configure_loggers(log_level="INFO")
logging.getLogger("dagster.daemon.SensorDaemon").info("Checking for new runs")
logging.getLogger("dagster-webserver").info("Serving dagster-webserver on http://127.0.0.1:3000 in process 17")
logging.getLogger("dagster.daemon.SensorDaemon").warning("the code server is gone")
print("printed by a library", flush=True)
sys.exit("ended by itself")
"""
SHOWING = f"""
import subprocess, sys
from whalefall_capacity.program_output import program_output
with program_output(verbose=bool(sys.argv[1:])) as output:
    subprocess.run([sys.executable, "-c", {LOGGING!r}], stdout=output, stderr=output)
"""
NOTEWORTHY = (
    "a table partition stays\nfor this reason\n",
    "STEP_FAILURE\nTraceback (most recent call last):\n",
    "ValueError: no such thing\n",
    "the code server is gone\n",
    "printed by a library\n",
    "ended by itself\n",
)
ROUTINE = ("STEP_START", "shop: 5 databases", "Checking for new runs", "Serving dagster-webserver")


def shown(*arguments: str) -> str:
    """Return what comes to a terminal of both streams."""
    done = subprocess.run(
        [sys.executable, "-c", SHOWING, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout


def test_warnings_and_errors_are_shown_whole_and_routine_lines_are_not() -> None:
    printed = shown()
    assert [part for part in NOTEWORTHY if part not in printed] == []
    assert [part for part in ROUTINE if part in printed] == []


def test_verbose_shows_everything() -> None:
    printed = shown("verbose")
    assert [part for part in (*NOTEWORTHY, *ROUTINE) if part not in printed] == []


@pytest.mark.parametrize(
    "line",
    [
        b"INFO:     127.0.0.1 - GET /\n",
        b"2026-06-22 03:00:01 UTC [17] DEBUG:  of another program\n",
        b"  dagster - DEBUG - in the middle of a traceback\n",
        b"2026-06-22 03:00:01 +0000 - dagster - WARNING - said of - DEBUG - lines\n",
        b"\xff\xfe\n",
        b"\n",
    ],
)
def test_a_line_that_is_not_surely_routine_is_shown(line: bytes) -> None:
    assert not is_routine(line)


def test_programs_go_on_when_the_terminal_is_gone() -> None:
    many = "import sys\nfor n in range(100_000): print('line', n)\nsys.stdout.flush(); open(sys.argv[1], 'w').close()"
    showing = f"""
import subprocess, sys
from whalefall_capacity.program_output import program_output
with program_output(verbose=False) as output:
    done = subprocess.run([sys.executable, "-c", {many!r}, "/dev/null"], stdout=output, stderr=output)
sys.exit(done.returncode)
"""
    process = subprocess.Popen([sys.executable, "-c", showing], stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(60) == 0
