"""`whalefall-capacity runs`: task runs, listed, followed, cancelled and audited."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from whalefall_capacity.commands.output import JsonOption, err, local_time, print_json, print_rows, print_table, say
from whalefall_capacity.errors import TaskRunError
from whalefall_capacity.periods import utc_now
from whalefall_capacity.printable import printable
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.read import TaskRun, TaskRunItem, get_task_run, list_items, request_cancel
from whalefall_capacity.store.task_runs.search import RunFilter, list_task_runs

app = typer.Typer(help="Task runs: every Dagster run, instance by instance.", no_args_is_help=True)
RunId = Annotated[str, typer.Argument(help="The run id, or enough of its beginning to be unique.")]
ALL_ITEMS = 1_000_000
POLL_SECONDS = 0.5


@app.command("list")
def list_command(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to list, newest first.")] = 20,
    status: Annotated[Status | None, typer.Option(help="Only these.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List task runs, newest first.

    Example: whalefall-capacity runs list --status running
    """
    with open_store(load_settings()) as engine:
        runs = list_task_runs(engine, limit, wanted=RunFilter(status)).runs
    print_rows(
        runs,
        as_json,
        "task runs",
        {
            "run": lambda run: run.run_id,
            "task": lambda run: run.task_name,
            "trigger": lambda run: run.trigger_source,
            "status": lambda run: run.status,
            "started": lambda run: _time(run.started_at),
            "done": lambda run: run.progress_completed,
            "failed": lambda run: run.progress_failed,
            "of": lambda run: run.progress_total,
        },
        right=("done", "failed", "of"),
    )


@app.command()
def show(run_id: RunId, as_json: JsonOption = False) -> None:
    """Show a task run and its items, the ones that need attention first.

    Example: whalefall-capacity runs show 4caf4f59
    """
    with open_store(load_settings()) as engine:
        run = _find(engine, run_id)
        items = list_items(engine, run.run_id, ALL_ITEMS)
    if as_json:
        print_json([run, *items])
        return
    print_run(run)
    print_items(items)
    print_missing(items)
    print_caveats(items)


@app.command()
def cancel(run_id: RunId) -> None:
    """Ask a run to stop, which it does before the next instance at the latest. A finished run is left as it is.

    Example: whalefall-capacity runs cancel 4caf4f59
    """
    with open_store(load_settings()) as engine:
        run = _find(engine, run_id)
        if request_cancel(engine, run.run_id):
            say(f"run {run.run_id} is cancelled; the daemon stops its work within seconds")
        else:
            say(f"run {run.run_id} has already ended: {_find(engine, run.run_id).status}")


