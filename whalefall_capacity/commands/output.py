"""Input and output of commands: tables for people, JSON for programs, passwords."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar
from zoneinfo import ZoneInfo

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.printable import is_text, printable_json, printable_lines

Row = TypeVar("Row")
Result = TypeVar("Result")


def _open_what_is_closed() -> None:
    """Let a standard stream that whoever started the program has closed lead nowhere.

    The first file or connection to be opened would otherwise take its place, and get what is printed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # noqa: SIM115 - as long as the process
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


_open_what_is_closed()
# In a pipe or a file a table is as wide as its content: grep would not find a name that is wrapped.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
err = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def say(text: str, console: Console = out) -> None:
    """Print lines for people: names in *text* are no markup and no commands to the terminal, whatever they contain."""
    console.print(printable_lines(text), markup=False, soft_wrap=True)


def print_json(content: object) -> None:
    """Print dataclasses, or lists and dictionaries of them, as JSON; all in ASCII where the output is not Unicode."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(printable_json(json.dumps(content, default=_plain, ensure_ascii=not is_unicode, indent=2)))


def escape_what_cannot_be_encoded() -> None:
    r"""Let a name be printed as its escape (`\u65e5`) where the encoding of the locale does not have it.

    Python does so for standard error alone.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_result(result: Result, as_json: bool, show: Callable[[Result], object]) -> None:
    """Print *result* as JSON, or let *show* print it for people."""
    if as_json:
        print_json(result)
    else:
        show(result)


def print_rows(
    rows: Sequence[Row],
    as_json: bool,
    title: str,
    columns: Mapping[str, Callable[[Row], object]],
    right: Sequence[str] = (),
) -> None:
    """Print dataclasses as JSON or as a table, with *columns* that map a title to the value of a row."""
    if as_json:
        print_json(rows)
    else:
        print_table(title, list(columns), [[show(row) for show in columns.values()] for row in rows], right)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()
) -> None:
    """Print a table, with a dash for None; *right* names the columns that are aligned to the right."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        # As plain text: a name such as [red] is not markup.
        table.add_row(*(_literal("-" if cell is None else str(cell)) for cell in row))
    out.print(table)


def local_time(moment: datetime | None, zone: ZoneInfo, timespec: str = "minutes") -> str | None:
    """Return *moment* as local time in *zone*, without its offset."""
    return None if moment is None else moment.astimezone(zone).replace(tzinfo=None).isoformat(" ", timespec)


def read_password(otherwise: str, error_type: type[WhalefallError], confirm: bool = False) -> SecretStr:
    """Prompt for a password, or read it from standard input when that is not a terminal.

    Raises an *error_type* that says *otherwise* if there is none, for the command that should have printed it failed,
    or if it is not UTF-8.
    """
    stdin = typer.get_text_stream("stdin")
    if stdin.isatty():
        password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=confirm))
    else:
        password = _first_line(stdin).rstrip("\r\n")
    if not is_text(password):
        raise error_type(f"the password on standard input is not UTF-8; {otherwise}")
    if not password:
        raise error_type(f"no password on standard input; {otherwise}")
    return SecretStr(password)


def _first_line(stream: TextIO) -> str:
    """Return the first line of *stream* without a byte order mark; what is not UTF-8 in it as `is_text` finds it."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape")
    return stream.readline().removeprefix("\ufeff")


def _literal(cell: str) -> Any:
    from rich.text import Text

    return Text(printable_lines(cell))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else str(value)
