"""`whalefall-capacity partitions`: maintenance of the table partitions from a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.status import Status

from whalefall_capacity.byte_sizes import binary_size
from whalefall_capacity.commands.output import JsonOption, err, print_json, print_result, print_table, say
from whalefall_capacity.errors import PlanError
from whalefall_capacity.periods import today
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.maintenance.health import read_status
from whalefall_capacity.store.maintenance.plan import ChildOutcome, Outcome, Plan
from whalefall_capacity.store.maintenance.restore import KEEP_DAYS, Restored, restore
from whalefall_capacity.store.maintenance.retire import make_plan
from whalefall_capacity.store.postgres.locks import maintenance_lock
from whalefall_capacity.watching import Watcher

if TYPE_CHECKING:
    from whalefall_capacity.store.maintenance.health import PartitionHealth

app = typer.Typer(help="The table partitions of the store: created ahead, retired on time.", no_args_is_help=True)


class ShownOutcomes(Watcher[str, ChildOutcome]):
    """Outcomes of table partitions; the terminal shows the latest."""

    def __init__(self, line: Status) -> None:
        self.outcomes: list[ChildOutcome] = []
        self._line = line

    def ended(self, outcome: ChildOutcome) -> None:
        self.outcomes.append(outcome)
        self._line.update(f"{outcome.child}: {outcome.outcome.value}")


@app.command("plan")
def plan_command(as_json: JsonOption = False) -> None:
    """Print what maintenance would drop, with an id for `apply --plan`, without changing anything.

    Example: whalefall-capacity partitions plan
    """
    settings = load_settings()
    with open_store(settings) as engine:
        plan = make_plan(engine, settings, today(settings.zone))
    if as_json:
        names = ("archive_dir", "question", "drops", "kept", "waiting")
        print_json({"plan_id": plan.id} | {name: getattr(plan, name) for name in names})
    else:
        _print_plan(plan)


@app.command()
def apply(
    plan_id: Annotated[
        str | None, typer.Option("--plan", metavar="ID", help="Apply only if the plan still has this id.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm, if far more would be dropped than last time.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the maintenance: create ahead, then seal, archive, detach and drop what `plan` prints.

    Runs as one Dagster run in this terminal. Exits with 1 if a table partition failed, or, with nothing changed, if the
    plan no longer holds or is not confirmed. The table also shows what was kept or contended.

    Example: whalefall-capacity partitions apply --plan 3f2a9c01d4e7
    """
    settings = load_settings()
    with open_store(settings) as engine:
        plan = make_plan(engine, settings, today(settings.zone))
        plan.require(plan_id)
        if not as_json:
            _print_plan(plan)
        if plan.question is not None and not yes and not typer.confirm(plan.question, err=True):
            raise PlanError("not confirmed; nothing was changed")
        # Imported here: Dagster takes seconds to load, and is not needed to refuse a plan.
        from whalefall_capacity.commands.local_runs import run_maintenance
        from whalefall_capacity.jobs.partition_maintenance import final_outcomes

        config = {"dry_run": False, "confirm": True, "plan_id": plan.id}
        with err.status("maintenance") as line:
            shown = ShownOutcomes(line)
            done = run_maintenance(config, shown)
    outcomes = final_outcomes(shown.outcomes)
    if as_json:
        print_json({"plan_id": plan.id, "run_id": done.run_id, "outcomes": outcomes})
    else:
        _print_outcomes(outcomes)
    done.raise_error(PlanError)


@app.command()
def status(
    exact: Annotated[bool, typer.Option("--exact", help="Count the rows by reading all of them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print every table partition, and whether each table has the ones it needs.

    Exits with 1 if a table lacks its current or next partition.

    Example: whalefall-capacity partitions status --exact
    """
    settings = load_settings()
    with open_store(settings) as engine:
        found = read_status(engine, settings, today(settings.zone), exact)
    print_result(found, as_json, _print_status)
    if not found.healthy:
        raise typer.Exit(1)


@app.command("restore")
def restore_command(
    file: Annotated[Path, typer.Argument(help="The archive, .parquet or .json.", exists=True, dir_okay=False)],
    keep_days: Annotated[int, typer.Option(min=0, help="Days until it may be dropped again.")] = KEEP_DAYS,
    as_json: JsonOption = False,
) -> None:
    """Restore an archived table partition, byte for byte, and unseal its windows.

    Example: whalefall-capacity partitions restore archive/database_size_stats_2025_01-1c9a2f3e.parquet
    """
    settings = load_settings()
    with open_store(settings) as engine, maintenance_lock(engine):
        done = restore(engine, file, today(settings.zone), keep_days)
    print_result(done, as_json, _print_restored)


def _print_restored(done: Restored) -> None:
    say(f"restored {done.rows} rows into {done.child}, kept until {done.kept_until}")
    if done.windows_sealed:
        say(f"{done.windows_sealed} windows stay sealed because days from other table partitions are missing")


def _print_plan(plan: Plan) -> None:
    columns = ("table partition", "from", "to", "rows", "size", "what", "reason")
    rows = [
        (d.child, str(d.lower), str(d.upper), _count(d.rows), binary_size(d.bytes), what, d.reason)
        for what, drops in (("drop", plan.drops), ("wait", plan.waiting))
        for d in drops
    ]
    rows += [(k.child, "", "", _count(k.rows), binary_size(k.bytes), k.outcome.value, k.reason) for k in plan.kept]
    print_table(f"plan {plan.id}", columns, rows, right=("rows", "size"))
    say(f"archive: {plan.archive_dir or 'none; dropped rows cannot be restored'}")
    if plan.question is not None:
        say(f"to be confirmed: {plan.question}")


def _print_outcomes(outcomes: Sequence[ChildOutcome]) -> None:
    rows = [
        (o.child, o.outcome.value, _count(o.rows), binary_size(o.bytes), o.reason)
        for o in outcomes
        if o.outcome is not Outcome.EXISTS
    ]
    print_table("maintenance", ("table partition", "outcome", "rows", "size", "reason"), rows, right=("rows", "size"))


def _print_status(found: PartitionHealth) -> None:
    rows = []
    for c in found.children:
        count = _count(c.rows) if c.rows_exact or c.rows is None else f"~{_count(c.rows)}"
        rows.append((c.child, c.lower, c.upper, c.state.value, count, binary_size(c.bytes), c.note))
    columns = ("table partition", "from", "to", "state", "rows", "size", "note")
    print_table(f"table partitions on {found.day}", columns, rows, right=("rows", "size"))
    print_table(
        "health",
        ("table", "current and next", "to look after"),
        [(t.table, "there" if t.healthy else "missing", "; ".join(t.problems)) for t in found.tables],
    )


def _count(rows: int | None) -> str:
    return "-" if rows is None else f"{rows:,}"
