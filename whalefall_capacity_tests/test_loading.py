"""Cost of loading the code location: processes are started for every run, sensor and backfill."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from whalefall_capacity_tests.processes import environment

DAGSTER = "import dagster, dagster_postgres"
CODE_LOCATION = f"""
{DAGSTER}
from whalefall_capacity.definitions import defs
defs.get_repository_def()
"""


def cpu_seconds(code: str) -> float:
    """Return the user CPU that a new process spends on *code*."""
    process = subprocess.Popen([sys.executable, "-c", code], env=environment({}))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime


@pytest.mark.slow
def test_loading_costs_at_most_half_as_much_again_as_dagster_alone() -> None:
    pairs = [(cpu_seconds(DAGSTER), cpu_seconds(CODE_LOCATION)) for _ in range(2)]
    # What disturbs a process makes it only dearer.
    dagster, code_location = (min(figures) for figures in zip(*pairs, strict=True))
    assert code_location <= 1.5 * dagster, f"{code_location:.2f} s for {dagster:.2f} s"


@pytest.fixture(scope="module")
def loaded() -> subprocess.CompletedProcess[str]:
    """A process that has loaded the code location: the names of its modules, and its warnings."""
    code = f"{CODE_LOCATION}\nimport sys\nprint(*sys.modules, sep='\\n')"
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    )


def test_loading_needs_no_numpy(loaded: subprocess.CompletedProcess[str]) -> None:
    modules = loaded.stdout.splitlines()
    assert "whalefall_capacity.definitions" in modules
    assert "numpy" not in modules


def test_loading_reads_no_engine_file_and_loads_no_driver_of_one(loaded: subprocess.CompletedProcess[str]) -> None:
    modules = set(loaded.stdout.splitlines())
    assert "whalefall_capacity.definitions" in modules
    assert modules.isdisjoint(
        {"whalefall_capacity.collection.sql", "sqlalchemy.dialects.mssql", "sqlalchemy.dialects.oracle"}
    )


def test_loading_warns_of_nothing(loaded: subprocess.CompletedProcess[str]) -> None:
    assert loaded.stderr == ""
