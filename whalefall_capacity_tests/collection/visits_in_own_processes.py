"""Visits a server of 127.0.0.1 for each line `ENGINE PORT` that it reads, in a process of its own.

Prints for each by how many MiB the visit made its process grow, and the error, in one line.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# What a visit needs anyway is loaded before.
from whalefall_capacity.collection import mysql, postgresql  # noqa: F401
from whalefall_capacity.collection.sizes import Cutoff, ServerEngine
from whalefall_capacity.collection.visit import check
from whalefall_capacity_tests.collection.support import target
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS

# A visit that has no end must not leave the test without one.
MOST_SECONDS = 120


def peak_mebibytes() -> int:
    # Not `getrusage`, which remembers the process that this one was made by.
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1024


def visit(engine: ServerEngine, port: int) -> None:
    """Visit the server, and print what became of this process and of the visit."""
    signal.alarm(MOST_SECONDS)
    before = peak_mebibytes()
    found = check(target(engine, port), LIMITS, NO_FILTERS, Cutoff())
    error = " ".join(str(found.error).splitlines())
    sys.stdout.write(f"{peak_mebibytes() - before} {error}\n")
    sys.stdout.flush()


def main() -> None:
    """Fork a process for each visit, so that none has what another left."""
    for line in sys.stdin:
        engine, port = line.split()
        process = os.fork()
        if process == 0:
            visit(ServerEngine(engine), int(port))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if status:
            sys.exit(f"the visit ended with status {status}")


if __name__ == "__main__":
    main()
