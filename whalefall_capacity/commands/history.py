"""`whalefall-capacity history`: sizes of past days from other sources."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from whalefall_capacity.commands.dagster_report import report_days
from whalefall_capacity.commands.output import JsonOption, print_result, say
from whalefall_capacity.history_file import SizeUnit, read_history
from whalefall_capacity.periods import today
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.sizes.history_import import HistoryImport, import_history

app = typer.Typer(help="Sizes of past days from other sources.", no_args_is_help=True)


@app.command("import")
def import_command(
    file: Annotated[
        Path, typer.Argument(help="CSV (also .gz, .bz2, .xz), or Parquet (*.parquet).", exists=True, dir_okay=False)
    ],
    unit: Annotated[SizeUnit, typer.Option("--unit", help="Unit of the sizes in the file.")] = SizeUnit.BYTES,
    replace: Annotated[bool, typer.Option("--replace", help="Also overwrite measured rows.")] = False,
    create_instances: Annotated[
        bool, typer.Option("--create-instances", help="Register unknown instances as inactive.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything without writing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Import columns instance, database, date, size_bytes and optionally data_size_bytes, log_size_bytes, collected_at.

    The size columns keep these names whatever the unit is; collected_at is the time of the measurement, with its
    offset from UTC. Measured rows are kept. If any row is invalid, nothing is written. The days that changed become
    materialized partitions in the Dagster UI.

    Example: whalefall-capacity history import sizes.csv --dry-run
    """
    settings = load_settings()
    with open_store(settings) as engine:
        result = import_history(
            engine,
            read_history(file, settings.start_date, today(settings.zone), unit),
            str(file),
            unit=unit,
            replace=replace,
            create_instances=create_instances,
            dry_run=dry_run,
        )
        if not dry_run:
            report_days(engine, result.changed_days)
    print_result(result, as_json, partial(_print_import, dry_run))


def _print_import(dry_run: bool, result: HistoryImport) -> None:
    say(
        f"{'would write' if dry_run else 'wrote'} {result.written} of {result.rows} rows on "
        f"{len(result.changed_days)} days; {result.unchanged} unchanged, {result.kept_measured} measured rows kept"
    )
    if result.created_instances:
        registered = "would register" if dry_run else "registered"
        say(f"{registered} as inactive: {', '.join(result.created_instances)}")
