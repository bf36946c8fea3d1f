"""A connection to a server of the MySQL family: socket, TLS and login; nothing is set in its session."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

import pymysql
from pymysql.constants import CR
from pymysql.cursors import SSCursor

from whalefall_capacity.collection.answers import words_of
from whalefall_capacity.collection.meter import Meter
from whalefall_capacity.collection.mysql.login import logins
from whalefall_capacity.collection.mysql.tls import MeteredContext, tls_context
from whalefall_capacity.collection.mysql.wire import MeteredSocket
from whalefall_capacity.collection.sizes import Cutoff, Limits, Target, open_socket
from whalefall_capacity.errors import CollectionError

OLDEST_TLS = "TLS 1.2 is the oldest spoken here: enable it on the server, or allow plain text by tls.mode: prefer"
ANOTHER_LOGIN = "give the account one of mysql_native_password, caching_sha2_password, ed25519"


class PlainConnection(pymysql.Connection):
    """The driver's connection without the statements that it would run first.

    A proxy may hand the server's session to somebody else afterwards. Names travel as bytes, so that the character
    set of the session does not matter, and the transaction that is begun ends what the server commits by itself.
    """

    # By these the driver knows whether to offer TLS and how; its type hints lack them.
    ssl: bool
    ctx: MeteredContext
    _secure: bool
    _result: Any
    _force_close: Any

    def __init__(self, meter: Meter, **arguments: Any) -> None:
        self.meter = meter
        super().__init__(**arguments)

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Leave the character set as the handshake made it."""

    def drop(self) -> None:
        """Close at once: the driver would first read the rest of an answer."""
        if self._result is not None:
            self._result.unbuffered_active = False
        self._force_close()

    def next_result(self, unbuffered: bool = False) -> int:  # noqa: ARG002
        """Refuse a second result. Raises CollectionError: none of our statements has one."""
        raise CollectionError("the server gave several answers to one statement")


def open_connection(target: Target, limits: Limits, cutoff: Cutoff) -> PlainConnection:
    """Log in. Raises CollectionError, pymysql.Error or OSError.

    Under `prefer` without TLS where there is none that both sides speak, as libpq does.
    """
    ends_at = time.monotonic() + limits.connect_timeout_seconds
    context = None if target.is_local or target.tls.mode == "disable" else tls_context(target.tls)
    try:
        return _open(target, limits, cutoff, context, ends_at)
    except pymysql.OperationalError as error:
        if not _is_lack_of_common_tls(error):
            raise
        lack = words_of(error)
    if target.tls.mode != "prefer":
        raise CollectionError(f"{lack}: {OLDEST_TLS}")
    try:
        return _open(target, limits, cutoff, None, ends_at)
    except (CollectionError, pymysql.Error, OSError) as error:
        raise CollectionError(f"{words_of(error)}; TLS had failed before: {lack}") from None


def _open(
    target: Target, limits: Limits, cutoff: Cutoff, context: ssl.SSLContext | None, ends_at: float
) -> PlainConnection:
    meter = Meter()
    where = target.host if target.is_local else (target.host, target.port)
    opened = MeteredSocket(fileno=open_socket(where, _seconds_until(ends_at)).detach())
    opened.count_by(meter)
    opened.settimeout(_seconds_until(ends_at))
    cutoff.watch(opened.fileno())
    try:
        _await_greeting(opened, limits.connect_timeout_seconds)
        connection = PlainConnection(
            meter,
            host=target.host,
            user=target.username,
            # As bytes: the driver would encode text as Latin-1.
            password=target.password.get_secret_value().encode(),
            database=target.database,
            charset="utf8mb4",
            # The server may answer in another character set, in which a text is none in this one.
            use_unicode=False,
            # The server ends a statement that takes too long; this is for a server that no longer answers.
            read_timeout=limits.statement_timeout_seconds + 1,
            write_timeout=limits.statement_timeout_seconds + 1,
            # Leave autocommit as the server sets it.
            autocommit=None,
            program_name="whalefall_capacity",
            # Row by row, so that they are counted before there are too many.
            cursorclass=SSCursor,
            auth_plugin_map=logins(target),
            ssl_disabled=context is None or target.tls.mode == "prefer",
            ssl=context,
            defer_connect=True,
        )
        if context is not None:
            # Under prefer, it would be required if it were given above.
            connection.ssl, connection.ctx = True, MeteredContext(context, meter)
        # The driver sets this only for a socket that it opened itself. Over a Unix socket the server offers no key, but
        # waits for the password as it is.
        connection._secure = target.is_local
        _log_in(connection, opened)
    except BaseException:
        opened.close()
        raise
    return connection


def _seconds_until(moment: float) -> float:
    # Never 0, which to a socket means not to wait at all.
    return max(moment - time.monotonic(), 0.001)


def _is_lack_of_common_tls(error: pymysql.OperationalError) -> bool:
    """Is this what the driver says when client and server could not agree on TLS, whoever the server is?"""
    cause = getattr(error, "original_exception", None)
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLCertVerificationError)


def _log_in(connection: PlainConnection, opened: socket.socket) -> None:
    try:
        connection.connect(opened)
    except RuntimeError as error:
        # The driver raises this if PyNaCl, which it does not depend on, is not installed.
        if "pynacl" not in str(error):
            raise
        raise CollectionError(
            "the account logs in by client_ed25519: install PyNaCl beside this program (pip install pynacl)"
        ) from None
    except pymysql.OperationalError as error:
        if error.args[0] not in {CR.CR_AUTH_PLUGIN_CANNOT_LOAD, CR.CR_AUTH_PLUGIN_ERR}:
            raise
        raise CollectionError(f"{error.args[1]}: the driver has no such login; {ANOTHER_LOGIN}") from None


def _await_greeting(opened: socket.socket, timeout_seconds: float) -> None:
    """Wait for the first byte, which the server sends; the driver itself would wait without a limit."""
    try:
        opened.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        raise TimeoutError(
            f"the server accepted the connection and sent no greeting within {timeout_seconds:g} s"
        ) from None
