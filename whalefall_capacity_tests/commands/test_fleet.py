"""`whalefall-capacity fleet`, against real servers: what it prints, and whether scripts can rely on its status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import MariadbFleetServer, PostgresqlServer
from whalefall_capacity_tests.store.records import row_versions, rows


def fleet_file(whalefall: CommandLine, *entries: dict[str, Any]) -> Path:
    return whalefall.write("fleet.yaml", yaml.safe_dump({"instances": list(entries)}))


def cells(table: str) -> list[list[str]]:
    """Return the cells of a printed table, without its frame and headings."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in table.splitlines() if "│" in line]


@pytest.fixture
def sealed(postgresql: PostgresqlServer) -> Iterator[str]:
    """A user of the PostgreSQL server who may not connect to one of its databases."""
    with postgresql.connect() as cursor:
        cursor.execute("CREATE ROLE sealed_out LOGIN")
        cursor.execute("CREATE DATABASE sealed")
        cursor.execute("REVOKE CONNECT ON DATABASE sealed FROM PUBLIC")
        yield "sealed_out"
        cursor.execute("DROP DATABASE sealed")
        cursor.execute("DROP ROLE sealed_out")


def test_a_name_that_the_locale_cannot_encode_is_printed_as_its_escape(
    whalefall: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(whalefall.store, refusing("日志 é"))
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    command = [sys.executable, "-m", "whalefall_capacity", "fleet", "list"]
    table = subprocess.run(command, capture_output=True, check=True).stdout.decode("latin-1")
    assert r"\u65e5\u5fd7 é" in table
    printed = subprocess.run([*command, "--json"], capture_output=True, check=True).stdout
    assert json.loads(printed.decode("ascii"))[0]["name"] == "日志 é"


def test_apply_says_what_it_did(whalefall: CommandLine) -> None:
    register(whalefall.store, refusing("shop"), refusing("gone"))
    file = fleet_file(whalefall, {**refusing("shop"), "port": 2}, refusing("bank"))
    done = whalefall("fleet", "apply", file)
    assert (done.status, done.err) == (0, "")
    assert cells(done.out) == [["shop", "changed", "port"], ["bank", "created", ""], ["gone", "disabled", ""]]
    assert cells(whalefall("fleet", "apply", file).out) == [["shop", "unchanged", ""], ["bank", "unchanged", ""]]


def test_apply_prints_json_for_programs(whalefall: CommandLine) -> None:
    done = whalefall("fleet", "apply", fleet_file(whalefall, refusing("shop")), "--json")
    assert (done.status, done.json) == (0, [{"name": "shop", "action": "created", "fields": []}])


def test_a_dry_run_of_apply_changes_nothing(whalefall: CommandLine) -> None:
    register(whalefall.store, refusing("shop"))
    before = row_versions(whalefall.store)
    done = whalefall("fleet", "apply", fleet_file(whalefall, refusing("bank")), "--dry-run")
    assert done.status == 0
    assert done.out.startswith("would change")
    assert cells(done.out) == [["bank", "created", ""], ["shop", "disabled", ""]]
    assert row_versions(whalefall.store) == before


def test_a_file_with_an_error_is_refused_with_its_line(whalefall: CommandLine) -> None:
    file = whalefall.write("fleet.yaml", "instances:\n- name: shop\n  engine: dbase\n  host: db\n")
    done = whalefall("fleet", "apply", file)
    assert (done.status, done.out) == (1, "")
    assert f"error: {file}: line 3: instances.0.engine: " in done.err
    assert done.err.endswith("nothing was changed\n")


def test_a_stored_credential_that_is_not_there_is_an_error(whalefall: CommandLine) -> None:
    file = fleet_file(whalefall, {**refusing("shop"), "credential": {"stored": "vault"}})
    for options in ([], ["--dry-run"]):
        done = whalefall("fleet", "apply", file, *options)
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith("error: stored credentials vault do not exist: ")
    assert rows(whalefall.store, "SELECT count(*) FROM instances") == [(0,)]


@pytest.mark.parametrize("file", ["absent.yaml", "."])
def test_a_file_that_is_not_there_is_wrong_usage(whalefall: CommandLine, file: str) -> None:
    done = whalefall("fleet", "apply", file)
    assert (done.status, done.out) == (2, "")
    assert file in done.err


def test_a_fleet_of_nobody_is_listed_and_checked_without_an_error(whalefall: CommandLine) -> None:
    for command in ("list", "check"):
        assert (whalefall("fleet", command).status, whalefall("fleet", command, "--json").json) == (0, [])


def test_list_has_everything_that_is_known_and_nothing_secret(whalefall: CommandLine) -> None:
    register(whalefall.store, refusing("gone"), refusing("shop"))
    register(whalefall.store, {**refusing("shop"), "capacity_limit": "2TiB", "description": "[red]sells[/red]"})
    done = whalefall("fleet", "list")
    assert (done.status, done.err) == (0, "")
    assert [row[1:] for row in cells(done.out)] == [
        ["gone", "postgresql", "127.0.0.1:1", "-", "disabled", "0", "never", "-", "-"],
        ["shop", "postgresql", "127.0.0.1:1", "-", "active", "0", "never", "2.00 TiB", "-"],
    ]
    gone, shop = whalefall("fleet", "list", "--json").json
    assert (gone["name"], gone["is_active"]) == ("gone", False)
    del shop["id"]
    assert shop == {
        "name": "shop",
        "db_type": "postgresql",
        "host": "127.0.0.1",
        "port": 1,
        "version": None,
        "is_active": True,
        "last_connected_at": None,
        "description": "[red]sells[/red]",
        "capacity_limit_bytes": 2_199_023_255_552,
        "replica_of": None,
        "databases": 0,
    }


def test_a_long_name_stays_in_one_piece_where_a_program_reads_it(whalefall: CommandLine) -> None:
    name = "a-very-long-name-of-a-server-in-a-data-centre-far-away-" * 2
    register(whalefall.store, refusing(name))
    assert name in whalefall("fleet", "list").out


def test_check_of_servers_that_can_be_measured_whole_succeeds(
    whalefall: CommandLine, postgresql: PostgresqlServer, mariadb: MariadbFleetServer
) -> None:
    register(whalefall.store, entry("pg", postgresql.target()), entry("maria", mariadb.target()))
    done = whalefall("fleet", "check", "--json")
    assert (done.status, done.err) == (0, "")
    assert [(checkup["name"], checkup["error"]) for checkup in done.json] == [("maria", None), ("pg", None)]
    assert all(capability["available"] for checkup in done.json for capability in checkup["capabilities"])
    assert {row[3] for row in cells(whalefall("fleet", "check").out)} == {"ok"}


def test_check_prints_the_grant_that_is_missing_and_fails(
    whalefall: CommandLine, postgresql: PostgresqlServer, sealed: str
) -> None:
    register(whalefall.store, entry("pg", postgresql.target(username=sealed)))
    done = whalefall("fleet", "check")
    assert done.status == 1
    assert ["database sizes", "missing"] in [row[2:4] for row in cells(done.out)]
    assert '  pg: GRANT pg_monitor TO "sealed_out";' in done.out


def test_check_prints_a_grant_once_for_one_account(
    whalefall: CommandLine, postgresql: PostgresqlServer, sealed: str
) -> None:
    target = postgresql.target(username=sealed)
    register(whalefall.store, entry("pg", target), entry("same", target))
    done = whalefall("fleet", "check")
    assert [line for line in done.out.splitlines() if "GRANT" in line] == [
        '  pg, same: GRANT pg_monitor TO "sealed_out";'
    ]


def test_check_finds_everything_that_is_wrong_in_one_go(
    whalefall: CommandLine, postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    unresolved = {**refusing("unresolved"), "credential": {"username": "u", "password_env": "UNSET"}}
    register(whalefall.store, refusing("dead"), unresolved, entry("pg", postgresql.target()))
    done = whalefall("fleet", "check", "--json")
    assert done.status == 1
    errors = {checkup["name"]: checkup["error"] for checkup in done.json}
    assert errors["pg"] is None
    assert errors["dead"].startswith("dead: connecting to 127.0.0.1:1 as nobody failed: ")
    assert errors["unresolved"] == "unresolved: environment variable UNSET is not set"
    assert len(cells(whalefall("fleet", "check").out)) >= 3
