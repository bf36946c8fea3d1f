"""TLS of connections to the MySQL family: one context for all servers of the same setting.

To read the machine's authorities takes 20 ms of a processor each time, four times as much as the rest of a visit.
"""

from __future__ import annotations

import socket
import ssl
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.mysql.wire import MeteredTlsSocket
from whalefall_capacity.collection.sizes import Tls
from whalefall_capacity.errors import CollectionError

CONTEXTS_KEPT = 256
# How the file system tells the contents of a file from those that it had before: node, bytes, time of the change.
Identity = tuple[int, int, int]

_guard = threading.Lock()


class MeteredContext:
    """A context for one connection: what is received through it is counted by that connection's meter."""

    def __init__(self, context: ssl.SSLContext, meter: Meter) -> None:
        self._context = context
        self._meter = meter

    def wrap_socket(self, opened: socket.socket, server_hostname: str) -> ssl.SSLSocket:
        """Agree on TLS with the server. Raises OSError."""
        wrapped = self._context.wrap_socket(opened, server_hostname=server_hostname)
        metered: Any = wrapped
        metered.count_by(self._meter)
        return wrapped


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the context for libpq's *mode*, made again when one of its files has changed. Raises CollectionError."""
    files = [file for file in (tls.ca_file, tls.cert_file, tls.key_file) if file]
    try:
        identities = tuple(_identity(file) for file in (*files, *_authorities_of_the_machine(tls)))
        # One at a time: the others of the same setting find it made.
        with _guard:
            return _make_context(tls, identities)
    except OSError as error:
        raise CollectionError(f"cannot use the TLS files {', '.join(files)}: {error}") from None


@lru_cache(CONTEXTS_KEPT)
def _make_context(tls: Tls, _identities: tuple[Identity, ...]) -> ssl.SSLContext:
    """Return a new context.

    Python's default context would take authorities from SSL_CERT_FILE and SSL_CERT_DIR, and write the keys of the
    session where SSLKEYLOGFILE says.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = MeteredTlsSocket
    context.check_hostname = tls.mode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if tls.mode.startswith("verify-") else ssl.CERT_NONE
    if tls.ca_file is not None:
        context.load_verify_locations(tls.ca_file)
    elif context.verify_mode is ssl.CERT_REQUIRED:
        file = next(iter(_authorities_of_the_machine(tls)), None)
        context.load_verify_locations(cafile=file, capath=ssl.get_default_verify_paths().openssl_capath)
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


def _authorities_of_the_machine(tls: Tls) -> list[str]:
    """Return the file of the machine's authorities where it is needed and there; in its folder each has a file."""
    file = ssl.get_default_verify_paths().openssl_cafile
    is_needed = tls.ca_file is None and tls.mode.startswith("verify-")
    return [file] if is_needed and Path(file).is_file() else []


def _identity(file: str) -> Identity:
    found = Path(file).stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
