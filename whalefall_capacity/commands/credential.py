"""`whalefall-capacity credential`: passwords kept in the store, encrypted."""

from __future__ import annotations

from typing import Annotated

import typer
from cryptography.fernet import Fernet

from whalefall_capacity.commands.output import read_password, say
from whalefall_capacity.errors import CredentialError
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.fleet_credentials import rotate_credentials, set_credential

app = typer.Typer(help="Passwords kept in the store, encrypted with WHALEFALL_SECRET_KEY.", no_args_is_help=True)


@app.command("new-key")
def new_key() -> None:
    """Print a new key for WHALEFALL_SECRET_KEY.

    Example: umask 077; echo "WHALEFALL_SECRET_KEY=$(whalefall-capacity credential new-key)" >> .env
    """
    typer.echo(Fernet.generate_key().decode())


@app.command("rotate-key")
def rotate_key() -> None:
    """Encrypt every stored password with the first key of WHALEFALL_SECRET_KEY, in one transaction.

    First set WHALEFALL_SECRET_KEY to NEW,OLD and restart, so that both keys are valid. Afterwards remove the old one.

    Example: whalefall-capacity credential rotate-key
    """
    settings = load_settings()
    if settings.secret_key is None:
        raise CredentialError("WHALEFALL_SECRET_KEY is not set: set it to the new key and the old one, NEW,OLD")
    with open_store(settings) as engine:
        rotated = rotate_credentials(engine, settings.secret_key)
    what = "1 stored credential is" if rotated == 1 else f"{rotated} stored credentials are"
    say(f"{what} encrypted with the first key of WHALEFALL_SECRET_KEY")


@app.command("set")
def set_command(
    name: Annotated[str, typer.Argument(help="Name that `stored:` in the fleet file refers to.")],
    username: Annotated[str, typer.Option(help="User to connect as.")],
    description: Annotated[str | None, typer.Option(help="A note for people.")] = None,
) -> None:
    """Store or replace a password; prompts for it, or reads it from standard input when that is not a terminal.

    Example: whalefall-capacity credential set monitoring --username whalefall < password.txt
    """
    password = read_password(f"credential {name} was left as it is", CredentialError)
    settings = load_settings()
    with open_store(settings) as engine:
        set_credential(engine, name, username, password, settings.secret_key, description)
    say(f"stored credential {name}")
