"""An engine file is checked whole: every problem is named with the file, its line and its field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from pydantic import SecretStr

from whalefall_capacity.collection.sizes import ServerEngine, Target, Tls
from whalefall_capacity.collection.sql.engine_file import EngineFile, read_engine_file
from whalefall_capacity.errors import EngineFileError
from whalefall_capacity_tests.collection.support import target

FILE = """\
name: birds
title: Birds
dialect: firebird
driver: firebird
install: firebird-driver
default_port: 3050
connection:
  database: employee
  arguments:
    database: "{host}/{port}:{database}"
    user: "{username}"
    password: "{password}"
    options: {wait: "{connect_timeout_seconds}", ca: "{ca_file}"}
    auth: Srp256
  attributes: {call_timeout: "{statement_timeout_milliseconds}"}
  tls:
    disable: {auth: Plain}
    verify-full: {auth: Tls, key: "{key_file}", wait: null}
session: ["SET TIMEOUT {statement_timeout_milliseconds}; -- of {statement_timeout_seconds} s"]
queries:
  version: SELECT '{text}' FROM version
  databases: SELECT name, size_bytes FROM sizes
grants:
  - {name: sizes, probe: SELECT 1, grant: "GRANT MONITOR TO {username}"}
"""
TARGET = target(ServerEngine.POSTGRESQL, 3051)


def read(folder: Path, content: str = FILE, name: str = "birds.yaml") -> EngineFile:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return read_engine_file(path)


def problems(folder: Path, content: str, name: str = "birds.yaml") -> list[str]:
    with pytest.raises(EngineFileError) as refusal:
        read(folder, content, name)
    return [line.removeprefix(f"{folder / name}: ") for line in str(refusal.value).splitlines()]


def arguments_of(folder: Path, to: Target) -> dict[str, object]:
    return read(folder).connect_arguments(to, 2.5, 7.001)


def test_placeholders_stand_for_the_server_and_the_limits(tmp_path: Path) -> None:
    assert arguments_of(tmp_path, TARGET) == {
        "database": "127.0.0.1/3051:employee",
        "user": "whalefall",
        "password": "correct horse",
        "options": {"wait": 3},
        "auth": "Plain",
    }
    assert read(tmp_path).attributes(TARGET, 2.5, 7.001) == {"call_timeout": 7001}
    assert read(tmp_path).session_statements(7.001) == ["SET TIMEOUT 7001; -- of 8 s"]


def test_a_database_of_the_fleet_file_wins(tmp_path: Path) -> None:
    found = arguments_of(tmp_path, replace(TARGET, database="shop"))
    assert found["database"] == "127.0.0.1/3051:shop"


def test_what_has_no_value_is_left_out(tmp_path: Path) -> None:
    found = arguments_of(tmp_path, replace(TARGET, tls=Tls("verify-full", "/ca.pem", "/cert.pem")))
    assert found["options"] == {"wait": 3, "ca": "/ca.pem"}
    assert found["auth"] == "Tls"
    assert "key" not in found


def test_a_password_may_look_like_a_placeholder(tmp_path: Path) -> None:
    assert arguments_of(tmp_path, replace(TARGET, password=SecretStr("{host}")))["password"] == "{host}"


@pytest.mark.parametrize("mode", ["require", "verify-ca"])
def test_a_tls_mode_that_the_file_does_not_have_is_refused(
    mode: Literal["require", "verify-ca"], tmp_path: Path
) -> None:
    with pytest.raises(EngineFileError, match=f"tls.mode is {mode}, and engine birds has no such mode; it has disable"):
        arguments_of(tmp_path, replace(TARGET, tls=Tls(mode)))


def test_prefer_is_up_to_the_driver_where_the_file_says_nothing(tmp_path: Path) -> None:
    assert arguments_of(tmp_path, replace(TARGET, tls=Tls()))["auth"] == "Srp256"


@pytest.mark.parametrize(
    ("line", "other", "problem"),
    [
        ("name: birds", "name: Birds", "line 1: name: String should match pattern '^[a-z][a-z0-9_]{0,31}$'"),
        ("name: birds", "name: mysql", "line 1: name: 'mysql' is built in; choose another name"),
        ("name: birds", "name: unknown", "line 1: name: 'unknown' is built in; choose another name"),
        ("name: birds", "name: bees", "name: is bees: the file must be named bees.yaml"),
        ("title: Birds", "title: ''", "line 2: title: String should have at least 1 character"),
        ("title: Birds", "titel: Birds", "line 1: title: Field required"),
        ("dialect: firebird", "dialect: fire bird", "line 3: dialect: String should match pattern '^[a-z][a-z0-9_]*$'"),
        ("default_port: 3050", "default_port: 0", "line 6: default_port: Input should be greater than or equal to 1"),
        ("default_port: 3050", "default_port: yes", "line 6: default_port: must be a number"),
        (
            'user: "{username}"',
            'user: "{user}"',
            "line 9: connection.arguments: knows no placeholder {user}; there are ca_file, cert_file, "
            "connect_timeout_seconds, database, host, key_file, password, port, statement_timeout_milliseconds, "
            "statement_timeout_seconds, username",
        ),
        (
            'password: "{password}"',
            'password: "PWD={password}"',
            "line 9: connection.arguments: must not have anything else beside {password}, which may contain any "
            "character",
        ),
        ("disable: {auth: Plain}", "none: {}", "line 17: connection.tls.none.[key]: Input should be 'disable', "),
        (
            "SET TIMEOUT {statement_timeout_milliseconds}",
            "SET TIMEOUT {timeout}",
            "line 19: session.0: knows no placeholder {timeout}; there are statement_timeout_milliseconds, "
            "statement_timeout_seconds",
        ),
        ("  databases: ", "  sizes: ", "line 20: queries.databases: Field required"),
        ("  databases: SELECT", "  databases: ' ' #", "line 22: queries.databases: String should have at least 1 char"),
        ("TO {username}", "TO {password}", "line 24: grants.0.grant: knows no placeholder {password}; there are user"),
        ("grants:", "exclude_regex: '*'\ngrants:", "line 23: exclude_regex: must be a regular expression (nothing to"),
        ("grants:", "querys: {}\ngrants:", "line 23: querys: Extra inputs are not permitted"),
        ("grants:", "title: Bees\ngrants:", "line 23: title: appears twice in one mapping"),
        ("title: Birds", "title: [", "line 4: not YAML: while parsing a flow sequence"),
    ],
)
def test_a_bad_field_is_named_with_its_line(line: str, other: str, problem: str, tmp_path: Path) -> None:
    assert FILE.count(line) == 1
    assert problems(tmp_path, FILE.replace(line, other))[0].startswith(problem)


def test_every_problem_has_a_line(tmp_path: Path) -> None:
    content = FILE.replace("default_port: 3050", "default_port: 0").replace("title: Birds", "title: ''")
    assert len(problems(tmp_path, content)) == 2


def test_an_empty_file_lacks_everything(tmp_path: Path) -> None:
    assert "line 1: name: Field required" in problems(tmp_path, "")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match=r"birds\.yaml: cannot be read: .*No such file"):
        read_engine_file(tmp_path / "birds.yaml")
