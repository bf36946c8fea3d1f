"""The command line: `whalefall-capacity`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg2
import typer
from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.commands import (
    access,
    aggregate,
    alert,
    collect,
    credential,
    demo,
    engine,
    fleet,
    forecast,
    history,
    migrate,
    partitions,
    runs,
    serve,
    store,
    up,
)
from whalefall_capacity.commands.output import err, escape_what_cannot_be_encoded, say
from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.printable import is_text
from whalefall_capacity.private_files import OPEN_TO_OTHERS, is_open_to_others
from whalefall_capacity.settings import ENV_FILE
from whalefall_capacity.signals import ended_by_signals

# Tracebacks with local variables would print passwords.
app = typer.Typer(
    help="Sizes of every database of a fleet, every day.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(up.up)
app.add_typer(fleet.app, name="fleet")
app.add_typer(engine.app, name="engine")
app.command()(collect.collect)
app.command()(aggregate.aggregate)
app.command()(forecast.forecast)
app.add_typer(runs.app, name="runs")
app.add_typer(history.app, name="history")
app.add_typer(migrate.app, name="migrate-from")
app.add_typer(alert.app, name="alert")
app.add_typer(credential.app, name="credential")
app.command()(serve.serve)
app.command()(serve.ui)
app.add_typer(access.users, name="user")
app.add_typer(access.tokens, name="token")
app.add_typer(store.app, name="store")
app.add_typer(partitions.app, name="partitions")
app.command()(demo.demo)


def main() -> None:
    """Run the command line; exit 0 done or nothing to do, 1 failed, 2 wrong usage, 128 + n ended by signal n."""
    # Databases, logs of runs, sockets: whatever is made by us, or by what we start, is for nobody else.
    os.umask(OPEN_TO_OTHERS)
    escape_what_cannot_be_encoded()
    _warn_of_open_settings(Path(ENV_FILE))
    _refuse_what_is_no_text(sys.argv[1:])
    try:
        with ended_by_signals():
            app()
    except (WhalefallError, SQLAlchemyError, psycopg2.Error) as error:
        place = "" if isinstance(error, WhalefallError) else "the store cannot be used: "
        say(f"error: {place}{error}", err)
        sys.exit(1)


def _warn_of_open_settings(path: Path) -> None:
    # A folder that may not be searched is an error of the settings, which name it.
    with suppress(PermissionError):
        if path.is_file() and is_open_to_others(path):
            say(f"warning: {path} may hold secrets and is open to other accounts; close it: chmod 600 {path}", err)


def _refuse_what_is_no_text(arguments: Sequence[str]) -> None:
    """End with 2 if an argument is not UTF-8, which no name in the store can be; the name of a file may be."""
    for argument in arguments:
        if not is_text(argument) and not os.path.lexists(argument):
            say(f"error: {argument}: is not UTF-8", err)
            sys.exit(2)
