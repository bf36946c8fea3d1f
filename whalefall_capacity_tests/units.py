"""The systemd units and environment files of the documentation, as data."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from whalefall_capacity_tests.pages import page

WITH_UNITS = (page("docs/operations.md"), page("docs/scaling.md"))
BIN = Path(sys.executable).parent
CHECKOUT = "/opt/whalefall-capacity"
STATE = "/var/lib/whalefall"


@dataclass(frozen=True)
class Unit:
    """A systemd unit of the page, with what it runs in the place where the tests are."""

    name: str
    before: list[list[str]]
    command: list[str]
    after: list[list[str]]
    settings: Mapping[str, list[str]]

    @property
    def variables(self) -> dict[str, str]:
        """The environment that systemd gives it: that of its files, and of no others."""
        files = [Path(name).name for name in self.settings["EnvironmentFile"]]
        return {key: value for name in files for key, value in environment_files()[name].items()}


def units(replacements: Mapping[str, str]) -> dict[str, Unit]:
    """Return the units of the pages by name, with *replacements* of paths and ports."""
    found = {}
    for block in (block for written in WITH_UNITS for block in written.blocks("ini")):
        if (named := re.match(r"# ([\w-]+)\.service\n", block.content)) is None:
            continue
        settings: dict[str, list[str]] = {}
        # A setting may stand there more than once, which configparser has no place for.
        for key, value in re.findall(r"^(\w+)=(.*)$", block.content, re.MULTILINE):
            settings.setdefault(key, []).append(value)
        before, command, after = (
            [shlex.split(replaced(line, replacements)) for line in settings.get(key, [])]
            for key in ("ExecStartPre", "ExecStart", "ExecStartPost")
        )
        found[named[1]] = Unit(named[1], before, command[0], after, settings)
    return found


def environment_files() -> dict[str, dict[str, str]]:
    """Return what the pages have in each file below /etc/whalefall, by the file's name."""
    found = {}
    for written in WITH_UNITS:
        for name, content in re.findall(r"`/etc/whalefall/(\w+\.env)`[^`]*```ini\n(.*?)```", written.text, re.DOTALL):
            found[name] = dict(line.split("=", 1) for line in content.splitlines())
    return found


def replaced(content: str, replacements: Mapping[str, str]) -> str:
    for old, new in replacements.items():
        content = content.replace(old, new)
    return content
