"""How commands speak: tables for people, JSON for programs, sizes in binary units."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from whalefall_capacity.byte_sizes import in_binary_units
from whalefall_capacity.printable import printable_json, printable_lines

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Into a pipe or a file a table is as wide as what it holds: a name that is broken into pieces cannot be found by grep.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
err = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def binary_size(size_bytes: int | None) -> str:
    """Return a size in binary units, such as 1.50 GiB; a dash when it is not known."""
    if size_bytes is None:
        return "-"
    value, unit = in_binary_units(size_bytes)
    return f"{size_bytes} B" if unit == "B" else f"{value:.2f} {unit}"


def print_json(rows: Sequence[DataclassInstance] | DataclassInstance) -> None:
    """Print dataclasses as JSON: one object, or a list of them."""
    content = [asdict(row) for row in rows] if isinstance(rows, Sequence) else asdict(rows)
    typer.echo(printable_json(json.dumps(content, default=_plain, ensure_ascii=False, indent=2)))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table; *right* names the columns that are aligned to the right."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        # As text: a name such as [red] is a name, not markup.
        table.add_row(*(_literal(cell) for cell in row))
    out.print(table)


def _literal(cell: str) -> Any:
    from rich.text import Text

    return Text(printable_lines(cell))


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return str(value)
