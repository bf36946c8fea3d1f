"""`whalefall-capacity user` and `token`: access to the console, for people and for scripts."""

from __future__ import annotations

from typing import Annotated

import typer

from whalefall_capacity.commands.output import JsonOption, local_time, print_rows, read_password, say
from whalefall_capacity.errors import AccessError
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.access import (
    Role,
    create_token,
    list_tokens,
    list_users,
    remove_user,
    revoke_token,
    set_user,
)

users = typer.Typer(help="Users who can log in to the console.", no_args_is_help=True)
tokens = typer.Typer(help="Bearer tokens for scripts that use the console's API.", no_args_is_help=True)
RoleOption = Annotated[
    Role, typer.Option(help="view reads; operator also collects, aggregates and cancels; admin does everything.")
]


@users.command("set")
def set_command(
    name: Annotated[str, typer.Argument(help="Name to log in with.")],
    role: RoleOption,
) -> None:
    """Create a user, or change the password and role of one; prompts for the password, or reads it from standard input.

    Ends the user's sessions.

    Example: whalefall-capacity user set admin --role admin < password.txt
    """
    password = read_password(f"user {name} was left as it is", AccessError, confirm=True)
    with open_store(load_settings()) as engine:
        set_user(engine, name, role, password)
    say(f"stored user {name} ({role.value})")


@users.command("list")
def list_users_command(as_json: JsonOption = False) -> None:
    """List the users by name.

    Example: whalefall-capacity user list --json
    """
    settings = load_settings()
    with open_store(settings) as engine:
        found = list_users(engine)
    print_rows(
        found,
        as_json,
        "users",
        {
            "name": lambda user: user.name,
            "role": lambda user: user.role.value,
            "created": lambda user: local_time(user.created_at, settings.zone),
            "changed": lambda user: local_time(user.updated_at, settings.zone),
        },
    )


@users.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Name of the user.")]) -> None:
    """Remove a user and end their sessions.

    Example: whalefall-capacity user remove intern
    """
    with open_store(load_settings()) as engine:
        remove_user(engine, name)
    say(f"removed user {name}")


@tokens.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Name that says what the token is for; a name can be used only once.")],
    role: RoleOption,
) -> None:
    """Create a token and print it, and nothing else: it is stored nowhere and cannot be shown again.

    Example: umask 077; whalefall-capacity token create grafana --role view > grafana.token
    """
    with open_store(load_settings()) as engine:
        token = create_token(engine, name, role)
    typer.echo(token.get_secret_value())


@tokens.command("list")
def list_tokens_command(as_json: JsonOption = False) -> None:
    """List the tokens by name, including revoked ones.

    Example: whalefall-capacity token list --json
    """
    settings = load_settings()
    with open_store(settings) as engine:
        found = list_tokens(engine)
    print_rows(
        found,
        as_json,
        "tokens",
        {
            "name": lambda token: token.name,
            "role": lambda token: token.role.value,
            "created": lambda token: local_time(token.created_at, settings.zone),
            "revoked": lambda token: local_time(token.revoked_at, settings.zone),
        },
    )


@tokens.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Name of the token.")]) -> None:
    """Revoke a token at once.

    Example: whalefall-capacity token revoke grafana
    """
    with open_store(load_settings()) as engine:
        revoke_token(engine, name)
    say(f"revoked token {name}")
