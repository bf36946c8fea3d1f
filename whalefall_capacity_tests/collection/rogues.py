"""Servers that are not what they say: they ask for the password in every way, and say too much."""

from __future__ import annotations

import base64
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from whalefall_capacity_tests.collection.support import Peer, peer

SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
SALT = b"abcdefghijklmnopqrst"
CLIENT_SSL = 0x800
# PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, CONNECT_WITH_DB, TRANSACTIONS and the like.
CAPABILITIES = 0x00FF_F7DF & ~CLIENT_SSL


@dataclass
class Rogue:
    """Everything that a rogue server heard, decrypted as far as it could."""

    heard: bytearray = field(default_factory=bytearray)
    server: Peer | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return self.server.port


class Line:
    """The rogue's end of a connection, which remembers what it hears."""

    def __init__(self, connection: socket.socket, rogue: Rogue) -> None:
        self.connection = connection
        self._rogue = rogue

    def hear(self, count: int) -> bytes:
        """Return exactly *count* bytes. Raises OSError when the client leaves before."""
        content = b""
        while len(content) < count:
            piece = self.connection.recv(count - len(content))
            if not piece:
                raise ConnectionError("the client has left")
            self._rogue.heard += piece
            content += piece
        return content

    def say(self, content: bytes) -> None:
        self.connection.sendall(content)

    def encrypt(self, context: ssl.SSLContext) -> None:
        self.connection = context.wrap_socket(self.connection, server_side=True)

    def note(self, content: bytes) -> None:
        """Remember what was found out from what was heard."""
        self._rogue.heard += content


Speak = Callable[[Line], None]


@contextmanager
def rogue(speak: Speak) -> Iterator[Rogue]:
    """Hold a server that speaks as *speak* does, and then hears what else there is."""
    remembered = Rogue()

    def behave(connection: socket.socket) -> None:
        line = Line(connection, remembered)
        try:
            speak(line)
            while True:
                line.hear(1)
        finally:
            line.connection.close()

    with peer(behave) as server:
        remembered.server = server
        yield remembered


# PostgreSQL


def message(kind: bytes, content: bytes) -> bytes:
    """Return a message of PostgreSQL's protocol."""
    return kind + struct.pack("!i", 4 + len(content)) + content


def authentication(code: int, content: bytes = b"") -> bytes:
    return message(b"R", struct.pack("!i", code) + content)


def enter_postgresql(line: Line, context: ssl.SSLContext | None) -> None:
    """Hear the start-up message, in TLS when there is a *context* and the client wants it."""
    start = line.hear(8)
    if start == SSL_REQUEST:
        line.say(b"S" if context else b"N")
        if context:
            line.encrypt(context)
        start = line.hear(8)
    line.hear(int.from_bytes(start[:4], "big") - 8)


def hear_message(line: Line) -> bytes:
    header = line.hear(5)
    return line.hear(int.from_bytes(header[1:], "big") - 4)


def ask_scram(line: Line) -> None:
    """Ask for SCRAM as one who does not know the password, and claim that the proof was right."""
    line.say(authentication(10, b"SCRAM-SHA-256\0\0"))
    nonce = hear_message(line).rpartition(b"r=")[2]
    line.say(authentication(11, b"r=" + nonce + b"rogue,s=" + base64.b64encode(SALT) + b",i=4096"))
    hear_message(line)
    line.say(authentication(12, b"v=" + base64.b64encode(bytes(32))))


def ask_postgresql(code: int, content: bytes = b"") -> Speak:
    def ask(line: Line) -> None:
        line.say(authentication(code, content))
        hear_message(line)

    return ask


POSTGRESQL_METHODS: dict[str, Speak] = {
    "trust": lambda _: None,
    "password": ask_postgresql(3),
    "md5": ask_postgresql(5, SALT[:4]),
    "scram": ask_scram,
    "kerberos": ask_postgresql(2),
    "gss": ask_postgresql(7),
    "sspi": ask_postgresql(9),
}
PARAMETERS = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "standard_conforming_strings": "on",
    "server_encoding": "UTF8",
    "integer_datetimes": "on",
    "TimeZone": "UTC",
    "server_version": "18.1",
}
READY = message(b"Z", b"I")


