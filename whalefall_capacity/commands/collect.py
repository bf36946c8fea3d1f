"""`whalefall-capacity collect`: measure the fleet now from a terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from whalefall_capacity.byte_sizes import binary_size
from whalefall_capacity.commands.output import JsonOption, print_json, print_table
from whalefall_capacity.commands.runs import ALL_ITEMS, print_caveats, print_missing
from whalefall_capacity.errors import CollectionError, FleetError
from whalefall_capacity.periods import today
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.fleet import list_instances
from whalefall_capacity.store.sizes.stats import InstanceTotal, instance_totals
from whalefall_capacity.store.task_runs.read import TaskRunItem, list_items
from whalefall_capacity.store.task_runs.write import ItemType


def collect(
    instance: Annotated[
        list[str] | None, typer.Option("--instance", help="Measure only this instance; may be repeated.")
    ] = None,
    accept_empty: Annotated[
        bool, typer.Option("--accept-empty", help="Accept that the named servers no longer list any databases.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the fleet, or a few of its instances, for today, in a Dagster run in this terminal.

    Lists each database that was not measured, with the reason. Exits with 1 if the run fails or any instance
    could not be measured.

    Example: whalefall-capacity collect --instance shop-primary
    """
    if accept_empty and not instance:
        raise typer.BadParameter("--accept-empty needs --instance: it confirms one server, not the fleet")
    settings = load_settings()
    with open_store(settings) as engine:
        # Imported here: Dagster takes seconds to load, and `--help` does not need it.
        from whalefall_capacity.commands.local_runs import run_collection

        day = today(settings.zone)
        ids = {i.name: i.id for i in list_instances(engine) if i.is_active}
        if unknown := [name for name in instance or [] if name not in ids]:
            raise FleetError(f"{', '.join(unknown)}: not in the fleet; `whalefall-capacity fleet list` shows it")
        outcome = run_collection(day, [ids[name] for name in instance] if instance else None, accept_empty)
        items = list_items(engine, outcome.run_id, ALL_ITEMS)
        totals = [total for total in instance_totals(engine, day) if not instance or total.instance in instance]
    if as_json:
        print_json([_with_missing(total, items) for total in totals])
    else:
        print_totals(str(day), totals)
        print_missing(items)
        print_caveats(items)
    reasons = [reason for name, reason in outcome.not_measured.items() if not instance or name in instance]
    outcome.raise_error(CollectionError)
    if reasons:
        raise CollectionError("\n".join([f"run {outcome.run_id}: not measured:", *reasons]))


def _with_missing(total: InstanceTotal, items: list[TaskRunItem]) -> dict[str, Any]:
    """Return the stored totals of one instance, and why some of its databases were not measured."""
    visits = [i for i in items if i.item_type == ItemType.COLLECTION.value and i.item_name == total.instance]
    return asdict(total) | {
        "missing": visits[0].missing if visits else {},
        "missing_not_named": visits[0].missing_not_named if visits else 0,
        "caveats": visits[0].caveats if visits else [],
    }


def print_totals(day: str, totals: list[InstanceTotal]) -> None:
    """Print the stored totals of a day, one line per instance."""
    columns = ("instance", "engine", "version", "databases", "not measured", "size", "logs")
    rows = []
    for t in totals:
        sizes = (binary_size(t.total_size_bytes), binary_size(t.log_size_bytes))
        rows.append((t.instance, t.db_type, t.version, t.database_count, t.missing_count, *sizes))
    print_table(f"sizes of {day}", columns, rows, right=columns[3:])
