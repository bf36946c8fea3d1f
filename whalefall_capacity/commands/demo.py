"""`whalefall-capacity demo`: real servers, measured, with a made-up past."""

from __future__ import annotations

import secrets
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.byte_sizes import binary_size
from whalefall_capacity.commands.output import err, print_table, say
from whalefall_capacity.commands.ports import console_listener, require_free_ports, ui_listener
from whalefall_capacity.commands.up import VerboseOption, serve_in_foreground
from whalefall_capacity.demo.fleet import RESTLESS, demo_fleet, disk_sizes, give_limits, refuse_real_fleet
from whalefall_capacity.demo.mysql_family import MariadbServer, MysqlServer
from whalefall_capacity.demo.past import DAYS, write_past
from whalefall_capacity.errors import CollectionError, StoreError
from whalefall_capacity.fleet_file import read_fleet_file
from whalefall_capacity.history_file import read_history
from whalefall_capacity.periods import today
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.access import Role, set_user
from whalefall_capacity.store.fleet import apply_fleet, list_instances
from whalefall_capacity.store.insight.read import forecasts_of_day
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity.store.sizes.stats import database_sizes


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after printing the table.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Start a fleet of real servers on this machine, measure it, serve the Dagster UI and the console until Ctrl-C.

    Example: whalefall-capacity demo --once
    """
    for server in (MariadbServer, MysqlServer):
        if server.program() is None:
            say(f"{server.product} is not installed: the demo continues without it", err)
    settings = load_settings()
    if not once:
        require_free_ports(ui_listener(settings), console_listener(settings))
    with open_store(settings) as engine:
        refuse_real_fleet(engine)
        folder = settings.home / "demo"
        day = today(settings.zone)
        limits = {i.name: i.capacity_limit_bytes for i in list_instances(engine) if i.capacity_limit_bytes is not None}
        with demo_fleet(folder, limits) as fleet_file:
            apply_fleet(engine, read_fleet_file(fleet_file))
            _measure(day)
            used = {each.instance: each.used_bytes for each in forecasts_of_day(engine, day)}
            give_limits(fleet_file, disk_sizes(used) | limits)
            apply_fleet(engine, read_fleet_file(fleet_file))
            _import_past(engine, folder / "made-up-past.csv", settings.start_date, day)
            _forecast(day)
            _print_sizes(engine, day)
            if not once:
                serve_in_foreground(engine, settings, verbose, login=f"  (admin, {_console_password(engine)})")


def _console_password(engine: Engine) -> str:
    """Set a new password for the console's user admin and return it: the demo has nothing to protect."""
    password = secrets.token_urlsafe(9)
    set_user(engine, "admin", Role.ADMIN, SecretStr(password))
    return password


def _measure(day: date) -> None:
    from whalefall_capacity.commands.local_runs import run_collection

    run = run_collection(day)
    run.raise_error(CollectionError)
    if run.not_measured:
        raise CollectionError("\n".join(run.not_measured.values()))


def _forecast(day: date) -> None:
    from whalefall_capacity.commands.local_runs import run_forecast

    run_forecast(day).raise_error(StoreError)


def _import_past(engine: Engine, path: Path, start: date, day: date) -> None:
    from whalefall_capacity.assets.imported import report_imported_days

    if not path.exists():
        write_past(path, database_sizes(engine, day), day, RESTLESS)
    result = import_history(engine, read_history(path, start, day), str(path))
    report_imported_days(engine, result.changed_days)
    say(f"{result.written} of {result.rows} sizes of {DAYS} made-up days imported from {path}")


def _print_sizes(engine: Engine, day: date) -> None:
    sizes = database_sizes(engine, day)
    rows = [
        (size.instance, size.database, size.source, binary_size(size.size_bytes), str(size.size_bytes))
        for size in sizes
    ]
    total = sum(size.size_bytes for size in sizes)
    rows.append(("total", f"{len(sizes)} databases", "", binary_size(total), str(total)))
    print_table(f"sizes of {day}", ("instance", "database", "source", "size", "bytes"), rows, right=("size", "bytes"))