def welcome(parameters: Iterable[tuple[str, str]] = PARAMETERS.items()) -> bytes:
    """Return what a server says of itself to a client that it has let in."""
    pairs = b"".join(message(b"S", f"{name}\0{value}\0".encode()) for name, value in parameters)
    return authentication(0) + pairs + message(b"K", bytes(8))


def postgresql(
    method: str = "trust",
    context: ssl.SSLContext | None = None,
    answer: Callable[[Line, str], None] | None = None,
    greet: Speak = lambda line: line.say(welcome() + READY),
) -> Speak:
    """Return the behaviour of a PostgreSQL server that asks for *method* and then answers each statement."""

    def speak(line: Line) -> None:
        enter_postgresql(line, context)
        POSTGRESQL_METHODS[method](line)
        greet(line)
        while True:
            statement = hear_message(line).rstrip(b"\0").decode()
            if answer is None:
                line.say(message(b"C", b"SELECT 0\0") + READY)
            else:
                answer(line, statement)

    return speak


def columns(*types: int) -> bytes:
    """Return the description of rows with columns of these type ids."""
    described = b"".join(b"c\0" + struct.pack("!ihihih", 0, 0, type_id, -1, -1, 0) for type_id in types)
    return message(b"T", struct.pack("!h", len(types)) + described)


def row(*values: str | None) -> bytes:
    """Return a row, in text."""
    fields = b"".join(
        struct.pack("!i", -1) if value is None else struct.pack("!i", len(value.encode())) + value.encode()
        for value in values
    )
    return message(b"D", struct.pack("!h", len(values)) + fields)


def result(types: tuple[int, ...], rows: Iterable[tuple[str | None, ...]]) -> bytes:
    """Return a whole answer."""
    return columns(*types) + b"".join(row(*values) for values in rows) + message(b"C", b"SELECT 1\0") + READY


# MySQL


@lru_cache(maxsize=1)
def own_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class MysqlLine:
    """Packets over a line."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._sequence = 0

    def say(self, payload: bytes) -> None:
        self.line.say(self.packet(payload))

    def packet(self, payload: bytes) -> bytes:
        framed = struct.pack("<I", len(payload))[:3] + bytes([self._sequence]) + payload
        self._sequence = (self._sequence + 1) % 256
        return framed

    def hear(self) -> bytes:
        header = self.line.hear(4)
        self._sequence = (header[3] + 1) % 256
        return self.line.hear(int.from_bytes(header[:3], "little"))

    def greet(self, plugin: str, context: ssl.SSLContext | None) -> None:
        """Greet, and hear the client's answer, in TLS when there is a *context* and the client wants it."""
        capabilities = CAPABILITIES | (CLIENT_SSL if context else 0)
        low, high = struct.pack("<H", capabilities & 0xFFFF), struct.pack("<H", capabilities >> 16)
        self.say(
            b"\x0a9.7.0-rogue\0" + bytes(4) + SALT[:8] + b"\0" + low + b"\xff" + b"\x02\0" + high + bytes([21])
            + bytes(10) + SALT[8:] + b"\0" + plugin.encode() + b"\0"
        )  # fmt: skip
        answer = self.hear()
        if context and int.from_bytes(answer[:4], "little") & CLIENT_SSL and len(answer) == 32:
            self.line.encrypt(context)
            self.hear()

    def switch(self, plugin: str, content: bytes = SALT + b"\0") -> bytes:
        """Ask for another method, and return the first answer."""
        self.say(b"\xfe" + plugin.encode() + b"\0" + content)
        return self.hear()

    def give_key(self) -> None:
        """Give the rogue's own key, and find out what comes under it."""
        self.say(b"\x01" + public_pem(own_key()))
        sha1 = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303
        # It may be under another key.
        with suppress(ValueError):
            masked = own_key().decrypt(self.hear(), sha1)
            self.line.note(bytes(byte ^ SALT[at % len(SALT)] for at, byte in enumerate(masked)))

    def want_password(self) -> None:
        """Say that the proof was not known."""
        self.say(b"\x01\x04")
        if self.hear() == b"\x02":
            self.give_key()

    def ok(self) -> None:
        self.say(b"\0\0\0\x02\0\0\0")


