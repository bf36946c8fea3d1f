"""The code server's address: a Unix socket in a folder that is closed to everybody else.

Dagster's code server does what it is asked to, and asks nobody who they are. Who reaches it can read every variable of
its environment, and end it.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.private_files import is_open_to_others
from whalefall_capacity.store.postgres.cluster import LONGEST_SOCKET_PATH, private_folder, runtime_dir

SOCKET = "code.sock"
# gRPC takes the path as a part of a URL.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._~-]+")


def socket_path(home: Path) -> Path:
    """Return the path of the socket: in *home*, or in a folder of ours where that would be too long, or open to others.

    Raises StoreError when somebody else has put something in the place of that folder.
    """
    inside = home / SOCKET
    fits = len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH and PLAIN_PATH.fullmatch(str(inside))
    if fits and home.stat().st_uid == os.geteuid() and not is_open_to_others(home):
        return inside
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return private_folder(runtime_dir() / f"whalefall-code-{os.geteuid()}-{digest}") / SOCKET


@contextmanager
def held_socket(home: Path) -> Iterator[Path]:
    """Hold the socket's path for a code server. Raises WhalefallError when one listens there already."""
    path = socket_path(home)
    if is_listening(path):
        raise WhalefallError(
            f"a code server listens on {path} already: stop the `whalefall-capacity up` that it belongs to, or the "
            "server itself where that `up` was killed"
        )
    try:
        yield path
    finally:
        # A code server that was killed leaves it.
        path.unlink(missing_ok=True)
        if path.parent != home:
            path.parent.rmdir()


def is_listening(path: Path) -> bool:
    """Does a process answer on the socket?"""
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        return probe.connect_ex(str(path)) == 0
