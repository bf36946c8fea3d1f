"""`whalefall-capacity fleet`: the registry of the watched servers, and a check of what can be measured on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whalefall_capacity.byte_sizes import binary_size
from whalefall_capacity.collection.fleet import check_fleet
from whalefall_capacity.collection.sizes import Target, address
from whalefall_capacity.collection.visit import Checkup
from whalefall_capacity.commands.output import JsonOption, print_json, print_rows, print_table, say
from whalefall_capacity.fleet_file import read_fleet_file
from whalefall_capacity.runtime import collection_limits, name_filters, open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.fleet import apply_fleet, fleet_ids, list_instances, load_roster

app = typer.Typer(help="The servers that are watched.", no_args_is_help=True)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="The fleet file, YAML.", exists=True, dir_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the changes without making them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the registry match a fleet file; instances that the file does not name are disabled, never removed.

    Example: whalefall-capacity fleet apply fleet.yaml --dry-run
    """
    fleet = read_fleet_file(file)
    with open_store(load_settings()) as engine:
        changes = apply_fleet(engine, fleet, dry_run)
    print_rows(
        changes,
        as_json,
        "would change" if dry_run else "fleet",
        {
            "instance": lambda change: change.name,
            "action": lambda change: change.action,
            "fields": lambda change: ", ".join(change.fields),
        },
    )


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List the registered instances, including disabled ones.

    Example: whalefall-capacity fleet list --json
    """
    with open_store(load_settings()) as engine:
        instances = list_instances(engine)
    print_rows(
        instances,
        as_json,
        "fleet",
        {
            "id": lambda i: i.id,
            "instance": lambda i: i.name,
            "engine": lambda i: i.db_type,
            "address": lambda i: address(i.host, i.port) if i.host and i.port else None,
            "version": lambda i: i.version,
            "state": lambda i: "active" if i.is_active else "disabled",
            "databases": lambda i: i.databases,
            "last connected": lambda i: (
                i.last_connected_at.isoformat(timespec="seconds") if i.last_connected_at else "never"
            ),
            "disk": lambda i: binary_size(i.capacity_limit_bytes),
            "replica of": lambda i: i.replica_of,
        },
        right=("id", "databases", "disk"),
    )


@app.command()
def check(as_json: JsonOption = False) -> None:
    """Connect to every server and report what can be measured on it, and which GRANTs are missing.

    Exits with 1 if any server cannot be measured completely.

    Example: whalefall-capacity fleet check
    """
    settings = load_settings()
    with open_store(settings) as engine:
        roster = load_roster(engine, settings.secret_key, fleet_ids(engine))
    checkups = [
        *check_fleet(
            roster.targets, collection_limits(settings), name_filters(settings), settings.collection_concurrency
        ),
        *(Checkup(failed.name, None, (), failed.error) for failed in roster.unresolved),
    ]
    if as_json:
        print_json(checkups)
    else:
        print_checkups(checkups)
        print_grants(checkups, roster.targets)
    if not all(checkup.healthy for checkup in checkups):
        raise typer.Exit(1)


def print_checkups(checkups: list[Checkup]) -> None:
    """Print what can be measured on each server, a line each."""
    rows = []
    for checkup in checkups:
        who = (checkup.name, checkup.version)
        if checkup.error:
            rows.append((*who, "connect", "failed", checkup.error))
        for capability in checkup.capabilities:
            state = "ok" if capability.available else "missing" if capability.required else "not known"
            rows.append((*who, capability.name, state, capability.detail))
    print_table("what can be measured", ("instance", "version", "what", "state", "detail"), rows)


def print_grants(checkups: list[Checkup], targets: list[Target]) -> None:
    """Print each GRANT once, even if several measurements need it or several names lead to one server."""
    addresses = {target.name: target.address for target in targets}
    names: dict[tuple[str, str], list[str]] = {}
    for checkup in checkups:
        for grant in dict.fromkeys(capability.grant for capability in checkup.capabilities if capability.grant):
            names.setdefault((addresses[checkup.name], grant), []).append(checkup.name)
    if names:
        say("To fix this, run as an administrator of the server:")
    for (_, grant), having in names.items():
        say(f"  {', '.join(having)}: {grant}")
