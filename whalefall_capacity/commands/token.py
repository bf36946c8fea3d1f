"""`whalefall-capacity token`: bearer tokens for scripts that use the console's API."""

from __future__ import annotations

from typing import Annotated

import typer

from whalefall_capacity.commands.output import JsonOption, out, print_json, print_table
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.access import Role, create_token, list_tokens, revoke_token

app = typer.Typer(help="Bearer tokens for scripts that use the console's API.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the token is for; used once.")],
    role: Annotated[
        Role, typer.Option(help="view reads; operator also collects, aggregates and cancels; admin does everything.")
    ],
) -> None:
    """Make a token and print it alone: it is kept nowhere, and cannot be shown again.

    Example: umask 077; whalefall-capacity token create grafana --role view > grafana.token
    """
    with open_store(load_settings()) as engine:
        token = create_token(engine, name, role)
    typer.echo(token.get_secret_value())


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """Show every token by name, revoked ones too.

    Example: whalefall-capacity token list --json
    """
    settings = load_settings()
    with open_store(settings) as engine:
        tokens = list_tokens(engine)
    if as_json:
        print_json(tokens)
        return
    rows = [
        (
            token.name,
            token.role.value,
            f"{token.created_at.astimezone(settings.zone):%Y-%m-%d %H:%M}",
            "-" if token.revoked_at is None else f"{token.revoked_at.astimezone(settings.zone):%Y-%m-%d %H:%M}",
        )
        for token in tokens
    ]
    print_table("tokens", ("name", "role", "created", "revoked"), rows)


@app.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Name of the token.")]) -> None:
    """End a token at once.

    Example: whalefall-capacity token revoke grafana
    """
    with open_store(load_settings()) as engine:
        revoke_token(engine, name)
    out.print(f"revoked token {name}", markup=False)
