"""`whalefall-capacity migrate-from`: moves the history of another system in, after printing a plan."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from typing import Annotated

import typer
from pydantic import SecretStr

from whalefall_capacity.byte_sizes import binary_size
from whalefall_capacity.commands.dagster_report import report_days
from whalefall_capacity.commands.output import JsonOption, print_result, print_table, say
from whalefall_capacity.credentials import fernet_of
from whalefall_capacity.errors import MigrationError
from whalefall_capacity.periods import today
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.moving_in.mapping import OldKey
from whalefall_capacity.store.moving_in.move import Choices, move_in
from whalefall_capacity.store.moving_in.report import DifferingDays, InstanceSummary, Outcome, Report, TableSummary

app = typer.Typer(help="Move in from another system.", no_args_is_help=True)
COUNTS = ("rows", "created", "changed", "kept", "skipped")


@app.callback()
def migrate_from() -> None:
    """Move in from another system."""


@app.command()
def whalefall(
    url: Annotated[
        str,
        typer.Argument(help="WhaleFall's database, postgresql://user@host:5432/database; PGPASSWORD has the password."),
    ],
    apply: Annotated[bool, typer.Option("--apply", help="Carry out the plan.")] = False,
    key_env: Annotated[
        str | None,
        typer.Option("--key-env", metavar="NAME", help="Environment variable with its PASSWORD_ENCRYPTION_KEY."),
    ] = None,
    task_runs: Annotated[bool, typer.Option("--task-runs", help="Also move task runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what can be moved from WhaleFall, and what cannot and why; with --apply, move it.

    WhaleFall's database is only read. Sizes measured here are never overwritten. A migration that was killed
    continues when it is started again.

    Example: whalefall-capacity migrate-from whalefall postgresql://whalefall@db.example/whalefall
    """
    settings = load_settings()
    choices = Choices(apply, task_runs, _old_key(key_env))
    with open_store(settings) as engine:
        report = move_in(engine, SecretStr(url), choices, settings, today(settings.zone))
        if apply:
            report_days(engine)
    print_result(report, as_json, _print)


def _old_key(variable: str | None) -> OldKey | None:
    if variable is None:
        return None
    key = SecretStr(os.environ.get(variable, ""))
    try:
        fernet_of(key)
    except ValueError:
        raise MigrationError(
            f"environment variable {variable} does not hold a Fernet key: set it to WhaleFall's PASSWORD_ENCRYPTION_KEY"
        ) from None
    return OldKey(variable, key)


def _print(report: Report) -> None:
    title = "moved" if report.applied else "would be moved"
    rows = [(table.table, *_counts(table)) for table in report.tables]
    print_table(title, ("table", *COUNTS), rows, right=COUNTS)
    print_table(
        "instances",
        ("instance", "engine", "outcome", "state", "databases", "sizes", "totals", "reason"),
        [_instance_row(instance) for instance in report.instances],
    )
    reasons = [
        (line.table, line.instance or "-", line.outcome.value, f"{line.rows:,}", line.reason)
        for line in report.lines
        if line.reason and line.table != "instances"
    ]
    print_table("reasons", ("table", "instance", "outcome", "rows", "reason"), reasons, right=("rows",))
    if report.differing_totals:
        _print_differing(report.differing_totals)
    _print_list("settings that do here what WhaleFall does, to copy into .env:", report.settings)
    _print_list("not carried:", report.not_carried)
    _print_list("to know:", report.notes)
    if not report.applied:
        say("Nothing was written; --apply moves it.")


def _counts(table: TableSummary) -> tuple[str, ...]:
    return tuple(f"{getattr(table, name):,}" for name in COUNTS)


def _instance_row(instance: InstanceSummary) -> tuple[str, ...]:
    tables = {table.table: _short(table) for table in instance.tables}
    return (
        instance.instance,
        instance.db_type,
        instance.outcome.value,
        instance.state,
        *(tables.get(name, "-") for name in ("instance_databases", "database_size_stats", "instance_size_stats")),
        instance.reason,
    )


def _short(table: TableSummary) -> str:
    """Return the outcomes that any row has, such as `12 created, 1 skipped`."""
    return ", ".join(f"{getattr(table, o.value):,} {o.value}" for o in Outcome if getattr(table, o.value)) or "-"


def _print_differing(differing: Sequence[DifferingDays]) -> None:
    rows = [
        (days.instance, _span(days.first, days.last), f"{days.days:,}", binary_size(days.largest_difference_bytes))
        for days in differing
    ]
    print_table(
        "days on which WhaleFall's total is not the sum of its databases; the sum is taken",
        ("instance", "days", "number", "largest difference"),
        rows,
        right=("number", "largest difference"),
    )


def _span(first: date, last: date) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _print_list(title: str, entries: Sequence[str]) -> None:
    if entries:
        say(title)
    for entry in entries:
        say(f"  {entry}")
