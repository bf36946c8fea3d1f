"""Prints docs/settings.md from the settings themselves."""

from __future__ import annotations

import sys

from whalefall_capacity.settings import setting_rows

INTRODUCTION = """# Settings

Every setting is an environment variable; a file `.env` in the working directory is read too, and the environment wins.
An empty value counts as unset. All are checked once, at start: a bad value ends the program with the variable's name,
the value (unless it is a secret) and what is allowed. This page is made by `make docs`.

| variable | default | allowed | meaning |
| --- | --- | --- | --- |
"""


def settings_page() -> str:
    """Return the page as Markdown."""
    rows = (
        f"| `{row.variable}` | {row.default} | {row.allowed} | {row.description.replace('|', chr(92) + '|')} |\n"
        for row in setting_rows()
    )
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(settings_page())
