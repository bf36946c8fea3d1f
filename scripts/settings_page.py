"""Prints docs/settings.md from the settings themselves."""

from __future__ import annotations

import sys

from pydantic.fields import FieldInfo

from whalefall_capacity.settings import PREFIX, Settings, allowed_range

INTRODUCTION = """# Settings

Every setting is an environment variable; a file `.env` in the working directory is read too, and the environment wins.
An empty value counts as unset. All are checked once, at start: a bad value ends the program with the variable's name,
the value (unless it is a secret) and what is allowed. This page is made by `make docs`.

| variable | default | allowed | meaning |
| --- | --- | --- | --- |
"""


def settings_page() -> str:
    """Return the page as Markdown."""
    return INTRODUCTION + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    description = (field.description or "").replace("|", r"\|")
    return f"| `{PREFIX}{name.upper()}` | {_default(name, field)} | {allowed_range(field)} | {description} |\n"


def _default(name: str, field: FieldInfo) -> str:
    if name == "home":
        return "`.whalefall` in the checkout, or in the current folder where a wheel is installed"
    default = field.get_default()
    return "unset" if default in (None, ()) else f"`{default}`"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