MysqlMethod = Callable[[MysqlLine], object]


def _sha256_switched(line: MysqlLine) -> None:
    if line.switch("sha256_password") == b"\x01":
        line.give_key()


def _caching_switched(line: MysqlLine) -> None:
    line.switch("caching_sha2_password")
    line.want_password()


def _fast(line: MysqlLine) -> None:
    line.say(b"\x01\x03")


# What is named in the greeting, and what is asked for after the client's first answer.
MYSQL_METHODS: dict[str, tuple[str, MysqlMethod]] = {
    "native": ("mysql_native_password", lambda _: None),
    "native, switched": ("caching_sha2_password", lambda line: line.switch("mysql_native_password")),
    "old, switched": ("mysql_native_password", lambda line: line.switch("mysql_old_password")),
    "clear": ("mysql_clear_password", lambda line: line.say(b"\x01")),
    "clear, switched": ("mysql_native_password", lambda line: line.switch("mysql_clear_password", b"")),
    "dialog": ("dialog", lambda line: line.say(b"\x01\x05Password: ")),
    "dialog, switched": ("mysql_native_password", lambda line: line.switch("dialog", b"\x05Password: ")),
    "caching_sha2, fast": ("caching_sha2_password", _fast),
    "caching_sha2, full": ("caching_sha2_password", lambda line: line.want_password()),
    "caching_sha2, full, switched": ("mysql_native_password", _caching_switched),
    "sha256": ("sha256_password", lambda line: line.give_key()),
    "sha256, switched": ("mysql_native_password", _sha256_switched),
}


def mysql(
    method: str = "native",
    context: ssl.SSLContext | None = None,
    answer: Callable[[MysqlLine, str], None] | None = None,
) -> Speak:
    """Return the behaviour of a MySQL server that asks for *method* and then answers each statement."""

    def speak(line: Line) -> None:
        packets = MysqlLine(line)
        plugin, ask = MYSQL_METHODS[method]
        packets.greet(plugin, context)
        ask(packets)
        packets.ok()
        while True:
            statement = packets.hear()[1:].decode()
            if answer is None or statement.startswith("START TRANSACTION"):
                packets.ok()
            else:
                answer(packets, statement)

    return speak


def lenenc(content: bytes) -> bytes:
    """Return a text with its length before it."""
    size = len(content)
    if size < 251:
        return bytes([size]) + content
    return (b"\xfc" + struct.pack("<H", size) if size < 65536 else b"\xfd" + struct.pack("<I", size)[:3]) + content


def column(charset: int = 45, kind: int = 0xFD) -> bytes:
    """Return the description of a column of text, or with charset 63 of bytes."""
    names = lenenc(b"def") + lenenc(b"") * 3 + lenenc(b"c") + lenenc(b"c")
    return names + b"\x0c" + struct.pack("<HIBHB", charset, 1024, kind, 0, 0) + b"\0\0"


def say_rows(line: MysqlLine, rows: Iterable[tuple[bytes | None, ...]], charset: int = 45) -> None:
    """Answer with rows, each with as many values as the first."""
    rows = list(rows)
    width = len(rows[0]) if rows else 1
    eof = b"\xfe\0\0\x02\0"
    described = [bytes([width]), *[column(charset)] * width, eof]
    packed = [b"".join(b"\xfb" if value is None else lenenc(value) for value in values) for values in rows]
    for payload in [*described, *packed, eof]:
        line.say(payload)
