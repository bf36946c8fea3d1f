"""Visits by the engine files that are shipped, through SQLAlchemy's dialects, of stand-ins for their drivers.

They show what becomes of what a driver hands over, and of the errors that it raises. That a server answers like that is
not shown: none was at hand here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from whalefall_capacity.collection.fleet import visit_fleet
from whalefall_capacity.collection.sizes import Capability, Cutoff, DatabaseSize, FailedVisit, Findings, Limits, Target
from whalefall_capacity.collection.sql.engine_file import read_engine_file
from whalefall_capacity.collection.visit import Checkup, check, visit
from whalefall_capacity.engine_catalog import SHIPPED
from whalefall_capacity.errors import CollectionError
from whalefall_capacity_tests.collection.driver_standins import OracleError, Played, Rows, Server, Stall, value
from whalefall_capacity_tests.collection.support import eventually, target
from whalefall_capacity_tests.processes import PATIENCE_SECONDS
from whalefall_capacity_tests.servers import LIMITS, NO_FILTERS

DRIVERS = {"sqlserver": "pymssql", "oracle": "oracledb"}
HASTY = replace(LIMITS, statement_timeout_seconds=0.2)
DB_LIB = "DB-Lib error message 20018, severity 14:\nGeneral SQL Server error: Check messages from the SQL Server\n"
COLUMNS = ("name", "size_bytes", "data_size_bytes", "log_size_bytes", "reason")
SQLSERVER: dict[str, Played] = {
    "version": value("16.0.4165.4 Standard Edition (64-bit)"),
    "databases": Rows(
        COLUMNS,
        [
            ("master", 8_388_608, 6_291_456, 2_097_152, None),
            ("shop", 12_058_624, 11_534_336, 524_288, None),
            ("old", None, None, None, "the database is OFFLINE"),
            ("coming", None, None, None, "the database is RESTORING"),
            ("second", None, None, None, "a secondary replica of Always On that cannot be read"),
            ("unseen", None, None, None, "its files are not visible in sys.master_files"),
        ],
    ),
}
ORACLE: dict[str, Played] = {
    "version": value("19.0.0.0.0"),
    "databases": Rows(
        ("name", "size_bytes", "reason"),
        [
            ("CDB$ROOT", Decimal(1_500_000_000), None),
            ("PDB$SEED", Decimal(700_000_000), None),
            ("SHOP", Decimal(9_000_000_001), None),
            ("CRM", None, "2 of 3 data files cannot be read; it is open as MOUNTED"),
        ],
    ),
    "logs": value(Decimal(805_306_368)),
}
PLAYED = {"sqlserver": SQLSERVER, "oracle": ORACLE}


class StandIn:
    """Makes servers and lets their drivers be found."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, name: str, **answers: Played) -> tuple[Target, Server]:
        """Return a target of the engine *name*, and the server behind its driver, with some *answers* changed."""
        file = SHIPPED / f"{name}.yaml"
        server = Server(DRIVERS[name], read_engine_file(file), PLAYED[name] | answers)
        self._monkeypatch.setitem(sys.modules, DRIVERS[name], server.driver)
        return replace(target(name, 1), database="shop", engine_file=file), server


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Stand-ins for the drivers, for the duration of a test."""
    return StandIn(monkeypatch)


def databases_of(to: Target) -> dict[str, DatabaseSize]:
    measured = visit(to, LIMITS, NO_FILTERS, Cutoff(), Findings()).measurement
    return {database.name: database for database in measured.databases}


def error_of(to: Target, limits: Limits = LIMITS) -> str:
    with pytest.raises(CollectionError) as failure:
        visit(to, limits, NO_FILTERS, Cutoff(), Findings())
    return str(failure.value)


def checkup_of(to: Target, limits: Limits = LIMITS) -> Checkup:
    return check(to, limits, NO_FILTERS, Cutoff())


def advised(checkup: Checkup) -> dict[str, Capability]:
    assert checkup.error is None
    return {capability.name: capability for capability in checkup.capabilities if capability.grant is not None}


def denied(server: Server, number: int, text: str) -> Exception:
    """Return the error of pymssql for an error of the server."""
    error: Exception = server.driver.OperationalError(number, (text + DB_LIB).encode())
    return error


def test_databases_of_sql_server_have_data_and_log_or_the_reason_why_not(stand_in: StandIn) -> None:
    to, server = stand_in("sqlserver")
    assert databases_of(to) == {
        "shop": DatabaseSize("shop", 12_058_624, None, 11_534_336, 524_288),
        "old": DatabaseSize("old", None, "the database is OFFLINE"),
        "coming": DatabaseSize("coming", None, "the database is RESTORING"),
        "second": DatabaseSize("second", None, "a secondary replica of Always On that cannot be read"),
        "unseen": DatabaseSize("unseen", None, "its files are not visible in sys.master_files"),
    }
    assert server.open_connections == 0


def test_containers_of_oracle_have_their_sizes_or_the_reason_why_not(stand_in: StandIn) -> None:
    to, server = stand_in("oracle")
    measured = visit(to, LIMITS, NO_FILTERS, Cutoff(), Findings()).measurement
    assert measured.databases == (
        DatabaseSize("CDB$ROOT", 1_500_000_000),
        DatabaseSize("SHOP", 9_000_000_001),
        DatabaseSize("CRM", None, "2 of 3 data files cannot be read; it is open as MOUNTED"),
    )
    assert (measured.version, measured.log_size_bytes) == ("19.0.0.0.0", 805_306_368)
    assert server.open_connections == 0


@pytest.mark.parametrize("name", DRIVERS)
def test_each_query_is_a_transaction_of_its_own_with_its_settings(name: str, stand_in: StandIn) -> None:
    to, server = stand_in(name)
    visit(to, LIMITS, NO_FILTERS, Cutoff(), Findings())
    engine = read_engine_file(SHIPPED / f"{name}.yaml")
    setting = engine.session[0].partition("{")[0]
    for query in (engine.queries.version, engine.queries.databases, engine.queries.logs):
        if query is not None:
            at = server.heard.index(query)
            assert server.heard[at - 1].startswith(setting)
            assert server.heard[at - 2 : at - 1] == server.heard[at + 1 : at + 2] == ["rollback"]


def test_a_size_that_is_null_is_missing_with_the_reason(stand_in: StandIn) -> None:
    rows = Rows(COLUMNS, [("shop", None, None, None, None), ("crm", 8192, 8192, None, None)])
    to, _ = stand_in("sqlserver", databases=rows)
    assert databases_of(to) == {
        "shop": DatabaseSize("shop", None, "the server gave no size (NULL)"),
        "crm": DatabaseSize("crm", 8192, None, 8192, None),
    }


@pytest.mark.parametrize("number", [8192, 8192.0, Decimal(8192), Decimal("8192.00"), Decimal("8.192E+3")])
def test_whole_numbers_of_every_type_are_sizes(number: object, stand_in: StandIn) -> None:
    to, _ = stand_in("sqlserver", databases=Rows(COLUMNS, [("shop", number, number, 0, None)]))
    assert databases_of(to) == {"shop": DatabaseSize("shop", 8192, None, 8192, 0)}


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("8192", "'8192' is no number but str"),
        (b"\x20", "b' ' is no number but bytes"),
        (True, "True is no number but bool"),
        (-8192, "-8192 bytes cannot be"),
        (Decimal("0.5"), "Decimal('0.5') is not a whole number"),
        (float("inf"), "inf bytes cannot be"),
    ],
)
def test_what_is_no_size_costs_its_database_alone(number: object, problem: str, stand_in: StandIn) -> None:
    rows = Rows(COLUMNS, [("shop", number, None, None, None), ("crm", 8192, None, None, None)])
    to, _ = stand_in("sqlserver", databases=rows)
    assert databases_of(to) == {
        "shop": DatabaseSize("shop", None, f"{to.engine_file}: queries.databases: size_bytes: {problem}"),
        "crm": DatabaseSize("crm", 8192),
    }


def test_numbers_of_an_oracle_that_writes_a_decimal_comma_are_read(stand_in: StandIn) -> None:
    to, server = stand_in("oracle", databases=Rows(("name", "size_bytes"), [("SHOP", 7), ("CRM", Decimal("7.5"))]))
    server.decimal_sign = ","
    assert databases_of(to) == {
        "SHOP": DatabaseSize("SHOP", 7),
        "CRM": DatabaseSize(
            "CRM", None, f"{to.engine_file}: queries.databases: size_bytes: Decimal('7.5') is not a whole number"
        ),
    }


def test_names_that_sql_server_gives_as_bytes_are_text(stand_in: StandIn) -> None:
    to, _ = stand_in("sqlserver", databases=Rows(COLUMNS, [("größe".encode(), 8192, None, None, None)]))
    assert databases_of(to) == {"größe": DatabaseSize("größe", 8192)}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (229, "The SELECT permission was denied on the object 'master_files', database 'mssqlsystemresource'."),
        (297, "The user does not have permission to perform this action."),
        (300, "VIEW SERVER STATE permission was denied on object 'server', database 'master'."),
        (916, 'The server principal "whalefall" is not able to access the database "shop".'),
    ],
)
def test_what_sql_server_forbids_fails_the_visit_and_its_grants_are_advised(
    number: int, text: str, stand_in: StandIn
) -> None:
    to, server = stand_in("sqlserver", **{"grants: files of every database": value(0)})
    server.playing("databases", denied(server, number, text))
    assert f"{to.engine_file}: queries.databases: {number} {text}" in error_of(to)
    checkup = checkup_of(to)
    assert not checkup.healthy
    assert {name: found.grant for name, found in advised(checkup).items()} == {
        "files of every database": "GRANT VIEW ANY DEFINITION TO [whalefall]"
    }
    (sizes,) = [found for found in checkup.capabilities if found.name == "database sizes"]
    assert not sizes.available
    assert text in sizes.detail


def test_privileges_that_sql_server_does_not_know_are_advised(stand_in: StandIn) -> None:
    to, _ = stand_in("sqlserver", **{"grants: roles of Always On": value(None), "grants: tables": value(0)})
    found = advised(checkup_of(to))
    assert {name: (found.grant, found.required) for name, found in found.items()} == {
        "roles of Always On": ("GRANT VIEW SERVER STATE TO [whalefall]", True),
        "tables": ("GRANT CONNECT ANY DATABASE TO [whalefall]", False),
    }


@pytest.mark.parametrize(
    ("code", "text"),
    [(942, "ORA-00942: table or view does not exist"), (1031, "ORA-01031: insufficient privileges")],
)
def test_what_oracle_forbids_fails_the_visit_and_its_grants_are_advised(
    code: int, text: str, stand_in: StandIn
) -> None:
    to, server = stand_in("oracle")
    error = server.driver.DatabaseError(OracleError(f"{text}\nHelp: https://docs.oracle.com/error-help/db/", code))
    for field in ("databases", "grants: containers and data files"):
        server.playing(field, error)
    assert f"{to.engine_file}: queries.databases: {text}" in error_of(to)
    checkup = checkup_of(to)
    assert not checkup.healthy
    assert {name: found.grant for name, found in advised(checkup).items()} == {
        "containers and data files": (
            "GRANT SELECT ON sys.v_$containers TO whalefall; GRANT SELECT ON sys.v_$datafile TO whalefall"
        )
    }


def test_redo_logs_that_oracle_forbids_cost_no_size_and_are_not_known(stand_in: StandIn) -> None:
    to, server = stand_in("oracle", databases=Rows(("name", "size_bytes"), [("SHOP", 7)]))
    error = server.driver.DatabaseError(OracleError("ORA-00942: table or view does not exist", 942))
    for field in ("logs", "grants: redo logs"):
        server.playing(field, error)
    measured = visit(to, LIMITS, NO_FILTERS, Cutoff(), Findings()).measurement
    assert measured.databases == (DatabaseSize("SHOP", 7),)
    assert measured.log_size_bytes is None
    checkup = checkup_of(to)
    assert checkup.healthy
    assert list(advised(checkup)) == ["redo logs"]


@pytest.mark.parametrize("password", ["correct horse", "pässword", 'it\'s "so"', "back\\slash", "two  blanks"])
def test_no_error_shows_the_password(password: str, stand_in: StandIn) -> None:
    text = f"Login failed for user 'whalefall' with {password}."
    to, server = stand_in("sqlserver")
    # One argument, which is a tuple: only `connect` raises like that.
    server.refuses_with = server.driver.OperationalError((18456, (text + DB_LIB).encode()))
    error = error_of(replace(to, password=SecretStr(password)))
    assert "failed: 18456 Login failed for user 'whalefall' with ********.DB-Lib error message 20018" in error
    to, server = stand_in("oracle")
    server.refuses_with = server.driver.DatabaseError(OracleError(f"ORA-01017: {password}; logon denied", 1017))
    assert "ORA-01017: ********; logon denied" in error_of(replace(to, password=SecretStr(password)))


def test_no_finding_of_a_check_shows_the_password(stand_in: StandIn) -> None:
    to, server = stand_in("sqlserver", version=value("16.0 correct horse"))
    for field in ("databases", "grants: tables"):
        server.playing(field, denied(server, 229, "correct horse is not welcome."))
    checkup = checkup_of(to)
    details = {capability.name: capability.detail for capability in checkup.capabilities}
    assert checkup.version == "16.0 ********"
    assert "229 ******** is not welcome." in details["database sizes"]
    assert "229 ******** is not welcome." in details["tables"]
    assert "correct horse" not in str(checkup)


@pytest.mark.parametrize("fetching", [False, True])
def test_a_query_of_sql_server_that_takes_too_long_names_the_limit(fetching: bool, stand_in: StandIn) -> None:
    to, server = stand_in("sqlserver")
    text = b"DB-Lib error message 20003, severity 6:\nTDS server connection timed out (127.0.0.1)\n"
    stall = Stall(server.driver.OperationalError(20003, text))
    server.playing("databases", Rows(COLUMNS, [("shop", 8192, None, None, None)], then=stall) if fetching else stall)
    error = error_of(to, HASTY)
    assert f"{to.engine_file}: queries.databases: took longer than the statement limit of 0.2 s; raise WH" in error
    assert "message 20003" in error
    assert server.open_connections == 0


@pytest.mark.parametrize("fetching", [False, True])
@pytest.mark.parametrize("text", ["DPY-4024: call timeout of 200 ms exceeded", "ORA-03156: OCI call timed out"])
def test_a_query_of_oracle_that_takes_too_long_names_the_limit(text: str, fetching: bool, stand_in: StandIn) -> None:
    to, server = stand_in("oracle")
    stall = Stall(server.driver.OperationalError(OracleError(text)))
    server.playing("databases", Rows(("name", "size_bytes"), [("SHOP", 7)], then=stall) if fetching else stall)
    error = error_of(to, HASTY)
    assert f"{to.engine_file}: queries.databases: took longer than the statement limit of 0.2 s; raise WH" in error
    assert text in error
    assert server.open_connections == 0


def test_logs_that_take_too_long_cost_no_size(stand_in: StandIn) -> None:
    to, server = stand_in("oracle")
    server.playing("logs", Stall(server.driver.OperationalError(OracleError("DPY-4024: call timeout exceeded"))))
    found = visit(to, HASTY, NO_FILTERS, Cutoff(), Findings()).measurement
    assert found.databases[1] == DatabaseSize("SHOP", 9_000_000_001)
    assert found.log_size_bytes is None


LOST: dict[str, Callable[[Any], Exception]] = {
    "sqlserver": lambda driver: driver.OperationalError(20047, b"DB-Lib error message 20047: DBPROCESS is dead"),
    "oracle": lambda driver: driver.OperationalError(
        OracleError("DPY-4011: the database or network closed the connection")
    ),
}


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("rows_before", [0, 1])
def test_a_list_that_is_cut_short_is_no_list(name: str, rows_before: int, stand_in: StandIn) -> None:
    to, server = stand_in(name)
    server.playing("databases", Rows(("name", "size_bytes"), [("shop", 7)] * rows_before, LOST[name](server.driver)))
    findings = Findings()
    with pytest.raises(CollectionError, match=r"queries\.databases: .*(DBPROCESS is dead|closed the connection)"):
        visit(to, LIMITS, NO_FILTERS, Cutoff(), findings)
    assert findings.measurement("").databases == ()
    assert checkup_of(to).error is not None


def test_an_error_is_not_hidden_by_that_of_its_rollback(stand_in: StandIn) -> None:
    to, server = stand_in("sqlserver")
    server.playing("databases", denied(server, 8623, "The query processor ran out of internal resources."))
    # pymssql lets it out as an error of its own lower half, which is none of PEP 249.
    server.fails_to_roll_back_with = RuntimeError("Not connected to any MS SQL server")
    assert "queries.databases: 8623 The query processor ran out of internal resources." in error_of(to)
    checkup = checkup_of(to)
    assert checkup.error is not None
    assert "8623 The query processor" in checkup.error
    assert server.open_connections == 0


def test_a_connection_that_dies_keeps_what_was_found(stand_in: StandIn) -> None:
    to, server = stand_in("oracle")
    server.playing("logs", LOST["oracle"](server.driver))
    assert databases_of(to)["SHOP"] == DatabaseSize("SHOP", 9_000_000_001)
    checkup = checkup_of(to)
    assert checkup.error is not None
    assert "closed the connection" in checkup.error


def test_a_visit_to_oracle_that_is_given_up_is_ended_from_outside(stand_in: StandIn) -> None:
    limits = Limits(connect_timeout_seconds=60, statement_timeout_seconds=60, deadline_seconds=0.5)
    to, server = stand_in("oracle")
    server.keeps_time = False
    server.playing("databases", Stall(server.driver.DatabaseError(OracleError("ORA-01013: user requested cancel"))))
    (outcome,) = [one for batch in visit_fleet([to], limits, NO_FILTERS, 1) for one in batch]
    assert isinstance(outcome, FailedVisit)
    assert "no answer from 127.0.0.1:1 within the deadline of 0.5 s" in outcome.error
    assert server.cancelled.wait(PATIENCE_SECONDS)
    assert eventually(lambda: server.open_connections == 0)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_visit_that_was_given_up_while_it_connected_asks_nothing(name: str, stand_in: StandIn) -> None:
    to, server = stand_in(name)
    cutoff = Cutoff()
    cutoff.cut()
    with pytest.raises(CollectionError, match="the visit was given up"):
        visit(to, LIMITS, NO_FILTERS, cutoff, Findings())
    queries = read_engine_file(SHIPPED / f"{name}.yaml").queries
    assert {queries.version, queries.databases}.isdisjoint(server.heard)
    assert server.open_connections == 0
