"""A fleet of twenty with rogues among them: each costs itself alone, and what it says acts on nobody."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from dataclasses import replace
from datetime import date

from sqlalchemy import Engine, text

from whalefall_capacity.collection.fleet import visit_fleet
from whalefall_capacity.collection.sizes import FailedVisit, ServerEngine, Target, Visit
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity_tests.collection.rogues import (
    READY,
    Line,
    Speak,
    columns,
    message,
    mysql,
    postgresql,
    result,
    rogue,
    row,
)
from whalefall_capacity_tests.collection.support import target
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS, PostgresqlServer
from whalefall_capacity_tests.store.records import add_instance

OID, BYTES, BOOL = 26, 17, 16
COPY_OUT = message(b"H", b"\0" + struct.pack("!hhh", 2, 0, 0))
COPY_DONE = message(b"c", b"")
TRUTHFUL = 12345
TUESDAY = date(2026, 3, 10)


def listing(*names_and_sizes: tuple[bytes, str]) -> Speak:
    """Return a PostgreSQL server that lists these names, and gives these sizes as its answers to COPY."""

    def answer(line: Line, statement: str) -> None:
        if "COPY" in statement:
            rows = [message(b"d", f"{oid}\t{size}\n".encode()) for oid, (_, size) in enumerate(names_and_sizes, 1)]
            line.say(COPY_OUT + b"".join(rows) + COPY_DONE + message(b"C", b"COPY 1\0") + READY)
        elif "namesend(datname)" in statement:
            names = [name for name, _ in names_and_sizes]
            listed = [(str(oid), rf"\x{name.hex()}", "1663", "f", "t") for oid, name in enumerate(names, 1)]
            line.say(result((OID, BYTES, OID, BOOL, BOOL), listed))
        elif "datconnlimit <> -2" in statement:
            line.say(result((OID,), [(str(oid),) for oid in range(1, len(names_and_sizes) + 1)]))
        elif "pg_tablespace" in statement:
            line.say(result((OID, OID), []))
        else:
            line.say(result((20,), [("0",)]))

    return postgresql(answer=answer)


def flood(line: Line, _: str) -> None:
    """Answer with rows, and never end."""
    line.say(columns(OID))
    while True:
        line.say(row("1") * 1000)


LIARS: dict[str, Speak] = {
    "long name": listing((b"n" * 12_000, str(TRUTHFUL)), (b"good", str(TRUTHFUL))),
    "NUL": listing((b"nul\0name", str(TRUTHFUL)), (b"good", str(TRUTHFUL))),
    "escapes": listing((b"esc\x1b[31m\r\n\xe2\x80\xaename", str(TRUTHFUL)), (b"good", str(TRUTHFUL))),
    "negative": listing((b"bad", "-5"), (b"good", str(TRUTHFUL))),
    "beyond BIGINT": listing((b"bad", str(2**64)), (b"good", str(TRUTHFUL))),
    "huge": listing((b"bad", str(2**63 - 1)), (b"good", str(TRUTHFUL))),
    "flood": postgresql(answer=flood),
    "asks": postgresql("password"),
    "asks, MySQL": mysql("clear, switched"),
}
# Of these nothing at all is stored.
LOST = {"flood", "asks", "asks, MySQL"}


def test_each_rogue_of_a_fleet_of_twenty_costs_itself_alone(store: Engine, postgresql: PostgresqlServer) -> None:
    outcomes = {found_name(outcome): outcome for outcome in visited_and_stored(store, postgresql)}
    assert len(outcomes) == 20
    good = [outcomes[f"good {number}"] for number in range(20 - len(LIARS))]
    assert all(isinstance(outcome, Visit) for outcome in good)
    assert {name for name, outcome in outcomes.items() if isinstance(outcome, FailedVisit)} == LOST
    with store.connect() as connection:
        stored = connection.execute(
            text(
                "SELECT i.name, s.database_name, s.size_bytes FROM database_size_stats AS s "
                "JOIN instances AS i ON i.id = s.instance_id WHERE i.name = ANY (:liars) ORDER BY 1, 2"
            ),
            {"liars": list(LIARS)},
        )
        sizes = [tuple(found) for found in stored]
    kept = [(name, "good", TRUTHFUL) for name in sorted(LIARS.keys() - LOST)]
    assert sorted(sizes) == sorted([*kept, ("escapes", "esc\x1b[31m\r\n\u202ename", TRUTHFUL)])


def visited_and_stored(store: Engine, server: PostgresqlServer) -> list[Visit | FailedVisit]:
    """Visit the fleet, store what came, and return what became of each."""
    good = [f"good {number}" for number in range(20 - len(LIARS))]
    targets = [replace(server.target(), name=name, instance_id=add_instance(store, name)) for name in good]
    outcomes: list[Visit | FailedVisit] = []
    with ExitStack() as stack:
        for name, speak in LIARS.items():
            played = stack.enter_context(rogue(speak))
            targets.append(liar(name, played.port, add_instance(store, name)))
        for batch in visit_fleet(targets, LIMITS, NO_FILTERS, 20):
            visits = [outcome for outcome in batch if isinstance(outcome, Visit)]
            outcomes += [outcome for outcome in batch if isinstance(outcome, FailedVisit)]
            outcomes += write_visits(store, TUESDAY, visits) if visits else []
    return outcomes


def liar(name: str, port: int, instance_id: int) -> Target:
    engine = ServerEngine.MYSQL if "MySQL" in name else ServerEngine.POSTGRESQL
    return target(engine, port, name, instance_id)


def found_name(outcome: Visit | FailedVisit) -> str:
    return outcome.target.name if isinstance(outcome, Visit) else outcome.name
