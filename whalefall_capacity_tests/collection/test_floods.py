"""A server that never stops talking is left before it fills the memory, wherever it begins to."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity_tests.collection.rogues import (
    Line,
    MysqlLine,
    Speak,
    column,
    columns,
    lenenc,
    message,
    mysql,
    postgresql,
    rogue,
    row,
    welcome,
)

ROOT = Path(__file__).parents[2]
# A visit may take 128 MiB by its own count; what libpq and Python need beside it is not counted to the byte.
MOST_MEBIBYTES = 250
EOF = b"\xfe\0\0\x02\0"
LARGEST_PACKET = b"\xff\xff\xff"
OID, TEXT, NUMERIC = 26, 25, 1700


def for_ever(line: Line, content: bytes) -> None:
    """Say the same until the client leaves."""
    content *= max(1, 65536 // len(content))
    while True:
        line.say(content)


def endless_answer(content: bytes, before: bytes = b"") -> Speak:
    """Return a PostgreSQL server that answers its first statement without end."""

    def answer(line: Line, _: str) -> None:
        line.say(before)
        for_ever(line, content)

    return postgresql(answer=answer)


def endless_login(content: bytes, before: bytes = b"") -> Speak:
    """Return a PostgreSQL server whose login never ends."""

    def greet(line: Line) -> None:
        line.say(before)
        for_ever(line, content)

    return postgresql(greet=greet)


def endless_parameters(line: Line) -> None:
    """Let the client in, and tell parameters, each under a new name."""
    line.say(welcome())
    for number in itertools.count():
        line.say(message(b"S", f"p{number}\0{'x' * 1000}\0".encode()))


def one_endless(kind: bytes) -> bytes:
    """Return the beginning of a message of a gibibyte."""
    return kind + struct.pack("!i", 2**30)


COMPLAINT = message(b"N", b"SWARNING\0VWARNING\0C01000\0M" + b"x" * 1000 + b"\0\0")
POSTGRESQL_FLOODS: dict[str, Speak] = {
    "rows": endless_answer(row("1"), columns(OID)),
    "rows of one digit": endless_answer(row(*"123456789"), columns(*[NUMERIC] * 9)),
    "rows of nothing": endless_answer(row(*[None] * 1600), columns(*[TEXT] * 1600)),
    "one row": endless_answer(b"x", columns(TEXT) + one_endless(b"D")),
    "one error": endless_answer(b"x", one_endless(b"E")),
    "notices": endless_answer(COMPLAINT),
    "notices at the login": endless_login(COMPLAINT, welcome()),
    "one message at the login": endless_login(b"x", one_endless(b"S")),
    "one request at the login": endless_login(b"x", one_endless(b"R")),
    "parameters at the login": postgresql(greet=endless_parameters),
}


def endless_rows(*before: bytes, content: bytes) -> Speak:
    """Return a MySQL server that answers its first statement with the same row without end."""

    def answer(line: MysqlLine, _: str) -> None:
        for payload in before:
            line.say(payload)
        while True:
            # The numbers of packets count: a round of them is repeated.
            line.line.say(b"".join(line.packet(content) for _ in range(256)))

    return mysql(answer=answer)


def endless_packet(*before: bytes, first: bytes = b"x") -> Speak:
    """Return a MySQL server that answers its first statement with one packet of packets of 16 MiB."""

    def answer(line: MysqlLine, _: str) -> None:
        for payload in before:
            line.say(payload)
        body = first + b"x" * (2**24 - 2)
        while True:
            line.line.say(line.packet(body))

    return mysql(answer=answer)


def endless_greeting(line: Line) -> None:
    """Greet without end."""
    packets = MysqlLine(line)
    body = b"\x0a" + b"x" * (2**24 - 2)
    while True:
        line.say(packets.packet(body))


def endless_columns(line: MysqlLine, _: str) -> None:
    """Announce sixteen million columns, and describe them."""
    line.say(b"\xfd" + LARGEST_PACKET)
    while True:
        line.line.say(b"".join(line.packet(column()) for _ in range(256)))


def endless_answers(line: MysqlLine, _: str) -> None:
    """Give one small table after the other."""
    more = b"\xfe\0\0\x0a\0"
    while True:
        for payload in (b"\x01", column(), more, lenenc(b"1"), more):
            line.say(payload)


DECIMAL = column(kind=0xF6)
MYSQL_FLOODS: dict[str, Speak] = {
    "rows": endless_rows(b"\x01", column(), EOF, content=lenenc(b"x")),
    "rows of one digit": endless_rows(b"\x09", *[DECIMAL] * 9, EOF, content=lenenc(b"1") * 9),
    "rows of nothing": endless_rows(b"\xfa", *[column()] * 250, EOF, content=b"\xfb" * 250),
    "one row": endless_packet(b"\x01", column(), EOF),
    "one error": endless_packet(first=b"\xff"),
    "columns": mysql(answer=endless_columns),
    "answers": mysql(answer=endless_answers),
    "one greeting": endless_greeting,
}


FLOODS = {ServerEngine.POSTGRESQL: POSTGRESQL_FLOODS, ServerEngine.MYSQL: MYSQL_FLOODS}


@pytest.fixture(scope="module")
def visits() -> Iterator[subprocess.Popen[str]]:
    """What makes a visit in a process of its own for each line that it reads, without loading everything again."""
    with subprocess.Popen(
        [sys.executable, "-m", "whalefall_capacity_tests.collection.visits_in_own_processes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        yield process


def grown_by(visits: subprocess.Popen[str], engine: ServerEngine, speak: Speak) -> tuple[int, str]:
    """Return by how many MiB a visit made its process grow, and its error."""
    assert visits.stdin is not None
    assert visits.stdout is not None
    with rogue(speak) as server:
        visits.stdin.write(f"{engine.value} {server.port}\n")
        visits.stdin.flush()
        grown, _, error = visits.stdout.readline().partition(" ")
    return int(grown), error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "speak"),
    [(engine, speak) for engine, floods in FLOODS.items() for speak in floods.values()],
    ids=[f"{engine.value}-{name}" for engine, floods in FLOODS.items() for name in floods],
)
def test_a_server_that_never_stops_costs_a_bounded_amount_of_memory(
    visits: subprocess.Popen[str], engine: ServerEngine, speak: Speak
) -> None:
    grown, error = grown_by(visits, engine, speak)
    assert grown < MOST_MEBIBYTES
    assert error.startswith("db-7: ")
    assert "None" not in error
