"""Engines come from the program, from packages beside it and from the settings; the nearer to the user the stronger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from whalefall_capacity.engine_catalog import SHIPPED, default_port, engine_file, known_engines
from whalefall_capacity.errors import EngineFileError
from whalefall_capacity.settings import load_settings
from whalefall_capacity_tests.collection.engine_files import POSTGRESQL
from whalefall_capacity_tests.processes import run


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.yaml").write_text(POSTGRESQL.replace("elephant", name))
    return folder


def configure(monkeypatch: pytest.MonkeyPatch, *places: Path) -> None:
    monkeypatch.setenv("WHALEFALL_ENGINES", ", ".join(map(str, places)))
    load_settings.cache_clear()


def origins(variables: Mapping[str, str]) -> dict[str, str]:
    """Return where each engine comes from in a process of its own, which looks at what is installed."""
    listed = run(["engine", "list", "--json"], variables)
    assert listed.returncode == 0, listed.stderr
    return {engine["name"]: engine["origin"] for engine in json.loads(listed.stdout)}


def package(folder: Path, *names: str) -> Path:
    """Write a package that has engine files of these names, as it is installed."""
    write(folder / "acme_capacity", *names)
    (folder / "acme_capacity" / "__init__.py").write_text("raise AssertionError('nobody needs its code')")
    installed = folder / "acme_capacity-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-capacity\nVersion: 1.0\n")
    points = "".join(f"{name} = acme_capacity\n" for name in (*names, "mysql", "No-Word"))
    (installed / "entry_points.txt").write_text(f"[whalefall_capacity.engines]\n{points}absent = nowhere.at_all\n")
    return folder


def test_the_engines_without_a_setting_are_those_of_the_program() -> None:
    assert list(known_engines()) == ["postgresql", "mysql", "mariadb", "oracle", "sqlserver"]
    assert known_engines()["oracle"] == str(SHIPPED / "oracle.yaml")
    assert engine_file("mysql") is None
    assert (default_port("mysql"), default_port("oracle")) == (3306, 1521)


def test_a_folder_and_a_file_bring_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "engines", "crow", "rook")
    (folder / "README.md").write_text("ours")
    file = write(tmp_path / "more", "jay", "tit") / "jay.yaml"
    configure(monkeypatch, folder, file)
    assert list(known_engines())[3:] == ["crow", "jay", "oracle", "rook", "sqlserver"]
    assert engine_file("jay") == file
    assert default_port("rook") == 5432


def test_a_file_of_ones_own_stands_for_the_one_that_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, write(tmp_path / "first", "oracle"), write(tmp_path / "second", "oracle", "crow"))
    assert engine_file("oracle") == tmp_path / "first" / "oracle.yaml"
    assert engine_file("crow") == tmp_path / "second" / "crow.yaml"


def test_a_name_that_is_built_in_or_no_word_stands_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, write(tmp_path, "mysql", "unknown", "No-Word", "x" * 33))
    assert list(known_engines())[3:] == ["oracle", "sqlserver"]
    assert engine_file("mysql") is None


def test_an_engine_that_nobody_has_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(EngineFileError) as refusal:
        engine_file("dbase")
    assert str(refusal.value) == (
        "engine dbase is not known here: it must be one of postgresql, mysql, mariadb, oracle, sqlserver; "
        "WHALEFALL_ENGINES adds others"
    )


def test_a_package_brings_engines_and_none_of_its_code_is_run(tmp_path: Path) -> None:
    variables = {"PYTHONPATH": str(package(tmp_path, "crow", "oracle"))}
    found = origins(variables)
    assert (found["crow"], found["oracle"], found["mysql"]) == ("acme_capacity", "acme_capacity", "built in")
    assert "No-Word" not in found
    own = write(tmp_path / "own", "crow")
    assert origins(variables | {"WHALEFALL_ENGINES": str(own)})["crow"] == str(own / "crow.yaml")


def test_a_package_that_is_not_there_costs_its_engine_alone(tmp_path: Path) -> None:
    listed = run(["engine", "list", "--json"], {"PYTHONPATH": str(package(tmp_path, "crow"))})
    problems = {engine["name"]: engine["problem"] for engine in json.loads(listed.stdout)}
    assert problems["crow"] is None
    assert problems["absent"] == "engine absent: its entry point names nowhere.at_all, which is no package here"
