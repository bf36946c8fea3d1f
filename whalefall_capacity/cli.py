"""The command line: `whalefall-capacity`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
from whalefall_capacity.commands.output import err
from whalefall_capacity.errors import WhalefallError
from whalefall_capacity.printable import printable_lines
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
    _warn_of_open_settings(Path(ENV_FILE))
    try:
        with ended_by_signals():
            app()
    except (WhalefallError, SQLAlchemyError) as error:
        place = "" if isinstance(error, WhalefallError) else "the store cannot be used: "
        err.print(printable_lines(f"error: {place}{error}"), markup=False, soft_wrap=True)
        sys.exit(1)


def _warn_of_open_settings(path: Path) -> None:
    if path.is_file() and is_open_to_others(path):
        err.print(
            f"warning: {path} may hold secrets and is open to other accounts; close it: chmod 600 {path}",
            markup=False,
            soft_wrap=True,
        )
