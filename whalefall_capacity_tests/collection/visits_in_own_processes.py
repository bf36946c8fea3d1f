"""Visits one server of 127.0.0.1, and prints by how many MiB that made the process grow, and the error.

Run as `python -m whalefall_capacity_tests.collection.visit_in_own_process ENGINE PORT`.
"""

from __future__ import annotations

import sys
from pathlib import Path

# What a visit needs anyway is loaded before.
from whalefall_capacity.collection import mysql, postgresql  # noqa: F401
from whalefall_capacity.collection.sizes import Cutoff, ServerEngine
from whalefall_capacity.collection.visit import check
from whalefall_capacity_tests.collection.support import target
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS


def peak_mebibytes() -> int:
    # Not `getrusage`, which remembers the process that this one was made by.
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1024


if __name__ == "__main__":
    before = peak_mebibytes()
    found = check(target(ServerEngine(sys.argv[1]), int(sys.argv[2])), LIMITS, NO_FILTERS, Cutoff())
    sys.stdout.write(f"{peak_mebibytes() - before}\n{found.error}\n")
