"""Cost of loading the code location: processes are started for every run, sensor and backfill."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

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
    pairs = [(cpu_seconds(DAGSTER), cpu_seconds(CODE_LOCATION)) for _ in range(3)]
    dagster, code_location = (median(figures) for figures in zip(*pairs, strict=True))
    assert code_location <= 1.5 * dagster, f"{code_location:.2f} s for {dagster:.2f} s"


def test_loading_needs_no_numpy() -> None:
    code = f"{CODE_LOCATION}\nimport sys\nassert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=environment({}), check=True)


def test_loading_reads_no_engine_file_and_loads_no_driver_of_one() -> None:
    loaded = "whalefall_capacity.collection.sql", "sqlalchemy.dialects.mssql", "sqlalchemy.dialects.oracle"
    code = f"{CODE_LOCATION}\nimport sys\nassert sys.modules.keys().isdisjoint({loaded})"
    subprocess.run([sys.executable, "-c", code], env=environment({}), check=True)


def test_loading_warns_of_nothing() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", CODE_LOCATION],
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stderr == ""
