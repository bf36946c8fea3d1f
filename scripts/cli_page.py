"""Prints docs/cli.md from the command line itself, by typer's own means."""

from __future__ import annotations

import subprocess
import sys

INTRODUCTION = """# Command line

Every command ends with 0 when it is done or had nothing to do, with 1 when something failed, with 2 when it was used
wrongly, and with 128 + n by signal n. What prints a table prints JSON with `--json`. This page is made by `make docs`.
"""
DOCS = ["-m", "typer", "whalefall_capacity.cli", "utils", "docs", "--name", "whalefall-capacity"]


def cli_page() -> str:
    """Return the page as Markdown."""
    printed = subprocess.run([sys.executable, *DOCS], capture_output=True, text=True, check=True).stdout
    _, _, commands = printed.replace("&#x27;", "'").replace("&quot;", '"').partition("## `whalefall-capacity ")
    return f"{INTRODUCTION}\n## `whalefall-capacity {commands}".rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(cli_page())
