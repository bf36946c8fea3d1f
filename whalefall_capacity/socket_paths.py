"""Paths of Unix sockets, as the kernel and libpq take them."""

from __future__ import annotations

import os
from pathlib import Path

# The kernel allows no longer path.
LONGEST_SOCKET_PATH = 107


def is_short_enough(socket: Path) -> bool:
    """Tell whether a socket can have this path; what counts are bytes, not letters."""
    return len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH


def can_be_reached_by_libpq(socket: Path) -> bool:
    """Tell whether libpq finds a socket at this path: in it, libpq reads a comma as the end of one of several hosts."""
    return is_short_enough(socket) and "," not in str(socket)
