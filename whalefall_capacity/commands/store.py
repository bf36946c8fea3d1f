"""`whalefall-capacity store`: the PostgreSQL database that holds the sizes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import typer

from whalefall_capacity.commands.output import say
from whalefall_capacity.libpq import forget_environment
from whalefall_capacity.runtime import migrate_store, open_runtime, store_url
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.embedded import bundled_psql
from whalefall_capacity.store.postgres.engine import create_store_engine, libpq_environment

app = typer.Typer(help="The PostgreSQL database that holds the sizes.", no_args_is_help=True)


@app.command("migrate")
def migrate_command() -> None:
    """Migrate the store's schema to this version of the program.

    Example: whalefall-capacity store migrate
    """
    settings = load_settings()
    with open_runtime(settings):
        before, after = migrate_store(create_store_engine(store_url(settings)), settings)
    say(f"store is at revision {after}" + ("" if before == after else f" (was {before or 'empty'})"))


@app.command()
def url() -> None:
    """Print the URL of the store, including its password if it has one.

    The embedded server is reachable there while `up` runs.

    Example: pg_dump "$(whalefall-capacity store url)" > store.sql
    """
    settings = load_settings()
    with open_runtime(settings):
        typer.echo(store_url(settings).get_secret_value().replace("+psycopg2", "", 1))


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(context: typer.Context) -> None:
    """Open psql on the store; all arguments are passed to psql.

    Example: whalefall-capacity store psql -c "SELECT count(*) FROM instances"
    """
    settings = load_settings()
    program = (shutil.which("psql") if settings.store_url else None) or str(bundled_psql())
    with open_runtime(settings):
        # What the environment says of another server is not for this one.
        forget_environment()
        # Through the environment: every user of the machine can read the arguments of a process.
        environment = os.environ | libpq_environment(store_url(settings))
        # Ctrl-C is for psql, which cancels the statement and goes on. psql would inherit SIG_IGN, but not a handler.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            status = subprocess.run([program, *context.args], env=environment, check=False).returncode
        finally:
            signal.signal(signal.SIGINT, before)
    raise typer.Exit(status)
