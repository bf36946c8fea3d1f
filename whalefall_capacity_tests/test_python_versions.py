"""Versions of Python that the project runs on: several places say it, all the same; the lock has pins for each."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from whalefall_capacity.settings import PROJECT_ROOT
from whalefall_capacity_tests.pages import page

SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]
PLATFORMS = [("linux", "Linux"), ("darwin", "Darwin"), ("win32", "Windows"), ("emscripten", "Emscripten")]
PROJECT: dict[str, Any] = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
MAKEFILE = (PROJECT_ROOT / "Makefile").read_text()


def pins() -> list[Requirement]:
    lock = (PROJECT_ROOT / "requirements.lock").read_text()
    return [Requirement(line) for line in re.findall(r"^([a-z0-9][^\n]*?) \\$", lock, re.MULTILINE | re.IGNORECASE)]


def is_for(pin: Requirement, version: str, platform: tuple[str, str] = PLATFORMS[0]) -> bool:
    environment = {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "sys_platform": platform[0],
        "platform_system": platform[1],
    }
    return pin.marker is None or pin.marker.evaluate(environment)


def test_the_package_can_be_installed_on_the_supported_versions_and_on_no_other() -> None:
    requires = SpecifierSet(PROJECT["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if requires.contains(f"3.{minor}.5")] == SUPPORTED


def test_make_installs_on_the_same_versions_and_says_so() -> None:
    (bounds,) = re.findall(r"\((\d+), (\d+)\) <= sys.version_info < \((\d+), (\d+)\)", MAKEFILE)
    assert bounds == ("3", "11", "3", "15")
    assert "Python 3.11 to 3.14 is needed" in MAKEFILE


def test_lint_types_and_lock_are_for_the_oldest_of_them() -> None:
    assert PROJECT["tool"]["ruff"]["target-version"] == "py311"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.11"
    assert re.findall(r"--python-version (\S+)", MAKEFILE) == ["3.11"]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "docs/quick-start.md", "docs/operations.md"])
def test_the_pages_name_them(name: str) -> None:
    named = re.findall(r"Python (3\.\d+)(?: to | 至 )(3\.\d+)", page(name).text)
    assert named == [("3.11", "3.14")]


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_lock_pins_every_dependency_once_for_each_version(version: str) -> None:
    project = PROJECT["project"]
    wanted = [Requirement(line) for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    applying = [pin for pin in pins() if is_for(pin, version)]
    names = [canonicalize_name(pin.name) for pin in applying]
    assert [name for name in names if names.count(name) > 1] == []
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in applying}
    wrong = [
        str(need) for need in wanted if not need.specifier.contains(versions.get(canonicalize_name(need.name), ""))
    ]
    assert wrong == []


def test_the_lock_pins_nothing_for_other_versions_alone() -> None:
    useless = [
        str(pin)
        for pin in pins()
        if not any(is_for(pin, version, platform) for version in SUPPORTED for platform in PLATFORMS)
    ]
    assert useless == []
