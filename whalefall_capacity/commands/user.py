"""`whalefall-capacity user`: who logs in to the console."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import SecretStr

from whalefall_capacity.commands.output import JsonOption, out, print_json, print_table
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
    stdin = typer.get_text_stream("stdin")
    password = (
        typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        if stdin.isatty()
        else stdin.readline().rstrip("\r\n")
    )
    if not password:
        raise AccessError(f"no password came on standard input; user {name} was left as it is")
    with open_store(load_settings()) as engine:
        set_user(engine, name, role, SecretStr(password))
    out.print(f"stored user {name} ({role.value})", markup=False)


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """Show every user by name.

    Example: whalefall-capacity user list --json
    """
    settings = load_settings()
    with open_store(settings) as engine:
        users = list_users(engine)
    if as_json:
        print_json(users)
        return
    rows = [
        (
            user.name,
            user.role.value,
            f"{user.created_at.astimezone(settings.zone):%Y-%m-%d %H:%M}",
            f"{user.updated_at.astimezone(settings.zone):%Y-%m-%d %H:%M}",
        )
        for user in users
    ]
    print_table("users", ("name", "role", "created", "changed"), rows)


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Who no longer logs in.")]) -> None:
    """Remove a user and end the sessions.

    Example: whalefall-capacity user remove intern
    """
    with open_store(load_settings()) as engine:
        remove_user(engine, name)
    out.print(f"removed user {name}", markup=False)