@app.command()
def watch(run_id: RunId) -> None:
    """Follow a run to its end, item by item. Exits with 1 unless it completes without errors.

    Example: whalefall-capacity runs watch 4caf4f59
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with open_store(load_settings()) as engine:
        run = _find(engine, run_id)
        with Progress(*columns, console=err) as progress:
            run = _follow(engine, run, progress, progress.add_task(run.task_name))
    print_run(run)
    if run.status is not Status.COMPLETED:
        raise TaskRunError(
            f"run {run.run_id} is {run.status}" + (f": {run.error_message}" if run.error_message else "")
        )


@app.command()
def audit(as_json: JsonOption = False) -> None:
    """Compare all task runs with Dagster's runs, repair the differences, and list the repairs.

    Waits an extra half minute if a started run seems to have no worker.

    Example: whalefall-capacity runs audit
    """
    settings = load_settings()
    with open_store(settings) as engine:
        # Imported here: Dagster takes seconds to load.
        from whalefall_capacity.commands.local_runs import dagster_instance
        from whalefall_capacity.mirror.reconcile import audit as compare

        since = utc_now() - timedelta(days=settings.retention_task_runs_days)
        with dagster_instance() as instance:
            repairs = compare(engine, instance, since)
    if as_json:
        print_json(repairs)
    elif repairs:
        print_table("repaired", ("run", "what was wrong"), [(repair.run_id, repair.repair) for repair in repairs])
    else:
        say("task runs and Dagster's runs agree; nothing to repair")


def print_run(run: TaskRun) -> None:
    """Print the details of a run, one per line."""
    rows = [
        ("run", run.run_id),
        ("task", run.task_name),
        ("status", run.status),
        ("asked for by", " ".join(filter(None, (run.trigger_source, run.created_by)))),
        ("started", _time(run.started_at)),
        ("ended", _time(run.completed_at)),
        ("items", f"{run.progress_completed} done, {run.progress_failed} not, of {run.progress_total}"),
        ("error", run.error_message or "-"),
        ("in the Dagster UI", run.result_url or "-"),
    ]
    if run.summary_json is not None:
        common = run.summary_json["common"]
        rows += [(metric["label"].lower(), str(metric["value"])) for metric in common["metrics"]]
        rows += [("note", highlight) for highlight in common["highlights"]]
    print_table(f"task run {run.task_key}", ("", ""), rows)


def print_items(items: list[TaskRunItem]) -> None:
    """Print items, one per line."""
    columns = ("type", "name", "status", "seconds", "metrics", "error")
    rows = []
    for i in items:
        metrics = ", ".join(f"{name} {value}" for name, value in (i.metrics_json or {}).items())
        rows.append((i.item_type, i.item_name, i.status, _seconds(i), metrics, i.error_message or ""))
    print_table("items", columns, rows, right=("seconds",))


def print_missing(items: Sequence[TaskRunItem]) -> None:
    """Print the databases that were not measured, one per line, if there are any."""
    rows = []
    for item in items:
        rows += [(item.item_name, name, reason) for name, reason in item.missing.items()]
        if item.missing_not_named:
            rows.append((item.item_name, f"and {item.missing_not_named} more", "for reasons like these"))
    if rows:
        print_table("databases that were not measured", ("instance", "database", "reason"), rows)


def print_caveats(items: Sequence[TaskRunItem]) -> None:
    """Print what is less sure about sizes than it could be, one per line, if anything is."""
    if rows := [(item.item_name, caveat) for item in items for caveat in item.caveats]:
        print_table("sizes to take with care", ("instance", "why"), rows)


def _find(engine: Engine, run_id: str) -> TaskRun:
    run = get_task_run(engine, run_id)
    if run is not None:
        return run
    # An empty one, as of a variable that is not set, is the beginning of every run, and of the only one unique.
    found = [run for run in list_task_runs(engine, 10_000).runs if run_id and run.run_id.startswith(run_id)]
    if len(found) != 1:
        problem = "matches more than one task run" if found else "matches no task run"
        raise TaskRunError(f"{run_id or 'an empty run id'} {problem}; `whalefall-capacity runs list` shows them")
    return found[0]


def _follow(engine: Engine, run: TaskRun, progress: Progress, task: TaskID) -> TaskRun:
    """Show progress and print each item as it ends; return the run once it has ended."""
    printed: set[tuple[str, str]] = set()
    while True:
        run = _find(engine, run.run_id)
        for item in list_items(engine, run.run_id, ALL_ITEMS):
            key = (item.item_type, item.item_key)
            if item.completed_at is not None and key not in printed:
                printed.add(key)
                line = f"{item.status:<10} {item.item_type:<21} {item.item_name} {item.error_message or ''}"
                progress.console.print(printable(line), markup=False)
        progress.update(task, completed=run.progress_completed + run.progress_failed, total=run.progress_total)
        if run.has_ended:
            return run
        time.sleep(POLL_SECONDS)


def _time(moment: datetime | None) -> str | None:
    return local_time(moment, load_settings().zone, "seconds")


def _seconds(item: TaskRunItem) -> str | None:
    if item.started_at is None or item.completed_at is None:
        return None
    return f"{(item.completed_at - item.started_at).total_seconds():.1f}"
