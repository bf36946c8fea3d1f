"""Files and folders that nobody but their owner can open, whatever the umask.

A folder that is there already is left as it is, for it may be somebody else's, until `close_to_others` is asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
OPEN_TO_OTHERS = 0o077


def make_private_folder(folder: Path) -> Path:
    """Make *folder*, and whatever is missing above it, for its owner alone; return it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    return folder


def close_to_others(folder: Path) -> None:
    """Take the rights of group and others to *folder* away, if it is ours: an earlier version left it open."""
    if folder.stat().st_uid == os.geteuid() and is_open_to_others(folder):
        folder.chmod(PRIVATE_FOLDER)


def open_private(path: Path, mode: str = "wb") -> IO[bytes]:
    """Open a file for writing (wb) or for adding to it (ab); it is its owner's alone before anything is in it."""

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags, PRIVATE_FILE)
        # One that was there keeps the mode that it had, and the umask does not add to it.
        os.fchmod(descriptor, PRIVATE_FILE)
        return descriptor

    return open(path, mode, opener=opener)


def write_private(path: Path, content: str) -> None:
    """Write *content* as UTF-8 into a private file, in place of what was in it."""
    with open_private(path) as file:
        file.write(content.encode())


def is_open_to_others(path: Path) -> bool:
    """Tell whether the group or others have any right to *path*."""
    return bool(path.stat().st_mode & OPEN_TO_OTHERS)
