"""`whalefall-capacity engine`: what is known, and a file tried on a real server, nothing of which is stored."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from whalefall_capacity.collection.sizes import Target
from whalefall_capacity.collection.sql.engine_file import read_engine_file
from whalefall_capacity.engine_catalog import SHIPPED
from whalefall_capacity.settings import load_settings
from whalefall_capacity_tests.collection.driver_standins import Server, value
from whalefall_capacity_tests.collection.engine_files import FILES, POSTGRESQL
from whalefall_capacity_tests.collection.test_driver_standins import SQLSERVER
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.commands.test_fleet import cells
from whalefall_capacity_tests.pages import page
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.store.records import row_versions, rows


def write(whalefall: CommandLine, **changes: Any) -> Path:
    """Write the engine file of the tests into the folder `engines`."""
    whalefall.folder.joinpath("engines").mkdir(exist_ok=True)
    return whalefall.write("engines/elephant.yaml", yaml.safe_dump(yaml.safe_load(POSTGRESQL) | changes))


def with_elephants(whalefall: CommandLine, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Path:
    file = write(whalefall, **changes)
    monkeypatch.setenv("WHALEFALL_ENGINES", "engines")
    # The settings of this process may have been read.
    load_settings.cache_clear()
    return file


def engines(whalefall: CommandLine) -> dict[str, Any]:
    done = whalefall("engine", "list", "--json")
    assert done.status == 0
    return {engine["name"]: engine for engine in done.json}


def test_the_list_has_the_engines_built_in_and_those_of_the_setting(
    whalefall: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = with_elephants(whalefall, monkeypatch)
    found = engines(whalefall)
    assert list(found)[:3] == ["postgresql", "mysql", "mariadb"]
    assert found["mysql"] == {
        "name": "mysql",
        "title": None,
        "driver": None,
        "origin": "built in",
        "problem": None,
    }
    assert found["elephant"] == {
        "name": "elephant",
        "title": "PostgreSQL by queries",
        "driver": "postgresql+psycopg2",
        "origin": str(file.resolve()),
        "problem": None,
    }


def test_the_list_says_what_keeps_an_engine_from_being_measured(
    whalefall: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_elephants(whalefall, monkeypatch, driver="pg8000", install="pg8000")
    assert engines(whalefall)["elephant"]["problem"] == (
        "the driver postgresql+pg8000 of engine elephant cannot be loaded (No module named 'pg8000'): "
        "pip install 'pg8000'"
    )
    with_elephants(whalefall, monkeypatch, title="")
    assert "title: String should have at least 1 character" in engines(whalefall)["elephant"]["problem"]


def test_a_good_file_is_said_to_be_one(whalefall: CommandLine) -> None:
    file = write(whalefall)
    done = whalefall("engine", "check", file)
    assert (done.status, done.err) == (0, "")
    assert done.out == (f"{file}: engine elephant (PostgreSQL by queries), queries version, databases, logs, tables\n")


def test_a_good_file_whose_driver_is_not_installed_is_one_too(whalefall: CommandLine) -> None:
    done = whalefall("engine", "check", write(whalefall, driver="pg8000", install="pg8000"))
    assert done.status == 0
    assert done.out.splitlines()[1].startswith("warning: the driver postgresql+pg8000 of engine elephant cannot be")


def test_a_bad_file_is_refused_with_line_and_field(whalefall: CommandLine) -> None:
    done = whalefall("engine", "check", whalefall.write("bees.yaml", "name: bees\ndialect: Bees\n"))
    assert (done.status, done.out) == (1, "")
    assert "bees.yaml: line 2: dialect: String should match pattern" in done.err
    assert "bees.yaml: line 1: queries: Field required" in done.err


def test_a_trial_measures_a_server_and_stores_nothing(whalefall: CommandLine, postgresql: PostgresqlServer) -> None:
    register(whalefall.store, entry("pg", postgresql.target()))
    before = row_versions(whalefall.store)
    done = whalefall("engine", "try", write(whalefall), "--instance", "pg")
    assert (done.status, done.err) == (0, "")
    found = {row[0]: row[1:] for row in cells(done.out)}
    assert ["sizes of every database", "ok", "granted"] in [row[2:] for row in cells(done.out)]
    assert found["postgres"][0].endswith("MiB")
    assert "logs of the instance: " in done.out
    assert row_versions(whalefall.store) == before


def test_a_trial_that_fails_says_why_and_exits_with_1(whalefall: CommandLine, postgresql: PostgresqlServer) -> None:
    register(whalefall.store, entry("pg", postgresql.target()))
    file = write(whalefall, queries={"version": "SELECT 1", "databases": "SELECT 2"})
    done = whalefall("engine", "try", file, "--instance", "pg")
    assert done.status == 1
    assert "elephant.yaml: queries.databases: has no column name" in done.out
    done = whalefall("engine", "try", file, "--instance", "pg", "--json")
    assert (done.status, done.json["measurement"]) == (1, None)
    assert "has no column name" in done.json["error"]


def test_a_trial_needs_a_server_of_the_fleet(whalefall: CommandLine) -> None:
    done = whalefall("engine", "try", write(whalefall), "--instance", "nobody")
    assert (done.status, done.err) == (1, "error: nobody is not an active instance of the fleet\n")


def test_a_trial_looks_for_no_other_password_than_that_of_its_server(
    whalefall: CommandLine, postgresql: PostgresqlServer
) -> None:
    pipe, was_read = whalefall.folder / "password", threading.Event()
    os.mkfifo(pipe)
    other = entry("other", postgresql.target(), credential={"username": "nobody", "password_file": str(pipe)})
    register(whalefall.store, entry("pg", postgresql.target()), other)

    def await_a_reader() -> None:
        with pipe.open("w"):
            was_read.set()

    writer = threading.Thread(target=await_a_reader)
    writer.start()
    try:
        assert whalefall("engine", "try", write(whalefall), "--instance", "pg").status == 0
        assert not was_read.is_set()
    finally:
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
        writer.join()


def test_a_trial_of_a_server_whose_password_cannot_be_read_says_why(
    whalefall: CommandLine, postgresql: PostgresqlServer
) -> None:
    nowhere = {"username": "nobody", "password_file": "/nowhere/password"}
    register(whalefall.store, entry("pg", postgresql.target(), credential=nowhere))
    done = whalefall("engine", "try", write(whalefall), "--instance", "pg")
    assert done.status == 1
    assert done.err.startswith("error: pg: ")
    assert "/nowhere/password" in done.err


def test_a_fleet_with_an_engine_of_a_file_is_applied_checked_and_collected(
    whalefall: CommandLine, postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_elephants(whalefall, monkeypatch)
    register_file = whalefall.write("fleet.yaml", yaml.safe_dump({"instances": [elephant(postgresql.target())]}))
    monkeypatch.setenv("FLEET_PASSWORD", "")
    assert whalefall("fleet", "apply", register_file).status == 0
    assert rows(whalefall.store, "SELECT db_type, port FROM instances") == [("elephant", 5432)]
    assert whalefall("fleet", "check").status == 0
    assert whalefall("collect").status == 0
    assert rows(whalefall.store, "SELECT count(*) FROM database_size_stats WHERE database_name = 'postgres'") == [(1,)]


def elephant(target: Target) -> dict[str, Any]:
    found = entry("pg", target, engine="elephant")
    del found["port"]
    return found


def test_sql_server_is_checked_and_tried_through_a_stand_in_for_its_driver(
    whalefall: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SHIPPED / "sqlserver.yaml"
    server = Server("pymssql", read_engine_file(file), SQLSERVER | {"grants: files of every database": value(0)})
    monkeypatch.setitem(sys.modules, "pymssql", server.driver)
    register(whalefall.store, refusing("ms") | {"engine": "sqlserver"})
    assert engines(whalefall)["sqlserver"]["problem"] is None
    checked = whalefall("fleet", "check")
    assert checked.status == 1
    assert "  ms: GRANT VIEW ANY DEFINITION TO [nobody]" in checked.out.splitlines()
    tried = whalefall("engine", "try", file, "--instance", "ms", "--json")
    assert tried.status == 1
    sizes = {database["name"]: database["size_bytes"] for database in tried.json["measurement"]["databases"]}
    assert sizes == {"shop": 12_058_624, "old": None, "coming": None, "second": None, "unseen": None}


def test_an_engine_that_nobody_knows_any_more_costs_its_servers_alone(
    whalefall: CommandLine, postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_elephants(whalefall, monkeypatch)
    register(whalefall.store, elephant(postgresql.target()), entry("own", postgresql.target()))
    monkeypatch.delenv("WHALEFALL_ENGINES")
    done = whalefall("fleet", "check")
    assert done.status == 1
    assert "pg: engine elephant is not known here: it must be one of postgresql, mysql, mariadb" in done.out
    assert [row[0] for row in cells(done.out) if row[3] == "ok"] == ["own", "own", "own"]


def test_a_fleet_file_with_an_engine_that_nobody_knows_names_the_line_and_those_that_are(
    whalefall: CommandLine, postgresql: PostgresqlServer
) -> None:
    content = yaml.safe_dump({"instances": [elephant(postgresql.target())]})
    done = whalefall("fleet", "apply", whalefall.write("fleet.yaml", content))
    assert done.status == 1
    assert "instances.0.engine: must be one of postgresql, mysql, mariadb" in done.err
    assert "WHALEFALL_ENGINES adds others" in done.err


def test_a_setting_that_leads_nowhere_is_refused(whalefall: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHALEFALL_ENGINES", "engines,/nowhere")
    whalefall.folder.joinpath("engines").mkdir()
    done = whalefall("engine", "list")
    assert (done.status, done.err) == (
        1,
        "error: WHALEFALL_ENGINES: '/nowhere': must be files that are there, named after their engines "
        "(firebird.yaml), or folders of them\n",
    )


def test_the_worked_example_of_the_documentation_works(
    whalefall: CommandLine, postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    documentation = page("docs/engines.md")
    content = documentation.blocks("yaml")[0].content
    path = content.splitlines()[0].removeprefix("# ")
    whalefall.folder.joinpath(path).parent.mkdir()
    whalefall.write(path, content)
    fleet = {"instances": [entry("nest", postgresql.target(), engine="stork")]}
    whalefall.write("fleet.yaml", yaml.safe_dump(fleet))
    monkeypatch.setenv("FLEET_PASSWORD", "")
    for line in documentation.blocks("sh")[0].content.splitlines():
        program, *arguments = shlex.split(line)
        if program == "export":
            monkeypatch.setenv(*arguments[0].split("="))
            continue
        done = whalefall(*arguments)
        assert (done.status, done.err) == (0, ""), line
    assert rows(whalefall.store, "SELECT db_type FROM instances") == [("stork",)]
    assert rows(whalefall.store, "SELECT count(*) FROM database_size_stats WHERE database_name = 'postgres'") == [(1,)]


def test_the_engine_files_of_the_tests_are_good(whalefall: CommandLine) -> None:
    for content in FILES.values():
        name = yaml.safe_load(content)["name"]
        assert whalefall("engine", "check", whalefall.write(f"{name}.yaml", content)).status == 0
