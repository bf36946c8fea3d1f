"""What the console and the Dagster UI sign for each other with: the secret key, or a key of their own, made once."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from whalefall_capacity.private_files import make_private_folder, write_private
from whalefall_capacity.settings import Settings

KEY_FILE = "console.key"


def signing_keys(settings: Settings) -> list[str]:
    """Return the keys, the newest last, as itsdangerous takes them: that one signs, each of them is believed.

    While the secret key is replaced there are several, so that those who have been started with the old one, and those
    with the new one, believe each other.
    """
    if settings.secret_key is not None:
        return [key.strip() for key in reversed(settings.secret_key.get_secret_value().split(","))]
    return [_own_key(settings.home)]


def _own_key(home: Path) -> str:
    path = make_private_folder(home) / KEY_FILE
    if not path.exists():
        # Whole or not at all; of two that start together one wins.
        unfinished = path.with_suffix(f".{os.getpid()}")
        write_private(unfinished, secrets.token_urlsafe(48))
        with suppress(FileExistsError):
            os.link(unfinished, path)
        unfinished.unlink()
    return path.read_text(encoding="ascii")
