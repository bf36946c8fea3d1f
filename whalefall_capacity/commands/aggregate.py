"""`whalefall-capacity aggregate`: calculate aggregations from a terminal."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from whalefall_capacity.commands.output import JsonOption, err, print_rows
from whalefall_capacity.current_period import ALL, AggregationScope, levels_of
from whalefall_capacity.errors import AggregationError
from whalefall_capacity.periods import PeriodType, today, window_of, windows_between
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import Settings, load_settings
from whalefall_capacity.watching import Watcher


class ShownProgress(Watcher[Any, Any]):
    """Progress of a calculation, as a bar in the terminal."""

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._bar = progress.add_task(description, total=None)

    def progressed(self, done: int, total: int) -> None:
        self._progress.update(self._bar, completed=done, total=total)


def aggregate(
    period_type: Annotated[PeriodType, typer.Argument(help="Length of the windows.")],
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="A day of the first window.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="A day of the last window.")],
    scope: Annotated[AggregationScope, typer.Option(help="Levels to calculate.")] = ALL,
    as_json: JsonOption = False,
) -> None:
    """Calculate every window with a day between --from and --to, in one Dagster run in this terminal.

    Prints the outcome of each window: done, skipped (no stats), sealed (final) or failed. Exits with 1 if any failed.

    Example: whalefall-capacity aggregate weekly --from 2026-01-01 --to 2026-03-31 --scope database
    """
    settings = load_settings()
    _check_days(settings, period_type, first.date(), last.date())
    with open_store(settings):
        # Imported here: Dagster takes seconds to load, and is not needed to refuse a wrong date.
        from whalefall_capacity.commands.local_runs import run_aggregation

        windows = windows_between(first.date(), last.date(), period_type)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=err, transient=True) as progress:
            watcher = ShownProgress(progress, f"{period_type.value} windows")
            outcome = run_aggregation(windows, levels_of(scope), watcher)
    print_rows(
        outcome.windows,
        as_json,
        "windows",
        {
            "level": lambda window: window.level,
            "period start": lambda window: window.period_start,
            "state": lambda window: window.state,
            "rows written": lambda window: f"{window.rows_written:,}",
            "rows removed": lambda window: f"{window.rows_removed:,}",
        },
        right=("rows written", "rows removed"),
    )
    outcome.raise_error(AggregationError)


def _check_days(settings: Settings, period_type: PeriodType, first: date, last: date) -> None:
    earliest, latest = window_of(settings.start_date, period_type).start, today(settings.zone)
    if first > last:
        raise typer.BadParameter(f"--from {first} is after --to {last}")
    if first < earliest or last > window_of(latest, period_type).end:
        raise typer.BadParameter(f"days must be between {earliest} (WHALEFALL_START_DATE) and {latest} (today)")
