"""The code server's address: a Unix socket in a folder that is closed to other accounts.

Dagster's code server executes whatever it is asked to, without authentication. Whoever can reach it can read every
variable of its environment, and end it.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.private_files import is_open_to_others
from whalefall_capacity.socket_paths import is_short_enough
from whalefall_capacity.store.postgres.cluster import short_folder

SOCKET = "code.sock"
# gRPC takes the path as a part of a URL.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._~-]+")


def socket_path(home: Path) -> Path:
    """Return the path of the socket: in *home*, or in our own folder if that path is too long or open to others.

    Raises StoreError if somebody else has put something in the place of that folder.
    """
    inside = home / SOCKET
    fits = is_short_enough(inside) and PLAIN_PATH.fullmatch(str(inside))
    if fits and home.stat().st_uid == os.geteuid() and not is_open_to_others(home):
        return inside
    return short_folder(home, SOCKET) / SOCKET


@contextmanager
def held_socket(home: Path) -> Iterator[Path]:
    """Hold the socket's path for a code server. Raises WhalefallError if one is already listening there."""
    path = socket_path(home)
    if is_listening(path):
        raise WhalefallError(
            f"a code server is already listening on {path}: stop the `whalefall-capacity up` that it belongs to; if "
            "that was killed, the server ends with its last run, or at once if you end it yourself"
        )
    try:
        yield path
    finally:
        # A killed code server leaves it behind.
        path.unlink(missing_ok=True)
        if path.parent != home:
            path.parent.rmdir()


def is_listening(path: Path) -> bool:
    """Tell whether a process answers on the socket."""
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        return probe.connect_ex(str(path)) == 0
