"""`whalefall-capacity user`: who logs in to the console."""

from __future__ import annotations

from typing import Annotated

import typer

from whalefall_capacity.commands.output import JsonOption, local_time, out, print_rows, read_password
from whalefall_capacity.errors import AccessError
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.access import Role, list_users, remove_user, set_user

app = typer.Typer(help="Who logs in to the console.", no_args_is_help=True)


@app.command("set")
def set_command(
    name: Annotated[str, typer.Argument(help="Who logs in.")],
    role: Annotated[
        Role, typer.Option(help="view reads; operator also collects, aggregates and cancels; admin does everything.")
    ],
) -> None:
    """Make a user, or give one another password; it is asked for, or read from standard input.

    Ends the sessions of the old password.

    Example: whalefall-capacity user set admin --role admin < password.txt
    """
    password = read_password(f"user {name} was left as it is", AccessError, confirm=True)
    with open_store(load_settings()) as engine:
        set_user(engine, name, role, password)
    out.print(f"stored user {name} ({role.value})", markup=False)


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """Show every user by name.

    Example: whalefall-capacity user list --json
    """
    settings = load_settings()
    with open_store(settings) as engine:
        users = list_users(engine)
    print_rows(
        users,
        as_json,
        "users",
        {
            "name": lambda user: user.name,
            "role": lambda user: user.role.value,
            "created": lambda user: local_time(user.created_at, settings.zone),
            "changed": lambda user: local_time(user.updated_at, settings.zone),
        },
    )


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Who no longer logs in.")]) -> None:
    """Remove a user and end the sessions.

    Example: whalefall-capacity user remove intern
    """
    with open_store(load_settings()) as engine:
        remove_user(engine, name)
    out.print(f"removed user {name}", markup=False)
