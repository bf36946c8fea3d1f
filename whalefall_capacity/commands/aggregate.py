"""`whalefall-capacity aggregate`: roll stats up, from a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from whalefall_capacity.commands.output import JsonOption, err, print_json, print_table
from whalefall_capacity.errors import AggregationError
from whalefall_capacity.periods import PeriodType, today, window_of, windows_between
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import Settings, load_settings

if TYPE_CHECKING:
    from whalefall_capacity.commands.local_runs import AggregatedWindow


class Scope(StrEnum):
    """Which levels to aggregate."""

    INSTANCE = "instance"
    DATABASE = "database"
    ALL = "all"


def aggregate(
    period_type: Annotated[PeriodType, typer.Argument(help="Length of the windows.")],
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="A day of the first window.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="A day of the last window.")],
    scope: Annotated[Scope, typer.Option(help="Which levels.")] = Scope.ALL,
    as_json: JsonOption = False,
) -> None:
    """Calculate every window that has a day from --from to --to: one Dagster run in this terminal.

    Prints what became of each window: done, skipped (no stats), sealed (final) or failed. Exits with 1 when any failed.

    Example: whalefall-capacity aggregate weekly --from 2026-01-01 --to 2026-03-31 --scope database
    """
    settings = load_settings()
    _check_days(settings, period_type, first.date(), last.date())
    with open_store(settings):
        # Imported here: Dagster takes seconds to load, and a wrong date needs none of it.
        from whalefall_capacity.commands.local_runs import run_aggregation
        from whalefall_capacity.store.aggregations.statements import Level

        levels = list(Level) if scope is Scope.ALL else [Level(scope.value)]
        windows = windows_between(first.date(), last.date(), period_type)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=err, transient=True) as progress:
            bar = progress.add_task(f"{period_type.value} windows", total=None)
            outcome = run_aggregation(
                windows, levels, lambda done, total: progress.update(bar, completed=done, total=total)
            )
    if as_json:
        print_json(outcome.windows)
    else:
        _print_windows(outcome.windows)
    if outcome.error is not None:
        raise AggregationError(f"run {outcome.run_id} failed: {outcome.error}")


def _check_days(settings: Settings, period_type: PeriodType, first: date, last: date) -> None:
    earliest, latest = window_of(settings.start_date, period_type).start, today(settings.zone)
    if first > last:
        raise typer.BadParameter(f"--from {first} lies after --to {last}")
    if first < earliest or last > window_of(latest, period_type).end:
        raise typer.BadParameter(f"days must lie from {earliest} (WHALEFALL_START_DATE) to {latest} (today)")


def _print_windows(windows: Sequence[AggregatedWindow]) -> None:
    columns = ("level", "period start", "state", "rows written", "rows removed")
    rows = [(w.level, str(w.period_start), w.state, f"{w.rows_written:,}", f"{w.rows_removed:,}") for w in windows]
    print_table("windows", columns, rows, right=columns[3:])
